//! Native errors, classified in one place.

use std::borrow::Cow;

use longshore_core::{Error, ErrorKind, GroupName, Outcome, TopicName};
use redis::{ErrorKind as NativeKind, RedisError};

pub(crate) const BACKEND: &str = "redis";

pub(crate) fn error(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(kind, message).with_backend(BACKEND)
}

pub(crate) fn closed(what: &str) -> Error {
    Error::closed(what).with_backend(BACKEND)
}

pub(crate) fn lease_lost() -> Error {
    Error::lease_lost().with_backend(BACKEND)
}

pub(crate) fn unsupported(ability: &str) -> Error {
    Error::unsupported(BACKEND, ability)
}

pub(crate) fn timeout() -> Error {
    error(ErrorKind::Timeout, "the server did not answer within the deadline")
}

pub(crate) fn down() -> Error {
    error(ErrorKind::Unavailable, "the connection to the server is down")
}

pub(crate) fn no_topic(topic: &TopicName) -> Error {
    error(ErrorKind::NotFound, format!("topic `{topic}` does not exist"))
}

pub(crate) fn no_group(topic: &TopicName, group: &GroupName) -> Error {
    error(ErrorKind::NotFound, format!("group `{topic}.{group}` does not exist"))
}

/// The server answered in a form that no command of ours has.
pub(crate) fn unreadable() -> Error {
    error(ErrorKind::Unexpected, "the server's answer has another form than expected")
}

/// What became of a command.
pub(crate) fn native(native: RedisError) -> Error {
    let (kind, text) = match native.kind() {
        // The server refused the user or the password, and will again.
        NativeKind::AuthenticationFailed => {
            (ErrorKind::Unauthenticated, "the server refused the credentials")
        }
        // Refused, reset, closed, or silent for too long.
        NativeKind::Io if native.is_timeout() => return timeout().with_source(native),
        NativeKind::Io => (ErrorKind::Unavailable, "the connection to the server is down"),
        NativeKind::Parse | NativeKind::UnexpectedReturnType => {
            return unreadable().with_source(native);
        }
        _ => match native.code() {
            Some(code) => server(code),
            None => (ErrorKind::Unexpected, "an error of no known class"),
        },
    };
    let code = native.code().map(str::to_owned);
    let error = error(kind, text);
    let error = match code {
        Some(code) => error.with_context("code", code),
        None => error,
    };
    error.with_source(native)
}

/// Which side did not accept the other's certificate, where that is what ended the handshake.
pub(crate) fn distrust(native: &std::io::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, Error as Tls};
    match native.get_ref()?.downcast_ref::<Tls>()? {
        Tls::InvalidCertificate(_) => Some("the server's certificate is not trusted"),
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Some("the server refused this client's certificate, or wants one"),
        _ => None,
    }
}

/// By the first word of the server's error, which is its code; never by its text, which differs
/// between servers.
fn server(code: &str) -> (ErrorKind, &'static str) {
    match code {
        // No password was given where one is needed, or a wrong one, or protected mode.
        "NOAUTH" | "WRONGPASS" | "DENIED" => {
            (ErrorKind::Unauthenticated, "the server refused the credentials")
        }
        // An ACL without the command or the key.
        "NOPERM" => (ErrorKind::Forbidden, "the server refused a command or key to this user"),
        // `maxmemory` is reached, and the policy is to refuse.
        "OOM" => (ErrorKind::Backpressure, "the server is out of memory"),
        // It cannot write its disk, and refuses writes until it can.
        "MISCONF" => (ErrorKind::Backpressure, "the server cannot write to its disk"),
        // Fewer replicas than `min-replicas-to-write`.
        "NOREPLICAS" => (ErrorKind::Unavailable, "too few replicas are attached to the server"),
        // A primary that has become a replica: another is asked for.
        "READONLY" => (ErrorKind::Unavailable, "the server is a replica now"),
        // Reading its data, or blocked by a script.
        "LOADING" | "BUSY" => (ErrorKind::Unavailable, "the server is busy now"),
        "MASTERDOWN" | "CLUSTERDOWN" => (ErrorKind::Unavailable, "the cluster is down"),
        // The slot lives elsewhere, or moves right now.
        "MOVED" | "ASK" | "TRYAGAIN" => (ErrorKind::Unavailable, "the topic's slot moves"),
        // Somebody deleted the key or the group below us: it is made anew.
        "NOGROUP" | "UNBLOCKED" => (ErrorKind::NotFound, "the group does not exist any more"),
        "NOSCRIPT" => (ErrorKind::Unavailable, "the server forgot a script"),
        // The key holds something else; somebody has to remove it.
        "WRONGTYPE" => (ErrorKind::Config, "the key is there and is of another type"),
        _ => (ErrorKind::Unexpected, "the server answered with an error of no known class"),
    }
}

/// Whether this is the server's error without a code, as for a key that is not there.
pub(crate) fn is_plain(error: &Error) -> bool {
    error.native::<RedisError>().is_some_and(|native| native.code() == Some("ERR"))
}

/// Whether the server that answered so is not the one to ask.
pub(crate) fn is_elsewhere(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MOVED" | "NOAUTH"))
}

/// What is known of a message whose XADD ended so: a server that answers has not stored it.
pub(crate) fn publish(topic: &TopicName, error: RedisError) -> Error {
    let answered = error.code().is_some();
    let outcome = if answered { Outcome::Refused } else { Outcome::Unknown };
    native(error).with_context("topic", topic.as_str()).with_outcome(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::Retryability;

    #[test]
    fn server_errors_are_classified_by_their_code() {
        for (code, kind, retryability) in [
            ("OOM", ErrorKind::Backpressure, Retryability::Transient),
            ("NOPERM", ErrorKind::Forbidden, Retryability::Permanent),
            ("WRONGPASS", ErrorKind::Unauthenticated, Retryability::Permanent),
            ("READONLY", ErrorKind::Unavailable, Retryability::Transient),
            ("NOGROUP", ErrorKind::NotFound, Retryability::Permanent),
            ("WRONGTYPE", ErrorKind::Config, Retryability::Permanent),
            ("SOMETHING", ErrorKind::Unexpected, Retryability::Permanent),
        ] {
            let (found, text) = server(code);
            assert_eq!(found, kind, "{code}");
            assert_eq!(error(found, text).retryability(), retryability, "{code}");
        }
    }

    #[test]
    fn a_connection_that_breaks_says_nothing_of_what_was_sent() {
        let topic = TopicName::new("orders").unwrap();
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let error = publish(&topic, RedisError::from(broken));
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unavailable, Some(Outcome::Unknown))
        );
    }
}
