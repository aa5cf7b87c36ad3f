//! A client of a few lines for AMQP 0-9-1, so that what is tested is the server's and not a
//! client's.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::kit::DEADLINE;

/// A method, by its class and number in it.
type Method = (u16, u16);

const START: Method = (10, 10);
const TUNE: Method = (10, 30);
const OPENED: Method = (10, 41);
const BLOCKED: Method = (10, 60);
const UNBLOCKED: Method = (10, 61);
const CHANNEL_OPENED: Method = (20, 11);
const DECLARED: Method = (50, 11);
const GOT: Method = (60, 71);
const EMPTY: Method = (60, 72);
const CONFIRMED: Method = (60, 80);
const SELECTED: Method = (85, 11);

/// Kinds of frames.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A connection with one channel that confirms.
pub(crate) struct Client {
    stream: TcpStream,
    /// What the server asks for at most, in seconds between two signs of life.
    pub(crate) heartbeat: u16,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut client = Self { stream, heartbeat: 0 };
        client.stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
        client.expect(START).await;
        // It wants to hear when the server blocks it.
        let told = [&short("connection.blocked")[..], b"t\x01"].concat();
        let properties = [&short("capabilities")[..], b"F", &long(&told)].concat();
        let login = long(b"\x00guest\x00guest");
        let start = [long(&properties), short("PLAIN"), login, short("en_US")].concat();
        client.send(0, (10, 11), &start).await;
        let tune = client.expect(TUNE).await;
        client.heartbeat = u16::from_be_bytes(tune[6..8].try_into().unwrap());
        // The same, but no heartbeats, which this client would not send.
        client.send(0, (10, 31), &[&tune[..6], &[0, 0]].concat()).await;
        client.send(0, (10, 40), &[short("/"), short(""), vec![0]].concat()).await;
        client.expect(OPENED).await;
        client.send(1, (20, 10), &short("")).await;
        client.expect(CHANNEL_OPENED).await;
        client.send(1, (85, 10), &[0]).await;
        client.expect(SELECTED).await;
        client
    }

    /// Declares a durable queue that is copied to each node.
    pub(crate) async fn declare(&mut self, queue: &str) {
        let kind = [short("x-queue-type"), b"S".to_vec(), long(b"quorum")].concat();
        let durable = vec![2];
        let declare = [vec![0, 0], short(queue), durable, long(&kind)].concat();
        self.send(1, (50, 10), &declare).await;
        self.expect(DECLARED).await;
    }

    /// Sends a durable message; it is stored when it is confirmed.
    pub(crate) async fn publish(&mut self, queue: &str, body: &str) {
        let publish = [vec![0, 0], short(""), short(queue), vec![0]].concat();
        self.send(1, (60, 40), &publish).await;
        // Class, weight, length of the body; of the properties only the second kind of delivery.
        let length = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &length, &[0x10, 0, 2]].concat();
        self.frame(HEADER, 1, &header).await;
        self.frame(BODY, 1, body.as_bytes()).await;
    }

    pub(crate) async fn confirmed(&mut self) {
        self.expect(CONFIRMED).await;
    }

    /// A publish finds the memory full: the server says so and reads no further, not even its body.
    pub(crate) async fn blocked(&mut self) {
        self.expect(BLOCKED).await;
    }

    pub(crate) async fn unblocked_and_confirmed(&mut self) {
        self.expect_both(UNBLOCKED, CONFIRMED).await;
    }

    /// Takes a message without settling it: it is back when the connection ends.
    pub(crate) async fn get(&mut self, queue: &str) -> Option<String> {
        let get = [vec![0, 0], short(queue), vec![0]].concat();
        self.send(1, (60, 70), &get).await;
        let (method, _) = self.method().await;
        if method == EMPTY {
            return None;
        }
        assert_eq!(method, GOT);
        assert_eq!(self.read().await.0, HEADER);
        let (kind, body) = self.read().await;
        assert_eq!(kind, BODY);
        Some(String::from_utf8(body).unwrap())
    }

    /// Whether the server says nothing for this long.
    pub(crate) async fn is_ignored(&self, patience: Duration) -> bool {
        timeout(patience, self.stream.peek(&mut [0])).await.is_err()
    }

    async fn send(&mut self, channel: u16, (class, number): Method, arguments: &[u8]) {
        let method = [&class.to_be_bytes()[..], &number.to_be_bytes(), arguments].concat();
        self.frame(METHOD, channel, &method).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &length, payload, &[0xce]].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The arguments of the next method, which must be this one.
    async fn expect(&mut self, method: Method) -> Vec<u8> {
        let (got, arguments) = self.method().await;
        assert_eq!(got, method, "{}", String::from_utf8_lossy(&arguments));
        arguments
    }

    /// They are of two channels, so either may be first.
    async fn expect_both(&mut self, one: Method, other: Method) {
        let got = [self.method().await.0, self.method().await.0];
        assert!(got == [one, other] || got == [other, one], "{got:?}");
    }

    async fn method(&mut self) -> (Method, Vec<u8>) {
        let (kind, payload) = self.read().await;
        assert_eq!(kind, METHOD);
        let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        ((number(0), number(2)), payload[4..].to_vec())
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        let frame = async {
            let kind = self.stream.read_u8().await.unwrap();
            let _channel = self.stream.read_u16().await.unwrap();
            let length = self.stream.read_u32().await.unwrap();
            let mut payload = vec![0; length as usize + 1];
            self.stream.read_exact(&mut payload).await.unwrap();
            assert_eq!(payload.pop(), Some(0xce));
            (kind, payload)
        };
        timeout(DEADLINE, frame).await.unwrap()
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(octets: &[u8]) -> Vec<u8> {
    [&u32::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat()
}

/// What the management interface answers.
pub(crate) async fn manage(port: u16, path: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // guest:guest, as HTTP wants it.
    let login = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=";
    let request = format!("GET {path} HTTP/1.0\r\n{login}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}
