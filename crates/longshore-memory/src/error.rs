//! What this broker refuses, and how it says so.

use longshore_core::{Error, ErrorKind, GroupName, Outcome, TopicName};

pub(crate) const BACKEND: &str = "memory";

/// The client, publisher or consumer was closed, or its process played dead.
pub(crate) fn closed(what: &str) -> Error {
    Error::closed(what).with_backend(BACKEND)
}

/// Nobody declared it.
pub(crate) fn no_topic(topic: &TopicName) -> Error {
    Error::new(ErrorKind::NotFound, format!("topic `{topic}` does not exist")).with_backend(BACKEND)
}

/// Nobody declared it.
pub(crate) fn no_group(topic: &TopicName, group: &GroupName) -> Error {
    Error::new(ErrorKind::NotFound, format!("group `{topic}.{group}` does not exist"))
        .with_backend(BACKEND)
}

/// The token is spent, or another member may have the message.
pub(crate) fn lease_lost() -> Error {
    Error::lease_lost().with_backend(BACKEND)
}

/// An order that makes no sense where the delivery came from.
pub(crate) fn unsupported(ability: &str) -> Error {
    Error::unsupported(BACKEND, ability)
}

/// No room, for as long as a publish waits.
pub(crate) fn full(capacity: usize) -> Error {
    Error::new(ErrorKind::Backpressure, format!("the broker holds its {capacity} messages"))
        .with_backend(BACKEND)
        .with_outcome(Outcome::NotSent)
}
