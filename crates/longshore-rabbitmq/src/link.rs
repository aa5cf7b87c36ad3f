//! One supervised connection: made, watched, and made again. The client library's own recovery
//! stays off: it repairs less, and later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use lapin::{Channel, Connection, Event};
use longshore_core::{Error, ErrorKind, Outcome, Result, Retryability};
use longshore_driver::{BackoffConfig, Connect, Handle, Supervisor};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use crate::dial::Dial;
use crate::error::{self, blocked, closed, down, error};
use crate::greeting::Greeting;

/// How often the connection's state is looked at, beside its events. A program that reads events by
/// the native type takes them from us.
const LOOK: Duration = Duration::from_millis(250);
/// The longest wait between two attempts. A node takes some ten seconds to start; the driver's own cap
/// would double that.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Where a connection stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Of the present connection, or of the last one; deliveries of an older one are gone.
    pub(crate) generation: u32,
    pub(crate) up: bool,
    /// The server reads nothing of it: its memory or its disk is full.
    pub(crate) blocked: bool,
    /// Why it is down.
    pub(crate) why: Option<Error>,
    /// What ended it for good.
    pub(crate) end: Option<Error>,
    session: Option<Arc<Session>>,
}

/// One connection.
pub(crate) struct Session {
    /// Only rises.
    pub(crate) generation: u32,
    pub(crate) connection: Arc<Connection>,
    pub(crate) greeting: Greeting,
}

impl Session {
    /// A new channel. Waits without a bound: a paused server answers nothing.
    ///
    /// # Errors
    /// Where the connection is gone, or has no channel left.
    ///
    /// # Cancel safety
    /// Dropped, the channel is closed.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        self.connection.create_channel().await.map_err(error::native)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A supervised connection. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    status: watch::Receiver<Status>,
    supervisor: Handle,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn open(dial: Dial) -> Self {
        let (supervisor, handle) =
            Supervisor::new(BackoffConfig { max: LONGEST_WAIT, ..BackoffConfig::default() });
        let (status, watched) = watch::channel(Status::default());
        tokio::spawn(async move {
            let ended = supervisor.run(Keeper { dial, status: status.clone() }).await;
            let why = ended.err().unwrap_or_else(|| closed("connection"));
            status.send_modify(|status| {
                status.end.get_or_insert(why);
                (status.up, status.blocked, status.session) = (false, false, None);
            });
        });
        Self { status: watched, supervisor: handle }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// # Errors
    /// What ended the connection for good.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.status.borrow().end {
            Some(end) => Err(end.clone()),
            None => Ok(()),
        }
    }

    /// The present connection, where there is one.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        self.status.borrow().session.clone()
    }

    /// Waits for a connection until `deadline`.
    ///
    /// # Errors
    /// What ended it for good; `Unavailable` where there is none in time.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>> {
        self.wait(deadline, |_| true).await
    }

    /// Waits for a connection that the server reads from, until `deadline`.
    ///
    /// # Errors
    /// As [`Link::session`]; `Backpressure` where the server takes no messages. Nothing was sent.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn writable(&self, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.wait(deadline, |status| !status.blocked).await;
        session.map_err(|why| why.with_outcome(Outcome::NotSent))
    }

    async fn wait(
        &self,
        deadline: Instant,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Arc<Session>> {
        {
            let status = self.status.borrow();
            if let (None, Some(session)) = (&status.end, &status.session)
                && wanted(&status)
            {
                return Ok(session.clone());
            }
        }
        let mut watch = self.watch();
        let ready =
            |status: &Status| status.end.is_some() || (status.session.is_some() && wanted(status));
        let status = match timeout_at(deadline, watch.wait_for(ready)).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) => return Err(closed("connection")),
            Err(_) => return Err(self.silence()),
        };
        match (&status.end, &status.session) {
            (None, Some(session)) => Ok(session.clone()),
            (Some(end), _) => Err(end.clone()),
            (None, None) => Err(down()),
        }
    }

    /// Why nothing was heard within a deadline.
    pub(crate) fn silence(&self) -> Error {
        let status = self.status.borrow();
        match (&status.end, &status.why) {
            (Some(end), _) => end.clone(),
            _ if status.up && status.blocked => blocked(),
            _ if status.up => error::timeout(),
            (None, Some(why)) => down().with_source(why.clone()),
            (None, None) => down(),
        }
    }

    /// Closes it in order, waiting until `deadline` for the server. Idempotent.
    pub(crate) async fn close(&self, deadline: Instant) {
        let session = self.current();
        self.supervisor.close();
        if let Some(session) = session {
            let closing = session.connection.close(200, "OK".into());
            if let Ok(Err(native)) = timeout_at(deadline, closing).await {
                tracing::debug!(error = %native, "the connection was closed already");
            }
        }
        // Who waits now hears that it is closed.
        let mut watch = self.watch();
        let _ = timeout(Duration::from_secs(1), watch.wait_for(|it| it.end.is_some())).await;
    }
}

struct Keeper {
    dial: Dial,
    status: watch::Sender<Status>,
}

impl Connect for Keeper {
    type Session = Arc<Session>;

    async fn connect(&mut self, epoch: u32) -> Result<Arc<Session>> {
        match self.dial.connect().await {
            Ok((connection, greeting)) => {
                let connection = Arc::new(connection);
                Ok(Arc::new(Session { generation: epoch, connection, greeting }))
            }
            Err(why) => {
                self.status.send_modify(|status| status.why = Some(why.clone()));
                Err(why)
            }
        }
    }

    async fn serve(&mut self, session: Arc<Session>) -> Result<()> {
        let events = session.connection.events_listener();
        self.status.send_modify(|status| {
            (status.generation, status.up) = (session.generation, true);
            (status.blocked, status.why) = (false, None);
            status.session = Some(session.clone());
        });
        let why = self.watch(&session.connection, events).await;
        self.status.send_modify(|status| {
            (status.up, status.blocked, status.session) = (false, false, None);
            status.why = Some(why.clone());
        });
        Err(why)
    }
}

impl Keeper {
    /// Until the connection is lost; why.
    async fn watch(
        &self,
        connection: &Connection,
        events: impl futures::Stream<Item = Event>,
    ) -> Error {
        let mut events = std::pin::pin!(events);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "the server takes no messages for now");
                    }
                    Event::ConnectionUnblocked => tracing::info!("the server takes messages again"),
                    Event::Error(native) => said = Some(native),
                    _ => {}
                },
                _ = look.tick() => {}
            }
            let blocked = connection.status().blocked();
            self.status.send_if_modified(|status| {
                let changed = status.blocked != blocked;
                status.blocked = blocked;
                changed
            });
            if !connection.status().connected() {
                return error::lost(said);
            }
        }
    }
}

/// The first connection: `links` must all be up within `patience`.
///
/// # Errors
/// What ended one of them; `Unavailable`, tried as long as it made sense, where none answered.
pub(crate) async fn all_up(links: &[&Link], patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    for link in links {
        if let Err(why) = link.session(deadline).await {
            return match why.kind() {
                ErrorKind::Unavailable => {
                    Err(error(ErrorKind::Unavailable, "no server could be reached")
                        .with_retryability(Retryability::Exhausted)
                        .with_source(why))
                }
                _ => Err(why),
            };
        }
    }
    Ok(())
}
