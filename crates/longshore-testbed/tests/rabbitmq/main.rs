//! Both versions of `RabbitMQ`, for real: fetched, started, broken, and gone.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod client;
#[path = "../kit/mod.rs"]
mod kit;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, manage};
use kit::{DEADLINE, eventually, ground, hold};
use longshore_testbed::{Broker, Error, Identity, Options, Progress, Testbed};
use tokio::time::timeout;

const BOTH: [&str; 2] = ["rabbitmq@4.0", "rabbitmq@3.10"];

async fn client(broker: &Broker) -> Client {
    Client::connect(broker.address()).await
}

/// A message that only a loss takes away. Its queue must be there.
async fn write_data(broker: &Broker) {
    let mut client = client(broker).await;
    client.publish("kept", "a message").await;
    client.confirmed().await;
}

/// That message, from a node that may just be starting: a `get` that comes before the queue has
/// elected its leader was seen to stay without an answer, so it is asked anew.
async fn read_data(address: SocketAddr) -> Option<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let get = async { Client::connect(address).await.get("kept").await };
        let answer = timeout(Duration::from_secs(2), get).await;
        match answer {
            Ok(answer) if answer.is_some() || Instant::now() > deadline => return answer,
            Err(_) if Instant::now() > deadline => panic!("no answer within {DEADLINE:?}"),
            _ => {}
        }
    }
}

