//! What is refused, and as what.

use std::time::{Duration, Instant};

use longshore_core::{
    Broker as _, Drift, ErrorKind, Message, Mode, Outcome, Retryability, Setup, Start, Topology,
};
use longshore_nats::connect;

use crate::server::Server;
use crate::support::{Bench, group, is, send};

const USERS: &str = "authorization { users: [ { user: good, password: hunter2 } ] }";

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
async fn an_account_without_jetstream_is_unsupported() {
    let accounts = "accounts { A { users: [ { user: a, password: pw } ] } \n\
                    B { jetstream: enabled } }";
    let server = Server::with(accounts).await;
    let url = format!("nats://a:pw@127.0.0.1:{}", server.port);
    let error = is(connect(&url, Setup::default()).await, ErrorKind::Unsupported);
    assert!(error.to_string().contains("JetStream"), "{error}");
}

/// A listener that greets as such a server does; the servers of today cannot be asked to.
#[tokio::test]
async fn a_server_before_2_10_is_refused_with_what_it_lacks() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let greets = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let info = format!(
            "INFO {{\"server_id\":\"old\",\"version\":\"2.9.25\",\"host\":\"127.0.0.1\",\
             \"port\":{port},\"headers\":true,\"jetstream\":true,\"max_payload\":1048576}}\r\n"
        );
        stream.write_all(info.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        while !text.windows(4).any(|word| word == b"PING") {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
        }
        stream.write_all(b"PONG\r\n").await.unwrap();
        // Until the client goes.
        while stream.read_buf(&mut text).await.is_ok_and(|count| count > 0) {}
    });
    let url = format!("nats://127.0.0.1:{port}");
    let error = is(connect(&url, Setup::default()).await, ErrorKind::Unsupported);
    assert!(format!("{error:?}").contains("2.9.25") && error.to_string().contains("two filters"));
    tokio::time::timeout(Duration::from_secs(10), greets).await.unwrap().unwrap();
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
async fn a_stream_of_someone_elses_is_told_and_left_as_it_is() {
    use async_nats::jetstream::stream;
    let server = Server::start().await;
    let nats = connect(&server.url(), Setup::default()).await.unwrap();
    let native: &async_nats::jetstream::Context = nats.native().downcast_ref().unwrap();
    // Of the topic's name, and one that takes its subject.
    let named = stream::Config {
        name: "orders".into(),
        subjects: vec!["other".into()],
        ..stream::Config::default()
    };
    native.create_stream(named).await.unwrap();
    let error = is(nats.declare(&Topology::group(group("orders"))).await, ErrorKind::AlreadyExists);
    let told: Vec<_> =
        error.native::<Drift>().unwrap().entries.iter().map(|entry| entry.setting).collect();
    assert!(told.contains(&"subjects") && told.contains(&"discard"), "{told:?}");
    let taken = stream::Config {
        name: "theirs".into(),
        subjects: vec!["shop.>".into()],
        ..stream::Config::default()
    };
    native.create_stream(taken).await.unwrap();
    is(nats.declare(&Topology::group(group("shop.orders"))).await, ErrorKind::AlreadyExists);
    let mut theirs = native.get_stream("theirs").await.unwrap();
    assert_eq!(theirs.info().await.unwrap().config.subjects, ["shop.>"]);
    is(nats.publisher(&"shop.orders".try_into().unwrap()).await, ErrorKind::NotFound);
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
    // The server's own default, at which waiting retries would stop the group.
    assert!(told.contains(&"max_ack_pending"), "{told:?}");
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
