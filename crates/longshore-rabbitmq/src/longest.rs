//! The longest delay of each group that was declared here: as far as a record that anybody may have
//! written is believed about time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;

use crate::names::GroupNames;

/// By the group's queue. As many as this process declares groups.
#[derive(Debug, Default)]
pub(crate) struct Longest(Mutex<HashMap<SmolStr, Duration>>);

impl Longest {
    pub(crate) fn note(&self, names: &GroupNames, delay: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(names.queue.clone(), delay);
    }

    pub(crate) fn of(&self, names: &GroupNames) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&names.queue).copied()
    }
}
