use std::future::Future;
use std::sync::Arc;

use longshore_core::{Error, Result, Retryability};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{Backoff, BackoffConfig};

/// What a backend does with a connection; the [`Supervisor`] says when.
pub trait Connect: Send {
    /// An open connection.
    type Session: Send;

    /// Connects, logs in, and restores what the connection carries: topology, prefetch,
    /// subscriptions. `epoch` is the generation of this connection, for the tokens of its
    /// deliveries.
    ///
    /// # Cancel safety
    /// Dropped where the supervisor is closed.
    fn connect(&mut self, epoch: u32) -> impl Future<Output = Result<Self::Session>> + Send;

    /// Serves the connection until it ends: `Err` says why it was lost, `Ok` that nothing is left
    /// to do.
    ///
    /// # Cancel safety
    /// Dropped where the supervisor is closed; what must be written before is written before
    /// [`Handle::close`] is called.
    fn serve(&mut self, session: Self::Session) -> impl Future<Output = Result<()>> + Send;
}

/// Where the connection stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Being made, for the first time.
    Connecting,
    /// Serving.
    Up {
        /// The generation of the connection.
        epoch: u32,
    },
    /// Lost, or not to be had; the next attempt follows.
    Down {
        /// Why.
        why: Error,
    },
    /// Over: closed, or ended by an error that no reconnect can mend.
    Ended {
        /// That error.
        why: Option<Error>,
    },
}

impl State {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// Connects, serves, and connects again.
///
/// - The wait between two attempts grows to a cap and carries jitter; it is the first again only
///   after a connection that held for a while, so that a broker that accepts and drops does not
///   cause a storm.
/// - An error that is [`Retryability::Permanent`] (credentials refused, say) ends it at once. An
///   error that a reconnect can mend must say so: of the kinds, `Unavailable`, `Timeout` and
///   `Backpressure` do by themselves.
/// - Each connection has a generation, from 1, that only rises, failed attempts included.
#[derive(Debug)]
pub struct Supervisor {
    config: BackoffConfig,
    state: watch::Sender<State>,
    closing: watch::Receiver<bool>,
}

/// Watches and closes a [`Supervisor`]. Clones are equal. The supervisor ends when the last is
/// dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    state: watch::Receiver<State>,
    closing: Arc<watch::Sender<bool>>,
}

impl Supervisor {
    /// One that has not begun, and its handle.
    #[must_use]
    pub fn new(config: BackoffConfig) -> (Self, Handle) {
        let (state, watched) = watch::channel(State::Connecting);
        let (close, closing) = watch::channel(false);
        let handle = Handle { state: watched, closing: Arc::new(close) };
        (Self { config, state, closing }, handle)
    }

    /// Runs until it is closed, until a session ends with nothing left to do, or until an error
    /// that no reconnect can mend.
    ///
    /// # Errors
    /// That error.
    ///
    /// # Cancel safety
    /// Dropped, the connection is dropped with it, and the state says `Ended`.
    pub async fn run<C: Connect>(self, connect: C) -> Result<()> {
        let mut end = End { state: &self.state, why: None };
        let mut closing = self.closing.clone();
        let result = tokio::select! {
            biased;
            // An error here means that the last handle is gone, which closes too.
            _ = closing.wait_for(|closing| *closing) => Ok(()),
            result = self.supervise(connect) => result,
        };
        end.why = result.as_ref().err().cloned();
        result
    }

    async fn supervise<C: Connect>(&self, mut connect: C) -> Result<()> {
        let mut backoff = Backoff::new(self.config.clone());
        let mut epoch = 0u32;
        loop {
            // After four thousand million connections the numbers start again; 0 stays unused.
            epoch = epoch.checked_add(1).unwrap_or(1);
            let why = match connect.connect(epoch).await {
                Ok(session) => {
                    debug!(epoch, "connected");
                    self.state.send_replace(State::Up { epoch });
                    let since = Instant::now();
                    match connect.serve(session).await {
                        Ok(()) => return Ok(()),
                        Err(why) => {
                            backoff.ended(since.elapsed());
                            why
                        }
                    }
                }
                Err(why) => why,
            };
            if why.retryability() == Retryability::Permanent {
                return Err(why);
            }
            let delay = backoff.delay(fastrand::f64());
            backoff.failed();
            warn!(epoch, ?delay, error = %why, "connection lost; the next attempt follows");
            self.state.send_replace(State::Down { why });
            sleep(delay).await;
        }
    }
}

/// Says `Ended` wherever the run ends, also where its future is dropped.
struct End<'a> {
    state: &'a watch::Sender<State>,
    why: Option<Error>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.state.send_replace(State::Ended { why: self.why.take() });
    }
}

impl Handle {
    /// Where the connection stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// A receiver of every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Ends the supervisor. Idempotent.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits for a connection and gives its generation.
    ///
    /// # Errors
    /// The error that ended the supervisor, or `Closed`.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn up(&self) -> Result<u32> {
        let mut state = self.state.clone();
        let settled = |state: &State| matches!(state, State::Up { .. }) || state.is_ended();
        match state.wait_for(settled).await.as_deref() {
            Ok(State::Up { epoch }) => Ok(*epoch),
            Ok(State::Ended { why: Some(why) }) => Err(why.clone()),
            _ => Err(Error::closed("connection")),
        }
    }

    /// Waits until the supervisor has ended.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn ended(&self) {
        // An error means that the supervisor was dropped before it ran, which is an end too.
        let _ = self.state.clone().wait_for(State::is_ended).await;
    }
}

#[cfg(test)]
mod tests;
