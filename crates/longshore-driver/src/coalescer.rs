use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Gathers acknowledgements of numbered deliveries, so that many leave in one frame.
///
/// For brokers whose acknowledgement can cover everything up to a number (AMQP's `multiple`): such
/// a frame is only ever made for a number below the oldest delivery that is still open, so that the
/// ack of a later delivery never acks an earlier one. Pure: time is an argument.
#[derive(Debug)]
pub struct Coalescer {
    max_count: usize,
    max_wait: Duration,
    open: BTreeSet<u64>,
    pending: BTreeSet<u64>,
    oldest: Option<Instant>,
}

/// What to write to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Acknowledge everything up to this number: all of it is settled.
    pub up_to: Option<u64>,
    /// Acknowledge each of these alone: something older is still open.
    pub singles: Vec<u64>,
}

impl Coalescer {
    /// One that is due at `max_count` acks, or when the oldest has waited for `max_wait`.
    #[must_use]
    pub fn new(max_count: usize, max_wait: Duration) -> Self {
        Self {
            max_count: max_count.max(1),
            max_wait,
            open: BTreeSet::new(),
            pending: BTreeSet::new(),
            oldest: None,
        }
    }

    /// Delivery `tag` was handed over and is open.
    pub fn delivered(&mut self, tag: u64) {
        self.open.insert(tag);
    }

    /// Delivery `tag` is to be acknowledged. `false` where it is not open: nothing will be written
    /// for it.
    pub fn ack(&mut self, tag: u64, now: Instant) -> bool {
        let open = self.open.remove(&tag);
        if open {
            self.pending.insert(tag);
            self.oldest.get_or_insert(now);
        }
        open
    }

    /// Delivery `tag` is settled by a frame of its own (a reject, say) that **was written already**.
    /// `false` where it is not open.
    pub fn settled(&mut self, tag: u64) -> bool {
        self.open.remove(&tag)
    }

    /// When the gathered acks must leave; `None` where there are none.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + self.max_wait)
    }

    /// Whether a bound is reached.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.pending.len() >= self.max_count || self.due_at().is_some_and(|due| due <= now)
    }

    /// Takes what was gathered.
    pub fn flush(&mut self) -> Flush {
        self.oldest = None;
        let mut prefix = std::mem::take(&mut self.pending);
        let stragglers = match self.open.first() {
            Some(open) => prefix.split_off(open),
            None => BTreeSet::new(),
        };
        Flush { up_to: prefix.last().copied(), singles: stragglers.into_iter().collect() }
    }

    /// Forgets everything: the numbers of a lost connection mean nothing on the next.
    pub fn clear(&mut self) {
        self.open.clear();
        self.pending.clear();
        self.oldest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(tags: impl IntoIterator<Item = u64>) -> Coalescer {
        let mut coalescer = Coalescer::new(3, Duration::from_millis(5));
        tags.into_iter().for_each(|tag| coalescer.delivered(tag));
        coalescer
    }

    #[test]
    fn a_later_ack_never_covers_an_earlier_open_one() {
        let (mut coalescer, now) = (with(1..=5), Instant::now());
        for tag in [1, 2, 4, 5] {
            assert!(coalescer.ack(tag, now));
        }
        assert!(!coalescer.ack(4, now), "once");
        assert!(!coalescer.ack(9, now), "never delivered");
        assert_eq!(coalescer.flush(), Flush { up_to: Some(2), singles: vec![4, 5] });
        assert_eq!(coalescer.flush(), Flush::default());
        assert!(coalescer.ack(3, now));
        assert_eq!(coalescer.flush(), Flush { up_to: Some(3), singles: vec![] });
    }

    #[test]
    fn count_and_time_bound_the_wait() {
        let (mut coalescer, now) = (with(1..=5), Instant::now());
        assert!(!coalescer.is_due(now + Duration::from_secs(9)), "nothing gathered");
        coalescer.ack(1, now);
        coalescer.ack(2, now + Duration::from_millis(4));
        assert!(!coalescer.is_due(now + Duration::from_millis(4)));
        assert!(coalescer.is_due(now + Duration::from_millis(5)));
        coalescer.ack(3, now);
        assert!(coalescer.is_due(now));
        coalescer.flush();
        assert_eq!(coalescer.due_at(), None);
    }

    /// The broker's side: what each frame acks of what is outstanding.
    #[derive(Default)]
    struct Broker {
        outstanding: BTreeSet<u64>,
        acked: BTreeSet<u64>,
    }

    impl Broker {
        fn take(&mut self, flush: &Flush) {
            if let Some(up_to) = flush.up_to {
                let later = self.outstanding.split_off(&(up_to + 1));
                self.acked.extend(std::mem::replace(&mut self.outstanding, later));
            }
            for tag in &flush.singles {
                assert!(self.outstanding.remove(tag), "acked twice: a channel error");
                self.acked.insert(*tag);
            }
        }
    }

    proptest! {
        #[test]
        fn the_broker_acks_exactly_what_was_acked(
            ops in proptest::collection::vec((0u8..4, 1u64..24), 0..200)
        ) {
            let now = Instant::now();
            let mut coalescer = with([]);
            let (mut broker, mut wanted, mut next) = (Broker::default(), BTreeSet::new(), 1);
            for (op, tag) in ops {
                match op {
                    0 => {
                        coalescer.delivered(next);
                        broker.outstanding.insert(next);
                        next += 1;
                    }
                    1 => {
                        if coalescer.ack(tag, now) {
                            prop_assert!(wanted.insert(tag));
                        }
                    }
                    2 => {
                        if coalescer.settled(tag) {
                            broker.outstanding.remove(&tag);
                        }
                    }
                    _ => {
                        let flush = coalescer.flush();
                        broker.take(&flush);
                        prop_assert_eq!(&broker.acked, &wanted);
                    }
                }
            }
            broker.take(&coalescer.flush());
            prop_assert_eq!(&broker.acked, &wanted);
        }
    }
}
