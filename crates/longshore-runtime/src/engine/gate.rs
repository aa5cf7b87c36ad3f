//! What handler runs must pass before they start: the circuit breaker and the rate limit of one
//! worker. Its lanes share it, since they call the same handler.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_core::Policy;

use super::breaker::{Breaker, BreakerState, Pass};
use super::rate::Rate;

/// Cheap to clone; open for ever where the policy has neither.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// The breaker's, to be looked at without the lock.
    version: AtomicU64,
    /// Whether there is a rate to ask.
    limited: bool,
    flow: Mutex<Flow>,
}

#[derive(Debug)]
struct Flow {
    breaker: Option<Breaker>,
    rate: Option<Rate>,
}

/// What a lane knows of the breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    version: u64,
    pub(super) state: BreakerState,
    /// The end of its open time.
    pub(super) until: Option<Duration>,
    /// How many runs may start before one of them ends; `None` where nothing limits it.
    pub(super) room: Option<u32>,
    /// The pass of a run that starts while it is closed.
    pass: Option<Pass>,
}

/// Whether a run may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may, and its end counts where it has a pass.
    Go(Option<Pass>),
    /// Not before then: the rate.
    At(Duration),
    /// Not now: the breaker.
    Shut,
}

impl Gate {
    pub(crate) fn new(policy: &Policy) -> Self {
        let breaker = policy.breaker().copied().map(Breaker::new);
        let rate = policy.rate_limit().copied().map(Rate::new);
        if breaker.is_none() && rate.is_none() {
            return Self(None);
        }
        let limited = rate.is_some();
        let flow = Mutex::new(Flow { breaker, rate });
        Self(Some(Arc::new(Inner { version: AtomicU64::new(0), limited, flow })))
    }

    /// The breaker's state; closed where there is none.
    pub(crate) fn state(&self) -> BreakerState {
        self.view().state
    }

    /// Another number whenever the breaker's state or room is another.
    pub(crate) fn version(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.version.load(Ordering::Acquire))
    }

    pub(super) fn is_news(&self, view: &View) -> bool {
        self.version() != view.version
    }

    pub(super) fn view(&self) -> View {
        let Some(inner) = &self.0 else { return View::default() };
        inner.lock().breaker.as_ref().map_or_else(View::default, View::of)
    }

    /// Time passed. Says whether that changed the breaker's state.
    pub(super) fn tick(&self, now: Duration) -> bool {
        self.breaker(|breaker| breaker.tick(now))
    }

    /// A run wants to start. A fast retry asks the rate only: its message began before.
    pub(super) fn start(&self, now: Duration, view: &View, fast_retry: bool) -> Answer {
        let Some(inner) = &self.0 else { return Answer::Go(None) };
        if !inner.limited && view.state == BreakerState::Closed && !self.is_news(view) {
            return Answer::Go(view.pass);
        }
        let mut flow = inner.lock();
        let Flow { breaker, rate } = &mut *flow;
        let mut breaker = breaker.as_mut().filter(|breaker| !fast_retry || breaker.is_closed());
        if breaker.as_ref().is_some_and(|breaker| breaker.room() == Some(0)) {
            return Answer::Shut;
        }
        if let Some(rate) = rate
            && let Err(at) = rate.take(now)
        {
            return Answer::At(at);
        }
        let Some(breaker) = &mut breaker else { return Answer::Go(None) };
        let pass = breaker.admit();
        inner.version.store(breaker.version(), Ordering::Release);
        Answer::Go(pass)
    }

    /// A run ended: well, with a transient failure, or (`None`) in a way that says nothing. Says
    /// whether that changed the breaker's state.
    pub(super) fn ended(&self, now: Duration, pass: Pass, well: Option<bool>) -> bool {
        self.breaker(|breaker| breaker.ended(now, pass, well))
    }

    fn breaker(&self, change: impl FnOnce(&mut Breaker)) -> bool {
        let Some(inner) = &self.0 else { return false };
        let mut flow = inner.lock();
        let Some(breaker) = &mut flow.breaker else { return false };
        let before = breaker.state();
        change(breaker);
        inner.version.store(breaker.version(), Ordering::Release);
        breaker.state() != before
    }
}

impl View {
    fn of(breaker: &Breaker) -> Self {
        Self {
            version: breaker.version(),
            state: breaker.state(),
            until: breaker.until(),
            room: breaker.room(),
            pass: breaker.is_closed().then(|| breaker.pass()),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        // No code panics while it holds the lock.
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
