//! The outgoing side, where all is well and where a topic is not what it was.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions};
use lapin::types::FieldTable;
use longshore_core::{Broker as _, ErrorKind, HeaderName, Message, MessageId, Outcome, Topology};

use crate::server::shared;
use crate::support::{Bench, client, depth, eventually, is, raw, raw_queue, send, take, topic};

#[tokio::test]
async fn a_message_stands_in_the_queue_as_the_wire_page_has_it() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let publisher = bench.publisher().await;
    let message = Message::new("body")
        .key("k")
        .id(MessageId::new("m-1").unwrap())
        .message_type("order.placed")
        .content_type("text/plain")
        .header(HeaderName::from_static("trace"), "t")
        .header(HeaderName::from_static("bin"), &b"\xff"[..]);
    let receipt = send(&*publisher, message).await.unwrap();
    assert_eq!((receipt.id.to_string().as_str(), receipt.duplicate), ("m-1", false));
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let got = take(&channel, &bench.queue()).await;
    assert_eq!(got.data, b"body");
    let properties = &got.properties;
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m-1");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "order.placed");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text/plain");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(properties.timestamp().is_some());
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["longshore-key"].as_long_string().unwrap().as_bytes(), b"k");
    assert_eq!(headers["trace"].as_long_string().unwrap().as_bytes(), b"t");
    assert_eq!(headers["bin"].as_byte_array().unwrap().as_slice(), b"\xff");
    publisher.close().await.unwrap();
    publisher.close().await.unwrap();
    let refused = is(publisher.publish(&mut vec![Message::new("x")]).await, ErrorKind::Closed);
    assert_eq!(refused.outcome(), Some(Outcome::NotSent));
}

#[tokio::test]
async fn a_publishers_order_is_kept_over_overlapping_batches() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let publisher = bench.publisher().await;
    let mut confirms = Vec::new();
    for batch in 0..40 {
        let messages = (0..50).map(|n| Message::new(format!("{}", batch * 50 + n)));
        confirms.push(publisher.publish(&mut messages.collect()).await.unwrap());
    }
    for outcomes in futures::future::join_all(confirms).await {
        assert!(outcomes.len() == 50 && outcomes.iter().all(Result::is_ok));
    }
    let channel = raw(&broker).await.create_channel().await.unwrap();
    for n in 0..2000 {
        let got = take(&channel, &bench.queue()).await;
        assert_eq!(String::from_utf8(got.data).unwrap(), n.to_string());
    }
}

#[tokio::test]
async fn confirmations_that_nobody_waits_for_are_stored_all_the_same() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let publisher = bench.publisher().await;
    for n in 0..100 {
        drop(publisher.publish(&mut vec![Message::new(format!("{n}"))]).await.unwrap());
    }
    // Closing waits for them.
    publisher.close().await.unwrap();
    bench.has_ready(100).await;
}

#[tokio::test]
async fn what_is_under_way_when_all_is_closed_is_told_so() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let publisher = bench.publisher().await;
    let mut underway = Vec::new();
    for n in 0..200 {
        underway.push(publisher.publish(&mut vec![Message::new(n.to_string())]).await.unwrap());
    }
    bench.rabbit.close().await.unwrap();
    let mut confirmed = 0;
    for confirms in underway {
        match confirms.await.remove(0) {
            Ok(_) => confirmed += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
                assert_eq!(error.outcome(), Some(Outcome::Unknown));
            }
        }
    }
    let refused = is(publisher.publish(&mut vec![Message::new("x")]).await, ErrorKind::Closed);
    assert_eq!(refused.outcome(), Some(Outcome::NotSent));
    let channel = raw(&broker).await.create_channel().await.unwrap();
    eventually("what was confirmed", || async {
        depth(&channel, &bench.queue()).await >= confirmed
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_missing_or_deleted_is_not_found() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    is(bench.rabbit.publisher(&topic()).await, ErrorKind::NotFound);
    let publisher = bench.publisher().await;
    let neighbour = Bench::new(&broker).await;
    let beside = neighbour.publisher().await;
    send(&*publisher, Message::new("1")).await.unwrap();
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let name = bench.topic.as_str();
    channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
    for _ in 0..2 {
        let error = is(send(&*publisher, Message::new("2")).await, ErrorKind::NotFound);
        assert_eq!(error.outcome(), Some(Outcome::Refused), "{error:?}");
        send(&*beside, Message::new("x")).await.unwrap();
    }
    // Made again, the same handle serves.
    bench.rabbit.declare(&Topology::topic(bench.topic.clone())).await.unwrap();
    send(&*publisher, Message::new("3")).await.unwrap();
}

#[tokio::test]
async fn a_topic_without_a_group_parks_its_messages() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let topic = topic();
    rabbit.declare(&Topology::topic(topic.clone())).await.unwrap();
    let publisher = rabbit.publisher(&topic).await.unwrap();
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let before = depth(&channel, "longshore.unrouted").await;
    send(&*publisher, Message::new("unheard")).await.unwrap();
    eventually("a parked message", || async {
        depth(&channel, "longshore.unrouted").await > before
    })
    .await;
    let findings = rabbit.audit().await.unwrap();
    assert!(findings.iter().any(|finding| finding.setting == "longshore.unrouted"), "{findings:?}");
}

