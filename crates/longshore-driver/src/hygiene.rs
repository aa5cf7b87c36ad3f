//! Which headers are the user's and which are ours.
//!
//! Outgoing, whatever stands under `longshore-` is stripped: a user cannot set a count. Incoming,
//! control headers are parsed strictly and kept from the user, and nothing that a foreign program
//! can write is fatal:
//!
//! - a name outside the grammar (empty, with a space, a `:` or non-ASCII) is left out of what the
//!   handler sees. It stays in the native message, so it survives copies;
//! - a control header that is malformed, too large or there twice counts as absent, because of two
//!   nobody can say which is the real one;
//! - any other name under `longshore-`, in any case, is dropped.

use bytes::Bytes;
use longshore_core::{HeaderName, Headers, Letter, MAX_LETTER, MAX_RECORD, RETRY_HEADER, Record};

/// What starts the name of every header of a dead letter.
const LETTER_PREFIX: &str = "longshore-dl-";

/// Removes what users may not set: every header under `longshore-`. Copies nothing where there is
/// none.
pub fn strip_reserved(headers: &mut Headers) {
    if headers.iter().any(|(name, _)| name.is_reserved()) {
        headers.retain(|name| !name.is_reserved());
    }
}

/// The headers of a message that came from a broker, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The user's, in order.
    pub headers: Headers,
    /// The retry record, where there is exactly one and it can be read. Not yet clamped.
    pub record: Option<Record>,
    /// The dead-letter metadata, where it can be read.
    pub letter: Option<Letter>,
}

/// Takes the raw headers of a message apart. Reads each once, panics on none.
pub fn split<N: AsRef<[u8]>>(raw: impl IntoIterator<Item = (N, Bytes)>) -> Incoming {
    let mut user = Vec::new();
    let mut records = 0;
    let mut record = None;
    let mut letter: Vec<(HeaderName, Bytes)> = Vec::new();
    let mut letter_size = 0usize;
    for (name, value) in raw {
        let Some(name) =
            std::str::from_utf8(name.as_ref()).ok().and_then(|name| HeaderName::new(name).ok())
        else {
            continue;
        };
        if !name.is_reserved() {
            user.push((name, value));
        } else if name.as_str() == RETRY_HEADER {
            records += 1;
            record = (records == 1 && value.len() <= MAX_RECORD)
                .then(|| Record::decode_copy(&value))
                .flatten();
        } else if name.as_str().starts_with(LETTER_PREFIX) {
            letter_size =
                letter_size.saturating_add(name.as_str().len()).saturating_add(value.len());
            // Beyond the bound it is refused below, so it need not be kept either.
            if letter_size <= MAX_LETTER {
                letter.push((name, value));
            }
        }
    }
    let letter = (letter_size <= MAX_LETTER).then(|| read_letter(&letter)).flatten();
    Incoming { headers: user.into_iter().collect(), record, letter }
}

fn read_letter(headers: &[(HeaderName, Bytes)]) -> Option<Letter> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.is_empty() || names.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    Letter::decode(headers.iter().map(|(name, value)| (name.as_str(), &value[..])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(name: &str, value: &[u8]) -> (String, Bytes) {
        (name.to_owned(), Bytes::copy_from_slice(value))
    }

    #[test]
    fn users_set_no_control_header() {
        let mut headers = Headers::new();
        headers.append(HeaderName::from_static("a"), "1");
        let untouched = headers.clone();
        strip_reserved(&mut headers);
        assert_eq!(headers, untouched);
        headers.append(HeaderName::from_static("LONGSHORE-retry"), "{}");
        headers.append(HeaderName::from_static("longshore-x"), "y");
        strip_reserved(&mut headers);
        assert_eq!(headers, untouched);
    }

    #[test]
    fn each_header_goes_where_it_belongs() {
        let record = Record { failures: 2, ..Record::default() };
        let split = split([
            raw("a", b"1"),
            raw("not a name", b"x"),
            raw("Longshore-Retry", b"{\"v\":1,\"failures\":9}"),
            raw(RETRY_HEADER, record.encode().as_bytes()),
            raw("longshore-dl-version", b"1"),
            raw("longshore-dl-id", b"x"),
            raw("longshore-dl-reason", b"permanent"),
            raw("a", b"\xff"),
        ]);
        assert_eq!(split.headers.len(), 2);
        assert_eq!(split.record, Some(record));
        assert_eq!(split.letter.unwrap().id, "x");
    }

    #[test]
    fn a_control_header_that_is_there_twice_or_huge_is_none() {
        let once = [raw(RETRY_HEADER, b"{\"v\":1}")];
        assert!(split(once.clone()).record.is_some());
        for count in [2, 3] {
            assert_eq!(split(vec![once[0].clone(); count]).record, None);
        }
        let mut letter = vec![
            raw("longshore-dl-version", b"1"),
            raw("longshore-dl-id", b"x"),
            raw("longshore-dl-reason", b"permanent"),
        ];
        letter.push(raw("longshore-dl-handler", &vec![b'x'; 1 << 20]));
        assert_eq!(split(letter.clone()).letter, None);
        letter[3] = raw("longshore-dl-id", b"y");
        assert_eq!(split(letter).letter, None);
    }

    proptest! {
        #[test]
        fn anything_is_split_and_the_users_part_is_kept_in_order(
            list in proptest::collection::vec(
                (
                    prop_oneof![
                        any::<Vec<u8>>(),
                        "[a-z:]{0,4}".prop_map(String::into_bytes),
                        "longshore-(retry|dl-id|dl-version|dl-history|x)".prop_map(String::into_bytes),
                    ],
                    any::<Vec<u8>>(),
                ),
                0..20,
            )
        ) {
            let split = split(list.iter().map(|(n, v)| (n.clone(), Bytes::from(v.clone()))));
            let wanted: Vec<_> = list
                .iter()
                .filter_map(|(n, v)| Some((HeaderName::new(std::str::from_utf8(n).ok()?).ok()?, v)))
                .filter(|(n, _)| !n.is_reserved())
                .collect();
            prop_assert_eq!(split.headers.len(), wanted.len());
            for ((name, value), (wanted_name, wanted_value)) in split.headers.iter().zip(wanted) {
                prop_assert_eq!(name, &wanted_name);
                prop_assert_eq!(&value[..], &wanted_value[..]);
            }
        }
    }
}
