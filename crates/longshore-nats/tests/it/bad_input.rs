//! What is refused, and as what.

use std::time::{Duration, Instant};

use longshore_core::{
    Broker as _, Drift, ErrorKind, Message, Mode, Outcome, Retryability, Setup, Start, Topology,
};
use longshore_nats::connect;

use crate::server::Server;
use crate::support::{Bench, group, is, next, send};

const USERS: &str = r#"
authorization { users: [
    { user: "good", password: "hunter2" }
    { user: "narrow", password: "hunter2", permissions: { publish: { deny: ["orders"] } } }
    { user: "reader", password: "hunter2",
      permissions: { publish: { deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] } } }
] }"#;

fn url(server: &Server, user: &str) -> String {
    format!("nats://{user}:hunter2@127.0.0.1:{}", server.port)
}

#[tokio::test]
async fn wrong_credentials_are_fatal_at_once_and_in_no_error() {
    let server = Server::with(USERS).await;
    let started = Instant::now();
    for url in [
        format!("nats://good:wrong-hunter3@127.0.0.1:{}", server.port),
        format!("{}?token=wrong-hunter3", server.url()),
        server.url(),
    ] {
        let error = is(connect(&url, Setup::default()).await, ErrorKind::Unauthenticated);
        assert_eq!(error.retryability(), Retryability::Permanent);
        assert!(!format!("{error:?}").contains("hunter3"), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    let seed = format!("{}?nkey=hunter3", server.url());
    let error = is(connect(&seed, Setup::default()).await, ErrorKind::Unauthenticated);
    assert!(!format!("{error:?}").contains("hunter3"), "{error:?}");
}

#[tokio::test]
async fn a_refused_subject_is_forbidden_and_ends_nothing_else() {
    let server = Server::with(USERS).await;
    let narrow = Bench::new(&url(&server, "narrow")).await;
    let error = is(narrow.publish("m").await, ErrorKind::Forbidden);
    assert_eq!(error.outcome(), Some(Outcome::Refused));
    let good = Bench::new(&url(&server, "good")).await;
    good.publish("m").await.unwrap();
    assert_eq!(&next(&*narrow.consumer(narrow.source()).await).await.body[..], b"m");
    let reader = Bench::new(&url(&server, "reader")).await;
    let consumer = reader.consumer(reader.source()).await;
    is(consumer.receive(&mut Vec::new(), 1).await, ErrorKind::Forbidden);
}

#[tokio::test]
async fn an_absent_server_is_tried_for_as_long_as_was_said() {
    let url = "nats://127.0.0.1:25999?connect_timeout=1s";
    let started = Instant::now();
    let error = is(connect(url, Setup::default()).await, ErrorKind::Unavailable);
    assert_eq!(error.retryability(), Retryability::Exhausted);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_server_without_jetstream_is_unsupported() {
    let server = Server::configured("").await;
    let error = is(connect(&server.url(), Setup::default()).await, ErrorKind::Unsupported);
    assert!(error.to_string().contains("JetStream"), "{error}");
}

#[tokio::test]
async fn what_is_too_large_is_said_before_the_server_closes_the_connection() {
    let server = Server::with("max_payload: 65536").await;
    let bench = Bench::new(&server.url()).await;
    let error = is(bench.publish(&"x".repeat(65_536)).await, ErrorKind::TooLarge);
    assert!(matches!(error.outcome(), Some(Outcome::NotSent | Outcome::Refused)));
    bench.publish("m").await.unwrap();
}

#[tokio::test]
async fn a_full_stream_is_backpressure() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let mut config =
        bench.native().get_stream("orders").await.unwrap().cached_info().config.clone();
    config.max_messages = 1;
    bench.native().update_stream(config).await.unwrap();
    bench.publish("a").await.unwrap();
    let error = is(bench.publish("b").await, ErrorKind::Backpressure);
    assert_eq!(error.outcome(), Some(Outcome::Refused));
}

#[tokio::test]
async fn a_repeated_id_is_that_message() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    let message = Message::new("m").id(longshore_core::MessageId::generate());
    assert!(!send(&*publisher, message.clone()).await.unwrap().duplicate);
    assert!(send(&*publisher, message).await.unwrap().duplicate);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    is(bench.nats.publisher(&"absent".try_into().unwrap()).await, ErrorKind::NotFound);
    let verify = Topology { mode: Mode::Verify, ..Topology::group(group("absent")) };
    is(bench.nats.declare(&verify).await, ErrorKind::NotFound);
    let verify = Topology { mode: Mode::Verify, ..Topology::group(group("orders")) };
    bench.nats.declare(&verify).await.unwrap();
}

#[tokio::test]
async fn every_difference_is_told_and_nothing_is_changed() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let other = connect(&format!("{}?max_age=1d", server.url()), Setup::default()).await.unwrap();
    let mut wanted = group("orders");
    wanted.dead_letters = Some(Duration::from_secs(3600));
    let error = is(other.declare(&Topology::group(wanted)).await, ErrorKind::AlreadyExists);
    let told: Vec<_> =
        error.native::<Drift>().unwrap().entries.iter().map(|entry| entry.setting).collect();
    assert_eq!(told, ["max_age", "dead_letters"]);
    let mut earlier = group("orders");
    (earlier.start, earlier.lease) = (Start::Earliest, Duration::from_secs(9));
    bench.nats.declare(&Topology::group(earlier)).await.unwrap();
    let stream = bench.native().get_stream("orders").await.unwrap();
    assert_eq!(stream.consumer_info("billing").await.unwrap().config.ack_wait.as_secs(), 9);
}

#[tokio::test]
async fn a_consumer_that_would_break_retries_is_drift() {
    use async_nats::jetstream::consumer::pull;
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let stream = bench.native().get_stream("orders").await.unwrap();
    stream.delete_consumer("billing").await.unwrap();
    let config = pull::Config {
        durable_name: Some("billing".into()),
        filter_subjects: vec!["orders".into(), "orders.billing.redrive".into()],
        max_deliver: 5,
        backoff: vec![Duration::from_secs(1), Duration::from_secs(5)],
        ..Default::default()
    };
    stream.create_consumer(config).await.unwrap();
    let error =
        is(bench.nats.declare(&Topology::group(group("orders"))).await, ErrorKind::AlreadyExists);
    let told: Vec<_> =
        error.native::<Drift>().unwrap().entries.iter().map(|entry| entry.setting).collect();
    assert!(told.contains(&"max_deliver") && told.contains(&"backoff"), "{told:?}");
}

#[tokio::test]
async fn interest_without_a_group_is_unroutable() {
    let server = Server::start().await;
    let url = format!("{}?retention=interest", server.url());
    let nats = connect(&url, Setup::default()).await.unwrap();
    let topic = group("orders").topic;
    nats.declare(&Topology::topic(topic.clone())).await.unwrap();
    let publisher = nats.publisher(&topic).await.unwrap();
    is(send(&*publisher, Message::new("m")).await, ErrorKind::Unroutable);
    nats.declare(&Topology::group(group("orders"))).await.unwrap();
    send(&*publisher, Message::new("m")).await.unwrap();
    let findings = nats.audit().await.unwrap();
    assert!(findings.iter().any(|finding| finding.setting.contains("retention")), "{findings:?}");
}

#[tokio::test]
async fn a_closed_connection_says_so() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    bench.nats.close().await.unwrap();
    bench.nats.close().await.unwrap();
    is(send(&*publisher, Message::new("m")).await, ErrorKind::Closed);
    is(bench.nats.stats(&bench.source()).await, ErrorKind::Closed);
}
