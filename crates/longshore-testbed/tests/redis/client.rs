//! A client of a few lines, so that what is tested is the server's and not a client's.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::kit::DEADLINE;

/// One connection.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// What the server says to one command, as it stands on the wire.
    pub(crate) async fn ask(&mut self, command: &str) -> String {
        self.send(command).await;
        timeout(DEADLINE, self.read()).await.unwrap()
    }

    pub(crate) async fn send(&mut self, command: &str) {
        self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    }

    /// The next answer; each of these tests' answers is one packet.
    pub(crate) async fn read(&mut self) -> String {
        let mut bytes = vec![0; 64 * 1024];
        let count = self.0.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// Whether nothing is said for this long.
    pub(crate) async fn is_ignored(&mut self, patience: Duration) -> bool {
        timeout(patience, self.read()).await.is_err()
    }
}

/// What a new client is told.
pub(crate) async fn ask(address: SocketAddr, command: &str) -> String {
    Client::connect(address).await.ask(command).await
}

/// The same, where the server may close the connection instead.
pub(crate) async fn try_ask(address: SocketAddr, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await.ok()?;
    let mut bytes = vec![0; 64 * 1024];
    let count = timeout(DEADLINE, stream.read(&mut bytes)).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}
