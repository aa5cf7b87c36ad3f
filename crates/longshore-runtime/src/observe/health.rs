//! One value for a service's probe.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use longshore_core::{Error, GroupName, TopicName};

/// Whether a service can go on, whether it should get work, and why not.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why it is not ready: empty where it is.
    pub reasons: Vec<NotReady>,
}

impl Health {
    /// False where a worker has ended by an error that no reconnect can mend: only a new start
    /// helps. For a liveness probe.
    #[must_use]
    pub fn live(&self) -> bool {
        !self.reasons.iter().any(|reason| matches!(reason, NotReady::Ended { .. }))
    }

    /// True where every worker is attached, none is a phantom, and no breaker is open. For a
    /// readiness probe.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// `ready`, or why not.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ready() {
            return f.write_str("ready");
        }
        f.write_str(if self.live() { "not ready" } else { "not live" })?;
        for reason in &self.reasons {
            write!(f, "; {reason}")?;
        }
        Ok(())
    }
}

/// Why a service is not ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NotReady {
    /// A worker is not attached to the broker, and trying.
    Detached {
        /// The worker's topic, with the tenant's prefix.
        topic: TopicName,
        /// The worker's group.
        group: GroupName,
        /// What ended the link.
        why: Error,
    },
    /// Messages are ready, there is room for them, and none comes.
    Phantom {
        /// The worker's topic, with the tenant's prefix.
        topic: TopicName,
        /// The worker's group.
        group: GroupName,
    },
    /// The circuit breaker is open.
    BreakerOpen {
        /// The worker's topic, with the tenant's prefix.
        topic: TopicName,
        /// The worker's group.
        group: GroupName,
    },
    /// The worker has ended by an error that no reconnect can mend.
    Ended {
        /// The worker's topic, with the tenant's prefix.
        topic: TopicName,
        /// The worker's group.
        group: GroupName,
        /// What ended it.
        why: Error,
    },
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detached { topic, group, why } => {
                write!(f, "{topic}/{group} is not attached: {why}")
            }
            Self::Phantom { topic, group } => {
                write!(f, "{topic}/{group} gets nothing of what is ready")
            }
            Self::BreakerOpen { topic, group } => write!(f, "{topic}/{group}: the breaker is open"),
            Self::Ended { topic, group, why } => write!(f, "{topic}/{group} has ended: {why}"),
        }
    }
}

/// What a worker says of itself.
#[derive(Debug)]
pub(crate) struct Vitals {
    topic: TopicName,
    group: GroupName,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the main lane and of the suspect lane.
    down: [Option<Error>; 2],
    phantom: bool,
    breaker_open: bool,
    ended: Option<Error>,
}

impl Vitals {
    pub(crate) fn new(topic: TopicName, group: GroupName) -> Arc<Self> {
        Arc::new(Self { topic, group, state: Mutex::default() })
    }

    /// Says whether a link that was down is up again.
    pub(crate) fn link(&self, suspects: bool, down: Option<Error>) -> bool {
        let is_up = down.is_none();
        let before = std::mem::replace(&mut self.state().down[usize::from(suspects)], down);
        is_up && before.is_some()
    }

    pub(crate) fn attached(&self) -> bool {
        self.state().down.iter().all(Option::is_none)
    }

    pub(crate) fn phantom(&self, is: bool) {
        self.state().phantom = is;
    }

    pub(crate) fn breaker_open(&self, is: bool) {
        self.state().breaker_open = is;
    }

    pub(crate) fn ended(&self, why: Error) {
        self.state().ended = Some(why);
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.state();
        let (topic, group) = (&self.topic, &self.group);
        let mut reasons = Vec::new();
        if let Some(why) = &state.ended {
            let (topic, group) = (topic.clone(), group.clone());
            reasons.push(NotReady::Ended { topic, group, why: why.clone() });
        }
        if let Some(why) = state.down.iter().flatten().next() {
            let (topic, group) = (topic.clone(), group.clone());
            reasons.push(NotReady::Detached { topic, group, why: why.clone() });
        }
        if state.phantom {
            reasons.push(NotReady::Phantom { topic: topic.clone(), group: group.clone() });
        }
        if state.breaker_open {
            reasons.push(NotReady::BreakerOpen { topic: topic.clone(), group: group.clone() });
        }
        Health { reasons }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers of one client that somebody still holds.
#[derive(Debug, Default)]
pub(crate) struct Ward(Mutex<Vec<Weak<Vitals>>>);

impl Ward {
    pub(crate) fn enter(&self, vitals: &Arc<Vitals>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(vitals));
    }

    pub(crate) fn health(&self) -> Health {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let living = all.iter().filter_map(Weak::upgrade);
        Health { reasons: living.flat_map(|one| one.health().reasons).collect() }
    }
}
