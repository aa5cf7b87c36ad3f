//! A client of a few lines, so that what is tested is the server's and not a client's.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longshore_testbed::{Broker, Identity};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncReader};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);

/// An empty folder of the test's own.
pub(crate) fn ground(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the server says to a new client.
pub(crate) async fn greeting(broker: &Broker) -> Value {
    let (_, info) = client(broker).await;
    info
}

async fn client(broker: &Broker) -> (AsyncReader<TcpStream>, Value) {
    let stream = TcpStream::connect(broker.address()).await.unwrap();
    let mut stream = AsyncReader::new(stream);
    let mut line = String::new();
    tokio::time::timeout(DEADLINE, stream.read_line(&mut line)).await.unwrap().unwrap();
    let info = serde_json::from_str(line.strip_prefix("INFO ").unwrap()).unwrap();
    (stream, info)
}

/// Whether a new client hears nothing for this long.
pub(crate) async fn ignored_by(broker: &Broker, patience: Duration) -> bool {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    tokio::time::timeout(patience, stream.read_u8()).await.is_err()
}

/// A request to JetStream, and its answer.
async fn ask(broker: &Broker, subject: &str, body: &str) -> Value {
    let answer = answer(broker, subject, body).await;
    assert!(answer.get("error").is_none(), "{answer}");
    answer
}

/// Whatever the server says, an error too.
async fn answer(broker: &Broker, subject: &str, body: &str) -> Value {
    let (mut stream, _) = client(broker).await;
    let text = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n",
        body.len()
    );
    stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    let answer = async {
        let mut line = String::new();
        while !line.starts_with("MSG answer ") {
            line.clear();
            assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the server closed");
        }
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap()
}

/// Stores one message in a stream of the broker's disk.
pub(crate) async fn write_data(broker: &Broker) {
    let stream = r#"{"name":"KEPT","subjects":["kept"],"storage":"file"}"#;
    ask(broker, "$JS.API.STREAM.CREATE.KEPT", stream).await;
    ask(broker, "kept", "a message").await;
}

/// The same with a copy on each of three nodes.
pub(crate) async fn write_replicated(broker: &Broker) {
    let stream = r#"{"name":"KEPT","subjects":["kept"],"storage":"file","num_replicas":3}"#;
    ask(broker, "$JS.API.STREAM.CREATE.KEPT", stream).await;
    ask(broker, "kept", "a message").await;
}

/// How many messages that stream holds.
pub(crate) async fn read_data(broker: &Broker) -> u64 {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        // A cluster that is choosing a leader knows the stream and not its state.
        let info = answer(broker, "$JS.API.STREAM.INFO.KEPT", "").await;
        match info["state"]["messages"].as_u64() {
            Some(messages) => return messages,
            None => assert!(tokio::time::Instant::now() < deadline, "{info}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// A process that holds a broker, and what it says of it.
pub(crate) fn hold(name: &str, run: &Path) -> (Child, Value) {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_hold"))
        .arg(name)
        .arg("--run")
        .arg(run)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (holder, serde_json::from_str(&line).unwrap())
}

/// Signals a process that is not the testbed's to signal.
pub(crate) fn signal(process: Identity, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(process.pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
