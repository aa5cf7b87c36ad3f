//! What is known of the connection: up or down, refused for good, closed, and which subjects the
//! server refused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{ClientError, ConnectErrorKind, Event, ServerError};
use longshore_core::{Error, ErrorKind, Result};
use longshore_driver::{Backoff, BackoffConfig};
use tokio::sync::watch;

use crate::error::{closed, down, error, forbidden, timeout, unauthenticated};

/// Refusals that are remembered: they are matched to what waits right now.
const REMEMBERED: usize = 64;
/// The wait before the next attempt where none must follow: the client has no way to be told so.
const NEVER: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) up: bool,
    /// How often the connection was made; pulls of an older one are gone.
    pub(crate) generation: u64,
    /// What ended it for good.
    pub(crate) end: Option<Error>,
    /// Subjects that the server refused, each with its number.
    denied: VecDeque<(u64, String)>,
    denials: u64,
}

#[derive(Debug)]
pub(crate) struct Link {
    status: watch::Sender<Status>,
    /// The same as `end.is_some()`, for the client's synchronous callback.
    ended: AtomicBool,
}

/// Which refusal of the server's concerns a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Concern<'a> {
    /// This subject and no other.
    Subject(&'a str),
    /// A question of the JetStream API about this stream.
    Api(&'a str),
}

impl Concern<'_> {
    fn is(self, denied: &str) -> bool {
        match self {
            Self::Subject(subject) => denied == subject,
            Self::Api(stream) => {
                denied.starts_with("$JS.") && denied.split('.').any(|token| token == stream)
            }
        }
    }
}

impl Link {
    pub(crate) fn new() -> Self {
        Self { status: watch::Sender::new(Status::default()), ended: AtomicBool::new(false) }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The first connection is told by the same event as every later one, a moment after the client
    /// is there.
    pub(crate) async fn connected(&self) {
        let mut watch = self.watch();
        let told = watch.wait_for(|status| status.up || status.end.is_some());
        if tokio::time::timeout(Duration::from_secs(1), told).await.is_err() {
            self.status.send_modify(|status| status.up = true);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.status.borrow().up
    }

    /// # Errors
    /// What ended the connection for good.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.ended.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.status.borrow().end.clone().unwrap_or_else(|| closed("connection")))
    }

    pub(crate) fn end(&self, why: Error) {
        self.ended.store(true, Ordering::Release);
        self.status.send_modify(|status| {
            status.end.get_or_insert(why);
            status.up = false;
        });
    }

    /// The client's own task is gone. Where it was not closed, it panicked over something that it
    /// read: known is a lone carriage return in a header of a foreign message.
    pub(crate) fn deserted(&self) {
        // An attempt at a first connection that failed leaves too.
        if self.status.borrow().generation > 0 && self.check().is_ok() {
            let text = "the client library ended by itself: see the log for its panic. If a message \
                        did it, a consumer that is opened anew replaces that message";
            self.end(error(ErrorKind::Unexpected, text));
        }
    }

    /// Called by the client for each change. It drops events where we are slow, so whoever waits
    /// has a deadline as well.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::Connected => self.status.send_modify(|status| {
                status.up = true;
                status.generation += 1;
            }),
            Event::Disconnected => self.status.send_modify(|status| status.up = false),
            // The client would try for ever, each time with the credentials that were refused.
            Event::ServerError(ServerError::AuthorizationViolation) => self.end(unauthenticated()),
            Event::ClientError(ClientError::Other(text)) if is_refusal(&text) => {
                self.end(unauthenticated());
            }
            Event::ServerError(ServerError::Other(text)) => {
                if let Some(subject) = denied_subject(&text) {
                    tracing::warn!(subject, "the server refused a subject");
                    self.deny(subject.to_owned());
                } else {
                    tracing::warn!(error = text, "the server reported an error");
                }
            }
            Event::SlowConsumer(subscription) => {
                tracing::warn!(
                    subscription,
                    "messages were dropped by the client; they come again"
                );
            }
            Event::Closed => self.end(closed("connection")),
            Event::LameDuckMode | Event::Draining => tracing::debug!(%event, "connection"),
            Event::ServerError(_) | Event::ClientError(_) => {
                tracing::debug!(%event, "connection");
            }
        }
    }

    fn deny(&self, subject: String) {
        self.status.send_modify(|status| {
            status.denials += 1;
            if status.denied.len() == REMEMBERED {
                status.denied.pop_front();
            }
            status.denied.push_back((status.denials, subject));
        });
    }

    pub(crate) fn denials(&self) -> u64 {
        self.status.borrow().denials
    }

    /// The refusal since number `since` that concerns `concern`.
    pub(crate) fn denied(&self, since: u64, concern: Concern<'_>) -> Option<Error> {
        find(&self.status.borrow(), since, concern)
    }

    /// What ended the connection, or the refusal since number `since` that concerns `concern`.
    pub(crate) fn refusal(&self, since: u64, concern: Concern<'_>) -> Option<Error> {
        let status = self.status.borrow();
        status.end.clone().or_else(|| find(&status, since, concern))
    }

    /// Waits for the connection's end or for a refusal that concerns `concern`.
    pub(crate) async fn refused(&self, since: u64, concern: Concern<'_>) -> Error {
        let mut watch = self.watch();
        let hit = |status: &Status| status.end.is_some() || find(status, since, concern).is_some();
        match watch.wait_for(hit).await {
            Ok(status) => status
                .end
                .clone()
                .or_else(|| find(&status, since, concern))
                .unwrap_or_else(|| closed("connection")),
            Err(_) => closed("connection"),
        }
    }

    /// Runs `work` to its end, to `deadline`, or to the server's refusal. A refused subject is only
    /// told by an event beside the stream of answers; without it, it would look like silence.
    pub(crate) async fn bounded<T>(
        &self,
        deadline: Duration,
        concern: Concern<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.check()?;
        let since = self.denials();
        tokio::select! {
            biased;
            // The client's own deadline is the same as ours, and may be first.
            result = work => result.map_err(|why| match why.kind() {
                ErrorKind::Timeout if !self.is_up() => down().with_source(why),
                _ => why,
            }),
            why = self.refused(since, concern) => Err(why),
            () = tokio::time::sleep(deadline) => Err(self.silence()),
        }
    }

    /// Why nothing was heard.
    pub(crate) fn silence(&self) -> Error {
        if self.is_up() { timeout() } else { down() }
    }

    /// The wait before attempt `attempt`.
    pub(crate) fn delay(&self, attempt: usize) -> Duration {
        if self.ended.load(Ordering::Acquire) {
            return NEVER;
        }
        let config = BackoffConfig { max: Duration::from_secs(8), ..BackoffConfig::default() };
        let mut backoff = Backoff::new(config);
        (1..attempt.min(32)).for_each(|_| backoff.failed());
        backoff.delay(fastrand::f64())
    }
}

