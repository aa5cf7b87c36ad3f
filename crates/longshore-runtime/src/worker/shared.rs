//! What the tasks of one lane share: the engine behind a lock that is never held over an await,
//! and what it ordered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_core::{AckToken, Clock, Link, Settlement};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::context::Cell;
use crate::engine::{Action, Alarm, BreakerState, Ended, Engine, Gate, Input, Key, Now, Start};
use crate::tally::Tally;

use super::alarms::Alarms;
use crate::observe::LaneMeters;

/// One lane: the group's own, or its suspects'.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    flow: Flow,
    clock: Arc<dyn Clock>,
    alarms: Alarms,
    meters: LaneMeters,
    /// Tells the lane's loop to make its consumer again.
    pub(super) rebuild: Notify,
    /// Wakes the lane's loop: settlements, extensions or a nearer deadline.
    pub(super) lane: Notify,
    /// Wakes one shard each: handler runs wait.
    pub(super) shards: Vec<Notify>,
    /// Wakes who waits for the lane to be idle.
    pub(super) idle: Notify,
}

/// What the lanes of one worker share.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) gate: Gate,
    /// The version of the gate that all lanes know of.
    pub(super) changed: watch::Sender<u64>,
    /// The zero of their time.
    pub(super) started: Instant,
}

impl Flow {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, changed: watch::Sender::new(0), started: Instant::now() }
    }

    /// Wakes the other lanes where the gate is another now.
    fn tell(&self) {
        let version = self.gate.version();
        if version > *self.changed.borrow() {
            self.changed.send_if_modified(|known| {
                let news = version > *known;
                *known = version.max(*known);
                news
            });
        }
    }
}

/// What the lane's loop goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// When the engine wants its next tick.
    pub(super) wake: Option<Instant>,
    /// How many deliveries there may be, where that is not the lane's prefetch.
    pub(super) credit: Option<usize>,
    pub(super) held: usize,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    starts: VecDeque<Start>,
    orders: Orders,
    /// By place in the engine's table.
    cells: Vec<Arc<Cell>>,
    /// Reused from step to step.
    actions: Vec<Action>,
    /// Runs that were cancelled before they began.
    unstarted: Vec<Key>,
    last_input: Instant,
    /// The tick that the lane's loop knows of.
    planned: Option<Duration>,
}

/// What the lane's loop is to execute.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) settlements: Vec<(Key, Settlement)>,
    pub(super) extensions: Vec<(Key, AckToken, Duration)>,
}

impl Orders {
    fn is_empty(&self) -> bool {
        self.settlements.is_empty() && self.extensions.is_empty()
    }
}

