//! What an operator must hear of: an event for the program, a line in the log, a count.

use std::fmt;

use longshore_core::{Error, GroupName, TopicName};
use tokio::sync::broadcast;

use super::meters;

/// Alarms that wait for a program that is slow to read them; the oldest go first.
const KEPT: usize = 256;

macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident = $text:literal,)+) => {
        /// What kind of alarm it is: a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum AlarmKind {
            $($(#[$doc])+ $kind,)+
        }

        impl AlarmKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// As it stands in logs and in the label of `longshore_alarms_total`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)+
                }
            }
        }
    };
}

kinds! {
    /// A dead letter could not be written. The original stays, and it is tried again.
    DeadLetterWriteFailed = "dead_letter_write_failed",
    /// The copy or the record of a retry, or of a move into the suspect lane, could not be written.
    /// The original stays, and it is tried again.
    CopyWriteFailed = "copy_write_failed",
    /// An acknowledgement or a release failed. It is tried again.
    SettleFailed = "settle_failed",
    /// A sender waited in vain: the broker is full or blocked. Once for each time that it begins.
    Blocked = "blocked",
    /// A lease was lost while the message was held: another member may have it.
    LeaseLost = "lease_lost",
    /// The broker had no place for a message, or parks some that had nowhere to go. Once for each
    /// time that it begins.
    Unrouted = "unrouted",
    /// A message came back without a failure to explain it, and went into the suspect lane.
    PoisonNamed = "poison_named",
    /// A message became a dead letter.
    DeadLettered = "dead_lettered",
    /// Messages are ready, there is room for them, and none comes: once nothing is held, the
    /// consumer is made again.
    PhantomConsumer = "phantom_consumer",
    /// The credentials were refused. Nothing tries again by itself.
    CredentialsRefused = "credentials_refused",
    /// The wall clock went another way than time does. No delay depends on it; times in records do.
    ClockJump = "clock_jump",
    /// The circuit breaker opened: the worker fetches nothing for a while.
    BreakerOpened = "breaker_opened",
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One alarm. Holds no payload, no key and no header's value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Alarm {
    /// What happened.
    pub kind: AlarmKind,
    /// The backend.
    pub backend: &'static str,
    /// Where, with the tenant's prefix.
    pub topic: TopicName,
    /// The group, where it is a worker's.
    pub group: Option<GroupName>,
    /// The line that a person reads.
    pub message: String,
    /// What caused it.
    pub error: Option<Error>,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}", self.kind, self.message, self.topic)?;
        if let Some(group) = &self.group {
            write!(f, "/{group}")?;
        }
        f.write_str(")")?;
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// The alarms of one client, from the time of the call of
/// [`Client::alarms`](crate::Client::alarms).
#[derive(Debug)]
pub struct Alarms(broadcast::Receiver<Alarm>);

impl Alarms {
    /// The next alarm; `None` once the client and everything that it opened are gone. A program that
    /// does not keep up misses the oldest; the log and the counter have them.
    ///
    /// # Cancel safety
    /// May be dropped at any time: no alarm is lost by it.
    pub async fn next(&mut self) -> Option<Alarm> {
        loop {
            match self.0.recv().await {
                Ok(alarm) => return Some(alarm),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Where a client's alarms go. Clones go to the same program.
#[derive(Clone, Debug)]
pub(crate) struct Bell(broadcast::Sender<Alarm>);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(KEPT).0)
    }

    pub(crate) fn listen(&self) -> Alarms {
        Alarms(self.0.subscribe())
    }

    /// Counts it and tells the program. The log line is the caller's, who has the fields for it.
    pub(crate) fn ring(&self, alarm: Alarm) {
        meters::alarm(alarm.backend, alarm.kind.as_str());
        // Nobody may be listening.
        let _ = self.0.send(alarm);
    }
}
