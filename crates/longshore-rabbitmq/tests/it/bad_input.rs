//! What would close a channel or even the connection is refused here, and hurts no neighbour.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use longshore_core::{
    Broker as _, ErrorKind, HeaderName, Message, MessageId, Outcome, Publisher, Setup, Topology,
};
use longshore_rabbitmq::{Connections, connect};
use longshore_testbed::Options;

use crate::server::{own, shared};
use crate::support::{Bench, client, is, raw, send, take, topic};

fn header(name: &str) -> HeaderName {
    HeaderName::new(name).unwrap()
}

/// `bad` between two good ones, which are stored; the next publish is as good as the first.
async fn between(publisher: &dyn Publisher, bad: Message, kind: ErrorKind) {
    let shown = format!("{bad:?}");
    let mut batch = vec![Message::new("before"), bad, Message::new("after")];
    let mut outcomes = publisher.publish(&mut batch).await.unwrap().await;
    let error = is(outcomes.remove(1), kind);
    assert_eq!(error.outcome(), Some(Outcome::NotSent), "{shown}: {error:?}");
    for outcome in outcomes {
        outcome.unwrap();
    }
    send(publisher, Message::new("later")).await.unwrap();
}

/// Pitfall 16.
#[tokio::test]
async fn a_bad_message_is_refused_here_and_its_neighbours_are_stored() {
    let broker = shared().await;
    let bench = Bench::with(&broker, "?max_body=1GiB").await;
    let publisher = bench.publisher().await;
    let native = || bench.rabbit.native().downcast_ref::<Connections>().unwrap();
    let first = native().outgoing().unwrap();
    let long = "x".repeat(256);
    let limit = bench.rabbit.info().capabilities.max_message;
    let cases = [
        (Message::new(vec![0; limit + 1]), ErrorKind::TooLarge),
        (Message::new("x").header(header("big"), vec![0; 17 * 1024]), ErrorKind::TooLarge),
        (Message::new("x").key(vec![0; 17 * 1024]), ErrorKind::TooLarge),
        (Message::new("x").header(header(&long), "1"), ErrorKind::InvalidMessage),
        (Message::new("x").message_type(&long), ErrorKind::InvalidMessage),
        (Message::new("x").content_type(&long), ErrorKind::InvalidMessage),
        (Message::new("x").content_type("naïve"), ErrorKind::InvalidMessage),
        (Message::new("x").header(header("CC"), "elsewhere"), ErrorKind::InvalidMessage),
        (Message::new("x").header(header("x-death"), "1"), ErrorKind::InvalidMessage),
    ];
    let count = cases.len() as u64;
    for (bad, kind) in cases {
        between(&*publisher, bad, kind).await;
    }
    let last = native().outgoing().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &last), "the connection was lost over a bad message");
    bench.has_ready(count * 3).await;
}

#[tokio::test]
async fn the_longest_of_everything_passes() {
    let broker = shared().await;
    let bench = Bench::with(&broker, "?max_body=16MiB").await;
    let publisher = bench.publisher().await;
    let long = "x".repeat(255);
    // 4.0 takes 16 MiB and not a byte more.
    let body = vec![7; 16 * 1024 * 1024];
    let message = Message::new(body.clone())
        .id(MessageId::new("y".repeat(256)).unwrap())
        .key(vec![0xff; 256])
        .message_type(&long)
        .content_type(&long)
        .header(header(&long), vec![0xff; 10 * 1024])
        .header(header("empty"), "");
    send(&*publisher, message).await.unwrap();
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let got = take(&channel, &bench.queue()).await;
    assert!(got.data == body);
    assert_eq!(got.properties.kind().as_ref().unwrap().as_str(), long);
}

#[tokio::test]
async fn limits_that_an_operator_lowered_cost_no_neighbour_its_message() {
    let limits = "max_message_size = 100000\nframe_max = 8192";
    let broker = own(Options::default().config(limits)).await;
    let bench = Bench::new(&broker).await;
    let publisher = bench.publisher().await;
    // The frame is known: above it, the server would close the connection.
    let wide = Message::new("x").header(header("wide"), vec![b'x'; 9 * 1024]);
    between(&*publisher, wide, ErrorKind::TooLarge).await;
    // The size is not. Alone, it is clear which message was refused.
    let large = || Message::new(vec![0; 200_000]);
    let error = is(send(&*publisher, large()).await, ErrorKind::TooLarge);
    assert_eq!(error.outcome(), Some(Outcome::Refused), "{error:?}");
    // With others it is not, and none is called stored or refused that may be the other.
    let mut batch = vec![Message::new("before"), large(), Message::new("after")];
    for outcome in publisher.publish(&mut batch).await.unwrap().await {
        match outcome {
            Ok(_) => {}
            Err(error) if error.outcome() == Some(Outcome::NotSent) => {}
            Err(error) => {
                assert_eq!(error.outcome(), Some(Outcome::Unknown), "{error:?}");
                assert_eq!(error.retryability(), longshore_core::Retryability::Transient);
            }
        }
    }
    send(&*publisher, Message::new("later")).await.unwrap();
}

#[tokio::test]
async fn urls_and_names_that_cannot_be_are_refused_without_a_server() {
    for url in ["amqp://", "amqp://h?heartbeat=1s", "amqp://h/a/b", "amqps://h?ca=/no/such/file"] {
        is(connect(url, Setup::default()).await, ErrorKind::Config);
    }
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let missing = topic();
    is(rabbit.publisher(&missing).await, ErrorKind::NotFound);
    rabbit.declare(&Topology::topic(missing.clone())).await.unwrap();
    rabbit.publisher(&missing).await.unwrap();
}
