//! Messages of programs that do with headers what the client library cannot read.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_core::{Broker as _, Consumer, ErrorKind, Event, Link, Page, Received, Settlement};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::Server;
use crate::support::{Bench, LEASE, ack, ended, failed, is, next, quiet, settle};

/// Stores a message with this header block, as a program with a client of its own does.
async fn publish(server: &Server, block: &[u8], body: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let connect = b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answer 1\r\n";
    stream.write_all(connect).await.unwrap();
    let (of_headers, all) = (block.len(), block.len() + body.len());
    stream
        .write_all(format!("HPUB orders answer {of_headers} {all}\r\n").as_bytes())
        .await
        .unwrap();
    stream.write_all(&[block, body.as_bytes(), b"\r\n"].concat()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let stored =
        async { while !lines.next_line().await.unwrap().unwrap().starts_with("{\"stream\"") {} };
    timeout(Duration::from_secs(10), stored).await.expect("it was not stored");
}

fn of<'a>(received: &'a Received, name: &str) -> Option<&'a [u8]> {
    let mut headers = received.headers.iter();
    headers.find(|(header, _)| header.as_str() == name).map(|(_, value)| &value[..])
}

/// Everything that comes until `count` are settled, by body.
async fn take(consumer: &dyn Consumer, count: usize) -> BTreeMap<String, Vec<Received>> {
    let mut seen: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    while seen.len() < count {
        let received = next(consumer).await;
        if ack(consumer, received.token).await.is_ok() {
            let body = String::from_utf8(received.body.to_vec()).unwrap();
            seen.entry(body).or_default().push(received);
        }
    }
    seen
}

fn is_down(event: &Event) -> bool {
    matches!(event, Event::State(Link::Down { .. }))
}

/// Waits for the connection to break.
async fn down(consumer: &dyn Consumer) {
    let mut out = Vec::new();
    let broken = async {
        while !out.iter().any(is_down) {
            consumer.receive(&mut out, 1).await.unwrap();
        }
    };
    timeout(Duration::from_secs(10), broken).await.expect("the connection did not break");
}

/// How often it breaks in this time, where no message comes.
async fn breaks(consumer: &dyn Consumer, time: Duration) -> usize {
    let mut out = Vec::new();
    let all = async {
        loop {
            consumer.receive(&mut out, 1).await.unwrap();
        }
    };
    let _: Result<(), _> = timeout(time, all).await;
    assert!(!out.iter().any(|event| matches!(event, Event::Message(_))), "{out:?}");
    out.iter().filter(|event| is_down(event)).count()
}

#[tokio::test]
async fn headers_that_are_not_utf8_break_the_connection_once_and_arrive_byte_for_byte() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("before").await.unwrap();
    let received = next(&*consumer).await;
    publish(&server, b"NATS/1.0\r\nname: caf\xe9\r\nother: plain\r\n\r\n", "latin").await;
    down(&*consumer).await;
    ack(&*consumer, received.token).await.unwrap();
    bench.publish("after").await.unwrap();
    let seen = take(&*consumer, 2).await;
    let [latin] = &seen["latin"][..] else { panic!("{seen:?}") };
    assert_eq!(of(latin, "name"), Some(&b"caf\xe9"[..]));
    assert_eq!(of(latin, "other"), Some(&b"plain"[..]));
    // The lost connection may count as a delivery, and never as an attempt.
    assert_eq!(latin.attempt(), 1);
    // It is gone from where it stood: nothing breaks again when its lease would be over.
    assert_eq!(breaks(&*consumer, LEASE + Duration::from_secs(2)).await, 0);
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

#[tokio::test]
async fn such_a_message_is_retried_and_dead_lettered_like_any_other() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    publish(&server, b"NATS/1.0\r\nname: caf\xe9\r\nlongshore-id: \xfe\r\n\r\n", "latin").await;
    let first = next(&*consumer).await;
    let after = Duration::from_millis(100);
    let retry = Settlement::Retry { token: first.token, after, record: failed(&first) };
    settle(&*consumer, retry).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!((again.attempt(), of(&again, "name")), (2, Some(&b"caf\xe9"[..])));
    let (token, letter) = (again.token, bench.letter(&again));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    let page = Page { after: None, limit: 10 };
    let dead = bench.nats.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!((dead.len(), of(&dead[0], "name")), (1, Some(&b"caf\xe9"[..])));
}

#[tokio::test]
async fn a_line_that_is_no_header_and_a_status_of_a_strangers_stop_nobody() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    publish(&server, b"NATS/1.0\r\nno header at all\r\ngood: 1\r\n\r\n", "line").await;
    publish(&server, b"NATS/1.0 503\r\ngood: 2\r\n\r\n", "status").await;
    let seen = take(&*consumer, 2).await;
    assert_eq!(of(&seen["line"][0], "good"), Some(&b"1"[..]));
    assert_eq!(of(&seen["status"][0], "good"), Some(&b"2"[..]));
    assert!(quiet(&*consumer, LEASE + Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_lone_carriage_return_ends_the_process_typed_and_not_the_next_one() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    publish(&server, b"NATS/1.0\r\nname: a\rb\r\n\r\n", "return").await;
    let end = timeout(Duration::from_secs(15), ended(&*consumer)).await.unwrap();
    is(end, ErrorKind::Unexpected);
    is(bench.publish("m").await, ErrorKind::Unexpected);
    let next_process = Bench::new(&server.url()).await;
    let consumer = next_process.consumer(next_process.source()).await;
    let received = next(&*consumer).await;
    assert_eq!((&received.body[..], of(&received, "name")), (&b"return"[..], Some(&b"a\rb"[..])));
    ack(&*consumer, received.token).await.unwrap();
    assert!(quiet(&*consumer, LEASE + Duration::from_secs(2)).await);
}

#[tokio::test]
async fn each_group_reads_it_for_itself() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let mut other = crate::support::group("orders");
    other.name = "audit".try_into().unwrap();
    bench.nats.declare(&longshore_core::Topology::group(other.clone())).await.unwrap();
    publish(&server, b"NATS/1.0\r\nname: caf\xe9\r\n\r\n", "latin").await;
    for group in [bench.group.clone(), other.name] {
        let source = longshore_core::Source::Group { topic: bench.topic.clone(), group };
        let consumer = bench.consumer(source).await;
        let received = next(&*consumer).await;
        assert_eq!(of(&received, "name"), Some(&b"caf\xe9"[..]));
        ack(&*consumer, received.token).await.unwrap();
        assert!(quiet(&*consumer, Duration::from_secs(1)).await);
    }
}
