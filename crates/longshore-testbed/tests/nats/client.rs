//! A client of a few lines, so that what is tested is the server's and not a client's.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::{Duration, Instant};

use longshore_testbed::{Broker, Identity};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncReader};
use tokio::net::TcpStream;

use crate::kit::DEADLINE;

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
    let answer = tokio::time::timeout(DEADLINE, ask_once(broker, subject, body)).await.unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer
}

/// The same without an end: a cluster drops a request for which it has no leader.
async fn ask_once(broker: &Broker, subject: &str, body: &str) -> Value {
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
    answer.await
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
    let deadline = Instant::now() + DEADLINE;
    loop {
        // The stream may elect its leader while the cluster is ready: it says nothing then, or says
        // what it is and not what it holds. Asked anew, it answers.
        let answer = ask_once(broker, "$JS.API.STREAM.INFO.KEPT", "");
        let answer = tokio::time::timeout(Duration::from_secs(2), answer).await;
        let messages = answer.as_ref().ok().and_then(|info| info["state"]["messages"].as_u64());
        match messages {
            Some(messages) => return messages,
            None => assert!(Instant::now() < deadline, "no state within {DEADLINE:?}: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Signals a process that is not the testbed's to signal.
pub(crate) fn signal(process: Identity, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(process.pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
