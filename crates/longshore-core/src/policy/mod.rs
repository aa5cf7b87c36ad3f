//! The reliability policy: one value that means the same on every backend.
//!
//! [`Policy::decide`] is a pure function: no clock, no randomness, no I/O. The caller gives it what
//! happened and a roll of the dice, and executes the [`Verdict`].

pub mod backoff;
mod build;
mod failure;
mod toml_form;
mod verdict;

use std::time::Duration;

use serde::Serialize;
use smol_str::SmolStr;

pub use build::{Builder, Fault, InvalidPolicy};
pub use failure::{Class, Failure};
pub use verdict::{Reason, Run, Verdict};

use self::build::MIN_GAP;
use self::toml_form::duration_text;

/// What happens to a message whose handler failed. Made by [`Policy::builder`], read from TOML by
/// [`Policy::from_toml`] or by serde; [`Policy::default`] is the table in `docs/policy.md`.
///
/// Always valid: an invalid one lists all its faults when it is built.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    max_attempts: u32,
    #[serde(serialize_with = "toml_form::durations")]
    fast_delays: Vec<Duration>,
    #[serde(serialize_with = "toml_form::durations")]
    delayed: Vec<Duration>,
    jitter: f64,
    #[serde(serialize_with = "toml_form::duration")]
    max_retry_age: Duration,
    #[serde(serialize_with = "toml_form::duration")]
    handler_timeout: Duration,
    unknown_error: UnknownError,
    crash_suspect_after: u32,
    ordering: Ordering,
    #[serde(serialize_with = "toml_form::duration")]
    drain: Duration,
    dead_letter: DeadLetters,
    #[serde(serialize_with = "toml_form::or_none")]
    breaker: Option<Breaker>,
    #[serde(serialize_with = "toml_form::or_none")]
    rate_limit: Option<RateLimit>,
    overrides: Vec<Override>,
}

/// What an error is that the handler did not classify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownError {
    /// Tried again.
    #[default]
    Transient,
    /// Dead-lettered at once.
    Permanent,
}

/// What a failed message does to those behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Nothing: they overtake it.
    #[default]
    Unordered,
    /// Those with its key wait until it is through.
    BlockKey,
    /// Those with its key wait behind it in the retry lane and replay in order.
    ParkKey,
}

/// What becomes of messages that will not be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// Off: they are acknowledged and counted.
    pub enabled: bool,
    /// How long they are kept.
    #[serde(serialize_with = "toml_form::duration")]
    pub retention: Duration,
    /// How often one may be redriven.
    pub max_redrives: u32,
}

/// When to stop fetching because nearly everything fails. Only transient failures count as failed,
/// and beside them only successes as runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Breaker {
    /// Over how long the ratio is taken.
    #[serde(serialize_with = "toml_form::duration")]
    pub window: Duration,
    /// The fewest runs in the window that mean anything.
    pub min: u32,
    /// The share of transient failures that opens it.
    pub ratio: f64,
    /// How long it stays open first; twice as long after each probe that failed.
    #[serde(serialize_with = "toml_form::duration")]
    pub open: Duration,
    /// How long it stays open at most.
    #[serde(serialize_with = "toml_form::duration")]
    pub max_open: Duration,
    /// How many runs try whether it is over. All must succeed.
    pub probes: u32,
}

/// At most so many handler starts in so long, spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Starts.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// Other rules for one class of error. The first that matches wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Override {
    /// Matches [`Failure::error_type`]; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<SmolStr>,
    /// Matches [`Failure::code`]; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<SmolStr>,
    /// Says what the error is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<UnknownError>,
    /// Replaces `max_attempts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Replaces `fast_delays`.
    #[serde(
        serialize_with = "toml_form::maybe_durations",
        skip_serializing_if = "Option::is_none"
    )]
    pub fast_delays: Option<Vec<Duration>>,
    /// Replaces `delayed`.
    #[serde(
        serialize_with = "toml_form::maybe_durations",
        skip_serializing_if = "Option::is_none"
    )]
    pub delayed: Option<Vec<Duration>>,
}

impl Override {
    fn matches(&self, failure: &Failure) -> bool {
        self.error_type.as_deref().is_none_or(|name| name == failure.error_type())
            && self.code.as_deref().is_none_or(|code| Some(code) == failure.code())
    }
}

impl Policy {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts from this policy.
    #[must_use]
    pub fn to_builder(&self) -> Builder {
        Builder(self.clone())
    }

    /// Decides about a failed run. `roll` is a random number in `[0, 1]`.
    ///
    /// Gap *n*, after attempt *n*, is entry *n* of `fast_delays ++ delayed`, and the last delayed
    /// one repeats; jitter makes it longer, never shorter.
    #[must_use]
    pub fn decide(&self, run: &Run, failure: &Failure, roll: f64) -> Verdict {
        let special = self.overrides.iter().find(|special| special.matches(failure));
        let transient = match failure.class() {
            Class::Discard => return Verdict::Discard,
            Class::Rejected => return self.dead(Reason::Rejected),
            Class::Undecodable => return self.dead(Reason::Undecodable),
            class => self.is_transient(class, special),
        };
        if !transient {
            return self.dead(Reason::Permanent);
        }
        let max_attempts = special.and_then(|s| s.max_attempts).unwrap_or(self.max_attempts);
        if run.attempt >= max_attempts {
            return self.dead(self.exhausted(run, failure.class()));
        }
        if run.age > self.max_retry_age {
            return self.dead(Reason::TooOld);
        }
        if let Some(wanted) = failure.wanted_gap() {
            return Verdict::Retry { after: wanted.max(MIN_GAP).min(self.longest_delay()) };
        }
        let fast = special.and_then(|s| s.fast_delays.as_deref()).unwrap_or(&self.fast_delays);
        let delayed = special.and_then(|s| s.delayed.as_deref()).unwrap_or(&self.delayed);
        match backoff::gap(fast, delayed, run.attempt) {
            Some((gap, true)) => {
                Verdict::RetryInProcess { after: backoff::jittered(gap, self.jitter, roll) }
            }
            Some((gap, false)) => {
                Verdict::Retry { after: backoff::jittered(gap, self.jitter, roll) }
            }
            // A valid policy has a gap for each attempt below its maximum.
            None => self.dead(Reason::AttemptsExhausted),
        }
    }

