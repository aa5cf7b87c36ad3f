//! A connection that is made again when it breaks, for many callers. It sends nothing twice: who
//! meets the broken one is told so, and the next one connects.

use std::sync::Arc;
use std::time::Duration;

use longshore_core::{Error, ErrorKind, Result, Retryability};
use longshore_driver::{Backoff, BackoffConfig};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::connect::{Connector, Opened};
use crate::error;
use crate::script::{self, Call};

/// A connection that held for so long was a good one.
const STEADY: Duration = Duration::from_secs(2);

/// The end of a client: everything of it looks here.
#[derive(Debug)]
pub(crate) struct End(watch::Sender<Option<Error>>);

impl End {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// # Errors
    /// What ended the client.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.borrow().clone().map_or(Ok(()), Err)
    }

    /// The first reason is the one that counts.
    pub(crate) fn set(&self, why: Error) {
        self.0.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(why);
            }
            first
        });
    }

    /// Waits for it.
    pub(crate) async fn reached(&self) {
        // It is kept as long as anybody asks.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}

/// A connection, and which one it is.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) opened: Opened,
    number: u64,
}

struct State {
    wire: Option<Wire>,
    number: u64,
    backoff: Backoff,
    since: Instant,
    not_before: Instant,
}

impl State {
    /// The connection is gone. The first attempt after one that held follows at once.
    fn lost(&mut self) {
        self.wire = None;
        let held = self.since.elapsed();
        self.backoff.ended(held);
        let delay = if held >= STEADY {
            Duration::ZERO
        } else {
            let delay = self.backoff.delay(fastrand::f64());
            self.backoff.failed();
            delay
        };
        self.not_before = Instant::now() + delay;
    }
}

pub(crate) struct Line {
    connector: Connector,
    key: Option<String>,
    end: Arc<End>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A restart of the server takes a tenth of a second, and a failover some seconds.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(BackoffConfig {
        first: Duration::from_millis(50),
        max: Duration::from_secs(1),
        steady_after: STEADY,
        ..BackoffConfig::default()
    })
}

impl Line {
    pub(crate) fn new(connector: Connector, key: Option<String>, end: Arc<End>) -> Self {
        let now = Instant::now();
        let state =
            State { wire: None, number: 0, backoff: backoff(), since: now, not_before: now };
        Self { connector, key, end, state: Mutex::new(state) }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.connector.config.publish_timeout
    }

    /// A connection that is there, or is made within the deadline.
    pub(crate) async fn wire(&self, deadline: Instant) -> Result<Wire> {
        self.end.check()?;
        let found = timeout_at(deadline, async {
            let mut state = self.state.lock().await;
            loop {
                match &state.wire {
                    Some(wire) if !wire.opened.is_gone() => return Ok(wire.clone()),
                    Some(_) => state.lost(),
                    None => {}
                }
                // Under the lock: one attempt at a time, for all that wait.
                sleep_until(state.not_before).await;
                match self.connect().await {
                    Ok(opened) => {
                        state.number += 1;
                        state.since = Instant::now();
                        state.wire = Some(Wire { opened, number: state.number });
                    }
                    Err(why) if why.retryability() == Retryability::Permanent => {
                        // It will be refused again, whoever asks.
                        self.end.set(why.clone());
                        return Err(why);
                    }
                    Err(why) => {
                        let delay = state.backoff.delay(fastrand::f64());
                        state.backoff.failed();
                        state.not_before = Instant::now() + delay;
                        tracing::debug!(?delay, error = %why, "no connection; trying again");
                    }
                }
            }
        });
        found.await.unwrap_or_else(|_| Err(error::down()))
    }

    async fn connect(&self) -> Result<Opened> {
        let mut opened = self.connector.open(self.key.as_deref()).await?;
        let mut load = Pipeline::with_capacity(script::ALL.len());
        for source in script::ALL {
            load.cmd("SCRIPT").arg("LOAD").arg(source.text);
        }
        let loaded = opened.connection.send_packed_commands(&load, 0, script::ALL.len());
        let loaded = timeout_at(self.deadline(), loaded).await.map_err(|_| error::timeout())?;
        for answer in loaded.map_err(error::native)? {
            if let Value::ServerError(refused) = answer {
                return Err(error::native(refused.into()).with_operation("connect"));
            }
        }
        Ok(opened)
    }

    /// That one is of no use any more.
    pub(crate) async fn broke(&self, wire: &Wire) {
        let mut state = self.state.lock().await;
        if state.number == wire.number && state.wire.is_some() {
            state.lost();
        }
    }

    /// One command.
    pub(crate) async fn query(&self, command: Cmd) -> Result<Value> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let mut answers = self.answers(&pipeline, 1).await?;
        answers.pop().unwrap_or_else(|| Err(error::unreadable()))
    }

    /// Commands in one round trip: one answer each, in order.
    async fn answers(&self, pipeline: &Pipeline, count: usize) -> Result<Vec<Result<Value>>> {
        let answers = self.send(pipeline, count).await?;
        Ok(answers.into_iter().map(|answer| answer.map_err(error::native)).collect())
    }

    async fn send(
        &self,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Result<Value, RedisError>>> {
        let deadline = self.deadline();
        let mut wire = self.wire(deadline).await?;
        let sent = wire.opened.connection.send_packed_commands(pipeline, 0, count);
        let answers = match timeout_at(deadline, sent).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(native)) => {
                self.broke(&wire).await;
                return Err(error::native(native));
            }
            Err(_) => {
                self.broke(&wire).await;
                return Err(error::timeout());
            }
        };
        let answers: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer {
                Value::ServerError(native) => Err(RedisError::from(native)),
                answer => Ok(answer),
            })
            .collect();
        if answers.iter().any(|answer| answer.as_ref().is_err_and(error::is_elsewhere)) {
            self.broke(&wire).await;
        }
        Ok(answers)
    }

    /// One script.
    pub(crate) async fn run(&self, call: Call) -> Result<Value> {
        self.run_all(vec![call]).await.pop().unwrap_or_else(|| Err(error::unreadable()))
    }

    /// Scripts in one round trip: one answer each, in order. What a server forgot is loaded again.
    pub(crate) async fn run_all(&self, calls: Vec<Call>) -> Vec<Result<Value>> {
        let mut out: Vec<Result<Value>> = Vec::with_capacity(calls.len());
        let mut open: Vec<(usize, &Call)> = calls.iter().enumerate().collect();
        out.resize_with(calls.len(), || Err(error::unreadable()));
        for again in [false, true] {
            let mut pipeline = Pipeline::with_capacity(open.len());
            for (_, call) in &open {
                if again {
                    pipeline.cmd("SCRIPT").arg("LOAD").arg(call.source.text);
                }
                pipeline.add_command(call.command.clone());
            }
            let answers = match self.send(&pipeline, pipeline.len()).await {
                Ok(answers) => answers,
                Err(why) => {
                    open.iter().for_each(|(at, _)| out[*at] = Err(why.clone()));
                    return out;
                }
            };
            let step = if again { 2 } else { 1 };
            let mut forgotten = Vec::new();
            for ((at, call), answer) in
                open.into_iter().zip(answers.into_iter().skip(step - 1).step_by(step))
            {
                match answer {
                    Err(native) if !again && native.code() == Some("NOSCRIPT") => {
                        forgotten.push((at, call));
                    }
                    answer => out[at] = answer.map_err(error::native),
                }
            }
            open = forgotten;
            if open.is_empty() {
                break;
            }
        }
        out
    }
}

/// Whether an error says that what was asked for is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
