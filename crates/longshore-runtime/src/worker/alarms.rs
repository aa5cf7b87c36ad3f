//! What an operator must hear of: a line in the log, a count, and an event for the program. Never a
//! payload, a key or a header's value.

use std::sync::Arc;

use longshore_core::{Error, Link, Source};

use crate::engine::{Alarm, BreakerState};
use crate::observe::{self, AlarmKind, Bell, Vitals};

/// Names the lane in every event.
#[derive(Debug)]
pub(super) struct Alarms {
    pub(super) backend: &'static str,
    pub(super) source: Source,
    pub(super) bell: Bell,
    pub(super) vitals: Arc<Vitals>,
}

/// Logs at `warn` and rings.
macro_rules! ring {
    ($alarms:expr, $kind:expr, $error:expr, $message:expr $(, $($field:tt)+)?) => {{
        let alarms: &Alarms = $alarms;
        let (topic, group, kind) = (alarms.source.topic(), alarms.source.group(), $kind);
        tracing::warn!(
            backend = alarms.backend, %topic, %group, alarm = kind.as_str(),
            $($($field)+,)? "{}", $message
        );
        alarms.ring(kind, $message, $error);
    }};
}

impl Alarms {
    pub(super) fn raise(&self, alarm: &Alarm) {
        let (backend, topic, group) = (self.backend, self.source.topic(), self.source.group());
        match alarm {
            Alarm::SettleFailed { what, error, tries } => {
                let kind = match *what {
                    "dead letter" => AlarmKind::DeadLetterWriteFailed,
                    "retry" | "suspect" => AlarmKind::CopyWriteFailed,
                    _ => AlarmKind::SettleFailed,
                };
                let message = format!(
                    "a settlement ({what}) failed; the message stays and it is tried again"
                );
                ring!(self, kind, Some(error.clone()), message, %error, tries);
            }
            Alarm::LeaseLost => ring!(
                self,
                AlarmKind::LeaseLost,
                None,
                "a lease was lost while the message was held; another member may have it"
            ),
            Alarm::Suspected { unexplained } => ring!(
                self,
                AlarmKind::PoisonNamed,
                None,
                "a message came back without a failure to explain it: moved to the suspect lane",
                unexplained
            ),
            Alarm::DeadLettered { reason } => ring!(
                self, AlarmKind::DeadLettered, None,
                format!("a message was dead-lettered: {reason}"), %reason
            ),
            Alarm::Breaker { state: BreakerState::Open, open_for } => {
                self.vitals.breaker_open(true);
                let open_for = open_for.unwrap_or_default();
                ring!(
                    self,
                    AlarmKind::BreakerOpened,
                    None,
                    "nearly every run failed: nothing is fetched and no handler starts for a while",
                    ?open_for
                );
            }
            Alarm::Breaker { state: BreakerState::HalfOpen, .. } => {
                self.vitals.breaker_open(false);
                tracing::info!(
                    backend, %topic, %group,
                    "the circuit breaker is half-open: a few runs try whether the trouble is over"
                );
            }
            Alarm::Breaker { state: BreakerState::Closed, .. } => tracing::info!(
                backend, %topic, %group, "the circuit breaker is closed again"
            ),
            Alarm::KeyOvertaken => tracing::info!(
                backend, %topic, %group,
                "a message with a key is retried after a delay: under `unordered`, later ones of \
                 its key overtake it (said once)"
            ),
        }
    }

    /// The consumer gets nothing of what is ready.
    pub(super) fn phantom(&self) {
        ring!(
            self,
            AlarmKind::PhantomConsumer,
            None,
            "messages are ready, there is room for them, and none comes: once nothing is held, the \
             consumer is made again"
        );
    }

    /// The broker parks what had nowhere to go.
    pub(super) fn unrouted(&self, count: u64) {
        ring!(
            self,
            AlarmKind::Unrouted,
            None,
            "messages had nowhere to go and are parked: their topic has no group, or theirs was \
             deleted",
            count
        );
    }

    /// The wall clock went another way than time.
    pub(super) fn clock_jump(&self, by: f64) {
        let message = format!("the wall clock jumped by {by:.1} s: times in records follow it");
        ring!(self, AlarmKind::ClockJump, None, message);
    }

    /// The worker ended by an error that no reconnect can mend.
    pub(super) fn ended(&self, error: &Error) {
        let (backend, topic, group) = (self.backend, self.source.topic(), self.source.group());
        self.vitals.ended(error.clone());
        if error.kind() == longshore_core::ErrorKind::Unauthenticated {
            let message = "the credentials were refused: the worker has ended";
            ring!(self, AlarmKind::CredentialsRefused, Some(error.clone()), message, %error);
        } else {
            tracing::error!(backend, %topic, %group, %error, "the worker has ended");
        }
    }

    /// Says whether this attached the lane again.
    pub(super) fn link(&self, link: &Link) -> bool {
        let (backend, topic, group) = (self.backend, self.source.topic(), self.source.group());
        let suspects = matches!(self.source, Source::Suspects { .. });
        match link {
            Link::Up => {
                tracing::info!(backend, %topic, %group, "attached");
                self.vitals.link(suspects, None)
            }
            Link::Down { why } => {
                tracing::warn!(backend, %topic, %group, error = %why, "lost the broker; reconnecting");
                self.vitals.link(suspects, Some(why.clone()));
                false
            }
        }
    }

    fn ring(&self, kind: AlarmKind, message: impl Into<String>, error: Option<Error>) {
        self.bell.ring(observe::Alarm {
            kind,
            backend: self.backend,
            topic: self.source.topic().clone(),
            group: Some(self.source.group().clone()),
            message: message.into(),
            error,
        });
    }
}
