//! Native errors, classified in one place.

use std::borrow::Cow;
use std::error::Error as StdError;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use longshore_core::{Error, ErrorKind, GroupName, Retryability, TopicName};
use rustls::AlertDescription as Alert;

pub(crate) const BACKEND: &str = "rabbitmq";

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

pub(crate) fn blocked() -> Error {
    error(
        ErrorKind::Backpressure,
        "the server takes no messages for now: its memory or disk is full",
    )
}

pub(crate) fn no_topic(topic: &TopicName) -> Error {
    error(ErrorKind::NotFound, format!("topic `{topic}` does not exist"))
}

pub(crate) fn no_group(topic: &TopicName, group: &GroupName) -> Error {
    error(ErrorKind::NotFound, format!("group `{topic}.{group}` does not exist"))
}

/// What the server closed a channel or connection with.
pub(crate) fn reply(native: &lapin::Error) -> Option<&AMQPErrorKind> {
    match native.kind() {
        lapin::ErrorKind::ProtocolError(reply) => Some(reply.kind()),
        _ => None,
    }
}

/// Whether the server closed the channel with this.
pub(crate) fn is_soft(native: &lapin::Error, code: &AMQPSoftError) -> bool {
    matches!(reply(native), Some(AMQPErrorKind::Soft(found)) if found == code)
}

/// Something that was asked of a channel or a connection failed.
pub(crate) fn native(native: lapin::Error) -> Error {
    use lapin::ErrorKind as Native;
    let (kind, text) = match native.kind() {
        Native::ProtocolError(reply) => match reply.kind() {
            AMQPErrorKind::Soft(code) => soft(code),
            AMQPErrorKind::Hard(code) => hard(code),
        },
        // The socket is gone, or was never there.
        Native::IOError(_) => (ErrorKind::Unavailable, "the connection to the server is down"),
        // Nothing was heard for twice the heartbeat.
        Native::MissingHeartbeatError => {
            (ErrorKind::Unavailable, "the server shows no sign of life")
        }
        // Used after it was closed: what closed it is told elsewhere, and a new one follows.
        Native::InvalidChannel(_)
        | Native::InvalidChannelState(..)
        | Native::InvalidConnectionState(_) => {
            (ErrorKind::Unavailable, "the channel or its connection is gone")
        }
        // Others may be closed in time.
        Native::ChannelsLimitReached => {
            (ErrorKind::Backpressure, "the connection has all the channels that the server allows")
        }
        // The program's runtime ends.
        Native::RuntimeShutdownError(_) => return closed("connection").with_source(native),
        // What listens there does not speak AMQP 0-9-1.
        Native::InvalidProtocolVersion(_) => {
            (ErrorKind::Unsupported, "the server does not speak AMQP 0-9-1")
        }
        Native::ParsingError(_) => {
            (ErrorKind::Unexpected, "the client library cannot read what the server sent")
        }
        // Sizes and names are checked before, so this is our fault.
        Native::SerialisationError(_) => {
            (ErrorKind::Unexpected, "the client library cannot write this")
        }
        Native::AuthProviderError(_) => {
            (ErrorKind::Unauthenticated, "the server asked for more than a password")
        }
        Native::FutureCompleted | Native::NoDefaultRuntime => {
            (ErrorKind::Unexpected, "the client library was used wrongly")
        }
        _ => (ErrorKind::Unexpected, "the client library failed in an unknown way"),
    };
    error(kind, text).with_source(native)
}

/// The server closed the channel; the connection stays.
fn soft(code: &AMQPSoftError) -> (ErrorKind, &'static str) {
    match code {
        AMQPSoftError::ACCESSREFUSED => {
            (ErrorKind::Forbidden, "the server refused it to these credentials")
        }
        // Asked for by name and not there. A queue whose leader is gone says so too, see `declare`.
        AMQPSoftError::NOTFOUND => (ErrorKind::NotFound, "it does not exist on the server"),
        // Another connection has the queue for itself.
        AMQPSoftError::RESOURCELOCKED => {
            (ErrorKind::Unavailable, "another connection holds it for itself")
        }
        // Declared with other settings; of a publish, the body is too large.
        AMQPSoftError::PRECONDITIONFAILED => {
            (ErrorKind::AlreadyExists, "it exists on the server with other settings")
        }
        AMQPSoftError::CONTENTTOOLARGE => {
            (ErrorKind::TooLarge, "the message exceeds a limit of the server")
        }
        AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS => {
            (ErrorKind::Unroutable, "the message has nowhere to go")
        }
    }
}

