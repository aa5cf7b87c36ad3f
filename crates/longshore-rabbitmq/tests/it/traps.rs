//! Two traps of the client library, and that nobody here steps into them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    QueueBindOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};
use longshore_core::{ErrorKind, HeaderName, Message, Outcome};

use crate::server::shared;
use crate::support::{Bench, depth, raw, raw_queue, text, topic};

/// A queue that is full and refuses, of one message.
async fn full(channel: &Channel, name: &str) {
    let arguments = [
        ("x-queue-type", text("classic")),
        ("x-max-length", AMQPValue::LongLongInt(1)),
        ("x-overflow", text("reject-publish")),
    ];
    raw_queue(channel, name, arguments).await;
    let options = BasicPublishOptions::default();
    let publish = channel.basic_publish(
        "".into(),
        name.into(),
        options,
        b"first",
        BasicProperties::default(),
    );
    publish.await.unwrap().await.unwrap();
}

/// Pitfall 1, raw: of what many tasks publish on one channel, some confirmations reach another
/// message. It says why a lane queues under a lock; without the trap the lock could go.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bare_client_confirms_the_wrong_messages_of_a_shared_channel() {
    let broker = shared().await;
    let connection = raw(&broker).await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let (good, bad) = (format!("{}-good", topic()), format!("{}-bad", topic()));
    raw_queue(&channel, &good, [("x-queue-type", text("classic"))]).await;
    full(&channel, &bad).await;
    let mut wrong = 0;
    for round in 0..40 {
        let tasks = (0..8).map(|task| {
            let (channel, good, bad) = (channel.clone(), good.clone(), bad.clone());
            tokio::spawn(async move {
                let mut confirms = Vec::new();
                for n in 0..500 {
                    let refused = (task + n) % 2 == 0;
                    let key = if refused { &bad } else { &good }.as_str().into();
                    let (options, none) =
                        (BasicPublishOptions::default(), BasicProperties::default());
                    let sent = channel.basic_publish("".into(), key, options, b"x", none).await;
                    confirms.push((refused, sent.unwrap()));
                }
                let mut wrong = 0;
                for (refused, confirm) in confirms {
                    wrong += usize::from(
                        matches!(confirm.await.unwrap(), Confirmation::Nack(_)) != refused,
                    );
                }
                wrong
            })
        });
        for task in futures::future::join_all(tasks).await {
            wrong += task.unwrap();
        }
        if wrong > 0 {
            eprintln!("{wrong} confirmations for the wrong message after round {round}");
            return;
        }
    }
    panic!("160,000 confirmations, and each was right: is the lock still needed?");
}

/// Pitfall 1. The same load on one handle: each message gets its own confirmation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_tasks_on_one_handle_get_their_own_confirmations() {
    const TASKS: usize = 16;
    const EACH: usize = 500;
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let channel = raw(&broker).await.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    // Messages with a mark go to a full queue as well, which refuses them.
    let name = format!("{}-marked", bench.topic);
    full(&channel, &name).await;
    let none = FieldTable::default;
    let (options, kind) = (ExchangeDeclareOptions::default(), ExchangeKind::Headers);
    channel.exchange_declare(name.as_str().into(), kind, options, none()).await.unwrap();
    let mut mark = FieldTable::default();
    mark.insert("marked".into(), text("yes"));
    let (queue, exchange) = (name.as_str().into(), name.as_str().into());
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue, exchange, "".into(), bind, mark).await.unwrap();
    let (to, from) = (name.as_str().into(), bench.topic.as_str().into());
    let bind = ExchangeBindOptions::default();
    channel.exchange_bind(to, from, "".into(), bind, none()).await.unwrap();

    let publisher: Arc<dyn longshore_core::Publisher> = bench.publisher().await.into();
    let tasks = (0..TASKS).map(|task| {
        let publisher = publisher.clone();
        tokio::spawn(async move {
            let mut confirms = Vec::new();
            for n in 0..EACH {
                let marked = (task + n) % 2 == 0;
                let mut message = Message::new(format!("{task}/{n}"));
                if marked {
                    message = message.header(HeaderName::from_static("marked"), "yes");
                }
                let sent = publisher.publish(&mut vec![message]).await.unwrap();
                confirms.push((marked, sent));
            }
            for (marked, confirm) in confirms {
                match (marked, confirm.await.remove(0)) {
                    (false, Ok(_)) => {}
                    (true, Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::Backpressure, "{error:?}");
                        assert_eq!(error.outcome(), Some(Outcome::Refused));
                        assert_eq!(error.retryability(), longshore_core::Retryability::Transient);
                    }
                    (marked, outcome) => panic!("{task}: marked {marked}, {outcome:?}"),
                }
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    // Each queue for itself takes or refuses: the group has all, also what was refused as a whole.
    let stored = depth(&channel, &bench.queue()).await as usize;
    assert!(stored >= TASKS * EACH / 2, "{stored}");
}

/// Pitfall 2 and 3, raw: in a pipelined window the client library hands what came back to the wrong
/// confirmation, and calls an unroutable message stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bare_client_gives_returns_to_the_wrong_messages_of_a_window() {
    let broker = shared().await;
    let channel = raw(&broker).await.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let good = format!("{}-good", topic());
    raw_queue(&channel, &good, [("x-queue-type", text("classic"))]).await;
    for round in 0..40 {
        let mut confirms = Vec::new();
        for n in 0..2000 {
            let lost = n % 7 == 3;
            let key = if lost { "nowhere-at-all" } else { good.as_str() }.into();
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let none = BasicProperties::default().with_delivery_mode(2);
            let sent = channel.basic_publish("".into(), key, options, b"x", none).await;
            confirms.push((lost, sent.unwrap()));
        }
        let mut wrong = 0;
        for (lost, confirm) in confirms {
            let back = matches!(confirm.await.unwrap(), Confirmation::Ack(Some(_)));
            wrong += usize::from(back != lost);
        }
        if wrong > 0 {
            eprintln!("{wrong} returns at the wrong message in round {round}");
            return;
        }
    }
    panic!("80,000 confirmations, and each was right: are closed batches still needed?");
}