#[tokio::test]
async fn a_group_of_classic_queues_takes_messages_too() {
    let broker = shared().await;
    let bench = Bench::with(&broker, "?queue_type=classic").await;
    let publisher = bench.publisher().await;
    for n in 0..10 {
        send(&*publisher, Message::new(n.to_string())).await.unwrap();
    }
    bench.has_ready(10).await;
    let suspects = bench.rabbit.stats(&bench.suspects()).await;
    is(suspects, ErrorKind::NotFound);
    assert_eq!(bench.rabbit.stats(&bench.letters()).await.unwrap().ready, 0);
    // Told apart from one of quorum queues, both ways.
    let quorum = client(&broker, "").await;
    let same = Topology::group(crate::support::group(&bench.topic, "billing"));
    is(quorum.declare(&same).await, ErrorKind::AlreadyExists);
}

/// Pitfalls 2 and 3. A foreign exchange has no alternate of ours: what it cannot route comes back, without
/// a number. Each of a batch gets its own outcome all the same.
#[tokio::test]
async fn unroutable_messages_of_a_foreign_exchange_are_told_apart() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let topic = topic();
    let name = topic.as_str();
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let none = FieldTable::default;
    // By header, so that in one batch some are routed and some are not.
    let kind = ExchangeKind::Headers;
    channel.exchange_declare(name.into(), kind, options, none()).await.unwrap();
    raw_queue(&channel, &format!("{name}-in"), []).await;
    let mut wanted = FieldTable::default();
    wanted.insert("good".into(), crate::support::text("yes"));
    wanted.insert("x-match".into(), crate::support::text("all"));
    let queue = format!("{name}-in");
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.as_str().into(), name.into(), "".into(), bind, wanted).await.unwrap();

    let publisher = rabbit.publisher(&topic).await.unwrap();
    let good = |n: usize| n % 7 != 3;
    let make = |n: usize| {
        let message = Message::new(n.to_string());
        match good(n) {
            true => message.header(HeaderName::from_static("good"), "yes"),
            false => message,
        }
    };
    // Overlapping calls: the returns of one batch must not reach another.
    let batches = (0..8).map(|batch| {
        let (publisher, make) = (&publisher, &make);
        async move {
            let mut messages: Vec<_> = (batch * 100..batch * 100 + 100).map(make).collect();
            publisher.publish(&mut messages).await.unwrap().await
        }
    });
    let outcomes = futures::future::join_all(batches).await.concat();
    for (n, outcome) in outcomes.into_iter().enumerate() {
        if good(n) {
            outcome.unwrap();
        } else {
            let error = is(outcome, ErrorKind::Unroutable);
            assert_eq!(error.outcome(), Some(Outcome::Refused));
        }
    }
    let stored = (0..800).filter(|n| good(*n)).count();
    assert_eq!(depth(&channel, &queue).await as usize, stored);
}
