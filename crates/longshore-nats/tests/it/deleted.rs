//! A consumer or a stream that is deleted underneath.

use std::time::{Duration, Instant};

use longshore_core::{ErrorKind, Event};

use crate::server::Server;
use crate::support::{Bench, ack, ended, is, next};

#[tokio::test]
async fn a_deleted_durable_is_made_again_behind_its_floor() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    for body in ["a", "b"] {
        bench.publish(body).await.unwrap();
    }
    let a = next(&*consumer).await;
    ack(&*consumer, a.token).await.unwrap();
    let b = next(&*consumer).await;
    let stream = bench.native().get_stream("orders").await.unwrap();
    let started = Instant::now();
    stream.delete_consumer("billing").await.unwrap();
    bench.publish("c").await.unwrap();
    let (mut lost, mut bodies) = (false, Vec::new());
    while !bodies.iter().any(|body| body == "b") || !bodies.iter().any(|body| body == "c") {
        let mut out = Vec::new();
        consumer.receive(&mut out, 16).await.unwrap();
        for event in out {
            match event {
                Event::Lost { epoch, why } => {
                    assert_eq!((epoch, why.kind()), (b.token.epoch, ErrorKind::LeaseLost));
                    lost = true;
                }
                Event::Message(received) => {
                    bodies.push(String::from_utf8(received.body.to_vec()).unwrap());
                    ack(&*consumer, received.token).await.unwrap();
                }
                _ => {}
            }
        }
    }
    assert!(lost, "what was held was told to be lost");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    is(ack(&*consumer, b.token).await, ErrorKind::LeaseLost);
}

#[tokio::test]
async fn an_ack_to_a_deleted_durable_is_an_error() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let stream = bench.native().get_stream("orders").await.unwrap();
    stream.delete_consumer("billing").await.unwrap();
    is(ack(&*consumer, received.token).await, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_deleted_stream_ends_the_consumer_and_the_publisher() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let publisher = longshore_core::Broker::publisher(&bench.nats, &bench.topic).await.unwrap();
    bench.native().delete_stream("orders").await.unwrap();
    let ended = ended(&*consumer);
    let ended = tokio::time::timeout(Duration::from_secs(15), ended).await.unwrap();
    is(ended, ErrorKind::NotFound);
    let sent = crate::support::send(&*publisher, longshore_core::Message::new("x")).await;
    let error = is(sent, ErrorKind::NotFound);
    assert_eq!(error.outcome(), Some(longshore_core::Outcome::Refused));
}
