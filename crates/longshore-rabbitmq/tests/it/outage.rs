//! Servers that are full, silent, or gone for a while.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use longshore_core::{
    Broker as _, ErrorKind, Message, MessageId, Outcome, Publisher, Setup, Topology,
};
use longshore_rabbitmq::connect;
use longshore_testbed::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::server::own;
use crate::support::{Bench, client, eventually, is, raw, send, take, topic};

fn message(id: &str) -> Message {
    Message::new(id.to_owned()).id(MessageId::new(id).unwrap())
}

/// Pitfall 4. Publishes end by their deadline, questions on the other connection are answered, and
/// nothing that was confirmed is missing afterwards.
#[tokio::test]
async fn an_alarm_holds_publishers_for_no_longer_than_their_deadline() {
    let broker = own(Options::default()).await;
    let bench = Bench::with(&broker, "?publish_timeout=2s").await;
    let publisher = bench.publisher().await;
    send(&*publisher, message("before")).await.unwrap();
    broker.memory_alarm(true).await.unwrap();
    let begun = Instant::now();
    // The server tells a connection with its first publish: that one may be read later.
    let error = is(send(&*publisher, message("first")).await, ErrorKind::Backpressure);
    assert_eq!(error.outcome(), Some(Outcome::Unknown), "{error:?}");
    let error = is(publisher.publish(&mut vec![message("second")]).await, ErrorKind::Backpressure);
    assert_eq!(error.outcome(), Some(Outcome::NotSent), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "held for {:?}", begun.elapsed());
    assert_eq!(bench.ready().await, 1);

    broker.memory_alarm(false).await.unwrap();
    eventually("a publish after the alarm", || async {
        publisher.publish(&mut vec![message("after")]).await.is_ok()
    })
    .await;
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let mut stored = Vec::new();
    while stored.last().is_none_or(|last| last != "after") {
        stored.push(String::from_utf8(take(&channel, &bench.queue()).await.data).unwrap());
    }
    assert_eq!(stored, ["before", "first", "after"]);
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_with_an_unknown_outcome() {
    let broker = own(Options::default()).await;
    let bench = Bench::with(&broker, "?publish_timeout=2s").await;
    let publisher = bench.publisher().await;
    send(&*publisher, message("before")).await.unwrap();
    broker.pause().await.unwrap();
    let error = is(send(&*publisher, message("unheard")).await, ErrorKind::Timeout);
    assert_eq!(error.outcome(), Some(Outcome::Unknown), "{error:?}");
    is(bench.rabbit.stats(&bench.source()).await, ErrorKind::Timeout);
    is(bench.rabbit.publisher(&bench.topic).await, ErrorKind::Timeout);
    let url = format!("{}?connect_timeout=2s", broker.url());
    is(connect(&url, Setup::default()).await, ErrorKind::Unavailable);
    broker.resume().await.unwrap();
    send(&*publisher, message("after")).await.unwrap();
    bench.has_ready(3).await;
}

/// Pitfall 17. A node that is killed under a thousand pipelined publishes: what was confirmed is
/// stored, and what is not known is sent again with its id.
#[tokio::test]
async fn a_killed_node_loses_nothing_that_it_confirmed() {
    const COUNT: usize = 1000;
    let broker = own(Options::default()).await;
    let bench = Bench::with(&broker, "?publish_timeout=5s").await;
    // A node that is killed right after a declaration may come back without its queue.
    broker.restart().await.unwrap();
    let publisher = bench.publisher_again().await;
    let mut underway = Vec::new();
    let mut killed = None;
    let mut outcomes = BTreeMap::new();
    for n in 0..COUNT {
        let id = format!("m-{n}");
        match publisher.publish(&mut vec![message(&id)]).await {
            Ok(confirms) => underway.push((id, confirms)),
            Err(error) => {
                assert_eq!(error.outcome(), Some(Outcome::NotSent), "{error:?}");
                outcomes.insert(id, Err(error));
                // The rest is as little sent.
                break;
            }
        }
        if n == COUNT / 2 {
            // The first is confirmed, so the server is in the middle of them.
            let (id, first) = underway.remove(0);
            outcomes.insert(id, first.await.remove(0));
            let broker = &broker;
            killed = Some(broker.kill().await);
        }
    }
    killed.unwrap().unwrap();
    for (id, confirms) in underway {
        outcomes.insert(id, confirms.await.remove(0));
    }
    let unknown = |outcome: &longshore_core::Result<_>| match outcome {
        Ok(_) => false,
        Err(error) => {
            let outcome = error.outcome();
            assert!(matches!(outcome, Some(Outcome::Unknown | Outcome::NotSent)), "{error:?}");
            true
        }
    };
    let lost = outcomes.values().filter(|outcome| unknown(outcome)).count();
    assert!(lost > 0 && lost < outcomes.len(), "{lost} of {} without an answer", outcomes.len());
    broker.restart().await.unwrap();
    for (id, outcome) in &outcomes {
        if outcome.is_err() {
            eventually("what is sent again", || async {
                send(&*publisher, message(id)).await.is_ok()
            })
            .await;
        }
    }
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let mut stored = BTreeSet::new();
    // Panics where one of them does not come.
    while !outcomes.keys().all(|id| stored.contains(id)) {
        let got = take(&channel, &bench.queue()).await;
        stored.insert(got.properties.message_id().as_ref().unwrap().to_string());
    }
}

impl Bench {
    /// A publisher of a server that was just restarted.
    async fn publisher_again(&self) -> Box<dyn Publisher> {
        let mut found = None;
        let begun = Instant::now();
        while found.is_none() {
            assert!(begun.elapsed() < crate::support::DEADLINE, "no publisher after a restart");
            let publisher = match self.rabbit.publisher(&self.topic).await {
                Ok(publisher) => publisher,
                Err(_) => continue,
            };
            // Its queue may still elect a leader.
            if send(&*publisher, message("ready")).await.is_ok() {
                found = Some(publisher);
            }
        }
        found.unwrap()
    }
}

/// The URL names all nodes; the group has a replica on each.
#[tokio::test]
async fn a_cluster_outlives_any_one_of_its_nodes() {
    let broker = own(Options::default().nodes(3)).await;
    let bench = Bench::with(&broker, "?publish_timeout=15s&replicas=3").await;
    // A node that is killed right after a declaration may come back without its replica.
    broker.restart().await.unwrap();
    let mut publisher = bench.publisher_again().await;
    let mut sent = BTreeSet::new();
    for (round, node) in broker.nodes().iter().enumerate() {
        for n in 0..100 {
            let id = format!("m-{round}-{n}");
            if n == 50 {
                node.kill().await.unwrap();
            }
            eventually(&format!("{id} with two nodes of three"), || async {
                send(&*publisher, message(&id)).await.is_ok()
            })
            .await;
            sent.insert(id);
        }
        node.restart().await.unwrap();
        // Any of the three is asked for this.
        publisher.close().await.unwrap();
        publisher = bench.publisher_again().await;
    }
    let port = broker.nodes()[1].port("amqp").unwrap();
    let url = format!("amqp://127.0.0.1:{port}/%2f");
    let connection = lapin::Connection::connect(&url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut stored = BTreeSet::new();
    while !sent.is_subset(&stored) {
        let got = take(&channel, &bench.queue()).await;
        stored.insert(got.properties.message_id().as_ref().unwrap().to_string());
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_is_found_again() {
    let broker = own(Options::default()).await;
    let rabbit = client(&broker, "?publish_timeout=2s").await;
    let topic = topic();
    rabbit.declare(&Topology::topic(topic.clone())).await.unwrap();
    let publisher = rabbit.publisher(&topic).await.unwrap();
    broker.stop().await.unwrap();
    let error = is(send(&*publisher, Message::new("m")).await, ErrorKind::Unavailable);
    assert!(matches!(error.outcome(), Some(Outcome::NotSent | Outcome::Unknown)), "{error:?}");
    broker.restart().await.unwrap();
    eventually("a publish", || async { send(&*publisher, Message::new("m")).await.is_ok() }).await;
}

/// What listens at an address may be anything.
#[tokio::test]
async fn what_is_no_server_of_ours_is_told_from_one_that_is_away() {
    const START: &[u8] = b"\x00\x0a\x00\x0a\x00\x09";
    let greeting = |product: &str, version: &str| {
        let entry = |name: &str, value: &str| {
            let mut entry = vec![name.len() as u8];
            entry.extend(name.bytes());
            entry.push(b'S');
            entry.extend((value.len() as u32).to_be_bytes());
            entry.extend(value.bytes());
            entry
        };
        let table = [entry("product", product), entry("version", version)].concat();
        let mut method = START.to_vec();
        method.extend((table.len() as u32).to_be_bytes());
        method.extend(table);
        method.extend(b"\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US");
        let mut frame = b"\x01\x00\x00".to_vec();
        frame.extend((method.len() as u32).to_be_bytes());
        frame.extend(method);
        frame.push(0xce);
        frame
    };
    for (said, kind) in [
        (greeting("RabbitMQ", "3.9.29"), ErrorKind::Unsupported),
        (greeting("LavinMQ", "4.0.0"), ErrorKind::Unsupported),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), ErrorKind::Unavailable),
        (b"AMQP\x03\x01\x00\x00".to_vec(), ErrorKind::Unavailable),
        (Vec::new(), ErrorKind::Unavailable),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = format!("{said:?}");
        let server = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut header = [0; 8];
                if socket.read_exact(&mut header).await.is_ok() {
                    let _ = socket.write_all(&said).await;
                }
            }
        });
        let url = format!("amqp://{address}?connect_timeout=1s");
        let error = connect(&url, Setup::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{shown}: {error:?}");
        server.abort();
    }
}
