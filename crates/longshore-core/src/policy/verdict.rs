use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What the policy decides about a failed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run it again here after `after`; the delivery stays held.
    RetryInProcess {
        /// The gap.
        after: Duration,
    },
    /// Put it into the retry lane, durably, for `after`.
    Retry {
        /// The gap.
        after: Duration,
    },
    /// It will not be tried again.
    DeadLetter {
        /// Why.
        reason: Reason,
    },
    /// Acknowledge and count it: the handler said so, or the dead-letter queue is off.
    Discard,
}

/// What `decide` knows of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of this run: one more than the failures before it.
    pub attempt: u32,
    /// Every hand-over so far.
    pub deliveries: u32,
    /// The time since the first failure; zero for a first one.
    pub age: Duration,
    /// How often the message was redriven.
    pub redrives: u32,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal,)+) => {
        /// Why a message is a dead letter. A closed set: it is a label of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As it stands on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// `max_attempts` runs failed.
    AttemptsExhausted = "attempts-exhausted",
    /// The handler said that trying again cannot help.
    Permanent = "permanent",
    /// The body cannot be decoded.
    Undecodable = "undecodable",
    /// Attempts ran out, and the last run panicked.
    Panicked = "panicked",
    /// Attempts ran out, and the last run exceeded `handler_timeout`.
    TimedOut = "timed-out",
    /// It kills its handler's process.
    CrashSuspect = "crash-suspect",
    /// It outlived its own time to live.
    Expired = "expired",
    /// It failed for longer than `max_retry_age`.
    TooOld = "too-old",
    /// The handler rejected it with a code of its own.
    Rejected = "rejected",
    /// No handler takes its type.
    UnhandledType = "unhandled-type",
    /// It exceeds the limits that this consumer was given.
    Oversize = "oversize",
    /// A limit of the broker took it out.
    BrokerLimit = "broker-limit",
    /// Attempts ran out, and it was redriven as often as the policy allows.
    RedriveExhausted = "redrive-exhausted",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|reason| reason.as_str()).collect();
            crate::Error::config(format!(
                "`{}` is no reason of a dead letter; known: {}",
                crate::text::bounded(text, 64),
                known.join(", ")
            ))
        })
    }
}
