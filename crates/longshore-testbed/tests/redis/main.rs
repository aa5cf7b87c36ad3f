//! Redis and Valkey, for real: fetched, started, broken, and gone.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod client;
#[path = "../kit/mod.rs"]
mod kit;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, ask, try_ask};
use kit::{DEADLINE, eventually, ground, hold};
use longshore_testbed::{Broker, Error, Identity, Node, Options, Progress, Testbed};

const ALL: [&str; 3] = ["redis@8.0", "redis@7.0", "valkey@8.1"];

fn address(node: &Node) -> SocketAddr {
    ([127, 0, 0, 1], node.port("redis").unwrap()).into()
}

async fn write_data(broker: &Broker) {
    assert!(ask(broker.address(), "XADD kept * body message").await.starts_with('$'));
}

async fn read_data(address: SocketAddr) -> String {
    ask(address, "XLEN kept").await
}

#[tokio::test]
async fn each_starts_greets_and_keeps_its_data_over_a_kill() {
    let testbed = Testbed::workspace().run_in(ground("redis-all"));
    let started = testbed.brokers(&ALL, &Options::default(), &Progress::shown()).await;
    for (broker, name) in started.into_iter().map(Result::unwrap).zip(ALL) {
        let (_, version) = name.split_once('@').unwrap();
        assert!(broker.version().starts_with(&format!("{version}.")), "{}", broker.version());
        assert_eq!(broker.url(), format!("redis://{}", broker.address()));
        assert!(broker.ports().all(|port| port < 32_768));
        write_data(&broker).await;
        let [node] = broker.nodes() else { panic!("{:?}", broker.nodes()) };
        assert_eq!(node.port("redis"), Some(broker.address().port()));
        let process = Identity::of(node.pid().unwrap()).unwrap();
        broker.kill().await.unwrap();
        assert!(!process.is_alive() && node.pid().is_none());
        let refused = tokio::net::TcpStream::connect(broker.address()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        broker.restart().await.unwrap();
        assert_eq!(read_data(broker.address()).await, ":1\r\n", "{name} after a crash");
        broker.restart().await.unwrap();
        assert_eq!(read_data(broker.address()).await, ":1\r\n", "{name} after a restart");
    }
}

#[tokio::test]
async fn a_full_memory_refuses_writes_and_takes_them_again() {
    for name in ALL {
        let broker = Testbed::start(name, Options::default()).await.unwrap();
        write_data(&broker).await;
        broker.memory_alarm(true).await.unwrap();
        let said = ask(broker.address(), "XADD kept * body message").await;
        assert!(said.starts_with("-OOM "), "{name}: {said}");
        assert_eq!(read_data(broker.address()).await, ":1\r\n", "{name} reads on");
        broker.memory_alarm(false).await.unwrap();
        write_data(&broker).await;
        assert_eq!(read_data(broker.address()).await, ":2\r\n", "{name}");
    }
}

#[tokio::test]
async fn a_slow_or_paused_server_answers_late_and_all_the_same() {
    let broker = Testbed::start("redis", Options::default()).await.unwrap();
    let [node] = broker.nodes() else { panic!("{:?}", broker.nodes()) };
    let mut client = Client::connect(broker.address()).await;
    assert_eq!(client.ask("PING").await, "+PONG\r\n");
    let before = Instant::now();
    assert_eq!(node.control(&["debug", "sleep", "0.5"]).await.unwrap(), "OK");
    assert!(before.elapsed() >= Duration::from_millis(500));

    broker.pause().await.unwrap();
    client.send("PING").await;
    assert!(client.is_ignored(Duration::from_millis(300)).await);
    broker.resume().await.unwrap();
    assert_eq!(client.read().await, "+PONG\r\n");
    // One that is paused can be stopped all the same, in order.
    broker.pause().await.unwrap();
    broker.stop().await.unwrap();
    assert!(broker.log_tail().contains("Redis is now ready to exit"), "{}", broker.log_tail());
}

#[tokio::test]
async fn users_are_a_tests_own_and_the_tool_keeps_its_rights() {
    for name in ALL {
        let users = "user default off\nuser ann on >secret ~orders +xadd +auth";
        let broker = Testbed::start(name, Options::default().config(users)).await.unwrap();
        let mut client = Client::connect(broker.address()).await;
        assert!(client.ask("PING").await.starts_with("-NOAUTH"), "{name}");
        assert_eq!(client.ask("AUTH ann secret").await, "+OK\r\n");
        assert!(client.ask("XADD orders * a b").await.starts_with('$'));
        assert!(client.ask("XADD other * a b").await.starts_with("-NOPERM"));
        let [node] = broker.nodes() else { panic!("{:?}", broker.nodes()) };
        node.control(&["acl", "setuser", "ann", "~other"]).await.unwrap();
        assert!(client.ask("XADD other * a b").await.starts_with('$'));
        let refused = node.control(&["acl", "setuser", "ann", "nonsense"]).await;
        assert!(matches!(refused, Err(Error::Tool { .. })), "{refused:?}");
        broker.restart().await.unwrap();
    }
}

#[tokio::test]
async fn a_tls_port_is_there_for_a_test_with_certificates() {
    // Whether it serves is for those who have certificates; that it reads them shows here.
    let tls = "tls-port @TLS@\ntls-cert-file @FOLDER@/no.pem\ntls-key-file @FOLDER@/no.key\ntls-auth-clients no";
    let options = Options::default().config(tls).file("no.pem", "nothing").file("no.key", "");
    let died = Testbed::start("redis", options).await;
    let Err(Error::Died { log, .. }) = died else { panic!("{died:?}") };
    assert!(log.contains("Failed to load certificate"), "{log}");
}

#[tokio::test]
async fn three_nodes_are_one_cluster_whose_others_outlive_one() {
    tokio::join!(cluster(ALL[0]), cluster(ALL[1]), cluster(ALL[2]));
}

async fn cluster(name: &str) {
    let broker = Testbed::start(name, Options::default().nodes(3)).await.unwrap();
    assert_eq!((broker.nodes().len(), broker.url().matches("127.0.0.1").count()), (3, 3));
    assert!(broker.url().ends_with("?cluster=true"), "{}", broker.url());
    let [first, _, third] = broker.nodes() else { panic!("{:?}", broker.nodes()) };
    // Of the slots 15495 and 866.
    let moved = ask(address(first), "XADD a * f v").await;
    assert!(moved.starts_with("-MOVED 15495 "), "{name}: {moved}");
    let said = ask(address(third), "XADD a * f v").await;
    assert!(said.starts_with('$'), "{name}: {said}");
    third.kill().await.unwrap();
    let said = ask(address(first), "XADD hello * f v").await;
    assert!(said.starts_with('$'), "{name}, its own slots: {said}");
    third.restart().await.unwrap();
    assert_eq!(ask(address(third), "XLEN a").await, ":1\r\n", "{name} kept its message");
    broker.restart().await.unwrap();
    assert_eq!(ask(address(third), "XLEN a").await, ":1\r\n", "{name} is a cluster again");
}

#[tokio::test]
async fn sentinels_elect_a_replica_when_the_primary_is_gone() {
    let broker = Testbed::start("redis@8.0", Options::default().sentinels()).await.unwrap();
    assert!(broker.url().ends_with("?sentinel=longshore"), "{}", broker.url());
    let [first, second, third] = broker.nodes() else { panic!("{:?}", broker.nodes()) };
    let wait = ask(broker.address(), "XADD kept * body message").await;
    assert!(wait.starts_with('$'), "{wait}");
    assert_eq!(ask(broker.address(), "WAIT 2 10000").await, ":2\r\n");
    assert!(ask(address(second), "XADD kept * a b").await.starts_with("-READONLY"));
    first.kill().await.unwrap();
    let sentinel = ([127, 0, 0, 1], first.port("sentinel").unwrap()).into();
    let deadline = Instant::now() + DEADLINE;
    let primary = loop {
        let named = ask(sentinel, "SENTINEL get-master-addr-by-name longshore").await;
        let is = |node: &&&Node| named.contains(&node.port("redis").unwrap().to_string());
        if let Some(node) = [second, third].iter().find(is)
            // One that becomes the primary closes its connections.
            && try_ask(address(node), "ROLE").await.is_some_and(|role| role.contains("master"))
        {
            break *node;
        }
        assert!(Instant::now() < deadline, "no election: {named}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(read_data(address(primary)).await, ":1\r\n");

    let refused = Testbed::start("nats", Options::default().sentinels()).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
}

#[tokio::test]
async fn sentinels_die_with_the_process_that_holds_them_and_with_down() {
    let testbed = Testbed::workspace().run_in(ground("redis-left"));
    let options = Options::default().sentinels();
    let left = testbed.broker("valkey", options, &Progress::silent()).await.unwrap();
    let record = left.leave_running().unwrap();
    assert_eq!(record.nodes.iter().filter(|node| node.helper).count(), 3);
    assert_eq!(testbed.down(&[]).await.unwrap(), std::slice::from_ref(&record));
    assert!(!record.nodes.iter().any(|node| node.process.is_alive()) && !record.folder.exists());

    let run = ground("redis-crash");
    let (mut holder, held) = hold("redis@7.0", &run);
    let server = Identity::of(held["pid"].as_u64().unwrap() as u32).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("the server is gone", || !server.is_alive()).await;
}

#[tokio::test]
async fn a_server_that_ends_shows_why() {
    let died = Testbed::start("redis", Options::default().config("maxmemory nonsense")).await;
    let Err(Error::Died { log, .. }) = died else { panic!("{died:?}") };
    assert!(log.contains("maxmemory nonsense"), "{log}");
}
