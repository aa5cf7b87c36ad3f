//! The ledger's rules: which record counts, and which is stale.

use std::time::Duration;

use async_nats::HeaderMap;
use futures::StreamExt as _;
use longshore_core::{Broker as _, Record, Settlement, Topology};

use crate::server::Server;
use crate::support::{Bench, ack, failed, group, many, next, sequence, settle};

#[tokio::test]
async fn a_record_goes_with_the_ack() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    for attempt in 1..4 {
        let received = next(&*consumer).await;
        assert_eq!(
            (received.attempt(), received.deliveries, received.unexplained()),
            (attempt, attempt, 0)
        );
        let after = Duration::from_millis(50);
        let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
        settle(&*consumer, retry).await.unwrap();
    }
    let last = next(&*consumer).await;
    let mut ledger = bench.native().get_stream("longshore=ledger=orders").await.unwrap();
    assert_eq!(ledger.info().await.unwrap().state.messages, 1);
    ack(&*consumer, last.token).await.unwrap();
    assert_eq!(ledger.info().await.unwrap().state.messages, 0);
}

#[tokio::test]
async fn a_record_of_another_message_at_this_place_counts_as_none() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let stale = Record { failures: 5, id: "other".parse_id(), ..Record::default() };
    let subject = "longshore.ledger.orders.billing.1";
    bench.native().publish(subject, stale.encode().into()).await.unwrap().await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    assert_eq!((sequence(&received), received.attempt()), (1, 1));
    // And the first retry replaces it.
    let after = Duration::ZERO;
    let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
    settle(&*consumer, retry).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!((again.attempt(), again.deliveries), (2, 2));
    ack(&*consumer, again.token).await.unwrap();
}

#[tokio::test]
async fn a_stream_made_anew_inherits_no_counts_even_without_ids() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let native = bench.native();
    let consumer = bench.consumer(bench.source()).await;
    native.publish("orders", "first".into()).await.unwrap().await.unwrap();
    let received = next(&*consumer).await;
    let retry = Settlement::Retry {
        token: received.token,
        after: Duration::from_secs(30),
        record: failed(&received),
    };
    settle(&*consumer, retry).await.unwrap();
    drop(consumer);
    native.delete_stream("orders").await.unwrap();
    bench.nats.declare(&Topology::group(group("orders"))).await.unwrap();
    native.publish("orders", "second".into()).await.unwrap().await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert_eq!((&received.body[..], sequence(&received)), (&b"second"[..], 1));
    assert_eq!((received.attempt(), received.deliveries), (1, 1));
    ack(&*consumer, received.token).await.unwrap();
}

#[tokio::test]
async fn a_durable_made_anew_still_finds_the_records() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let after = Duration::from_millis(10);
    let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
    settle(&*consumer, retry).await.unwrap();
    drop(consumer);
    let stream = bench.native().get_stream("orders").await.unwrap();
    stream.delete_consumer("billing").await.unwrap();
    let mut anew = group("orders");
    anew.start = longshore_core::Start::Earliest;
    bench.nats.declare(&Topology::group(anew)).await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert_eq!(
        received.attempt(),
        2,
        "num_delivered is 1 again, and the record counts all the same"
    );
    ack(&*consumer, received.token).await.unwrap();
}

/// In the first seconds of a durable each message could have a record; one question says that none
/// has, and as soon as one does, each is asked for.
#[tokio::test]
async fn a_young_durable_asks_once_a_batch_where_the_ledger_is_blank() {
    const MANY: usize = 100;
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    for _ in 0..MANY {
        bench.publish("m").await.unwrap();
    }
    let client = bench.native().client();
    let ledger = "$JS.API.STREAM.MSG.GET.longshore=ledger=orders";
    let mut questions = client.subscribe(ledger).await.unwrap();
    client.flush().await.unwrap();
    let mut asked = async || {
        // All that was asked before has come when an own message has.
        client.publish(ledger, "end".into()).await.unwrap();
        let mut count = 0;
        while questions.next().await.unwrap().payload != "end" {
            count += 1;
        }
        count
    };
    let consumer = bench.consumer_of(bench.source(), 1000).await;
    let mut token = None;
    for received in many(&*consumer, MANY).await {
        assert_eq!((received.attempt(), received.deliveries), (1, 1));
        token.get_or_insert((received.token, failed(&received)));
    }
    let first = asked().await;
    assert!((1..MANY / 2).contains(&first), "{first} questions for {MANY} messages");

    let (token, record) = token.unwrap();
    let retry = Settlement::Retry { token, after: Duration::from_millis(10), record };
    settle(&*consumer, retry).await.unwrap();
    drop(consumer);
    bench.native().get_stream("orders").await.unwrap().delete_consumer("billing").await.unwrap();
    let mut anew = group("orders");
    anew.start = longshore_core::Start::Earliest;
    bench.nats.declare(&Topology::group(anew)).await.unwrap();
    let consumer = bench.consumer_of(bench.source(), 1000).await;
    let again = many(&*consumer, MANY).await;
    let retried: Vec<u64> =
        again.iter().filter(|received| received.attempt() > 1).map(sequence).collect();
    assert_eq!(retried, [1], "the one record is found among many messages");
    assert!(asked().await >= MANY, "each was asked for");
}

#[tokio::test]
async fn a_forged_time_parks_nothing_for_ever() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let mut headers = HeaderMap::new();
    headers.insert("longshore-retry", r#"{"v":1,"not_before":"2999-01-01T00:00:00Z"}"#);
    let native = bench.native();
    native.publish_with_headers("orders", headers, "m".into()).await.unwrap().await.unwrap();
    bench.publish("next").await.unwrap();
    let other = next(&*consumer).await;
    assert_eq!(&other.body[..], b"next", "nobody waits for the forged one");
    ack(&*consumer, other.token).await.unwrap();
}

trait ParseId {
    fn parse_id(&self) -> Option<longshore_core::MessageId>;
}

impl ParseId for str {
    fn parse_id(&self) -> Option<longshore_core::MessageId> {
        longshore_core::MessageId::new(self).ok()
    }
}