/// One life of a broker: it greets, keeps what it confirmed, and comes back.
async fn live(name: &str) {
    // A later line replaces an earlier one.
    let listener = "listeners.tcp.second = 127.0.0.1:@TLS@";
    let options = Options::default().config("heartbeat = 17").config(listener);
    let broker = Testbed::start(name, options).await.unwrap();
    let (_, version) = name.split_once('@').unwrap();
    assert!(broker.version().starts_with(&format!("{version}.")), "{}", broker.version());
    assert_eq!(broker.url(), format!("amqp://{}", broker.address()));
    assert!(broker.ports().all(|port| port < 32_768));
    let [node] = broker.nodes() else { panic!("{:?}", broker.nodes()) };
    assert_eq!(node.port("amqp"), Some(broker.address().port()));
    assert_eq!(node.port("nothing"), None);
    assert_eq!(client(&broker).await.heartbeat, 17);
    // A port to spare, plain here.
    let second = ([127, 0, 0, 1], node.port("tls").unwrap()).into();
    assert_eq!(Client::connect(second).await.heartbeat, 17);
    let overview = manage(node.port("http").unwrap(), "/api/overview").await;
    assert_eq!(overview["rabbitmq_version"], broker.version());
    assert_eq!(node.control(&["eval", "node()."]).await.unwrap(), "n1@localhost");

    // A node that is killed right after a declare was seen to come back without its copy of the
    // queue, which then has no leader any more. An orderly restart writes it down.
    client(&broker).await.declare("kept").await;
    broker.restart().await.unwrap();
    write_data(&broker).await;
    let process = Identity::of(node.pid().unwrap()).unwrap();
    broker.kill().await.unwrap();
    assert!(!process.is_alive() && node.pid().is_none());
    let refused = tokio::net::TcpStream::connect(broker.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    broker.restart().await.unwrap();
    let read = read_data(broker.address()).await;
    assert_eq!(read.as_deref(), Some("a message"), "{name} after a crash");
    alarm(&broker).await;
    pause(&broker).await;
}

/// Whoever publishes is blocked while the memory counts as full, and nothing is lost.
async fn alarm(broker: &Broker) {
    let mut client = client(broker).await;
    client.declare("alarmed").await;
    broker.memory_alarm(true).await.unwrap();
    client.publish("alarmed", "waits").await;
    client.blocked().await;
    assert!(client.is_ignored(Duration::from_millis(300)).await);
    broker.memory_alarm(false).await.unwrap();
    client.unblocked_and_confirmed().await;
    assert_eq!(client.get("alarmed").await.as_deref(), Some("waits"));
    assert_eq!(client.get("alarmed").await, None);
}

/// Nothing is answered while it is paused, and what was sent then is done afterwards.
async fn pause(broker: &Broker) {
    let mut client = client(broker).await;
    broker.pause().await.unwrap();
    client.publish("kept", "another").await;
    assert!(client.is_ignored(Duration::from_millis(500)).await);
    broker.resume().await.unwrap();
    client.confirmed().await;
    // One that is paused can be stopped all the same, in order.
    broker.pause().await.unwrap();
    broker.stop().await.unwrap();
    assert!(broker.log_tail().contains("SIGTERM received"), "{}", broker.log_tail());
}

#[tokio::test]
async fn both_versions_keep_what_they_confirmed() {
    tokio::join!(live(BOTH[0]), live(BOTH[1]));
}

#[tokio::test]
async fn three_nodes_are_one_cluster_that_outlives_one_of_them() {
    let broker = Testbed::start("rabbitmq@4.0", Options::default().nodes(3)).await.unwrap();
    assert_eq!((broker.nodes().len(), broker.url().matches("127.0.0.1").count()), (3, 3));
    client(&broker).await.declare("kept").await;
    write_data(&broker).await;
    let third = &broker.nodes()[2];
    third.kill().await.unwrap();
    assert_eq!(read_data(broker.address()).await.as_deref(), Some("a message"));
    third.restart().await.unwrap();
    let third = ([127, 0, 0, 1], third.port("amqp").unwrap()).into();
    let read = read_data(third).await;
    assert_eq!(read.as_deref(), Some("a message"), "by the node that was away");
}

#[tokio::test]
async fn a_server_that_ends_shows_why_and_leaves_nothing() {
    let run = ground("rabbitmq-ends");
    let testbed = Testbed::workspace().run_in(&run);
    let options = Options::default().config("heartbeat = nonsense");
    let died = testbed.broker("rabbitmq", options, &Progress::silent()).await;
    let Err(Error::Died { log, .. }) = died else { panic!("{died:?}") };
    assert!(log.contains("heartbeat"), "{log}");
    assert_eq!(testbed.running().await.unwrap(), []);

    let testbed = Testbed::workspace().run_in(run.join("a blank"));
    let refused = testbed.broker("rabbitmq", Options::default(), &Progress::silent()).await;
    assert!(matches!(refused, Err(Error::Folder { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_broker_and_its_helpers_die_with_the_process_that_holds_it() {
    let run = ground("rabbitmq-crash");
    let (mut holder, held) = hold("rabbitmq", &run);
    let testbed = Testbed::workspace().run_in(&run);
    let records = testbed.running().await.unwrap();
    let [record] = &*records else { panic!("{records:?}") };
    assert_eq!(record.pid().map(u64::from), held["pid"].as_u64());
    assert!(record.nodes.iter().any(|node| node.helper), "{record:?}");
    holder.kill().unwrap();
    assert_eq!(holder.wait().unwrap().signal(), Some(9));
    let gone = || !record.nodes.iter().any(|node| node.process.is_alive());
    eventually("the server and its port mapper are gone", gone).await;
    // Erlang's own helpers are of other groups, and end when their pipes do.
    eventually("nothing else runs there", || !anything_in(&record.folder)).await;
    assert_eq!(testbed.running().await.unwrap(), []);
    assert!(!record.folder.exists());
}

#[tokio::test]
async fn a_broker_that_was_left_runs_until_down() {
    let testbed = Testbed::workspace().run_in(ground("rabbitmq-left"));
    let left = testbed.broker("rabbitmq", Options::default(), &Progress::silent()).await.unwrap();
    let (pid, record) = (left.nodes()[0].pid(), left.leave_running().unwrap());
    assert_eq!(record.pid(), pid);
    assert_eq!(testbed.running().await.unwrap(), std::slice::from_ref(&record));
    assert_eq!(
        testbed.down(&["rabbitmq".to_owned()]).await.unwrap(),
        std::slice::from_ref(&record)
    );
    assert!(!record.nodes.iter().any(|node| node.process.is_alive()));
    eventually("nothing else runs there", || !anything_in(&record.folder)).await;
    assert!(!record.folder.exists());
}

#[test]
fn a_missing_tool_is_named_with_the_way_to_get_it() {
    let folder = ground("rabbitmq-missing");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hold"))
        .args(["rabbitmq".as_ref(), "--root".as_ref(), folder.as_os_str()])
        .env("PATH", &folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(": fetching rabbitmq@4.0 needs apt-get: "), "{said}");
}

/// Whether the working folder of any process is in there.
fn anything_in(folder: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("cwd")).ok()).any(
        // The kernel marks a folder that was removed behind its name.
        |cwd| cwd.starts_with(folder),
    )
}
