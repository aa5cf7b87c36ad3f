use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::{Error, ErrorKind};

/// What starts the name of every control header. Stripped from what users publish, parsed strictly
/// when received.
pub const RESERVED_PREFIX: &str = "longshore-";

/// The name of a header: printable ASCII without `:`, compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(SmolStr);

impl HeaderName {
    /// A name known at compile time.
    ///
    /// # Panics
    /// Where `name` is not a valid header name; in a `const`, that is a compile error.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        assert!(is_header_name(name.as_bytes()), "not a header name");
        Self(SmolStr::new_static(name))
    }

    /// Checks `name`.
    ///
    /// # Errors
    /// [`InvalidHeader`] where it is empty or holds anything but printable ASCII without `:`.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidHeader> {
        let name = name.as_ref();
        if is_header_name(name.as_bytes()) {
            Ok(Self(SmolStr::new(name)))
        } else {
            Err(InvalidHeader { name: crate::text::bounded(name, 64) })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands under [`RESERVED_PREFIX`], in any case: brokers differ in whether names
    /// are case-sensitive, and a forged `Longshore-Retry` must count on none of them.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let name = self.0.as_bytes();
        name.len() >= RESERVED_PREFIX.len()
            && name[..RESERVED_PREFIX.len()].eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes())
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const fn is_header_name(name: &[u8]) -> bool {
    if name.is_empty() {
        return false;
    }
    let mut i = 0;
    while i < name.len() {
        if !name[i].is_ascii_graphic() || name[i] == b':' {
            return false;
        }
        i += 1;
    }
    true
}

/// A header's name is outside the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHeader {
    name: String,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a header name: printable ASCII without `:` or spaces", self.name)
    }
}

impl std::error::Error for InvalidHeader {}

impl From<InvalidHeader> for Error {
    fn from(error: InvalidHeader) -> Self {
        Self::new(ErrorKind::InvalidMessage, error.to_string())
    }
}

/// An ordered list of headers. A name may repeat. Values are bytes.
///
/// Empty headers allocate nothing, and a clone shares what it was cloned from until it is changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Option<Arc<Vec<(HeaderName, Bytes)>>>);

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Adds one behind the others, even where the name is there already.
    pub fn append(&mut self, name: HeaderName, value: impl Into<Bytes>) {
        Arc::make_mut(self.0.get_or_insert_default()).push((name, value.into()));
    }

    /// The first value under `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
    }

    /// The first value under `name` that is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All in order.
    pub fn iter(&self) -> std::slice::Iter<'_, (HeaderName, Bytes)> {
        self.as_slice().iter()
    }

    /// All in order, as a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[(HeaderName, Bytes)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The bytes of all names and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }

    /// Keeps those that `keep` wants; does not copy where it wants all.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName) -> bool) {
        if self.iter().all(|(name, _)| keep(name)) {
            return;
        }
        if let Some(list) = &mut self.0 {
            Arc::make_mut(list).retain(|(name, _)| keep(name));
            if list.is_empty() {
                self.0 = None;
            }
        }
    }
}

impl FromIterator<(HeaderName, Bytes)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, Bytes)>>(headers: I) -> Self {
        let list: Vec<_> = headers.into_iter().collect();
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a (HeaderName, Bytes);
    type IntoIter = std::slice::Iter<'a, (HeaderName, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Names and lengths only: a header may hold a secret.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name.as_str(), format!("{} B", value.len()))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for bad in ["", "a b", "a:b", "a\r\nb", "naïve", "\u{7f}"] {
            assert!(HeaderName::new(bad).is_err(), "{bad:?}");
        }
        assert!(HeaderName::new("X-Trace_1.2/é".replace('é', "e")).is_ok());
    }

    #[test]
    fn order_repeats_and_binary_values_are_kept() {
        let mut headers = Headers::new();
        headers.append(HeaderName::from_static("b"), &b"\xff\x00"[..]);
        headers.append(HeaderName::from_static("a"), "1");
        headers.append(HeaderName::from_static("b"), "2");
        let shared = headers.clone();
        headers.retain(|name| name.as_str() != "b");
        assert_eq!(headers.len(), 1);
        assert_eq!(shared.len(), 3);
        assert_eq!(shared.get("b").map(|v| &v[..]), Some(&b"\xff\x00"[..]));
        assert!(!format!("{shared:?}").contains('1'.to_string().repeat(2).as_str()));
    }

    #[test]
    fn a_forged_control_header_is_reserved_in_any_case() {
        assert!(HeaderName::from_static("Longshore-Retry").is_reserved());
        assert!(!HeaderName::from_static("long").is_reserved());
    }
}
