//! The first thing that a server says: what it is. The client library keeps it to itself, and it
//! waits for it without a bound, in a thread. So it is asked for first, on a connection of its own.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use lapin::types::{AMQPValue, parsing};

/// The most bytes of a greeting; those of today take a tenth.
const LIMIT: u32 = 64 * 1024;
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The first octet of a frame that carries a method.
const METHOD: u8 = 1;
/// Class and method of the greeting, and the version of the protocol.
const START: [u8; 6] = [0, 10, 0, 10, 0, 9];

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) product: String,
    pub(crate) version: String,
}

impl Greeting {
    /// The first two numbers of the version.
    pub(crate) fn release(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split(['.', '-', '+']).map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    }

    /// The largest body that the server takes where nobody set another limit; one more byte closes
    /// the channel.
    pub(crate) fn max_message(&self) -> usize {
        match self.release() {
            Some((..=3, _)) => 128 * 1024 * 1024,
            _ => 16 * 1024 * 1024,
        }
    }
}

/// # Errors
/// Where the other end does not greet as AMQP 0-9-1 has it.
///
/// # Cancel safety
/// Safe to drop.
pub(crate) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Greeting> {
    stream.write_all(HEADER).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [kind, _, _, length @ ..] = head;
    let length = u32::from_be_bytes(length);
    if kind != METHOD || length > LIMIT {
        return Err(io::Error::other("greeted by no frame of AMQP 0-9-1"));
    }
    let mut frame = Vec::new();
    stream.take(length.into()).read_to_end(&mut frame).await?;
    read(&frame).ok_or_else(|| io::Error::other("the greeting cannot be read"))
}

fn read(frame: &[u8]) -> Option<Greeting> {
    let rest = frame.strip_prefix(&START)?;
    let (_, table) = parsing::parse_field_table(rest).ok()?;
    let text = |name: &str| match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    };
    Some(Greeting { product: text("product"), version: text("version") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x27\
        \x07productS\x00\x00\x00\x08RabbitMQ\
        \x07versionS\x00\x00\x00\x054.0.5rest";

    #[test]
    fn the_version_of_a_greeting_is_found() {
        let mut frame = FRAME.to_vec();
        frame[9] = 13 + 8 + 13 + 5;
        let greeting = read(&frame).unwrap();
        assert_eq!((greeting.product.as_str(), greeting.release()), ("RabbitMQ", Some((4, 0))));
        for end in 0..frame.len() - "rest".len() {
            assert_eq!(read(&frame[..end]), None, "{end}");
        }
        for (version, release) in [("3.13.7-rc.1", Some((3, 13))), ("4", None), ("", None)] {
            let greeting = Greeting { version: version.into(), ..Greeting::default() };
            assert_eq!(greeting.release(), release, "{version}");
        }
    }
}
