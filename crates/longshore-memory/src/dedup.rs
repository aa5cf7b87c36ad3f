//! The window in which a topic knows an id again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use hashbrown::HashTable;
use longshore_core::MessageId;
use tokio::time::Instant;

/// Bounded in time, and in count: it knows at least the last `bound` ids, at most twice as many.
///
/// Two generations, of which the older is dropped whole: ids are never removed one by one, which
/// would leave the table full of gaps and make it rehash itself every few messages.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    window: Duration,
    bound: usize,
    hasher: RandomState,
    current: HashTable<Known>,
    previous: HashTable<Known>,
    /// When the first of the current generation came.
    since: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Known {
    /// Of the id: taken once for both generations, and for when a table grows.
    hash: u64,
    id: MessageId,
    at: Instant,
}

impl Recent {
    pub(crate) fn new(window: Duration, bound: usize) -> Self {
        Self {
            window,
            bound,
            hasher: RandomState::new(),
            current: HashTable::new(),
            previous: HashTable::new(),
            since: None,
        }
    }

    /// Remembers an id, and says whether it is new.
    pub(crate) fn admit(&mut self, id: &MessageId, now: Instant) -> bool {
        if self.window.is_zero() {
            return true;
        }
        let over = |at: Instant| now.duration_since(at) >= self.window;
        let old = self.since.is_some_and(over);
        let hash = self.hasher.hash_one(id);
        let same = |known: &Known| known.hash == hash && known.id == *id;
        let before = self.current.find(hash, same).or_else(|| self.previous.find(hash, same));
        let again = before.is_some();
        if before.is_some_and(|known| !over(known.at)) {
            return false;
        }
        if old || self.current.len() >= self.bound {
            // Whatever is in the older one came before this one's first: its window is over too,
            // or the bound was reached twice.
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
            self.since = None;
        }
        self.since.get_or_insert(now);
        // Looked for again only where it was known: a new id is in neither.
        if again && let Some(known) = self.current.find_mut(hash, same) {
            known.at = now;
        } else {
            let known = Known { hash, id: id.clone(), at: now };
            self.current.insert_unique(hash, known, |known| known.hash);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> MessageId {
        MessageId::new(n.to_string()).unwrap()
    }

    #[test]
    fn an_id_is_known_for_the_window_exactly_whatever_comes_between() {
        let window = Duration::from_secs(10);
        let (mut recent, start) = (Recent::new(window, 1000), Instant::now());
        for n in 0..100 {
            assert!(recent.admit(&id(n), start + Duration::from_secs(n as u64)));
            for before in 0..=n {
                let known = n - before < 10;
                let mut look = recent.clone();
                let now = start + Duration::from_secs(n as u64);
                assert_eq!(!look.admit(&id(before), now), known, "{before} at {n}");
            }
        }
    }

    #[test]
    fn the_count_is_bounded_and_the_last_are_known() {
        let (mut recent, now) = (Recent::new(Duration::from_secs(10), 8), Instant::now());
        for n in 0..100 {
            assert!(recent.admit(&id(n), now));
            assert!(recent.current.len() + recent.previous.len() <= 16);
            for before in n.saturating_sub(7)..=n {
                assert!(!recent.admit(&id(before), now), "{before} at {n}");
            }
        }
    }
}
