//! Building a policy, and the rules that a valid one keeps.

use std::fmt;
use std::time::Duration;

use super::{Breaker, DeadLetters, Ordering, Override, Policy, RateLimit, UnknownError};
use crate::{Error, ErrorKind};

/// Longer than any schedule makes sense, and far from overflow.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A shorter gap would be a hot loop.
pub(super) const MIN_GAP: Duration = Duration::from_millis(1);

/// Builds a [`Policy`]; starts from the defaults.
#[derive(Clone, Debug, Default)]
pub struct Builder(pub(super) Policy);

/// One rule that a policy breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting, as it is spelled in TOML.
    pub setting: String,
    /// What is wrong with it.
    pub message: String,
}

/// A policy breaks at least one rule: all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPolicy {
    /// Every fault, not only the first.
    pub faults: Vec<Fault>,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { setting, message }) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{setting}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidPolicy {}

impl From<InvalidPolicy> for Error {
    fn from(error: InvalidPolicy) -> Self {
        Self::new(ErrorKind::Config, "the policy is invalid").with_source(error)
    }
}

impl Default for Policy {
    fn default() -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            max_attempts: 6,
            fast_delays: vec![ms(100), ms(400)],
            delayed: vec![s(10), s(30), s(60)],
            jitter: 0.25,
            max_retry_age: s(24 * 3600),
            handler_timeout: s(60),
            unknown_error: UnknownError::Transient,
            crash_suspect_after: 2,
            ordering: Ordering::Unordered,
            drain: s(25),
            dead_letter: DeadLetters::default(),
            breaker: Some(Breaker::default()),
            rate_limit: None,
            overrides: Vec::new(),
        }
    }
}

impl Default for DeadLetters {
    fn default() -> Self {
        let retention = Duration::from_secs(14 * 24 * 3600);
        Self { enabled: true, retention, max_redrives: 3 }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { window: s(60), min: 20, ratio: 0.5, open: s(30), max_open: s(300), probes: 1 }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])+ $name:ident: $type:ty,)+) => {
        impl Builder {
            $($(#[$doc])+
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.0.$name = $name;
                self
            })+
        }
    };
}

setters! {
    /// Handler runs in total, over all instances.
    max_attempts: u32,
    /// The share by which a gap may be longer, 0 to 1.
    jitter: f64,
    /// How long after its first failure a message is still tried again.
    max_retry_age: Duration,
    /// How long a handler run may take.
    handler_timeout: Duration,
    /// What an error is that the handler did not classify.
    unknown_error: UnknownError,
    /// How many unexplained returns make a suspect; at least 2.
    crash_suspect_after: u32,
    /// What a failed message does to those behind it.
    ordering: Ordering,
    /// How long a shutdown lets running handlers go on.
    drain: Duration,
    /// What becomes of messages that will not be tried again.
    dead_letter: DeadLetters,
    /// When to stop fetching because nearly everything fails; `None`: never.
    breaker: Option<Breaker>,
    /// At most how many handler starts in how long; `None`: as many as there can be.
    rate_limit: Option<RateLimit>,
}

impl Builder {
    /// Gaps in process, before the delayed ones. They hold the worker's slot.
    #[must_use]
    pub fn fast_delays(mut self, gaps: impl IntoIterator<Item = Duration>) -> Self {
        self.0.fast_delays = gaps.into_iter().collect();
        self
    }

    /// Durable gaps; the last one repeats. See [`super::backoff`] for the usual shapes.
    #[must_use]
    pub fn delayed(mut self, gaps: impl IntoIterator<Item = Duration>) -> Self {
        self.0.delayed = gaps.into_iter().collect();
        self
    }

    /// Adds other rules for one class of error, behind those that are there.
    #[must_use]
    pub fn with_override(mut self, rules: Override) -> Self {
        self.0.overrides.push(rules);
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with every fault.
    pub fn build(self) -> Result<Policy, InvalidPolicy> {
        let mut faults = Faults::default();
        faults.check(&self.0);
        faults.none_or(self.0)
    }
}

/// Collects what is wrong, so that all of it is said at once.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, setting: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault { setting: setting.into(), message: message.into() });
    }

    fn require(&mut self, holds: bool, setting: &str, message: &str) {
        if !holds {
            self.add(setting, message);
        }
    }

    pub(super) fn none_or(self, policy: Policy) -> Result<Policy, InvalidPolicy> {
        if self.0.is_empty() { Ok(policy) } else { Err(InvalidPolicy { faults: self.0 }) }
    }

    fn duration(&mut self, setting: &str, value: Duration) {
        self.require(!value.is_zero(), setting, "must be longer than zero");
        self.require(value <= MAX_DURATION, setting, "must not exceed 10 years");
    }

    fn gaps(&mut self, setting: &str, gaps: &[Duration]) {
        for gap in gaps {
            self.require(*gap >= MIN_GAP, setting, "a gap below 1 ms is a hot loop");
            self.require(*gap <= MAX_DURATION, setting, "a gap must not exceed 10 years");
        }
    }

    fn schedule(&mut self, at: &str, max_attempts: u32, fast: &[Duration], delayed: &[Duration]) {
        self.require(max_attempts >= 1, &format!("{at}max_attempts"), "must be at least 1");
        self.gaps(&format!("{at}fast_delays"), fast);
        self.gaps(&format!("{at}delayed"), delayed);
        let gaps = max_attempts.saturating_sub(1) as usize;
        if delayed.is_empty() && gaps > fast.len() {
            let message = format!(
                "{max_attempts} attempts need {gaps} gaps; fast_delays has {} and this has none",
                fast.len()
            );
            self.add(format!("{at}delayed"), message);
        }
    }

    pub(super) fn check(&mut self, policy: &Policy) {
        self.schedule("", policy.max_attempts, &policy.fast_delays, &policy.delayed);
        self.require((0.0..=1.0).contains(&policy.jitter), "jitter", "must be from 0 to 1");
        self.duration("max_retry_age", policy.max_retry_age);
        self.duration("handler_timeout", policy.handler_timeout);
        self.duration("drain", policy.drain);
        self.require(
            policy.crash_suspect_after >= 2,
            "crash_suspect_after",
            "must be at least 2: one return of a release may be unrecorded",
        );
        self.duration("dead_letter.retention", policy.dead_letter.retention);
        if let Some(breaker) = &policy.breaker {
            self.duration("breaker.window", breaker.window);
            self.duration("breaker.open", breaker.open);
            self.duration("breaker.max_open", breaker.max_open);
            self.require(breaker.min >= 1, "breaker.min", "must be at least 1");
            self.require(breaker.probes >= 1, "breaker.probes", "must be at least 1");
            let ratio = breaker.ratio > 0.0 && breaker.ratio <= 1.0;
            self.require(ratio, "breaker.ratio", "must be above 0 and at most 1");
            let longer = breaker.max_open >= breaker.open;
            self.require(longer, "breaker.max_open", "must be at least `open`");
        }
        if let Some(limit) = &policy.rate_limit {
            self.require(limit.count >= 1, "rate_limit", "must allow at least 1");
            self.duration("rate_limit", limit.per);
        }
        for (index, special) in policy.overrides.iter().enumerate() {
            let at = format!("overrides[{index}].");
            self.require(
                special.error_type.is_some() || special.code.is_some(),
                at.trim_end_matches('.'),
                "needs `error_type` or `code`",
            );
            self.schedule(
                &at,
                special.max_attempts.unwrap_or(policy.max_attempts),
                special.fast_delays.as_deref().unwrap_or(&policy.fast_delays),
                special.delayed.as_deref().unwrap_or(&policy.delayed),
            );
        }
    }
}