/// The server closed the connection.
fn hard(code: &AMQPHardError) -> (ErrorKind, &'static str) {
    match code {
        // An operator, or a node that stops or finds itself alone.
        AMQPHardError::CONNECTIONFORCED => {
            (ErrorKind::Unavailable, "the server closed the connection")
        }
        // Of memory, or of a virtual host that is just being started.
        AMQPHardError::RESOURCEERROR | AMQPHardError::INTERNALERROR => {
            (ErrorKind::Unavailable, "the server cannot do it now")
        }
        AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH => {
            (ErrorKind::Forbidden, "the server does not allow it")
        }
        AMQPHardError::NOTIMPLEMENTED => (ErrorKind::Unsupported, "the server cannot do this"),
        // What we sent could not be read: sizes are checked before, so this is our fault.
        AMQPHardError::FRAMEERROR
        | AMQPHardError::SYNTAXERROR
        | AMQPHardError::COMMANDINVALID
        | AMQPHardError::CHANNELERROR
        | AMQPHardError::UNEXPECTEDFRAME => {
            (ErrorKind::Unexpected, "the server could not read what was sent")
        }
    }
}

/// The first or a later connect failed.
pub(crate) fn connect(failed: lapin::Error) -> Error {
    match reply(&failed) {
        // Said before the connection is open, it is about the login; and said again to the same
        // credentials.
        Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => {
            return unauthenticated().with_source(failed);
        }
        // The virtual host: there is none of this name, or not for this user, or it is full. The
        // server says which in words only.
        Some(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)) => {
            let text = "the server does not let these credentials into the virtual host";
            return error(ErrorKind::Forbidden, text).with_source(failed);
        }
        _ => {}
    }
    let distrusted = distrust(&failed);
    match distrusted {
        Some(text) => error(ErrorKind::Unauthenticated, text).with_source(failed),
        // A node that starts or stops says many things for a while.
        None => {
            let classified = native(failed);
            match classified.kind() {
                ErrorKind::Unauthenticated | ErrorKind::Unsupported | ErrorKind::Closed => {
                    classified
                }
                _ => error(ErrorKind::Unavailable, "cannot connect").with_source(classified),
            }
        }
    }
}

/// The connection was lost; the next one follows, whatever the reason.
pub(crate) fn lost(failed: Option<lapin::Error>) -> Error {
    match failed {
        Some(failed) => native(failed).with_retryability(Retryability::Transient),
        None => down(),
    }
}

pub(crate) fn unauthenticated() -> Error {
    error(ErrorKind::Unauthenticated, "the server refused the credentials")
}

/// Which side did not accept the other's certificate, where that is what ended the handshake.
pub(crate) fn distrust(failed: &(dyn StdError + 'static)) -> Option<&'static str> {
    use rustls::Error as Tls;
    let mut cause = Some(failed);
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
                | Alert::AccessDenied
                // What Erlang sends to a client without a certificate in TLS 1.2.
                | Alert::HandshakeFailure,
            )) => return Some("the server refused this client's certificate, or wants one"),
            _ => cause = found.source(),
        }
    }
    None
}

/// The channel of a delivery ended, and with it the right to settle it.
pub(crate) fn channel_gone() -> Error {
    error(ErrorKind::Unavailable, "the channel of this consumer is gone")
}

/// The server ended a consumer by itself.
pub(crate) fn cancelled(queue: &str) -> Error {
    error(ErrorKind::Unavailable, "the server ended the consumer: its queue was deleted, or moved")
        .with_context("queue", queue)
}

/// A queue was gone while it was read.
pub(crate) fn declared_anew(queue: &str) -> Error {
    error(ErrorKind::NotFound, "the queue was gone and is declared anew: what it held is lost")
        .with_context("queue", queue)
        .with_retryability(Retryability::Transient)
}

/// The same delivery is being settled by another call.
pub(crate) fn underway() -> Error {
    error(ErrorKind::Unavailable, "another settlement of this delivery is under way")
}
