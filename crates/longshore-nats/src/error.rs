//! Native errors, classified in one place.

use async_nats::ConnectErrorKind;
use async_nats::client::{PublishErrorKind as UnsentKind, RequestErrorKind};
use async_nats::jetstream::context::{PublishErrorKind, RequestErrorKind as ApiErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use longshore_core::{Error, ErrorKind, GroupName, Outcome, TopicName};

pub(crate) const BACKEND: &str = "nats";

pub(crate) fn error(kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
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

pub(crate) fn forbidden(subject: &str) -> Error {
    error(ErrorKind::Forbidden, "the server refused the subject to these credentials")
        .with_context("subject", subject)
}

pub(crate) fn unauthenticated() -> Error {
    error(ErrorKind::Unauthenticated, "the server refused the credentials")
}

/// The first or a later connect failed.
pub(crate) fn connect(native: async_nats::ConnectError) -> Error {
    let kind = match native.kind() {
        // The server said so, and says so again to the same credentials.
        ConnectErrorKind::AuthorizationViolation => return unauthenticated().with_source(native),
        // The client could not sign the server's challenge: the seed is no key.
        ConnectErrorKind::Authentication => return unauthenticated().with_source(native),
        // The address cannot be read.
        ConnectErrorKind::ServerParse => ErrorKind::Config,
        // A name that does not resolve may resolve when the cluster's DNS has caught up.
        ConnectErrorKind::Dns => ErrorKind::Unavailable,
        // A handshake that was torn, or that a certificate ended: only the latter is for good.
        ConnectErrorKind::Tls | ConnectErrorKind::Io => match distrust(&native) {
            Some(text) => return error(ErrorKind::Unauthenticated, text).with_source(native),
            // Refused, reset, unreachable.
            None => ErrorKind::Unavailable,
        },
        ConnectErrorKind::MaxReconnects => ErrorKind::Unavailable,
        // Something listens and is silent.
        ConnectErrorKind::TimedOut => ErrorKind::Timeout,
    };
    error(kind, "cannot connect").with_source(native)
}

/// Which side did not accept the other's certificate, where that is what ended the handshake.
fn distrust(native: &async_nats::ConnectError) -> Option<&'static str> {
    use async_nats::rustls::{AlertDescription as Alert, Error as Tls};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(native);
    while let Some(found) = cause {
        // An I/O error that wraps another shows the inner one's cause as its own.
        let wrapped = found.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = found.downcast_ref().or_else(|| wrapped.and_then(|inner| inner.downcast_ref()));
        match tls {
            Some(Tls::InvalidCertificate(_)) => {
                return Some("the server's certificate is not trusted");
            }
            Some(Tls::AlertReceived(
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied,
            )) => return Some("the server refused this client's certificate, or wants one"),
            _ => cause = found.source(),
        }
    }
    None
}

/// The server answered a question with an error of JetStream.
pub(crate) fn server(native: jetstream::Error) -> Error {
    const INSUFFICIENT_RESOURCES: u64 = 10023;
    const STORAGE_EXCEEDED: u64 = 10047;
    const NO_PEERS: u64 = 10005;
    const MAXIMUM_CONSUMERS: u64 = 10026;
    const MAXIMUM_STREAMS: u64 = 10027;
    let code = native.error_code();
    let number = code.0;
    let (kind, text) = match code {
        // Asked for by name and not there.
        ErrorCode::STREAM_NOT_FOUND | ErrorCode::CONSUMER_NOT_FOUND => {
            (ErrorKind::NotFound, "it does not exist on the server")
        }
        ErrorCode::NO_MESSAGE_FOUND | ErrorCode::SEQUENCE_NOT_FOUND => {
            (ErrorKind::NotFound, "the message does not exist any more")
        }
        // Made before, by us with other settings or by someone else.
        ErrorCode::STREAM_NAME_EXIST
        | ErrorCode::CONSUMER_NAME_EXIST
        | ErrorCode::CONSUMER_ALREADY_EXISTS
        | ErrorCode::STREAM_SUBJECT_OVERLAP => {
            (ErrorKind::AlreadyExists, "it exists on the server with other settings")
        }
        // The server or the account runs without JetStream.
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            (ErrorKind::Unsupported, "JetStream is not enabled for this server or account")
        }
        // discard=new and a limit reached, or the disk is full: 10077 carries either.
        ErrorCode::STREAM_STORE_FAILED => (ErrorKind::Backpressure, "the stream is full"),
        // The account's or the server's storage is used up.
        _ if number == INSUFFICIENT_RESOURCES || number == STORAGE_EXCEEDED => {
            (ErrorKind::Backpressure, "the storage of the account is used up")
        }
        // A cluster that has not all of its nodes yet, or now.
        _ if number == NO_PEERS => {
            (ErrorKind::Unavailable, "the cluster has too few nodes for the replicas now")
        }
        // Somebody has to raise it; trying again does not help.
        _ if number == MAXIMUM_CONSUMERS || number == MAXIMUM_STREAMS => {
            (ErrorKind::Config, "the account may have no more streams or consumers")
        }
        // A limit of the stream that is lower than the server's.
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            (ErrorKind::TooLarge, "the message exceeds a limit of the stream")
        }
        // Someone wrote in between.
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE => {
            (ErrorKind::LeaseLost, "another member has written this record")
        }
        // JetStream of a cluster without a leader answers so for a moment.
        _ if native.code() == 503 => (ErrorKind::Unavailable, "JetStream is not available now"),
        // The server refuses what was asked: a value that it does not accept.
        _ if native.code() == 400 => (ErrorKind::Config, "the server refuses these settings"),
        _ => (ErrorKind::Unexpected, "the server answered with an error of no known class"),
    };
    error(kind, text).with_context("code", number.to_string()).with_source(native)
}

