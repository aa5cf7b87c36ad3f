//! Streams that are full: back-pressure with a type, and on it goes once there is room.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use longshore_core::{Broker as _, ErrorKind, Outcome, Settlement, Setup, Topology};
use longshore_nats::connect;

use crate::server::Server;
use crate::support::{Bench, ack, failed, group, is, next, settle};

/// Changes a stream of the topic's as an administrator does.
async fn change(bench: &Bench, stream: &str, change: impl FnOnce(&mut Config)) {
    let mut config = bench.native().get_stream(stream).await.unwrap().cached_info().config.clone();
    change(&mut config);
    bench.native().update_stream(config).await.unwrap();
}

#[tokio::test]
async fn a_topic_that_is_full_refuses_until_it_has_room() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    for limit in ["messages", "bytes"] {
        bench.native().get_stream("orders").await.unwrap().purge().await.unwrap();
        change(&bench, "orders", |config| match limit {
            "messages" => config.max_messages = 1,
            _ => (config.max_messages, config.max_bytes) = (-1, 400),
        })
        .await;
        bench.publish("a").await.unwrap();
        let body = "x".repeat(300);
        for _ in 0..2 {
            let error = is(bench.publish(&body).await, ErrorKind::Backpressure);
            assert_eq!(error.outcome(), Some(Outcome::Refused), "{limit}");
        }
        let mut stream = bench.native().get_stream("orders").await.unwrap();
        let state = &stream.info().await.unwrap().state;
        assert_eq!(state.messages, 1, "the oldest was not dropped for it");
        change(&bench, "orders", |config| (config.max_messages, config.max_bytes) = (-1, -1)).await;
        bench.publish(&body).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_dead_letter_queue_leaves_the_original() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    change(&bench, "orders=billing=dlq", |config| config.max_messages = 1).await;
    for body in ["a", "b"] {
        bench.publish(body).await.unwrap();
    }
    let first = next(&*consumer).await;
    let (token, letter) = (first.token, bench.letter(&first));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    let second = next(&*consumer).await;
    let order = Settlement::DeadLetter { token: second.token, letter: bench.letter(&second) };
    is(settle(&*consumer, order.clone()).await, ErrorKind::Backpressure);
    assert_eq!(bench.nats.stats(&bench.source()).await.unwrap().in_flight, 1);
    change(&bench, "orders=billing=dlq", |config| config.max_messages = -1).await;
    settle(&*consumer, order).await.unwrap();
    assert_eq!(bench.nats.stats(&bench.letters()).await.unwrap().ready, 2);
}

#[tokio::test]
async fn a_full_ledger_leaves_the_original() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    // No record fits; `discard: old` of the ledger is made `new` so that it says so.
    let discard = async_nats::jetstream::stream::DiscardPolicy::New;
    change(&bench, "longshore=ledger=orders", |config| {
        (config.max_bytes, config.discard) = (10, discard);
    })
    .await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let after = Duration::from_millis(200);
    let order = Settlement::Retry { token: received.token, after, record: failed(&received) };
    is(settle(&*consumer, order.clone()).await, ErrorKind::Backpressure);
    change(&bench, "longshore=ledger=orders", |config| config.max_bytes = -1).await;
    settle(&*consumer, order).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!(again.attempt(), 2);
    ack(&*consumer, again.token).await.unwrap();
}

#[tokio::test]
async fn an_account_that_may_have_no_more_streams_says_so_and_goes_on_once_it_may() {
    let limits = "accounts { A { users: [ { user: a, password: pw } ]\n\
                  jetstream { max_mem: 0, max_file: 1M, max_streams: 1 } } }";
    let mut server = Server::with(limits).await;
    let url = format!("nats://a:pw@127.0.0.1:{}", server.port);
    let topology = Topology::group(group("orders"));
    let nats = connect(&url, Setup::default()).await.unwrap();
    let error = is(nats.declare(&topology).await, ErrorKind::Config);
    assert!(error.to_string().contains("no more streams"), "{error}");
    server.kill().await;
    let more = limits.replace("max_streams: 1 ", "max_streams: 9 ");
    server.write(&format!("jetstream {{ store_dir: \"@DIR@\" }}\n{more}"));
    server.run().await;
    Bench::new(&url).await.publish("m").await.unwrap();
}
