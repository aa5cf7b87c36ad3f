//! The first thing that a broker of AMQP 0-9-1 says: what it is.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{LIMIT, connect};

/// The first octet of a frame that carries a method.
const METHOD: u8 = 1;
/// The last octet of any frame.
const END: u8 = 0xce;
/// Class and method of the greeting, and the version of the protocol.
const START: [u8; 6] = [0, 10, 0, 10, 0, 9];

/// The texts among the server's properties.
pub(crate) async fn amqp(port: u16) -> Result<BTreeMap<String, String>, String> {
    let mut stream = connect(port).await?;
    let broken = |error| format!("greeting: {error}");
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.map_err(broken)?;
    let kind = stream.read_u8().await.map_err(broken)?;
    let _channel = stream.read_u16().await.map_err(broken)?;
    let length = u64::from(stream.read_u32().await.map_err(broken)?);
    if kind != METHOD || length >= LIMIT {
        return Err("greeted by no frame of AMQP 0-9-1".to_owned());
    }
    let mut frame = Vec::new();
    stream.take(length + 1).read_to_end(&mut frame).await.map_err(broken)?;
    if frame.len() as u64 != length + 1 || frame.pop() != Some(END) {
        return Err("the greeting was cut off".to_owned());
    }
    properties(&frame).ok_or_else(|| "the greeting is none of AMQP 0-9-1".to_owned())
}

/// The texts of the table in a greeting; none where it is not one.
fn properties(frame: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut rest = frame.strip_prefix(&START)?;
    let mut table = long(&mut rest)?;
    let mut texts = BTreeMap::new();
    while let Some((length, after)) = table.split_first() {
        let (name, after) = after.split_at_checked(usize::from(*length))?;
        let (kind, mut after) = after.split_first()?;
        match kind {
            b'S' => {
                let text = String::from_utf8_lossy(long(&mut after)?).into_owned();
                texts.insert(String::from_utf8_lossy(name).into_owned(), text);
            }
            // The table of capabilities.
            b'F' => {
                long(&mut after)?;
            }
            b't' => after = after.get(1..)?,
            // No server of today sends another kind here; the length of one is unknown.
            _ => return None,
        }
        table = after;
    }
    Some(texts)
}

/// Takes octets that follow their number.
fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (taken, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x2c\
        \x0ccapabilitiesF\x00\x00\x00\x04\x01at\x01\
        \x07versionS\x00\x00\x00\x054.0.5\
        \x01bt\x01rest";

    #[test]
    fn the_texts_of_a_greeting_are_found() {
        let texts = properties(FRAME).unwrap();
        assert_eq!(texts.into_iter().collect::<Vec<_>>(), [("version".into(), "4.0.5".into())]);
    }

    #[test]
    fn no_cut_of_a_greeting_is_taken_for_one() {
        for end in 0..FRAME.len() - "rest".len() {
            assert_eq!(properties(&FRAME[..end]), None, "{end}");
        }
    }
}
