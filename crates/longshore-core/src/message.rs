use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{Error, ErrorKind, HeaderName, Headers, Result};

/// The default limit of a body: body and metadata together stay inside a broker's 1 MiB.
pub const DEFAULT_MAX_BODY: usize = 960 * 1024;
/// The limit of all header names and values together.
pub const MAX_HEADERS: usize = 16 * 1024;
/// The limit of an id; longer ones would not fit the headers of a retry copy.
const MAX_ID: usize = 256;

/// The id of a message. An id names one message: a repeat inside the broker's window *is* that
/// message.
///
/// Any text of 1 to 256 printable ASCII characters; a UUID is held without allocating.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Repr);

// A text that is a UUID in its usual spelling is always the first variant, so equal ids are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Uuid(Uuid),
    Text(SmolStr),
}

impl MessageId {
    /// A new time-ordered id (UUID version 7).
    #[must_use]
    pub fn generate() -> Self {
        Self(Repr::Uuid(Uuid::now_v7()))
    }

    /// An id given by the user or found on the wire.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] where it is empty, longer than 256 bytes, or not printable
    /// ASCII.
    pub fn new(id: impl AsRef<str>) -> Result<Self> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(Error::new(
                ErrorKind::InvalidMessage,
                format!("a message id is 1 to {MAX_ID} printable ASCII characters"),
            ));
        }
        if id.len() == 36
            && let Ok(uuid) = Uuid::try_parse(id)
            && uuid.as_hyphenated().encode_lower(&mut [0; 36]) == id
        {
            return Ok(Self(Repr::Uuid(uuid)));
        }
        Ok(Self(Repr::Text(SmolStr::new(id))))
    }

    /// Calls `read` with the id as text, without allocating.
    pub fn with_str<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        match &self.0 {
            Repr::Uuid(uuid) => read(uuid.as_hyphenated().encode_lower(&mut [0; 36])),
            Repr::Text(text) => read(text),
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|id| f.pad(id))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_str(|id| serializer.serialize_str(id))
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(id).map_err(serde::de::Error::custom)
    }
}

/// A message on its way out: body, and what travels beside it in the broker's native headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Stored as given: there is no envelope.
    pub body: Bytes,
    /// Messages of one sender with one key keep their order in the topic.
    pub key: Option<Bytes>,
    /// Assigned by the sender where absent.
    pub id: Option<MessageId>,
    /// The name of what the body is, such as `order.placed`.
    pub message_type: Option<SmolStr>,
    /// The body's media type, such as `application/json`.
    pub content_type: Option<SmolStr>,
    /// In order; a name may repeat.
    pub headers: Headers,
}

impl Message {
    /// A message of these bytes and nothing else.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            key: None,
            id: None,
            message_type: None,
            content_type: None,
            headers: Headers::new(),
        }
    }

    /// A message whose body is `value` as JSON, with the content type to match.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] where the value has no JSON form (a map whose keys are no
    /// strings, say).
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::InvalidMessage, "the value has no JSON form").with_source(error)
        })?;
        let mut message = Self::new(body);
        message.content_type = Some(SmolStr::new_static("application/json"));
        Ok(message)
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the message type.
    #[must_use]
    pub fn message_type(mut self, name: impl AsRef<str>) -> Self {
        self.message_type = Some(SmolStr::new(name));
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, name: impl AsRef<str>) -> Self {
        self.content_type = Some(SmolStr::new(name));
        self
    }

    /// Adds a header behind the others. Names under `longshore-` are ours and are stripped when the
    /// message is sent.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<Bytes>) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The bytes of the body and of all that travels beside it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + self.metadata_size()
    }

    /// The bytes that travel beside the body.
    #[must_use]
    pub fn metadata_size(&self) -> usize {
        self.headers.size()
            + self.key.as_ref().map_or(0, Bytes::len)
            + self.message_type.as_ref().map_or(0, SmolStr::len)
            + self.content_type.as_ref().map_or(0, SmolStr::len)
    }

    /// Checks the limits of the contract: the body against `max_body`, the rest against
    /// [`MAX_HEADERS`].
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], or [`ErrorKind::InvalidMessage`] for a type or content type that
    /// is not printable ASCII. The outcome is `NotSent`.
    pub fn check(&self, max_body: usize) -> Result<()> {
        let refuse =
            |kind, text: String| Err(Error::new(kind, text).with_outcome(crate::Outcome::NotSent));
        if self.body.len() > max_body {
            let text =
                format!("a body of {} bytes exceeds the limit of {max_body}", self.body.len());
            return refuse(ErrorKind::TooLarge, text);
        }
        let metadata = self.metadata_size();
        if metadata > MAX_HEADERS {
            let text =
                format!("{metadata} bytes of key and headers exceed the limit of {MAX_HEADERS}");
            return refuse(ErrorKind::TooLarge, text);
        }
        for (what, text) in
            [("message type", &self.message_type), ("content type", &self.content_type)]
        {
            if text.as_ref().is_some_and(|text| !text.bytes().all(|b| (b' '..=b'~').contains(&b))) {
                return refuse(
                    ErrorKind::InvalidMessage,
                    format!("the {what} is not printable ASCII"),
                );
            }
        }
        Ok(())
    }
}

impl<T: Into<Bytes>> From<T> for Message {
    fn from(body: T) -> Self {
        Self::new(body)
    }
}

/// Sizes only: a body or a key may hold what a log must not.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("body", &format_args!("{} B", self.body.len()))
            .field("key", &self.key.as_ref().map(|key| format!("{} B", key.len())))
            .field("message_type", &self.message_type)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ids_are_equal_however_they_were_made() {
        let id = MessageId::generate();
        assert_eq!(MessageId::new(id.to_string()).unwrap(), id);
        let shouted = id.to_string().to_uppercase();
        assert_eq!(MessageId::new(&shouted).unwrap().to_string(), shouted);
        assert!(MessageId::new("").is_err());
        assert!(MessageId::new("a\nb").is_err());
        assert!(MessageId::new("x".repeat(257)).is_err());
    }

    #[test]
    fn ids_are_time_ordered() {
        let ids: Vec<_> = (0..100).map(|_| MessageId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn limits_are_typed_and_say_that_nothing_was_sent() {
        let error = Message::new(vec![0; 11]).check(10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(error.outcome(), Some(crate::Outcome::NotSent));
        let name = HeaderName::from_static("a");
        let error = Message::new("x").header(name, vec![0; MAX_HEADERS]).check(10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let error = Message::new("x").message_type("a\r\nb").check(10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidMessage);
        assert!(Message::new(vec![0; 10]).check(10).is_ok());
    }

    #[test]
    fn debug_shows_no_content() {
        let message = Message::new("secret-body").key("secret-key");
        assert!(!format!("{message:?}").contains("secret"));
    }
}
