use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// `std::result::Result` with longshore's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a value that a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A fault of longshore's own, or a broker's answer that no rule covers.
    Unexpected,
    /// A URL, a name, an option or a policy is wrong.
    Config,
    /// The backend declares that it cannot do this.
    Unsupported,
    /// The broker would have dropped the message: nothing is bound to the topic.
    Unroutable,
    /// A topic, group or letter does not exist.
    NotFound,
    /// It exists already, with other settings: see [`Drift`](crate::Drift) in the source.
    AlreadyExists,
    /// The credentials were refused. Never retried by itself.
    Unauthenticated,
    /// The credentials are good and not allowed to do this. Never retried by itself.
    Forbidden,
    /// A header, a key or a body breaks the contract's rules.
    InvalidMessage,
    /// Body or headers exceed a limit.
    TooLarge,
    /// The broker is full or blocked, and stayed so for the whole bounded wait.
    Backpressure,
    /// No answer within the deadline.
    Timeout,
    /// The broker cannot be reached now.
    Unavailable,
    /// The lease of a delivery ran out, or its connection is gone: another member may have it.
    LeaseLost,
    /// The client, sender or consumer was closed.
    Closed,
}

impl ErrorKind {
    fn default_retryability(self) -> Retryability {
        match self {
            Self::Backpressure | Self::Timeout | Self::Unavailable => Retryability::Transient,
            _ => Retryability::Permanent,
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retryability {
    /// The same call may succeed later.
    Transient,
    /// The same call will fail again.
    Permanent,
    /// Longshore already tried again until its budget was spent: do not retry twice.
    Exhausted,
}

/// What is known of a message whose publish failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It never left this process.
    NotSent,
    /// The broker refused it: it is not stored.
    Refused,
    /// It may be stored. Send it again **with the same id**.
    Unknown,
}

/// The one error type. It is a pointer wide, cheap to clone, and `Display` is its own line only:
/// [`source`](StdError::source) carries the cause.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    retryability: Retryability,
    backend: &'static str,
    operation: &'static str,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    outcome: Option<Outcome>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, with the line that a person reads.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            retryability: kind.default_retryability(),
            backend: "",
            operation: "",
            message: message.into(),
            context: Vec::new(),
            outcome: None,
            source: None,
        }))
    }

    /// A [`ErrorKind::Config`] error.
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// A [`ErrorKind::Unsupported`] error: `backend` declares that it lacks `ability`.
    pub fn unsupported(backend: &'static str, ability: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{ability} is not supported"))
            .with_backend(backend)
    }

    /// A [`ErrorKind::Closed`] error about `what`.
    pub fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} is closed"))
    }

    /// A [`ErrorKind::LeaseLost`] error.
    pub fn lease_lost() -> Self {
        Self::new(ErrorKind::LeaseLost, "the lease of this delivery is lost")
    }

    /// Names the backend.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.0.backend = backend;
        self
    }

    /// Names what was being done, in the manner of `consumer.settle`.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation = operation;
        self
    }

    /// Adds a fact that helps at 3 a.m., such as the topic. Never a secret, never a payload.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.context.push((name, value.into()));
        self
    }

    /// Says what is known of the message.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = Some(outcome);
        self
    }

    /// Overrides the kind's own retryability.
    #[must_use]
    pub fn with_retryability(mut self, retryability: Retryability) -> Self {
        self.0.retryability = retryability;
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn retryability(&self) -> Retryability {
        self.0.retryability
    }

    /// The backend's name, or nothing where the error was found before one was reached.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The facts that were added, in order.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// Of a publish: whether the message left, was refused, or may be stored.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.outcome
    }

    /// The first error of type `E` in the chain of causes: the client library's own, say.
    #[must_use]
    pub fn native<E: StdError + 'static>(&self) -> Option<&E> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if !inner.backend.is_empty() {
            write!(f, "{}: ", inner.backend)?;
        }
        if !inner.operation.is_empty() {
            write!(f, "{}: ", inner.operation)?;
        }
        f.write_str(&inner.message)?;
        for (index, (name, value)) in inner.context.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { " (" } else { ", " })?;
        }
        if !inner.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// What `main` prints when it returns an error: the line, the kind, and each cause below it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [{:?}]", self.0.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

// An error is on the path of every publish: it stays one pointer wide.
const _: () = assert!(size_of::<Error>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_the_cause_is_reached_by_source() {
        let error = Error::new(ErrorKind::Timeout, "no answer in 5 s")
            .with_backend("nats")
            .with_operation("sender.send")
            .with_context("topic", "orders")
            .with_outcome(Outcome::Unknown)
            .with_source(std::io::Error::other("socket"));
        assert_eq!(error.to_string(), "nats: sender.send: no answer in 5 s (topic=orders)");
        assert_eq!(error.retryability(), Retryability::Transient);
        assert_eq!(error.outcome(), Some(Outcome::Unknown));
        assert!(error.native::<std::io::Error>().is_some());
        assert!(error.native::<fmt::Error>().is_none());
        assert!(format!("{error:?}").ends_with("caused by: socket"));
    }
}
