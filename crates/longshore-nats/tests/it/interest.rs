//! Interest retention, under which the server confirms and drops what no group will read.

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Message, MessageId, Outcome, Setup, Topology};
use longshore_nats::connect;

use crate::server::Server;
use crate::support::{Bench, ack, group, is, next, send};

fn url(server: &Server) -> String {
    format!("{}?retention=interest", server.url())
}

#[tokio::test]
async fn a_topic_that_has_no_group_yet_refuses() {
    let server = Server::start().await;
    let nats = connect(&url(&server), Setup::default()).await.unwrap();
    let topic = group("orders").topic;
    nats.declare(&Topology::topic(topic.clone())).await.unwrap();
    let publisher = nats.publisher(&topic).await.unwrap();
    let error = is(send(&*publisher, Message::new("m")).await, ErrorKind::Unroutable);
    assert_eq!(error.outcome(), Some(Outcome::NotSent));
    nats.declare(&Topology::group(group("orders"))).await.unwrap();
    send(&*publisher, Message::new("m")).await.unwrap();
    let bench = Bench::new(&url(&server)).await;
    let received = next(&*bench.consumer(bench.source()).await).await;
    assert_eq!(&received.body[..], b"m");
    let findings = nats.audit().await.unwrap();
    assert!(findings.iter().any(|finding| finding.setting.contains("retention")), "{findings:?}");
}

/// The publisher has seen a group a moment ago, and the server confirms: it is asked again.
#[tokio::test]
async fn a_publish_after_the_last_durable_was_deleted_is_no_success() {
    let server = Server::start().await;
    let bench = Bench::new(&url(&server)).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    send(&*publisher, Message::new("seen")).await.unwrap();
    let mut stream = bench.native().get_stream("orders").await.unwrap();
    stream.delete_consumer("billing").await.unwrap();
    let message = Message::new("m").id(MessageId::generate());
    let error = is(send(&*publisher, message.clone()).await, ErrorKind::Unroutable);
    assert!(matches!(error.outcome(), Some(Outcome::Unknown | Outcome::NotSent)), "{error:?}");
    assert_eq!(stream.info().await.unwrap().state.messages, 0, "dropped, and said so");
    bench.nats.declare(&Topology::group(group("orders"))).await.unwrap();
    // The server has seen this id, and dropped it: tried again, it is stored all the same.
    assert!(!send(&*publisher, message.clone()).await.unwrap().duplicate);
    assert!(send(&*publisher, message.clone()).await.unwrap().duplicate);
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert_eq!((&received.body[..], received.id), (&b"m"[..], message.id));
    ack(&*consumer, received.token).await.unwrap();
}

/// The watchdog makes it again, and what is confirmed from then on arrives.
#[tokio::test]
async fn a_durable_that_is_deleted_under_a_member_is_made_again() {
    let server = Server::start().await;
    let bench = Bench::new(&url(&server)).await;
    let consumer = bench.consumer(bench.source()).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    send(&*publisher, Message::new("before")).await.unwrap();
    let before = next(&*consumer).await;
    ack(&*consumer, before.token).await.unwrap();
    let stream = bench.native().get_stream("orders").await.unwrap();
    for durable in ["billing", "billing=suspect"] {
        stream.delete_consumer(durable).await.unwrap();
    }
    let reads = async {
        loop {
            let received = next(&*consumer).await;
            ack(&*consumer, received.token).await.unwrap();
            if received.body == "after" {
                break;
            }
        }
    };
    let message = Message::new("after").id(MessageId::generate());
    let sends = async {
        while send(&*publisher, message.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let both = async { tokio::join!(reads, sends) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("it did not arrive");
}
