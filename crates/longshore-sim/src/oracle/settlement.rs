//! Whether a settlement says what happened: its record, its letter, its delay.

use longshore_core::{Letter, Record, Settlement};

use super::{Expect, Facts};
use crate::broker::nanos;
use crate::seen::Sight;
use crate::world::World;

impl World {
    pub(super) fn judge_order(&mut self, id: usize, expect: Expect, settlement: &Settlement) {
        if !expect.fits(settlement) {
            return self.fail("wrong-settlement", Some(id), || {
                format!("should be {expect:?}, is {}", what(settlement))
            });
        }
        let now = self.now;
        let delivery = &self.deliveries[id];
        let mut next = Facts {
            failures: delivery.facts.failures + delivery.volatile,
            first_failed: delivery.first_failed,
            ..delivery.facts
        };
        match (expect, settlement) {
            (Expect::Retry { min, max, nominal }, Settlement::Retry { after, record, .. }) => {
                next.delayed += 1;
                next.not_before = now + nominal;
                let after = nanos(*after);
                if after < min {
                    self.fail("early-retry", Some(id), || format!("{after} ns, not {min}"));
                } else if after > max {
                    self.fail("late-retry", Some(id), || format!("{after} ns, not {max}"));
                }
                self.judge_record(id, record, &next, 0);
            }
            (_, Settlement::Suspect { record, .. }) => {
                next.suspect = true;
                let explains = next.unexplained + 1;
                next.unexplained = 0;
                self.judge_record(id, record, &next, explains);
            }
            (_, Settlement::Release { record, .. }) => {
                let counted = self.scenario.kind.release_counted;
                let again = counted && delivery.deliveries > 1;
                match record {
                    Some(record) => {
                        if delivery.volatile > 0 {
                            self.seen.see(Sight::ReleaseRecorded);
                        }
                        self.judge_record(id, record, &next, counted.into());
                    }
                    None if again || delivery.volatile > 0 => {
                        let text = || "a release without the record that it needs".to_owned();
                        self.fail("count-drift", Some(id), text);
                    }
                    None => {}
                }
            }
            (Expect::Dead(reason), Settlement::DeadLetter { letter, .. }) => {
                if letter.reason != reason {
                    self.fail("metadata-drift", Some(id), || {
                        format!("dead as {}, should be {reason}", letter.reason)
                    });
                }
                self.judge_letter(id, letter, &next);
            }
            _ => {}
        }
        self.deliveries[id].next = Some(next);
    }

    fn judge_record(&mut self, id: usize, record: &Record, next: &Facts, explains: u32) {
        let delivery = &self.deliveries[id];
        let wanted =
            (next.failures, next.delayed, next.redrives, delivery.deliveries, next.suspect);
        let is =
            (record.failures, record.delayed, record.redrives, record.deliveries, record.suspect);
        let before = delivery.record.as_ref().map_or(0, |record| record.explained);
        let explained = before.saturating_add(explains);
        if wanted != is || record.explained != explained {
            self.fail("count-drift", Some(id), || {
                format!(
                    "the record has failures, delayed, redrives, deliveries, suspect \
                     {is:?} and explained {}, should have {wanted:?} and {explained}",
                    record.explained
                )
            });
        }
    }

    fn judge_letter(&mut self, id: usize, letter: &Letter, next: &Facts) {
        let delivery = &self.deliveries[id];
        let wanted = (next.failures, delivery.deliveries, next.delayed, next.redrives);
        let is = (letter.attempts, letter.deliveries, letter.delayed_retries, letter.redrive_count);
        let named = letter.original_id.as_str() == World::id_of(delivery.message);
        if wanted != is || !named || letter.first_failed_at > letter.dead_lettered_at {
            self.fail("metadata-drift", Some(id), || {
                format!(
                    "the letter of {} has attempts, deliveries, delayed, redrives {is:?}, should \
                     have {wanted:?}",
                    letter.original_id
                )
            });
        }
    }
}

pub(crate) fn what(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Ack(_) => "ack",
        Settlement::Release { .. } => "release",
        Settlement::Retry { .. } => "retry",
        Settlement::Suspect { .. } => "suspect",
        Settlement::DeadLetter { .. } => "dead letter",
        Settlement::Redrive { .. } => "redrive",
    }
}
