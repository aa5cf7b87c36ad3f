use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use longshore_core::{
    AckToken, Consumer, Error, ErrorKind, Event, Policy, Result, Retryability, Settlement,
};
use tokio::time::{Instant, timeout};

use super::{DeadLetter, DeadLetters};
use crate::engine::redrive_record;
use crate::worker::DEFAULT_LEASE;

/// Letters looked at together when there is no rate to keep.
const PAGE: u16 = 64;
/// Nothing more comes where nothing came for so long: another redrive took the rest.
const QUIET: Duration = Duration::from_secs(2);

/// The longest gap between two letters.
const FAR: Duration = Duration::from_secs(24 * 3600);

type Filter = Box<dyn Fn(&DeadLetter) -> bool + Send + Sync>;

/// A redrive in the making; await it.
///
/// It reads no more letters than there were at its start. Killed in the middle, it has moved some
/// and not others: each letter is in the queue or back with its group, and a later redrive goes on.
#[must_use = "a redrive does nothing until it is awaited"]
pub struct Redrive {
    letters: DeadLetters,
    filter: Option<Filter>,
    limit: u64,
    per_second: Option<f64>,
    max_redrives: u32,
    dry_run: bool,
}

/// What a redrive did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Letters looked at.
    pub examined: u64,
    /// Letters sent back, or that would be in a dry run.
    pub moved: u64,
    /// Letters that the filter left alone.
    pub filtered: u64,
    /// Letters redriven as often as is allowed: they stay.
    pub exhausted: u64,
    /// Messages without readable metadata: they stay.
    pub unreadable: u64,
    /// Letters that could not be moved: they stay.
    pub failed: u64,
}

impl fmt::Debug for Redrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("source", &self.letters.source)
            .field("limit", &self.limit)
            .field("per_second", &self.per_second)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

impl Redrive {
    pub(super) fn new(letters: DeadLetters) -> Self {
        let max_redrives = Policy::default().dead_letter().max_redrives;
        Self {
            letters,
            filter: None,
            limit: u64::MAX,
            per_second: None,
            max_redrives,
            dry_run: false,
        }
    }

    /// Only those that `keep` wants.
    pub fn filter(mut self, keep: impl Fn(&DeadLetter) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Box::new(keep));
        self
    }

    /// At most so many are moved.
    pub fn limit(mut self, letters: u64) -> Self {
        self.limit = letters;
        self
    }

    /// At most so many are moved a second. Those that stay cost no time.
    pub fn rate(mut self, per_second: f64) -> Self {
        self.per_second = Some(per_second);
        self
    }

    /// Letters that were redriven so often stay. Default: 3, as in the default policy.
    pub fn max_redrives(mut self, redrives: u32) -> Self {
        self.max_redrives = redrives;
        self
    }

    /// Changes nothing and counts what would be done.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    async fn run(self) -> Result<Redriven> {
        if self.per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(Error::config("a rate is above zero"));
        }
        let total = self.letters.count().await?;
        let mut done = Redriven::default();
        if total == 0 || self.limit == 0 {
            return Ok(done);
        }
        if self.dry_run {
            self.rehearse(total, &mut done).await?;
            return Ok(done);
        }
        // One at a time under a rate: a letter that waits in our hands could lose its lease.
        let prefetch = if self.per_second.is_some() { 1 } else { PAGE };
        let DeadLetters { client, source } = &self.letters;
        let consumer = client.consumer(source, prefetch, DEFAULT_LEASE).await?;
        let moved = self.work(&*consumer, total, &mut done).await;
        let closed = consumer.close().await;
        moved.and(closed).map(|()| done)
    }

    async fn rehearse(&self, total: u64, done: &mut Redriven) -> Result<()> {
        let mut after = None;
        while done.examined < total && done.moved < self.limit {
            let page = match &after {
                None => self.letters.browse(PAGE.into()).await?,
                Some(cursor) => self.letters.browse_after(cursor, PAGE.into()).await?,
            };
            let Some(last) = page.last() else { break };
            after = Some(last.cursor().clone());
            for letter in page {
                if done.examined < total && self.judge(&letter, done) && done.moved < self.limit {
                    done.moved += 1;
                }
            }
        }
        Ok(())
    }

    async fn work(&self, consumer: &dyn Consumer, total: u64, done: &mut Redriven) -> Result<()> {
        let mut next = Instant::now();
        let mut events = Vec::new();
        while done.examined < total && done.moved < self.limit {
            let mut room = usize::from(PAGE);
            let moved = done.moved;
            if self.per_second.is_some() {
                // Waits before it takes a letter, not with one in its hands.
                tokio::time::sleep_until(next).await;
                room = 1;
            }
            let left = usize::try_from(total - done.examined).unwrap_or(room);
            match timeout(QUIET, consumer.receive(&mut events, room.min(left))).await {
                Ok(received) => received?,
                Err(_) => break,
            }
            let mut orders = Vec::new();
            for event in events.drain(..) {
                if let Event::Message(received) = event {
                    orders.push(self.order(DeadLetter::new(received), done));
                }
            }
            self.settle(consumer, &orders, done).await?;
            if let Some(rate) = self.per_second
                && done.moved > moved
            {
                next = Instant::now().max(next)
                    + Duration::try_from_secs_f64(1.0 / rate).unwrap_or(FAR).min(FAR);
            }
        }
        Ok(())
    }

    /// Counts the letter as moved where it is ordered to be.
    fn order(&self, letter: DeadLetter, done: &mut Redriven) -> Settlement {
        let token: AckToken = letter.message.token;
        if self.judge(&letter, done)
            && done.moved < self.limit
            && let Some(known) = &letter.letter
        {
            done.moved += 1;
            return Settlement::Redrive { token, record: redrive_record(known, &letter.message) };
        }
        Settlement::Release { token, record: None }
    }

    async fn settle(
        &self,
        consumer: &dyn Consumer,
        orders: &[Settlement],
        done: &mut Redriven,
    ) -> Result<()> {
        let mut results = Vec::with_capacity(orders.len());
        consumer.settle(orders, &mut results).await;
        for (order, result) in orders.iter().zip(results) {
            let Err(error) = result else { continue };
            if matches!(order, Settlement::Redrive { .. }) {
                done.moved -= 1;
                done.failed += 1;
            }
            if error.retryability() == Retryability::Permanent
                && error.kind() != ErrorKind::LeaseLost
            {
                return Err(error);
            }
            tracing::warn!(%error, "a letter could not be moved; it stays");
        }
        Ok(())
    }

    /// Whether this letter may be moved; counts why not.
    fn judge(&self, letter: &DeadLetter, done: &mut Redriven) -> bool {
        done.examined += 1;
        let Some(known) = &letter.letter else {
            done.unreadable += 1;
            return false;
        };
        if self.filter.as_ref().is_some_and(|keep| !keep(letter)) {
            done.filtered += 1;
            return false;
        }
        if known.redrive_count >= self.max_redrives {
            done.exhausted += 1;
            return false;
        }
        true
    }
}

impl IntoFuture for Redrive {
    type Output = Result<Redriven>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
