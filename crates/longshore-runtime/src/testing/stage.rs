//! What the kit and its broker share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use longshore_core::{Source, Tenant, TopicName};

use super::consumer::Hands;
use super::faults::Faults;
use super::journal::Journal;

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) tenant: Tenant,
    pub(super) faults: Faults,
    journal: Mutex<Journal>,
    consumers: Mutex<Vec<Weak<Hands>>>,
}

impl Stage {
    pub(super) fn new(tenant: Tenant) -> Arc<Self> {
        let (faults, consumers) = (Faults::default(), Mutex::default());
        Arc::new(Self { tenant, faults, journal: Mutex::new(Journal::new()), consumers })
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, hands: &Arc<Hands>) {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.push(Arc::downgrade(hands));
    }

    /// Those that are open and alive.
    pub(super) fn consumers(&self) -> Vec<Arc<Hands>> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        let open = consumers.iter().filter_map(Weak::upgrade);
        open.filter(|hands| !hands.is_gone()).collect()
    }

    /// What they read, each once; dead letters apart.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        for hands in self.consumers() {
            let source = hands.source();
            if !matches!(source, Source::DeadLetters { .. }) && !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        sources
    }

    /// The topic as the test named it.
    pub(super) fn bare(&self, topic: &TopicName) -> TopicName {
        let prefix = self.tenant.as_str();
        let rest = topic.as_str().strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        rest.and_then(|rest| TopicName::new(rest).ok()).unwrap_or_else(|| topic.clone())
    }

    pub(super) fn arm(switch: &AtomicUsize, times: usize) {
        switch.fetch_add(times, Ordering::AcqRel);
    }
}
