//! The rate limit: when the next handler run may start.
//!
//! Starts are spread evenly: one every `per / count`. In no span of `per` there are more than
//! `count`. Nothing is saved up while nothing starts.

use std::time::Duration;

use longshore_core::policy::RateLimit;

/// Timers are no finer than about a millisecond, and late. So much lateness is caught up, or the
/// rate were never met.
const GRAIN: Duration = Duration::from_millis(5);
/// At most this share of the period is caught up; nothing where lateness is a smaller share of the
/// time between two starts.
const SHARE: u32 = 20;

#[derive(Debug)]
pub(crate) struct Rate {
    gap: Duration,
    /// How late a start may be without making the next ones later.
    slack: Duration,
    /// The even time of the next start.
    next: Duration,
}

impl Rate {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let even = limit.per / limit.count.max(1);
        let slack =
            if even >= GRAIN * SHARE { Duration::ZERO } else { GRAIN.min(limit.per / SHARE) };
        // What is caught up is taken off, so that `count` holds for any span of `per`.
        let spread = (limit.per + slack).as_nanos().div_ceil(u128::from(limit.count.max(1)));
        let gap = Duration::from_nanos(u64::try_from(spread).unwrap_or(u64::MAX));
        Self { gap, slack, next: Duration::ZERO }
    }

    /// Takes a start.
    ///
    /// # Errors
    /// When there is none now: the time to ask again.
    pub(crate) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        if now < self.next {
            // Half of what may be caught up is waited for: one timer then serves several starts.
            return Err(self.next.saturating_add(self.slack / 2));
        }
        self.next = self.next.max(now.saturating_sub(self.slack)).saturating_add(self.gap);
        Ok(())
    }
}
