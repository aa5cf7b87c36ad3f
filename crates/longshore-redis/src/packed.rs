//! All headers of a message in one field: `name:length:value` and a line end, one after another. A
//! name has no `:`, and the length counts the value's bytes, so a value may hold anything.

use bytes::{Bytes, BytesMut};
use longshore_core::Headers;

/// `None` where there are none.
pub(crate) fn pack<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Bytes> {
    let mut out = BytesMut::new();
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(format!(":{}:", value.len()).as_bytes());
        out.extend_from_slice(value);
        out.extend_from_slice(b"\n");
    }
    (!out.is_empty()).then(|| out.freeze())
}

/// `None` where the field is not of this form: then it is another program's own.
pub(crate) fn unpack(packed: &Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let mut out = Vec::new();
    let mut rest = packed.clone();
    while !rest.is_empty() {
        let name = until_colon(&mut rest)?;
        let length = until_colon(&mut rest)?;
        let length: usize = std::str::from_utf8(&length).ok()?.parse().ok()?;
        if rest.len() <= length || rest[length] != b'\n' {
            return None;
        }
        let value = rest.split_to(length);
        let _line_end = rest.split_to(1);
        out.push((name, value));
    }
    (!out.is_empty()).then_some(out)
}

fn until_colon(rest: &mut Bytes) -> Option<Bytes> {
    let at = rest.iter().position(|byte| *byte == b':')?;
    let part = rest.split_to(at);
    let _colon = rest.split_to(1);
    Some(part)
}

/// The headers of a user, as pairs.
pub(crate) fn of(headers: &Headers) -> impl Iterator<Item = (&str, &[u8])> {
    let own = headers.iter().filter(|(name, _)| !name.is_reserved());
    own.map(|(name, value)| (name.as_str(), &value[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_readable_by_hand() {
        let list = [("trace", &b"a:b"[..]), ("trace", b""), ("x", b"1\n2")];
        let packed = pack(list.into_iter()).unwrap();
        assert_eq!(packed, "trace:3:a:b\ntrace:0:\nx:3:1\n2\n");
        assert_eq!(pack(std::iter::empty()), None);
    }

    #[test]
    fn what_has_another_form_is_none() {
        for bad in
            ["", "h", "a:1", "a:1:", "a:1:x", "a:2:x\n", "a:-1:x\n", "a:99999999999999999999:x\n"]
        {
            assert_eq!(unpack(&Bytes::from_static(bad.as_bytes())), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_unpacked(
            list in proptest::collection::vec(("[a-z.-]{1,9}", any::<Vec<u8>>()), 1..9)
        ) {
            let pairs = list.iter().map(|(name, value)| (name.as_str(), &value[..]));
            let unpacked = unpack(&pack(pairs).unwrap()).unwrap();
            let wanted: Vec<_> = list
                .iter()
                .map(|(name, value)| (Bytes::from(name.clone()), Bytes::from(value.clone())))
                .collect();
            prop_assert_eq!(unpacked, wanted);
        }

        #[test]
        fn any_field_is_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = unpack(&Bytes::from(bytes));
        }
    }
}