    /// Whether a failure of this class may be tried again, as [`Policy::decide`] sees it.
    #[must_use]
    pub fn retries(&self, failure: &Failure) -> bool {
        let special = self.overrides.iter().find(|special| special.matches(failure));
        self.is_transient(failure.class(), special)
    }

    fn is_transient(&self, class: Class, special: Option<&Override>) -> bool {
        match class {
            Class::Rejected | Class::Undecodable | Class::Discard => return false,
            _ => {}
        }
        if let Some(class) = special.and_then(|special| special.class) {
            return class == UnknownError::Transient;
        }
        match class {
            Class::Unknown => self.unknown_error == UnknownError::Transient,
            Class::Permanent => false,
            _ => true,
        }
    }

    fn dead(&self, reason: Reason) -> Verdict {
        if self.dead_letter.enabled { Verdict::DeadLetter { reason } } else { Verdict::Discard }
    }

    fn exhausted(&self, run: &Run, class: Class) -> Reason {
        match class {
            _ if run.redrives > 0 && run.redrives >= self.dead_letter.max_redrives => {
                Reason::RedriveExhausted
            }
            Class::Panicked => Reason::Panicked,
            Class::TimedOut => Reason::TimedOut,
            _ => Reason::AttemptsExhausted,
        }
    }

    /// Whether so many unexplained returns make a message a suspect, or name a suspect the culprit.
    #[must_use]
    pub fn isolates(&self, unexplained: u32) -> bool {
        unexplained >= self.crash_suspect_after
    }

    /// The longest delay that a retry can ask for, jitter included.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        let own = self.delayed.iter().chain(&self.fast_delays);
        let special = self
            .overrides
            .iter()
            .flat_map(|s| s.delayed.iter().flatten().chain(s.fast_delays.iter().flatten()));
        let longest = own.chain(special).max().copied().unwrap_or_default();
        backoff::jittered(longest, self.jitter, 1.0)
    }

    /// The most handler runs that any error can have: what a received count is clamped to.
    #[must_use]
    pub fn highest_max_attempts(&self) -> u32 {
        let special = self.overrides.iter().filter_map(|special| special.max_attempts);
        special.fold(self.max_attempts, u32::max)
    }

    /// The first 8 bytes of SHA-256 over the policy, in hexadecimal: which rules a dead letter died
    /// under.
    #[must_use]
    pub fn fingerprint(&self) -> SmolStr {
        use sha2::{Digest, Sha256};
        let text = serde_json::to_vec(self).expect("numbers and text have a JSON form");
        crate::text::hex(&Sha256::digest(text)[..8]).into()
    }

    /// Handler runs in total, over all instances.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Gaps in process, before the delayed ones.
    #[must_use]
    pub fn fast_delays(&self) -> &[Duration] {
        &self.fast_delays
    }

    /// Durable gaps.
    #[must_use]
    pub fn delayed(&self) -> &[Duration] {
        &self.delayed
    }

    /// The share by which a gap may be longer.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// How long after its first failure a message is still tried again.
    #[must_use]
    pub fn max_retry_age(&self) -> Duration {
        self.max_retry_age
    }

    /// How long a handler run may take.
    #[must_use]
    pub fn handler_timeout(&self) -> Duration {
        self.handler_timeout
    }

    /// What an error is that the handler did not classify.
    #[must_use]
    pub fn unknown_error(&self) -> UnknownError {
        self.unknown_error
    }

    /// How many unexplained returns make a suspect.
    #[must_use]
    pub fn crash_suspect_after(&self) -> u32 {
        self.crash_suspect_after
    }

    /// What a failed message does to those behind it.
    #[must_use]
    pub fn ordering(&self) -> Ordering {
        self.ordering
    }

    /// How long a shutdown lets running handlers go on.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// What becomes of messages that will not be tried again.
    #[must_use]
    pub fn dead_letter(&self) -> &DeadLetters {
        &self.dead_letter
    }

    /// When to stop fetching because nearly everything fails.
    #[must_use]
    pub fn breaker(&self) -> Option<&Breaker> {
        self.breaker.as_ref()
    }

    /// How many handler starts in how long.
    #[must_use]
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.rate_limit.as_ref()
    }

    /// Other rules for some errors.
    #[must_use]
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// One line for a log at start.
    #[must_use]
    pub fn summary(&self) -> String {
        let list = |gaps: &[Duration]| {
            gaps.iter().map(|gap| duration_text(*gap)).collect::<Vec<_>>().join(" ")
        };
        format!(
            "{} attempts, fast [{}], delayed [{}]",
            self.max_attempts,
            list(&self.fast_delays),
            list(&self.delayed)
        )
    }
}

#[cfg(test)]
mod tests;
