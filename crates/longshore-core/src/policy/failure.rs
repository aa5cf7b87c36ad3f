use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use smol_str::SmolStr;

/// Why a handler run failed, and what the handler knows about trying again.
///
/// Any error converts into it by `?` (anyhow's too) and is then judged by the policy's
/// `unknown_error`. It is no [`std::error::Error`] itself, so that the conversion can be general.
pub struct Failure(Box<Inner>);

struct Inner {
    class: Class,
    retry_after: Option<Duration>,
    code: Option<SmolStr>,
    error_type: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The handler did not say: the policy's `unknown_error` decides.
    Unknown,
    /// Trying again can help.
    Transient,
    /// Trying again cannot help.
    Permanent,
    /// The handler rejects the message, with a code of its own.
    Rejected,
    /// The handler wants it gone, without a dead letter.
    Discard,
    /// The body cannot be decoded.
    Undecodable,
    /// The handler panicked: transient.
    Panicked,
    /// The handler exceeded its time: transient.
    TimedOut,
}

impl Failure {
    fn new<E: Into<Box<dyn StdError + Send + Sync>>>(class: Class, error: E) -> Self {
        Self(Box::new(Inner {
            class,
            retry_after: None,
            code: None,
            error_type: type_name::<E>(),
            source: error.into(),
        }))
    }

    /// Trying again can help.
    pub fn transient(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Class::Transient, error)
    }

    /// Trying again cannot help: dead-lettered at once.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Class::Permanent, error)
    }

    /// Trying again can help, and not before `after` (a rate limit's answer, say). The policy's
    /// longest delay caps it.
    pub fn retry_after(after: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut failure = Self::new(Class::Transient, error);
        failure.0.retry_after = Some(after);
        failure
    }

    /// Dead-lettered at once as `rejected`, with a code that a program can read.
    pub fn reject(
        code: impl AsRef<str>,
        error: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(Class::Rejected, error).with_code(code)
    }

    /// Acknowledged and counted, without a dead letter.
    pub fn discard(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Class::Discard, error)
    }

    /// The body cannot be decoded: dead-lettered at once, raw.
    pub fn undecodable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Class::Undecodable, error)
    }

    /// The handler panicked with this message. Made by the worker.
    #[must_use]
    pub fn panicked(message: String) -> Self {
        let mut failure = Self::new(Class::Panicked, message);
        failure.0.error_type = "panic";
        failure
    }

    /// The handler exceeded its time. Made by the worker.
    #[must_use]
    pub fn timed_out(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        let mut failure = Self::new(Class::TimedOut, format!("the handler exceeded its {limit}"));
        failure.0.error_type = "timeout";
        failure
    }

    /// Adds a code: it selects overrides of the policy, and stands in the dead letter.
    #[must_use]
    pub fn with_code(mut self, code: impl AsRef<str>) -> Self {
        self.0.code = Some(SmolStr::new(code));
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The gap that the handler asked for.
    #[must_use]
    pub fn wanted_gap(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The handler's code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The name of the error's type, as dead letters show it and overrides name it.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.0.error_type
    }

    /// The error.
    #[must_use]
    pub fn source(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0.source
    }

    /// The messages of what caused the error, outermost first.
    #[must_use]
    pub fn chain(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut cause = self.0.source.source();
        while let Some(error) = cause {
            messages.push(error.to_string());
            cause = error.source();
        }
        messages
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Class::Unknown, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.source, f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.0.class, self.0.error_type, self.0.source)
    }
}

// Every handler returns one: an `Ok` must not pay for the width of an `Err`.
const _: () = assert!(size_of::<Result<(), Failure>>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    fn fails() -> Result<(), Failure> {
        Err(std::io::Error::other("disk"))?;
        Ok(())
    }

    #[test]
    fn any_error_converts_and_keeps_its_type_name() {
        let failure = fails().unwrap_err();
        assert_eq!(failure.class(), Class::Unknown);
        assert_eq!(failure.error_type(), "std::io::error::Error");
        assert_eq!(Failure::from("text").to_string(), "text");
    }

    #[test]
    fn constructors_say_what_is_known() {
        let failure = Failure::retry_after(Duration::from_secs(9), "slow down");
        assert_eq!(failure.class(), Class::Transient);
        assert_eq!(failure.wanted_gap(), Some(Duration::from_secs(9)));
        let failure = Failure::reject("blocked-country", "no");
        assert_eq!((failure.class(), failure.code()), (Class::Rejected, Some("blocked-country")));
    }
}