impl Shared {
    pub(super) fn new(
        engine: Engine,
        flow: Flow,
        shards: usize,
        clock: Arc<dyn Clock>,
        alarms: Alarms,
        meters: LaneMeters,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                engine,
                starts: VecDeque::new(),
                orders: Orders::default(),
                cells: Vec::new(),
                actions: Vec::new(),
                unstarted: Vec::new(),
                last_input: Instant::now(),
                planned: None,
            }),
            flow,
            clock,
            alarms,
            meters,
            rebuild: Notify::new(),
            lane: Notify::new(),
            shards: (0..shards).map(|_| Notify::new()).collect(),
            idle: Notify::new(),
        }
    }

    /// Feeds the engine and wakes whoever has something to do now.
    pub(super) fn step(&self, inputs: impl IntoIterator<Item = Input>) {
        let now = self.now();
        let mut alarms = Vec::new();
        let (lane, starts, idle) = {
            let mut state = self.lock();
            let state = &mut *state;
            state.last_input = Instant::now();
            for input in inputs {
                state.engine.step(now, input, &mut state.actions);
            }
            state.execute(&mut alarms);
            while let Some(key) = state.unstarted.pop() {
                let input = Input::Ended { key, ended: Ended::Cancelled };
                state.engine.step(now, input, &mut state.actions);
                state.execute(&mut alarms);
            }
            self.meters.flush(&mut state.engine.meter);
            let lane = !state.orders.is_empty() || state.is_earlier();
            (lane, !state.starts.is_empty(), state.engine.held() == 0)
        };
        for alarm in alarms {
            self.alarms.raise(&alarm);
        }
        self.flow.tell();
        if lane {
            self.lane.notify_one();
        }
        if starts {
            self.shards.iter().for_each(Notify::notify_one);
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    /// At most `limit` handler runs, each with its cancellation cell and its turn, which begins
    /// here: a cancellation that comes before the handler's first poll is not lost.
    pub(super) fn take_starts(&self, limit: usize, out: &mut Vec<(Start, Arc<Cell>, u64)>) {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let count = limit.min(state.starts.len());
        for start in state.starts.drain(..count) {
            let place = start.key.place as usize;
            if state.cells.len() <= place {
                state.cells.resize_with(place + 1, Arc::default);
            }
            let cell = state.cells[place].clone();
            let turn = cell.begin();
            state.engine.step(now, Input::Begun { key: start.key }, &mut state.actions);
            out.push((start, cell, turn));
        }
    }

    pub(super) fn link(&self, link: &Link) {
        if self.alarms.link(link) {
            self.meters.reconnected();
        }
    }

    /// What was ordered; the settlements only where there is room for another call.
    pub(super) fn take_orders(&self, settlements: bool) -> Orders {
        let orders = &mut self.lock().orders;
        let extensions = std::mem::take(&mut orders.extensions);
        if !settlements {
            return Orders { settlements: Vec::new(), extensions };
        }
        // The next batch will be about as long as this one: it need not grow to it anew.
        let next = Vec::with_capacity(orders.settlements.len());
        Orders { settlements: std::mem::replace(&mut orders.settlements, next), extensions }
    }

    pub(super) fn plan(&self) -> Plan {
        let mut state = self.lock();
        state.planned = state.engine.next_wake();
        let wake = state.planned.map(|at| self.flow.started + at);
        Plan { wake, credit: state.engine.credit(), held: state.engine.held() }
    }

    /// Hears of changes that another lane made to the gate.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.flow.changed.subscribe()
    }

    pub(super) fn breaker(&self) -> BreakerState {
        self.flow.gate.state()
    }

    pub(super) fn held(&self) -> usize {
        self.lock().engine.held()
    }

    pub(super) fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// How many deliveries are held, and how many of them wait for a slot.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.engine.held(), state.engine.buffered())
    }

    pub(super) fn tally(&self) -> Tally {
        self.lock().engine.tally
    }

    /// How long nothing went in.
    pub(super) fn quiet(&self) -> Duration {
        self.lock().last_input.elapsed()
    }

    fn now(&self) -> Now {
        Now { mono: self.flow.started.elapsed(), wall: self.clock.now() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A step cannot leave the state half-changed in a way that a later one minds.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the engine wants its tick before the one that the lane's loop waits for.
    fn is_earlier(&self) -> bool {
        let wake = self.engine.next_wake();
        wake.is_some_and(|wake| self.planned.is_none_or(|planned| wake < planned))
    }

    fn execute(&mut self, alarms: &mut Vec<Alarm>) {
        for action in self.actions.drain(..) {
            match action {
                Action::Start(start) => self.starts.push_back(start),
                Action::Settle { key, settlement } => {
                    self.orders.settlements.push((key, settlement));
                }
                Action::Extend { key, token, by } => {
                    self.orders.extensions.push((key, token, by));
                }
                Action::Cancel { key } => {
                    // Still in the queue: it never runs.
                    if let Some(at) = self.starts.iter().position(|start| start.key == key) {
                        self.starts.remove(at);
                        self.unstarted.push(key);
                    } else if let Some(cell) = self.cells.get(key.place as usize) {
                        cell.cancel();
                    }
                }
                Action::Alarm(alarm) => alarms.push(alarm),
            }
        }
    }
}
