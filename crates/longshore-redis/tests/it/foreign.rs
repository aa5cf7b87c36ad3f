//! Entries of other programs, and ours as they see them.

use longshore_core::{Broker as _, HeaderName, Message, MessageId, Page, Settlement};

use crate::support::{Bench, ack, command, entry, failed, next, send, server, settle};

#[tokio::test]
async fn an_entry_by_hand_is_a_message() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.ask(&command(&["XADD", "orders", "*", "user", "7", "body", "hello"])).await;
    let received = next(&*consumer).await;
    assert_eq!(received.body, "hello");
    assert_eq!(received.headers.text("user"), Some("7"));
    assert_eq!(received.id.as_ref().unwrap().to_string(), entry(&received));
    // Its own fields survive a retry and a letter, and its id is still its position.
    let retry = Settlement::Retry {
        token: received.token,
        after: std::time::Duration::from_millis(50),
        record: failed(&received),
    };
    settle(&*consumer, retry).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!((&again.id, &again.headers), (&received.id, &received.headers));
    let letter = Settlement::DeadLetter { token: again.token, letter: bench.letter(&again) };
    settle(&*consumer, letter).await.unwrap();
    let page = Page { after: None, limit: 1 };
    let letters = bench.redis.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!((&letters[0].id, &letters[0].headers), (&received.id, &received.headers));
}

#[tokio::test]
async fn an_entry_without_our_fields_has_an_empty_body() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench
        .ask(&command(&["XADD", "orders", "*", "longshore-retry", "{}", "h", "x", "h", "y"]))
        .await;
    let received = next(&*consumer).await;
    assert!(received.body.is_empty() && received.record.is_none());
    assert_eq!(received.headers.len(), 2);
    ack(&*consumer, received.token).await.unwrap();
}

#[tokio::test]
async fn ours_is_read_by_hand_packed_and_plain() {
    let server = server().await;
    for (options, wanted) in [("", "(h)(a:1:1\nb:1:2\n)"), ("?plain=true", "(a)(1)(b)(2)")] {
        let bench = Bench::new(&format!("{}{options}", server.url())).await;
        let publisher = bench.redis.publisher(&bench.topic).await.unwrap();
        let message = Message::new("hello")
            .id(MessageId::new("id-1").unwrap())
            .key("k")
            .message_type("t")
            .content_type("text/plain")
            .header(HeaderName::from_static("a"), "1")
            .header(HeaderName::from_static("b"), "2");
        send(&*publisher, message).await.unwrap();
        let last = ["XREVRANGE", "orders", "+", "-", "COUNT", "1"];
        let redis::Value::Array(entries) = bench.ask(&command(&last)).await else { panic!() };
        let redis::Value::Array(parts) = &entries[0] else { panic!() };
        let redis::Value::Array(fields) = &parts[1] else { panic!() };
        let shown: String = fields
            .iter()
            .map(|field| match field {
                redis::Value::BulkString(bytes) => format!("({})", String::from_utf8_lossy(bytes)),
                other => panic!("{other:?}"),
            })
            .collect();
        let all = format!("(id)(id-1)(key)(k)(type)(t)(ct)(text/plain){wanted}(body)(hello)");
        assert_eq!(shown, all);
    }
}
