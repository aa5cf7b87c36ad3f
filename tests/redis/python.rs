//! A program in Python, with the usual client of its language, at both ends of a topic.
//!
//! It needs python3 with pip, as the servers of the testbed do: without them the test fails and says
//! how to get them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::{Failure, HeaderName, Message, MessageId, Received, Setup};
use longshore_runtime::Client;
use longshore_testbed::{Broker, Testbed};
use serde::Deserialize;
use tokio::process::Command;

use crate::server;

#[derive(Debug, Deserialize)]
struct Shown {
    headers: BTreeMap<String, String>,
    body: String,
}

/// What the program prints.
async fn python(action: &str, server: &Broker) -> String {
    let library = Testbed::workspace().python_library("redis", "8.*").await;
    let library = library.unwrap_or_else(|error| panic!("not run: {error}"));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/redis/interop.py");
    let run = Command::new("python3")
        .args([program, action, server.url()])
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{action}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

async fn client(server: &Broker) -> Client {
    let setup = Setup::default();
    let broker = longshore_redis::connect(server.url(), setup.clone()).await.unwrap();
    Client::new(Arc::new(broker), setup)
}

#[tokio::test]
async fn what_python_publishes_is_handled_and_what_longshore_publishes_is_read_by_python() {
    let server = server().await;
    let client = client(&server).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handled = seen.clone();
    let handler = move |received: Received| {
        handled.lock().unwrap().push(received);
        async { Ok(()) }
    };
    let worker = client.worker("orders", "billing").handle(handler).start().await.unwrap();
    python("publish", &server).await;
    worker.idle().await;
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_by_key(|received| received.position.to_text());
    let [bare, with_headers] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&bare.body[..], &with_headers.body[..]), (&b"bare"[..], &b"with headers"[..]));
    assert_eq!(bare.id, MessageId::new(bare.position.to_text()).ok(), "known by its position");
    assert!(bare.headers.is_empty());
    let headers: Vec<_> =
        with_headers.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    assert_eq!(headers, [("colour", &b"red"[..])]);
    worker.stop().await.unwrap();

    // The group has settled all, so nothing of python's own is left.
    let message = Message::new("from longshore")
        .id(MessageId::new("ours").unwrap())
        .key("k")
        .message_type("order")
        .content_type("text/plain")
        .header(HeaderName::new("colour").unwrap(), "blue");
    client.sender("orders").await.unwrap().send(message).await.unwrap();
    let shown: Shown = serde_json::from_str(&python("read", &server).await).unwrap();
    let wanted = [
        ("ct", "text/plain"),
        ("h", "colour:4:blue\n"),
        ("id", "ours"),
        ("key", "k"),
        ("type", "order"),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((shown.body.as_str(), shown.headers), ("from longshore", wanted.into()));
}

#[tokio::test]
async fn python_reads_of_a_dead_letter_what_the_page_of_the_wire_says() {
    let server = server().await;
    let client = client(&server).await;
    let handler = |_: Received| async { Err(Failure::permanent("no such customer")) };
    let worker = client.worker("orders", "billing").handle(handler).start().await.unwrap();
    let message = Message::new("m").id(MessageId::new("ours").unwrap());
    client.sender("orders").await.unwrap().send(message).await.unwrap();
    worker.idle().await;
    worker.stop().await.unwrap();
    let shown: Shown = serde_json::from_str(&python("letters", &server).await).unwrap();
    assert_eq!(shown.body, "m");
    let of = |name: &str| shown.headers.get(&format!("longshore-dl-{name}")).map(String::as_str);
    for (name, wanted) in [
        ("version", "1"),
        ("reason", "permanent"),
        ("error-message", "no such customer"),
        ("error-class", "permanent"),
        ("source", "orders"),
        ("source-backend", "redis"),
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
        "source-stream-id",
        "error-type",
        "original-published-at",
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
    assert_eq!(shown.headers.get("id").map(String::as_str), Some("ours"));
}
