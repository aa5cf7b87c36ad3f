//! Whose a delivery is: leases, revocations, cancellations.

use longshore_core::{ErrorKind, Result};

use super::state::{Held, State, Why};
use super::step::Engine;
use super::types::{Action, Alarm, Key, Now};

impl Engine {
    pub(super) fn extended(
        &mut self,
        now: Now,
        key: Key,
        result: Result<()>,
        out: &mut Vec<Action>,
    ) {
        let Some(held) = self.table.get_mut(key) else { return };
        match result {
            Ok(()) => held.leased_at = now.mono,
            Err(error) if error.kind() == ErrorKind::LeaseLost => self.lost(key, out),
            // The next sweep tries again, until the lease is over by our own clock.
            Err(_) => {}
        }
    }

    /// The lease is gone: cancel, forget fast failures, order no settlement.
    pub(super) fn lost(&mut self, key: Key, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        match held.state {
            State::Running { .. } => self.cancel(key, Why::LeaseLost, out),
            State::Pausing { .. } => {
                self.busy -= 1;
                self.forget_lost(key, out);
            }
            // Its answer will say whether it was in time; no other is ordered.
            State::Settling { ref mut lost, .. } => *lost = true,
            State::Buffered | State::Stalled { .. } => self.forget_lost(key, out),
        }
    }

    pub(super) fn forget_lost(&mut self, key: Key, out: &mut Vec<Action>) {
        self.table.remove(key);
        self.tally.lease_lost += 1;
        out.push(Action::Alarm(Alarm::LeaseLost));
    }

    pub(super) fn cancel(&mut self, key: Key, why: Why, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        if let State::Running { cancelled, .. } = &mut held.state {
            // A lost lease outranks every other reason: what is not ours is not settled.
            if cancelled.is_none() {
                out.push(Action::Cancel { key });
            }
            if cancelled.is_none() || why == Why::LeaseLost {
                *cancelled = Some(why);
            }
        }
    }

    pub(super) fn revoking(&mut self, now: Now, epoch: u32, out: &mut Vec<Action>) {
        self.give_back(now, |held| held.received.token.epoch == epoch, out);
    }

    /// Releases what has not started; what pauses goes into the retry lane for the rest of its gap.
    pub(super) fn give_back(
        &mut self,
        now: Now,
        which: impl Fn(&Held) -> bool,
        out: &mut Vec<Action>,
    ) {
        let idle = |held: &Held| matches!(held.state, State::Buffered | State::Pausing { .. });
        for key in self.keys(|held| idle(held) && which(held)) {
            let Some(held) = self.table.get_mut(key) else { continue };
            if let State::Pausing { until } = held.state {
                self.busy -= 1;
                self.retry(key, until.saturating_sub(now.mono), out);
            } else {
                self.release(key, out);
            }
        }
    }

    /// Sweeps come each third of the shortest lease and pass over what is younger than a sixth of
    /// its own: no lease is older than half its length when its extension is ordered.
    pub(super) fn extend(&mut self, now: Now, out: &mut Vec<Action>) {
        let age = |held: &Held| now.mono.saturating_sub(held.leased_at);
        let ours = |held: &Held| !matches!(held.state, State::Settling { lost: true, .. });
        let old = |held: &Held| {
            ours(held) && held.received.lease.is_some_and(|lease| age(held) >= lease / 6)
        };
        for key in self.keys(old) {
            let Some(held) = self.table.get_mut(key) else { continue };
            match held.received.lease {
                Some(lease) if age(held) < lease => {
                    out.push(Action::Extend { key, token: held.received.token, by: lease });
                }
                // Only our clock says so; an order that is under way may still be in time.
                _ if matches!(held.state, State::Settling { .. }) => {}
                _ => self.lost(key, out),
            }
        }
    }
}