/// A question got no answer.
pub(crate) fn request(native: async_nats::client::RequestError) -> Error {
    let base = match native.kind() {
        // The deadline of the client library, which is ours.
        RequestErrorKind::TimedOut => timeout(),
        // Nobody listens on the subject: no JetStream, or what it named is gone.
        RequestErrorKind::NoResponders => {
            error(ErrorKind::Unavailable, "nothing on the server listens on the subject")
        }
        // Names are checked before; a subject that is refused all the same is our fault.
        RequestErrorKind::InvalidSubject => error(ErrorKind::Unexpected, "an invalid subject"),
        // Found before anything was sent.
        RequestErrorKind::MaxPayloadExceeded => {
            error(ErrorKind::TooLarge, "the server's limit of a message is lower")
        }
        // The client's own task is gone: the connection was closed.
        RequestErrorKind::Other => closed("connection"),
    };
    base.with_source(native)
}

/// A question by the client library's own wrappers failed, without an answer of the server's.
pub(crate) fn api(native: async_nats::jetstream::context::RequestError) -> Error {
    let base = match native.kind() {
        ApiErrorKind::TimedOut => timeout(),
        ApiErrorKind::NoResponders => {
            error(ErrorKind::Unavailable, "nothing on the server listens on the subject")
        }
        ApiErrorKind::InvalidSubject => error(ErrorKind::Unexpected, "an invalid subject"),
        ApiErrorKind::Other => error(ErrorKind::Unexpected, "the question could not be put"),
    };
    base.with_source(native)
}

/// A message did not get as far as the client's line.
pub(crate) fn unsent(native: async_nats::client::PublishError) -> Error {
    let base = match native.kind() {
        // Found before anything was sent: the server would close the connection.
        UnsentKind::MaxPayloadExceeded => {
            error(ErrorKind::TooLarge, "body and headers exceed the server's limit of a message")
        }
        // Names are checked before; a subject that is refused all the same is our fault.
        UnsentKind::InvalidSubject => error(ErrorKind::Unexpected, "an invalid subject"),
        // The client's own task is gone: the connection was closed.
        UnsentKind::Send => closed("connection"),
    };
    base.with_outcome(Outcome::NotSent).with_source(native)
}

/// A publish was not confirmed.
pub(crate) fn publish(native: jetstream::context::PublishError) -> Error {
    let (base, outcome) = match native.kind() {
        // No stream takes the subject; asked for again before it is believed, see the publisher.
        PublishErrorKind::StreamNotFound => {
            (error(ErrorKind::NotFound, "no stream takes this subject"), Outcome::Refused)
        }
        // It left, and no answer came: it may be stored.
        PublishErrorKind::TimedOut => (timeout(), Outcome::Unknown),
        // The waiting line of confirmations was torn down with the connection.
        PublishErrorKind::BrokenPipe => (closed("connection"), Outcome::Unknown),
        // Too many wait for their confirmation, so this one was not sent.
        PublishErrorKind::MaxAckPending => (
            error(ErrorKind::Backpressure, "too many publishes wait for their confirmation"),
            Outcome::NotSent,
        ),
        // Found before anything was sent: the server would close the connection.
        PublishErrorKind::MaxPayloadExceeded => (
            error(ErrorKind::TooLarge, "body and headers exceed the server's limit of a message"),
            Outcome::NotSent,
        ),
        // Only the ledger writes with expectations.
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => (
            error(ErrorKind::LeaseLost, "another member has written this record"),
            Outcome::Refused,
        ),
        // An answer of the server's, or one that cannot be read.
        PublishErrorKind::Other => {
            use std::error::Error as _;
            let refused = native.source().and_then(|e| e.downcast_ref::<jetstream::Error>());
            match refused {
                Some(refused) => {
                    return server(refused.clone()).with_outcome(Outcome::Refused);
                }
                None => (
                    error(ErrorKind::Unexpected, "the confirmation is unreadable"),
                    Outcome::Unknown,
                ),
            }
        }
    };
    base.with_outcome(outcome).with_source(native)
}
