use longshore_core::{ErrorKind, HeaderName, Message, MessageId, Outcome};
use longshore_runtime::ClientOptions;

use super::{broker, client, ms, soon, topic};

#[tokio::test(start_paused = true)]
async fn an_id_is_assigned_or_kept_and_a_repeat_is_a_duplicate() {
    let client = client().await;
    topic(&client, "t").await;
    let sender = client.sender("t").await.unwrap();
    let first = sender.send("a").await.unwrap();
    let id = MessageId::new("mine").unwrap();
    let second = sender.send(Message::new("b").id(id.clone())).await.unwrap();
    let again = sender.send(Message::new("b").id(id.clone())).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!((second.id, second.duplicate), (id.clone(), false));
    assert_eq!((again.id, again.duplicate), (id, true));
}

#[tokio::test(start_paused = true)]
async fn a_missing_topic_is_not_found() {
    let error = client().await.sender("nobody").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn one_outcome_each_in_order_and_the_refused_do_not_stop_the_rest() {
    let options = ClientOptions { max_body: 4, window: 3, ..ClientOptions::default() };
    let (client, _memory) = broker("memory://", options).await;
    topic(&client, "t").await;
    let sender = client.sender("t").await.unwrap();
    let bodies = ["1", "22222", "3", "4", "55555", "6", "7", "8"];
    let outcomes = soon(sender.send_all(bodies)).await;
    let kinds: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map(|e| e.kind())).collect();
    let large = Some(ErrorKind::TooLarge);
    assert_eq!(kinds, [None, large, None, None, large, None, None, None]);
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!((error.outcome(), error.operation()), (Some(Outcome::NotSent), "sender.send"));
    assert!(sender.send("9").await.is_ok(), "still usable");
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_keeps_its_order() {
    let client = client().await;
    let mut subscription = client.subscribe("t", "g").prefetch(100).await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let mut pending = Vec::new();
    for n in 0..50 {
        pending.push(sender.queue(n.to_string()).await);
    }
    // Receipts are awaited in any order; the messages have theirs already.
    while let Some(receipt) = pending.pop() {
        receipt.await.unwrap();
    }
    for n in 0..50 {
        let delivery = soon(subscription.next()).await.unwrap().unwrap();
        assert_eq!(delivery.body, n.to_string());
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_window_is_a_bounded_wait_then_backpressure() {
    let options = ClientOptions { window: 2, publish_timeout: ms(500), ..ClientOptions::default() };
    let (client, _memory) = broker("memory://", options).await;
    topic(&client, "t").await;
    let sender = client.sender("t").await.unwrap();
    let held = (sender.queue("a").await, sender.queue("b").await);
    let begun = tokio::time::Instant::now();
    let error = sender.send("c").await.unwrap_err();
    assert_eq!(begun.elapsed(), ms(500));
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Backpressure, Some(Outcome::NotSent)));
    held.0.await.unwrap();
    sender.send("c").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_broker_is_backpressure_and_room_is_found_again() {
    let url = "memory://?capacity=2&publish_timeout=300ms";
    let (client, _memory) = broker(url, ClientOptions::default()).await;
    let subscription = client.subscribe("t", "g");
    let mut subscription = subscription.await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let outcomes = soon(sender.send_all(["a", "b", "c"])).await;
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    let error = outcomes[2].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Backpressure, Some(Outcome::NotSent)));
    soon(subscription.next()).await.unwrap().unwrap().ack().await.unwrap();
    sender.send("c").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_sender_sends_nothing() {
    let client = client().await;
    topic(&client, "t").await;
    let sender = client.sender("t").await.unwrap();
    sender.close().await.unwrap();
    sender.close().await.unwrap();
    let error = sender.send("a").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Some(Outcome::NotSent)));
}

#[tokio::test(start_paused = true)]
async fn control_headers_of_users_are_stripped() {
    let client = client().await;
    let mut subscription = client.subscribe("t", "g").await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let forged = Message::new("a")
        .header(HeaderName::from_static("longshore-retry"), r#"{"v":1,"failures":3}"#)
        .header(HeaderName::from_static("Longshore-Dl-Id"), "x")
        .header(HeaderName::from_static("mine"), "kept");
    sender.send(forged).await.unwrap();
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    assert_eq!((delivery.attempt(), delivery.headers.len()), (1, 1));
    assert_eq!(delivery.headers.text("mine"), Some("kept"));
    delivery.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_send_leaves_the_sender_usable() {
    let options =
        ClientOptions { window: 1, publish_timeout: ms(10_000), ..ClientOptions::default() };
    let (client, _memory) = broker("memory://", options).await;
    topic(&client, "t").await;
    let sender = client.sender("t").await.unwrap();
    let held = sender.queue("a").await;
    assert!(tokio::time::timeout(ms(100), sender.send("b")).await.is_err());
    held.await.unwrap();
    soon(sender.send("c")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_that_send_many_over_one_window_do_not_wait_for_each_other() {
    let options = ClientOptions { window: 4, ..ClientOptions::default() };
    let (client, _memory) = broker("memory://", options).await;
    topic(&client, "t").await;
    let sender = client.sender("t").await.unwrap();
    let many = || sender.send_all((0..100).map(|n: u32| n.to_string()));
    let begun = tokio::time::Instant::now();
    let (one, two) = soon(async { tokio::join!(many(), many()) }).await;
    assert!(one.iter().chain(&two).all(Result::is_ok));
    assert_eq!(begun.elapsed(), ms(0), "nobody ran into a time-out");
}
