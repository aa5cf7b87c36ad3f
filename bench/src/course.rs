//! The course of the measurements of one case: as many messages as a measurement needs, then rounds
//! in which all contenders take their turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use indicatif::ProgressBar;

use crate::backends::Ready;
use crate::case::{Case, Work};
use crate::contender::{Contender, Job, Left};
use crate::meter::Sample;

/// No measurement takes so long; one that does is stuck.
const LIMIT: Duration = Duration::from_secs(120);
/// The messages of the runs that find out how fast a case is: first few, then for so long.
const PILOT: usize = 512;
const PILOT_TIME: f64 = 0.1;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effort {
    /// Rounds of measurements that last about so many seconds each.
    Timed { rounds: usize, seconds: f64 },
    /// One round of a fixed number of messages, enough for what is made once not to count.
    Counted,
    /// One round of very few messages: that it works at all.
    Smoke,
}

impl Effort {
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Timed { rounds, .. } => rounds,
            Self::Counted | Self::Smoke => 1,
        }
    }
}

/// Who sits where in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    Raw,
    Ours,
    /// Whoever longshore is compared with once more; where there is no raw client, longshore.
    Again,
    /// A raw client that does less, for information.
    Plain,
}

/// One measurement of each seat.
pub(crate) type Round = Vec<(Seat, Sample)>;

/// All measurements of a case.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) case: &'static Case,
    pub(crate) size: usize,
    pub(crate) rounds: Vec<Round>,
}

/// Who takes part, in order.
pub(crate) fn seats<'a>(ready: &'a Ready, case: &Case) -> Vec<(Seat, &'a Arc<dyn Contender>)> {
    let mut raw = ready.raw.iter().filter(|raw| raw.does(case.work));
    let first = raw.next();
    let mut seats: Vec<_> = first.map(|raw| (Seat::Raw, raw)).into_iter().collect();
    seats.push((Seat::Ours, &ready.ours));
    if case.paired {
        seats.push((Seat::Again, first.unwrap_or(&ready.ours)));
    }
    seats.extend(raw.map(|raw| (Seat::Plain, raw)));
    seats
}

/// # Errors
/// A run that did not complete, whose counts are off, or whose retry came early.
pub(crate) async fn measure(
    ready: &Ready,
    case: &'static Case,
    size: usize,
    effort: Effort,
    bar: &ProgressBar,
) -> Result<Measured> {
    let seats = seats(ready, case);
    let course = Course { ready, case, body: body(size) };
    let (messages, laps) = course.amount(&seats, effort).await?;
    let mut rounds = Vec::new();
    for number in 0..effort.rounds() {
        let mut round = Vec::new();
        for turn in 0..seats.len() {
            // Whoever comes first in one round comes later in the next.
            let (seat, contender) = seats[(turn + number) % seats.len()];
            let mut sample = course.run(contender, messages).await?;
            for _ in 1..laps {
                sample += course.run(contender, messages).await?;
            }
            round.push((seat, sample));
            bar.inc(1);
        }
        rounds.push(round);
    }
    Ok(Measured { case, size, rounds })
}

/// Shared from the start: the first clone of a fresh buffer would allocate.
fn body(size: usize) -> Bytes {
    let body = Bytes::from(vec![b'x'; size]);
    drop(body.clone());
    body
}

struct Course<'a> {
    ready: &'a Ready,
    case: &'static Case,
    body: Bytes,
}

impl Course<'_> {
    /// How many messages a run has, and how many runs make a measurement.
    async fn amount(
        &self,
        seats: &[(Seat, &Arc<dyn Contender>)],
        effort: Effort,
    ) -> Result<(usize, usize)> {
        let seconds = match (effort, self.case.work) {
            (Effort::Smoke, Work::Lateness) => return Ok((40, 1)),
            (Effort::Smoke, _) => return Ok((128, 1)),
            (Effort::Counted, Work::Tasks(1)) => return Ok((2_000, 1)),
            (Effort::Counted, _) => return Ok((40_000, 1)),
            (Effort::Timed { .. }, Work::Latency) => return Ok((1_000, 1)),
            (Effort::Timed { .. }, Work::Lateness) => return Ok((200, 1)),
            (Effort::Timed { seconds, .. }, _) => seconds,
        };
        // These warm everybody up, too.
        for (_, contender) in seats {
            self.run(contender, PILOT).await?;
        }
        let Some((_, slowest)) = seats.first() else { return Ok((PILOT, 1)) };
        let pilot = self.run(slowest, PILOT).await?.rate() * PILOT_TIME;
        let pilot = self.run(slowest, whole(pilot).min(self.ready.backend.most)).await?;
        let all = whole(pilot.rate() * seconds);
        let laps = all.div_ceil(self.ready.backend.most);
        Ok((all.div_ceil(laps), laps))
    }

    async fn run(&self, contender: &Arc<dyn Contender>, messages: usize) -> Result<Sample> {
        let (topic, left) = self.topic(contender).await;
        let job = Job {
            topic: topic.clone(),
            work: self.case.work,
            messages,
            body: self.body.clone(),
            server: self.ready.server,
        };
        let running = contender.clone();
        // In a task of its own, as a service's code would run.
        let task = tokio::spawn(async move { running.run(&job).await });
        let stop = task.abort_handle();
        let sample = tokio::time::timeout(LIMIT, task).await;
        let who = || {
            let (backend, case, size) = (self.ready.backend.name, self.case.id, self.body.len());
            format!("{backend}, {case}, {size} B, {}", contender.name())
        };
        let Ok(sample) = sample else {
            stop.abort();
            anyhow::bail!("{}: not complete within {LIMIT:?}", who());
        };
        let sample = sample.context("the measurement's task ended").flatten().with_context(who)?;
        ensure!(sample.messages == messages as u64, "{}: counts are off", who());
        for raw in self.ready.raw.iter().take(1) {
            raw.clean(&topic, left).await?;
        }
        Ok(sample)
    }

    /// The kept one where longshore consumes, else one that nobody used before.
    async fn topic(&self, contender: &Arc<dyn Contender>) -> (String, Left) {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        if let Some(kept) = &self.ready.kept
            && self.case.work.consumes()
            && Arc::ptr_eq(contender, &self.ready.ours)
        {
            // The publishing cases before have usually lasted longer.
            tokio::time::sleep_until(kept.usable).await;
            return (kept.topic.clone(), Left::Messages);
        }
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        // Another benchmark may use the same server.
        (format!("bench-{}-{number}", std::process::id()), Left::Everything)
    }
}

fn whole(messages: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of messages is positive and far below the bound"
    )]
    let messages = messages as usize;
    messages.max(PILOT)
}
