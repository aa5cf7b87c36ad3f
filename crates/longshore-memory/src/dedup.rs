//! The window in which a topic knows an id again.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use longshore_core::MessageId;
use tokio::time::Instant;

/// Bounded in time and in count: beyond `bound` the oldest id is forgotten early.
#[derive(Debug)]
pub(crate) struct Recent {
    window: Duration,
    bound: usize,
    known: HashSet<MessageId>,
    order: VecDeque<(Instant, MessageId)>,
}

impl Recent {
    pub(crate) fn new(window: Duration, bound: usize) -> Self {
        Self { window, bound, known: HashSet::new(), order: VecDeque::new() }
    }

    pub(crate) fn contains(&mut self, id: &MessageId, now: Instant) -> bool {
        if self.window.is_zero() {
            return false;
        }
        while self.order.front().is_some_and(|(at, _)| now.duration_since(*at) >= self.window) {
            self.forget_oldest();
        }
        self.known.contains(id)
    }

    pub(crate) fn remember(&mut self, id: &MessageId, now: Instant) {
        if self.window.is_zero() {
            return;
        }
        if self.order.len() >= self.bound {
            self.forget_oldest();
        }
        self.known.insert(id.clone());
        self.order.push_back((now, id.clone()));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.known.remove(&id);
        }
    }
}
