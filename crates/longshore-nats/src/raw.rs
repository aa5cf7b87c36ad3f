//! Stored messages, read by their place.
//!
//! By hand, since the client's own reader keeps only the last of several headers of one name: a
//! letter that is redriven would lose the others for good.

use std::str::FromStr as _;
use std::time::SystemTime;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longshore_core::{ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::error::error;
use crate::shared::{Shared, is_missing};

/// Which one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Ask<'a> {
    /// The last on a subject.
    Last { last_by_subj: &'a str },
    /// The first on a subject from a place on.
    Next { seq: u64, next_by_subj: &'a str },
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) headers: HeaderMap,
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
    Ok(Stored {
        sequence: native.seq,
        headers: headers(&decode(&native.hdrs)?),
        payload: Bytes::from(decode(&native.data)?),
        time: humantime::parse_rfc3339(&native.time)
            .map_err(|_| wrong("the answer has no time"))?,
    })
}

/// Reads a header block as the client reads one that is delivered; a line that is no header is left
/// out.
fn headers(block: &[u8]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for line in String::from_utf8_lossy(block).lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_str(name), HeaderValue::from_str(value.trim()))
        {
            out.append(name, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repeats_of_a_name_are_kept() {
        let map = headers(b"NATS/1.0\r\na: 1\r\nb:2\r\na: 3\r\nno header\r\n\r\n");
        let values: Vec<_> = map.get_all("a").map(HeaderValue::as_str).collect();
        assert_eq!(values, ["1", "3"]);
        assert_eq!(map.get("b").unwrap().as_str(), "2");
    }

    proptest! {
        #[test]
        fn no_block_panics(block: Vec<u8>) {
            let _ = headers(&block);
        }
    }
}