fn find(status: &Status, since: u64, concern: Concern<'_>) -> Option<Error> {
    let mut later = status.denied.iter().filter(|(number, _)| *number > since);
    later.find(|(_, subject)| concern.is(subject)).map(|(_, subject)| forbidden(subject))
}

/// The client hands the kind over as text only.
fn is_refusal(text: &str) -> bool {
    [ConnectErrorKind::AuthorizationViolation, ConnectErrorKind::Authentication]
        .iter()
        .any(|kind| kind.to_string() == text)
}

/// The protocol has this refusal as text only: `Permissions Violation for Publish to "orders"`.
fn denied_subject(text: &str) -> Option<&str> {
    let rest = text.get(.."permissions violation".len())?;
    if !rest.eq_ignore_ascii_case("permissions violation") {
        return None;
    }
    text.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_subject_reaches_only_whom_it_concerns() {
        let link = Link::new();
        let since = link.denials();
        let text = "Permissions Violation for Publish to \"orders\"";
        link.event(Event::ServerError(ServerError::Other(text.into())));
        let error = link.denied(since, Concern::Subject("orders")).unwrap();
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        assert!(link.denied(since, Concern::Subject("orders.x")).is_none());
        assert!(link.denied(link.denials(), Concern::Subject("orders")).is_none());
        assert!(Concern::Api("orders").is("$JS.API.STREAM.CREATE.orders"));
        assert!(!Concern::Api("orders").is("orders"));
        assert!(denied_subject("é").is_none());
    }

    #[test]
    fn refused_credentials_end_the_connection() {
        let link = Link::new();
        let text = ConnectErrorKind::AuthorizationViolation.to_string();
        link.event(Event::ClientError(ClientError::Other(text)));
        assert_eq!(link.check().unwrap_err().kind(), ErrorKind::Unauthenticated);
        assert!(link.delay(1) >= NEVER);
    }
}
