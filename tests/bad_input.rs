//! What users and strangers get wrong: a clear typed error, and nothing lost.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use longshore::policy::InvalidPolicy;
use longshore::{
    Client, Context, ErrorKind, Failure, GroupName, HeaderName, Message, MessageId, Outcome,
    Policy, Reason, Received, Setup, Tenant, TokioClock, TopicName,
};
use longshore_memory::Memory;

async fn broker() -> (Client, Memory) {
    let setup = Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() };
    let memory = longshore_memory::connect("memory://", setup.clone()).await.unwrap();
    (Client::new(Arc::new(memory.clone()), setup), memory)
}

#[tokio::test]
async fn a_wrong_url_lists_what_is_right_and_shows_no_secret() {
    for (url, wanted) in [
        ("", "has no scheme"),
        ("memory", "has no scheme"),
        ("memory:", "has no scheme"),
        ("http://u:hunter2@host", "scheme `http` is unknown; built in: "),
        ("kafka://u:hunter2@host", "scheme `kafka` has no backend in this version yet; built in"),
        ("memory://?dedupe=1m", "dedup"),
        ("memory://?dedup=soon", "dedup"),
        ("memory://?capacity=-1", "capacity"),
        ("memory://u:hunter2@x", ""),
        ("memory://x:99999", ""),
    ] {
        let error = longshore::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(wanted), "{url}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // An unknown option lists all that there are.
    let error = longshore::connect("memory://?colour=red").await.unwrap_err().to_string();
    for option in ["capacity", "dedup", "max_body", "publish_timeout"] {
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn names_outside_the_grammar_are_refused() {
    for name in ["", "a b", "a/b", "a.", "a..b", "amq.x", "longshore", "__x", "a.dlq", "ä"] {
        assert_eq!(TopicName::new(name).unwrap_err().kind(), ErrorKind::Config, "{name:?}");
    }
    assert!(GroupName::new("a.b").is_err() && Tenant::new("a.b").is_err());
}

#[tokio::test(start_paused = true)]
async fn oversize_and_malformed_messages_are_refused_before_they_are_sent() {
    let (client, _memory) = broker().await;
    let worker = client.worker("t", "g").handle(|_: Received| async { Ok(()) });
    let worker = worker.start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let name = HeaderName::new("a").unwrap();
    let rows = [
        ("body", Message::new(vec![0; 960 * 1024 + 1]), ErrorKind::TooLarge),
        ("header", Message::new("x").header(name, vec![0; 16 * 1024]), ErrorKind::TooLarge),
        ("key", Message::new("x").key(vec![0; 16 * 1024 + 1]), ErrorKind::TooLarge),
        ("type", Message::new("x").message_type("a\r\nb: c"), ErrorKind::InvalidMessage),
        ("content type", Message::new("x").content_type("\0"), ErrorKind::InvalidMessage),
    ];
    for (what, message, kind) in rows {
        let error = sender.send(message).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, Some(Outcome::NotSent)), "{what}");
    }
    sender.send(vec![0; 960 * 1024]).await.unwrap();
    worker.idle().await;
    assert_eq!(worker.stop().await.unwrap().succeeded, 1, "the connection lives");

    assert!(HeaderName::new("a: b\r\nc").is_err());
    let long = "x".repeat(1000);
    for id in ["", "a\nb", "ä", &long] {
        assert_eq!(MessageId::new(id).unwrap_err().kind(), ErrorKind::InvalidMessage);
    }
    let map = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert_eq!(Message::json(&map).unwrap_err().kind(), ErrorKind::InvalidMessage);
}

/// Each forged header, the attempts that its message may then have, and that it ends.
#[tokio::test(start_paused = true)]
async fn hostile_control_headers_are_clamped_and_reset_nothing() {
    let policy = Policy::builder()
        .max_attempts(3)
        .fast_delays([])
        .delayed([Duration::from_millis(100)])
        .build()
        .unwrap();
    let megabyte = "9".repeat(1 << 20);
    let rows: &[(&str, &[u32])] = &[
        (r#"{"v":1,"failures":-5}"#, &[1, 2, 3]),
        (r#"{"v":1,"failures":"many"}"#, &[1, 2, 3]),
        (r#"{"v":1,"failures":18446744073709551616}"#, &[1, 2, 3]),
        (r#"{"v":99,"failures":2}"#, &[1, 2, 3]),
        ("\u{0}\u{ff}", &[1, 2, 3]),
        (&megabyte, &[1, 2, 3]),
        (r#"{"v":1,"failures":4294967295}"#, &[4]),
        (r#"{"v":1,"failures":4294967295,"deliveries":4294967295}"#, &[1, 2, 3]),
        (r#"{"v":1,"failures":1}"#, &[2, 3]),
        (r#"{"v":1,"not_before":"2999-01-01T00:00:00Z"}"#, &[1, 2, 3]),
        (r#"{"v":1,"explained":4294967295,"delayed":4294967295}"#, &[1, 2, 3]),
    ];
    for (header, attempts) in rows {
        let (client, memory) = broker().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = seen.clone();
        let handler = move |_: Received, context: Context| {
            sees.lock().unwrap().push(context.attempt());
            async { Err(Failure::transient("x")) }
        };
        let worker = client.worker("t", "g").policy(policy.clone()).handle(handler);
        let worker = worker.start().await.unwrap();
        let topic = TopicName::new("t").unwrap();
        let headers = vec![("longshore-retry".to_owned(), Bytes::from((*header).to_owned()))];
        memory.inject(&topic, Bytes::from_static(b"body"), headers).unwrap();
        let idle = tokio::time::timeout(Duration::from_secs(3600), worker.idle());
        idle.await.expect("a forged header parked the message");
        worker.stop().await.unwrap();
        let header = &header[..header.len().min(60)];
        assert_eq!(*seen.lock().unwrap(), *attempts, "{header}");
        let letters = client.dead_letters("t", "g").unwrap().browse(10).await.unwrap();
        assert_eq!(letters.len(), 1, "{header}: nothing is lost");
        assert_eq!(letters[0].message.body, "body");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_cannot_be_decoded_are_kept_raw_and_the_consumer_goes_on() {
    let (client, _memory) = broker().await;
    let good = Arc::new(Mutex::new(0));
    let count = good.clone();
    let handler = move |_: u64| {
        *count.lock().unwrap() += 1;
        async { Ok(()) }
    };
    let worker = client.worker("t", "g").json(handler).start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let bodies: [&[u8]; 5] = [b"1", b"{", b"\xff\xfe\x00", b"", b"2"];
    for outcome in sender.send_all(bodies.map(Bytes::from_static)).await {
        outcome.unwrap();
    }
    worker.idle().await;
    let tally = worker.stop().await.unwrap();
    assert_eq!((*good.lock().unwrap(), tally.dead_lettered, tally.fast_retries), (2, 3, 0));
    let letters = client.dead_letters("t", "g").unwrap().browse(10).await.unwrap();
    let mut raw: Vec<_> = letters.iter().map(|dead| dead.message.body.to_vec()).collect();
    raw.sort();
    assert_eq!(raw, [b"".to_vec(), b"{".to_vec(), b"\xff\xfe\x00".to_vec()]);
    for dead in letters {
        assert_eq!(dead.letter.unwrap().reason, Reason::Undecodable);
    }
}

#[test]
fn an_invalid_policy_lists_all_its_faults() {
    let error = Policy::from_toml("max_attempts = 0\njitter = 9\ncolour = \"red\"").unwrap_err();
    assert_eq!(error.faults.len(), 3, "{error}");
    let error = longshore::Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.native::<InvalidPolicy>().unwrap().faults.len(), 3);
    let error = Policy::builder().max_attempts(0).jitter(9.0).drain(Duration::ZERO).build();
    assert_eq!(error.unwrap_err().faults.len(), 3);
}
