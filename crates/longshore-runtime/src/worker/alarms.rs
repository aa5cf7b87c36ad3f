//! What an operator must hear of, as log events. Never a payload, a key or a header's value.

use longshore_core::{Link, Source};

use crate::engine::{Alarm, BreakerState};

/// Names the lane in every event.
#[derive(Debug)]
pub(super) struct Alarms {
    pub(super) backend: &'static str,
    pub(super) source: Source,
}

impl Alarms {
    pub(super) fn raise(&self, alarm: &Alarm) {
        let (backend, topic, group) = (self.backend, self.source.topic(), self.source.group());
        match alarm {
            Alarm::SettleFailed { what, error, tries } => tracing::warn!(
                backend, %topic, %group, %error, tries, alarm = "copy_write_failed",
                "a settlement ({what}) failed; the message stays and it is tried again"
            ),
            Alarm::LeaseLost => tracing::warn!(
                backend, %topic, %group, alarm = "lease_lost",
                "a lease was lost while the message was held; another member may have it"
            ),
            Alarm::Suspected { unexplained } => tracing::warn!(
                backend, %topic, %group, unexplained,
                "a message came back without a failure to explain it: moved to the suspect lane"
            ),
            Alarm::DeadLettered { reason } => tracing::warn!(
                backend, %topic, %group, %reason, "a message was dead-lettered"
            ),
            Alarm::Breaker { state: BreakerState::Open, open_for } => {
                let open_for = open_for.unwrap_or_default();
                tracing::warn!(
                    backend, %topic, %group, ?open_for, alarm = "breaker_open",
                    "nearly every run failed: nothing is fetched and no handler starts for a while"
                );
            }
            Alarm::Breaker { state: BreakerState::HalfOpen, .. } => tracing::info!(
                backend, %topic, %group,
                "the circuit breaker is half-open: a few runs try whether the trouble is over"
            ),
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

    pub(super) fn link(&self, link: &Link) {
        let (backend, topic, group) = (self.backend, self.source.topic(), self.source.group());
        match link {
            Link::Up => tracing::info!(backend, %topic, %group, "attached"),
            Link::Down { why } => {
                tracing::warn!(backend, %topic, %group, error = %why, "lost the broker; reconnecting");
            }
        }
    }
}
