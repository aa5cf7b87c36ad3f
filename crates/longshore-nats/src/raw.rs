//! Stored messages, read by their place.
//!
//! By hand, since the client's own reader keeps only the last of several headers of one name: a
//! letter that is redriven would lose the others for good.

use std::str::FromStr as _;
use std::time::SystemTime;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName as NativeName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longshore_core::{ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::error;
use crate::shared::{Shared, is_missing};

/// The first line of a header block.
const VERSION: &[u8] = b"NATS/1.0";

/// Which one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Ask<'a> {
    /// The last on a subject.
    Last { last_by_subj: &'a str },
    /// The first on a subject from a place on.
    Next { seq: u64, next_by_subj: &'a str },
    /// The one at a place.
    At { seq: u64 },
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    /// Whether the client library can take it from a connection.
    pub(crate) readable: bool,
    pub(crate) payload: Bytes,
    pub(crate) time: SystemTime,
}

#[derive(Deserialize)]
struct Answer {
    message: Native,
}

#[derive(Deserialize)]
struct Native {
    seq: u64,
    #[serde(default)]
    subject: String,
    time: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
}

/// # Errors
/// As [`Shared::api`]; `Ok(None)` where there is no such message, `NotFound` where there is no such
/// stream.
pub(crate) async fn get(shared: &Shared, stream: &str, ask: &Ask<'_>) -> Result<Option<Stored>> {
    let operation = format!("STREAM.MSG.GET.{stream}");
    let answer: Result<Answer> = shared.api(&operation, stream, ask).await;
    match answer {
        Ok(answer) => read(answer.message).map(Some),
        Err(error) if is_missing(&error) && is_message(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_message(error: &longshore_core::Error) -> bool {
    use async_nats::jetstream::{Error, ErrorCode};
    error.native::<Error>().is_some_and(|e| e.error_code() == ErrorCode::NO_MESSAGE_FOUND)
}

fn read(native: Native) -> Result<Stored> {
    let wrong = |what: &'static str| error(ErrorKind::Unexpected, what);
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| wrong("the answer is no base64"));
    let (headers, readable) = headers(&decode(&native.hdrs)?);
    Ok(Stored {
        sequence: native.seq,
        subject: native.subject,
        headers,
        readable,
        payload: Bytes::from(decode(&native.data)?),
        time: humantime::parse_rfc3339(&native.time)
            .map_err(|_| wrong("the answer has no time"))?,
    })
}

/// Reads a header block as the client reads one that is delivered, and says whether the client
/// could. A value that it could not is kept as base64, in the form of our own publisher; a line that
/// is no header is left out.
fn headers(block: &[u8]) -> (HeaderMap, bool) {
    let mut lines = block.split(|byte| *byte == b'\n').map(strip).peekable();
    // A block that is absent is readable; a status in the first line is for the server to write.
    let mut readable = block.is_empty() || lines.next().map(<[u8]>::trim_ascii) == Some(VERSION);
    let mut found: Vec<(NativeName, Result<String, Vec<u8>>)> = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let name = colon.and_then(|at| std::str::from_utf8(&line[..at]).ok());
        let name = name.and_then(|name| NativeName::from_str(name).ok());
        let mut value = colon.map(|at| line[at + 1..].to_vec()).unwrap_or_default();
        while let Some(more) =
            lines.next_if(|line| line.first().is_some_and(u8::is_ascii_whitespace))
        {
            value.extend_from_slice(more);
        }
        let Some(name) = name else {
            readable = false;
            continue;
        };
        let text = match std::str::from_utf8(&value) {
            Ok(text) if !text.contains(['\r', '\n']) => Ok(text.trim().to_owned()),
            _ => Err(value.trim_ascii().to_vec()),
        };
        readable &= text.is_ok();
        found.push((name, text));
    }
    (
        if found.iter().any(|(_, text)| text.is_err()) {
            codec::encoded(found)
        } else {
            plain(found)
        },
        readable,
    )
}

fn plain(found: Vec<(NativeName, Result<String, Vec<u8>>)>) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, text) in found {
        if let Some(value) = text.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
            out.append(name, value);
        }
    }
    out
}

fn strip(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repeats_of_a_name_are_kept() {
        let (map, readable) = headers(b"NATS/1.0\r\na: 1\r\nb:2\r\n  x\r\na: 3\r\n\r\n");
        assert!(readable && headers(b"").1 && headers(b"NATS/1.0\r\n\r\n").1);
        let values: Vec<_> = map.get_all("a").map(HeaderValue::as_str).collect();
        assert_eq!(values, ["1", "3"]);
        assert_eq!(map.get("b").unwrap().as_str(), "2  x");
    }

    #[test]
    fn what_the_client_cannot_read_is_kept_byte_for_byte() {
        let (map, readable) =
            headers(b"NATS/1.0\r\nz: plain\r\nlatin: caf\xe9\r\nlongshore-id: \xff\r\n\r\n");
        assert!(!readable);
        let parts = codec::incoming(Some(&map));
        let all: Vec<_> = parts.headers.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
        assert_eq!(all, [("z", &b"plain"[..]), ("latin", b"caf\xe9")]);
        assert_eq!(parts.id, None);
        for block in [
            "NATS/1.0\r\nno header\r\n",
            "NATS/1.0\r\na b: 1\r\n",
            "NATS/1.0\r\na: \rb\r\n",
            "NATS/1.0 503\r\na: b\r\n",
        ] {
            assert!(!headers(block.as_bytes()).1, "{block:?}");
        }
    }

    proptest! {
        #[test]
        fn no_block_panics(block: Vec<u8>) {
            let _ = headers(&block);
        }
    }
}
