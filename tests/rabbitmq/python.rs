//! A program in Python, with the usual client of its language, at both ends of a topic.
//!
//! It needs python3 with pip: without them the test fails and says how to get them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::{Failure, HeaderName, Message, MessageId, Received, Setup};
use longshore_runtime::Client;
use longshore_testbed::Testbed;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::server;

#[derive(Debug, Deserialize)]
struct Shown {
    exchange: String,
    properties: Value,
    headers: Value,
    body: String,
}

/// What the program prints.
async fn python(action: &str, topic: &str) -> String {
    let library = Testbed::workspace().python_library("pika", "1.*").await;
    let library = library.unwrap_or_else(|error| panic!("not run: {error}"));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/rabbitmq/interop.py");
    let run = Command::new("python3")
        .args([program, action, server().url(), topic])
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{action}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

async fn client() -> Client {
    let setup = Setup::default();
    let broker = longshore_rabbitmq::connect(server().url(), setup.clone()).await.unwrap();
    Client::new(Arc::new(broker), setup)
}

#[tokio::test]
async fn what_python_publishes_is_handled_with_its_headers() {
    let topic = "python-to-longshore";
    let client = client().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handled = seen.clone();
    let handler = move |received: Received| {
        handled.lock().unwrap().push(received);
        async { Ok(()) }
    };
    let worker = client.worker(topic, "billing").handle(handler).start().await.unwrap();
    assert_eq!(python("publish", topic).await.trim(), "{\"confirmed\": 2}");
    worker.idle().await;
    worker.stop().await.unwrap();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_by_key(|received| received.body.len());
    let [bare, with_headers] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&bare.body[..], &with_headers.body[..]), (&b"bare"[..], &b"with headers"[..]));
    assert!(bare.headers.is_empty());
    assert_eq!(bare.id, None, "this server has no positions to name a message by");
    assert_eq!(with_headers.id, MessageId::new("py-1").ok());
    let colour = with_headers.headers.iter().find(|(name, _)| name.as_str() == "colour");
    assert_eq!(colour.map(|(_, value)| &value[..]), Some(&b"red"[..]));
    let count = with_headers.headers.iter().find(|(name, _)| name.as_str() == "count");
    assert_eq!(count.map(|(_, value)| &value[..]), Some(&b"7"[..]), "a number as text");
}

#[tokio::test]
async fn what_longshore_publishes_is_read_by_python() {
    let topic = "longshore-to-python";
    let client = client().await;
    let worker = client.worker(topic, "billing").handle(|_: Received| async { Ok(()) });
    let worker = worker.start().await.unwrap();
    assert_eq!(python("bind", topic).await, "");
    let message = Message::new("from longshore")
        .id(MessageId::new("ours").unwrap())
        .key("k")
        .message_type("order")
        .content_type("text/plain")
        .header(HeaderName::new("colour").unwrap(), "blue");
    client.sender(topic).await.unwrap().send(message).await.unwrap();
    let shown: Shown = serde_json::from_str(&python("read", topic).await).unwrap();
    assert_eq!((&*shown.body, &*shown.exchange), ("from longshore", topic));
    let properties = json!({
        "message_id": "ours", "type": "order", "content_type": "text/plain", "delivery_mode": 2
    });
    assert_eq!(shown.properties, properties);
    assert_eq!(shown.headers, json!({ "colour": "blue", "longshore-key": "k" }));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn python_reads_of_a_dead_letter_what_the_page_of_the_wire_says() {
    let topic = "letters-for-python";
    let client = client().await;
    let handler = |_: Received| async { Err(Failure::permanent("no such customer")) };
    let worker = client.worker(topic, "billing").handle(handler).start().await.unwrap();
    let message = Message::new("m").id(MessageId::new("ours").unwrap());
    client.sender(topic).await.unwrap().send(message).await.unwrap();
    worker.idle().await;
    worker.stop().await.unwrap();
    let shown: Shown = serde_json::from_str(&python("letters", topic).await).unwrap();
    assert_eq!((&*shown.body, &shown.properties["message_id"]), ("m", &json!("ours")));
    assert_eq!(shown.properties["delivery_mode"], json!(2), "a letter survives a restart");
    let of = |name: &str| shown.headers.get(format!("longshore-dl-{name}")).and_then(Value::as_str);
    for (name, wanted) in [
        ("version", "1"),
        ("reason", "permanent"),
        ("error-message", "no such customer"),
        ("error-class", "permanent"),
        ("source", topic),
        ("source-backend", "rabbitmq"),
        ("source-group", "billing"),
        ("original-id", "ours"),
        ("attempts", "1"),
        ("deliveries", "1"),
        ("delayed-retries", "0"),
        ("redrive-count", "0"),
    ] {
        assert_eq!(of(name), Some(wanted), "{name}");
    }
    for name in [
        "id",
        "error-type",
        "first-failed-at",
        "last-failed-at",
        "dead-lettered-at",
        "history",
        "handler",
        "instance",
        "lib-version",
        "policy",
        "payload-sha256",
    ] {
        assert!(of(name).is_some_and(|value| !value.is_empty()), "{name} is missing");
    }
}

/// What longshore does not understand is copied as it came.
#[tokio::test]
async fn a_letter_keeps_the_types_of_another_programs_headers() {
    let topic = "types-of-python";
    let client = client().await;
    let handler = |received: Received| async move {
        match &received.body[..] {
            b"bare" => Ok(()),
            _ => Err(Failure::permanent("never")),
        }
    };
    let worker = client.worker(topic, "billing").handle(handler).start().await.unwrap();
    python("publish", topic).await;
    worker.idle().await;
    worker.stop().await.unwrap();
    let mut shown: Shown = serde_json::from_str(&python("letters", topic).await).unwrap();
    let headers = shown.headers.as_object_mut().unwrap();
    headers.retain(|name, _| !name.starts_with("longshore-"));
    let sent = json!({ "colour": "red", "count": 7, "urgent": true, "nested": { "a": 1 } });
    assert_eq!(shown.headers, sent);
    assert_eq!(shown.properties["message_id"], json!("py-1"));
    assert_eq!(shown.properties["correlation_id"], json!("c-1"));
}
