use std::fmt;
use std::ops::Add;

/// What a worker did, counted. Every number counts events of this worker only. What a settlement
/// does is counted once, when the broker has answered that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries received.
    pub received: u64,
    /// Deliveries received again: a retry, a return or a crash before.
    pub redelivered: u64,
    /// Handler runs that succeeded.
    pub succeeded: u64,
    /// Handler runs that failed, panicked or timed out.
    pub failed: u64,
    /// Fast retries in process.
    pub fast_retries: u64,
    /// Durable delayed retries.
    pub retried: u64,
    /// Messages dead-lettered.
    pub dead_lettered: u64,
    /// Messages discarded: the handler said so, or the dead-letter queue is off.
    pub discarded: u64,
    /// Deliveries given back unstarted or cancelled by a shutdown.
    pub released: u64,
    /// Messages moved into the suspect lane.
    pub suspected: u64,
    /// Deliveries whose lease was lost while we held them.
    pub lease_lost: u64,
    /// Settlements that failed and were tried again.
    pub settle_failures: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            redelivered: self.redelivered + other.redelivered,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            fast_retries: self.fast_retries + other.fast_retries,
            retried: self.retried + other.retried,
            dead_lettered: self.dead_lettered + other.dead_lettered,
            discarded: self.discarded + other.discarded,
            released: self.released + other.released,
            suspected: self.suspected + other.suspected,
            lease_lost: self.lease_lost + other.lease_lost,
            settle_failures: self.settle_failures + other.settle_failures,
        }
    }
}

/// What happened at all, in words: `3 received, 2 succeeded, 1 dead-lettered`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.received, "received"),
            (self.redelivered, "redelivered"),
            (self.succeeded, "succeeded"),
            (self.failed, "failed"),
            (self.fast_retries, "retried in process"),
            (self.retried, "retried after a delay"),
            (self.dead_lettered, "dead-lettered"),
            (self.discarded, "discarded"),
            (self.released, "released"),
            (self.suspected, "suspected"),
            (self.lease_lost, "leases lost"),
            (self.settle_failures, "settlements failed"),
        ];
        let mut said = false;
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{}{count} {what}", if said { ", " } else { "" })?;
            said = true;
        }
        if said { Ok(()) } else { f.write_str("nothing received") }
    }
}
