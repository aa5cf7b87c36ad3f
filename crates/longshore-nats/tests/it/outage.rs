//! A server that is silent: its process is stopped, and every connection stays open.

use std::time::{Duration, Instant};

use longshore_core::{ErrorKind, Message, MessageId, Outcome};

use crate::server::Server;
use crate::support::{Bench, ack, is, next, quiet, send};

/// As is said in the URLs below.
const DEADLINE: Duration = Duration::from_secs(2);

fn url(server: &Server) -> String {
    format!("{}?publish_timeout=2s", server.url())
}

#[tokio::test]
async fn settlements_end_by_their_deadline_and_the_token_stays_good() {
    let mut server = Server::start().await;
    let bench = Bench::new(&url(&server)).await;
    bench.lease(Duration::from_secs(60)).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    server.pause().await;
    let begun = Instant::now();
    is(ack(&*consumer, received.token).await, ErrorKind::Timeout);
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1), "{:?}", begun.elapsed());
    server.resume().await;
    ack(&*consumer, received.token).await.unwrap();
    bench.publish("n").await.unwrap();
    let received = next(&*consumer).await;
    server.kill().await;
    let begun = Instant::now();
    is(ack(&*consumer, received.token).await, ErrorKind::Unavailable);
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// The first try is with the server all the same, and is stored when the server goes on.
#[tokio::test]
async fn a_publish_that_timed_out_and_is_tried_again_is_stored_once() {
    let server = Server::start().await;
    let bench = Bench::new(&url(&server)).await;
    let publisher = longshore_core::Broker::publisher(&bench.nats, &bench.topic).await.unwrap();
    let message = Message::new("m").id(MessageId::generate());
    server.pause().await;
    let begun = Instant::now();
    let error = is(send(&*publisher, message.clone()).await, ErrorKind::Timeout);
    assert_eq!(error.outcome(), Some(Outcome::Unknown));
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1), "{:?}", begun.elapsed());
    server.resume().await;
    assert!(send(&*publisher, message).await.unwrap().duplicate, "the first try was stored");
    let mut stream = bench.native().get_stream("orders").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

/// What the client library had queued when the connection ended is sent after the reconnect.
#[tokio::test]
async fn a_ghost_of_before_the_reconnect_is_known_again() {
    let mut server = Server::start().await;
    let bench = Bench::new(&url(&server)).await;
    let publisher = longshore_core::Broker::publisher(&bench.nats, &bench.topic).await.unwrap();
    let message = Message::new("m").id(MessageId::generate());
    server.kill().await;
    let error = send(&*publisher, message.clone()).await.unwrap_err();
    assert_eq!(error.outcome(), Some(Outcome::Unknown), "{error:?}");
    server.run().await;
    let sent = async { while send(&*publisher, message.clone()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), sent)
        .await
        .expect("no publish after the restart");
    let mut stream = bench.native().get_stream("orders").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

/// Two heartbeats are missed and the pull is made anew, which says nothing of what is held.
#[tokio::test]
async fn missed_heartbeats_alone_duplicate_nothing() {
    let server = Server::start().await;
    let bench = Bench::new(&url(&server)).await;
    bench.lease(Duration::from_secs(60)).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("held").await.unwrap();
    let held = next(&*consumer).await;
    server.pause().await;
    // Longer than twice a heartbeat and its slack, shorter than the pings that end a connection.
    assert!(quiet(&*consumer, Duration::from_secs(14)).await);
    server.resume().await;
    for n in 0..5 {
        bench.publish(&n.to_string()).await.unwrap();
        let received = next(&*consumer).await;
        assert_eq!((&received.body[..], received.deliveries), (n.to_string().as_bytes(), 1));
        ack(&*consumer, received.token).await.unwrap();
    }
    ack(&*consumer, held.token).await.unwrap();
    assert!(quiet(&*consumer, Duration::from_secs(2)).await);
}
