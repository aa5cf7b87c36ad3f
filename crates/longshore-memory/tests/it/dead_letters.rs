//! The dead-letter queue, and the way back.

use bytes::Bytes;
use longshore_core::{
    Broker, ErrorKind, Group, HeaderName, Message, MessageId, Position, Settlement, Topology,
};
use tokio::time::advance;

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn a_letter_lies_beside_the_untouched_message() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    let publisher = memory.publisher(&topic()).await.unwrap();
    let sent = Message::new(&b"\x00\xff"[..])
        .id(MessageId::new("m").unwrap())
        .key(&b"\xfe"[..])
        .message_type("order.placed")
        .content_type("text/plain")
        .header(HeaderName::from_static("a"), "1")
        .header(HeaderName::from_static("longshore-retry"), "{\"v\":1,\"failures\":9}")
        .header(HeaderName::from_static("a"), &b"\xff"[..]);
    publisher.publish(&mut vec![sent.clone()]).await.unwrap().await.remove(0).unwrap();
    let got = one(&*consumer).await;
    assert_eq!(got.attempt(), 1, "a forged record is stripped");
    settle(&*consumer, dead(&got)).await.unwrap();
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 0));
    assert_eq!(memory.stored(&topic()).unwrap(), 0);

    for read in [
        browse(&memory, dead_of("billing"), None).await.remove(0),
        one(&*open(&memory, dead_of("billing"), 1).await).await,
    ] {
        assert_eq!((&read.body, &read.key, &read.id), (&sent.body, &sent.key, &sent.id));
        assert_eq!(read.message_type, sent.message_type);
        assert_eq!(read.content_type, sent.content_type);
        assert_eq!(read.headers, got.headers);
        assert_eq!(read.headers.len(), 2);
        assert_eq!(read.letter.as_deref(), Some(&letter(&got)));
        assert_eq!(read.position, Position::Sequence(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_redrive_reaches_the_group_that_failed_it_and_no_other() {
    let memory = broker("memory://?dedup=1h").await;
    memory.declare(&Topology::group(group("audit"))).await.unwrap();
    let billing = open(&memory, main_of("billing"), 10).await;
    let audit = open(&memory, main_of("audit"), 10).await;
    publish(&memory, &["a"]).await;
    let other = one(&*audit).await;
    ack(&*audit, &other).await;
    for cycle in 1..=20 {
        let got = one(&*billing).await;
        let redrives = got.record.as_ref().map_or(0, |record| record.redrives);
        assert_eq!((id(&got), got.attempt(), got.deliveries), ("a".to_owned(), 1, 1));
        assert_eq!(redrives, cycle - 1);
        settle(&*billing, dead(&got)).await.unwrap();
        assert_eq!(counts(&memory, dead_of("audit")).await, (0, 0, 0));
        let dlq = open(&memory, dead_of("billing"), 10).await;
        let found = one(&*dlq).await;
        assert_eq!(found.letter.as_ref().unwrap().redrive_count, cycle - 1);
        settle(&*dlq, redrive(&found)).await.unwrap();
        assert_eq!(counts(&memory, dead_of("billing")).await, (0, 0, 0));
        assert_kind(settle(&*dlq, redrive(&found)).await, ErrorKind::LeaseLost);
    }
    nothing(&*audit).await;
    // A new group that starts at the earliest does not see what belongs to one group.
    let late = Group { start: longshore_core::Start::Earliest, ..group("late") };
    memory.declare(&Topology::group(late)).await.unwrap();
    nothing(&*open(&memory, main_of("late"), 10).await).await;
    let got = one(&*billing).await;
    ack(&*billing, &got).await;
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_released_letter_stays_and_this_consumer_sees_it_no_more() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b", "c"]).await;
    for received in receive(&*consumer, 10).await {
        settle(&*consumer, dead(&received)).await.unwrap();
    }
    let dlq = open(&memory, dead_of("billing"), 2).await;
    let got = receive(&*dlq, 10).await;
    assert_eq!(ids(&got), ["a", "b"]);
    assert_eq!(counts(&memory, dead_of("billing")).await, (1, 2, 0));
    assert_eq!(browse(&memory, dead_of("billing"), None).await.len(), 3);
    settle(&*dlq, release(&got[0])).await.unwrap();
    assert_eq!(ids(&receive(&*dlq, 10).await), ["c"]);
    settle(&*dlq, Settlement::Ack(got[1].token)).await.unwrap();
    nothing(&*dlq).await;
    // What a lease loses comes back, to this consumer too; what it released does not.
    assert_eq!(ids(&receive(&*dlq, 10).await), ["c"]);
    nothing(&*dlq).await;
    let other = open(&memory, dead_of("billing"), 10).await;
    let seen = receive(&*other, 10).await;
    assert_eq!(ids(&seen), ["a"]);
    assert_eq!(seen[0].deliveries, 1, "a release is no delivery");
    dlq.close().await.unwrap();
    assert_eq!(ids(&receive(&*other, 10).await), ["c"], "read past while it was held");
}

#[tokio::test(start_paused = true)]
async fn letters_are_kept_as_long_as_declared() {
    let memory = broker("memory://?capacity=2&publish_timeout=1s").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    let got = receive(&*consumer, 10).await;
    settle(&*consumer, dead(&got[0])).await.unwrap();
    advance(KEPT / 2).await;
    let b = one(&*consumer).await;
    settle(&*consumer, dead(&b)).await.unwrap();
    assert_kind(publish(&memory, &["c"]).await.remove(0), ErrorKind::Backpressure);
    advance(KEPT / 2).await;
    // The publisher finds the room under the letter that is too old.
    publish(&memory, &["c"]).await.remove(0).unwrap();
    assert_eq!(ids(&browse(&memory, dead_of("billing"), None).await), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_never_refused_for_want_of_room() {
    let memory = broker("memory://?capacity=1&publish_timeout=1s").await;
    memory.declare(&Topology::group(group("audit"))).await.unwrap();
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    let a = one(&*consumer).await;
    settle(&*consumer, dead(&a)).await.unwrap();
    assert_eq!(memory.stored(&topic()).unwrap(), 1, "the other group has it still");
    let dlq = open(&memory, dead_of("billing"), 1).await;
    let a = one(&*dlq).await;
    settle(&*dlq, redrive(&a)).await.unwrap();
    let a = one(&*consumer).await;
    ack(&*consumer, &a).await;
    assert_kind(publish(&memory, &["b"]).await.remove(0), ErrorKind::Backpressure);
    let audit = open(&memory, main_of("audit"), 10).await;
    let a = one(&*audit).await;
    ack(&*audit, &a).await;
    publish(&memory, &["b"]).await.remove(0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_unsupported_and_leaves_the_token_valid() {
    let memory = broker("memory://").await;
    let bare = Group { dead_letters: None, ..group("bare") };
    memory.declare(&Topology::group(bare)).await.unwrap();
    let (consumer, other) =
        (open(&memory, main_of("bare"), 10).await, open(&memory, main_of("billing"), 10).await);
    memory.inject(&topic(), Bytes::from("x"), vec![]).unwrap();
    let got = one(&*consumer).await;
    assert_kind(settle(&*consumer, dead(&got)).await, ErrorKind::Unsupported);
    ack(&*consumer, &got).await;
    assert_kind(settle(&*consumer, dead(&got)).await, ErrorKind::LeaseLost);

    let got = one(&*other).await;
    let record = Box::new(next(&got));
    let order = Settlement::Redrive { token: got.token, record };
    assert_kind(settle(&*other, order).await, ErrorKind::Unsupported);
    settle(&*other, dead(&got)).await.unwrap();
    let dlq = open(&memory, dead_of("billing"), 10).await;
    let got = one(&*dlq).await;
    for order in [retry(&got, seconds(1)), suspect(&got), dead(&got)] {
        assert_kind(settle(&*dlq, order).await, ErrorKind::Unsupported);
    }
    settle(&*dlq, redrive(&got)).await.unwrap();
}
