use std::fmt;
use std::time::Duration;

use longshore_core::{GroupName, InstanceId, Received, Result, Settlement, Source, TopicName};
use tokio::time::Instant;

/// How many entries of each kind an error message shows.
const SHOWN: usize = 16;

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Every hand-over.
    pub deliveries: Vec<Delivered>,
    /// Every handler run.
    pub runs: Vec<Ran>,
}

/// One hand-over.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// When.
    pub at: Instant,
    /// Which consumer of the check, by number.
    pub consumer: u64,
    /// What the consumer reads.
    pub source: Source,
    /// Who reads.
    pub instance: InstanceId,
    /// What was handed over.
    pub received: Received,
    /// What ended it.
    pub end: Option<Settled>,
}

/// The settlement of a hand-over.
#[derive(Clone, Debug)]
pub struct Settled {
    /// When it was ordered: delays are never counted from before.
    pub ordered: Instant,
    /// When it was answered.
    pub at: Instant,
    /// What was ordered.
    pub how: How,
    /// The answer.
    pub result: Result<()>,
}

/// A settlement, without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Done.
    Ack,
    /// Back to the group.
    Release,
    /// Back after this long.
    Retry(Duration),
    /// Into the suspect lane.
    Suspect,
    /// Into the dead-letter queue.
    DeadLetter,
    /// Out of it.
    Redrive,
}

impl How {
    pub(crate) fn of(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Ack(_) => Self::Ack,
            Settlement::Release { .. } => Self::Release,
            Settlement::Retry { after, .. } => Self::Retry(*after),
            Settlement::Suspect { .. } => Self::Suspect,
            Settlement::DeadLetter { .. } => Self::DeadLetter,
            Settlement::Redrive { .. } => Self::Redrive,
        }
    }
}

/// One handler run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// When it began.
    pub at: Instant,
    /// Which group's.
    pub source: Source,
    /// Who ran it.
    pub instance: InstanceId,
    /// What it was given.
    pub received: Received,
    /// The number that its context gave.
    pub attempt: u32,
    /// How it ended.
    pub end: Option<Ended>,
}

/// The end of a handler run.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When.
    pub at: Instant,
    /// How.
    pub how: Outcome,
}

/// How a handler run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned `Ok`.
    Ok,
    /// It returned a failure.
    Failed,
    /// It panicked.
    Panicked,
    /// It was dropped before it returned.
    Dropped,
}

/// The body as text, for messages that the suite made of text.
#[must_use]
pub(crate) fn body(received: &Received) -> &str {
    std::str::from_utf8(&received.body).unwrap_or("(not text)")
}

impl Records {
    /// The hand-overs to one group, its own messages only: no dead letters, no suspects.
    pub fn to_group<'a>(
        &'a self,
        topic: &'a TopicName,
        group: &'a GroupName,
    ) -> impl Iterator<Item = &'a Delivered> {
        self.deliveries.iter().filter(move |entry| {
            matches!(&entry.source, Source::Group { topic: t, group: g } if t == topic && g == group)
        })
    }

    /// The hand-overs of messages with this body.
    pub fn of_body<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Delivered> {
        self.deliveries.iter().filter(move |entry| entry.received.body == text.as_bytes())
    }

    /// The handler runs of one group.
    pub fn runs_of<'a>(&'a self, group: &'a GroupName) -> impl Iterator<Item = &'a Ran> {
        self.runs.iter().filter(move |run| run.source.group() == group)
    }

    /// The handler runs of messages with this body.
    pub fn runs_of_body<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Ran> {
        self.runs.iter().filter(move |run| run.received.body == text.as_bytes())
    }

    /// The attempt numbers of the runs of messages with this body, in order.
    #[must_use]
    pub fn attempts(&self, text: &str) -> Vec<u32> {
        self.runs_of_body(text).map(|run| run.attempt).collect()
    }

    /// How many runs have begun and not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.runs.iter().filter(|run| run.end.is_none()).count()
    }

    /// How many runs ended this way.
    #[must_use]
    pub fn ended(&self, how: Outcome) -> usize {
        self.runs.iter().filter(|run| run.end.as_ref().is_some_and(|end| end.how == how)).count()
    }

    /// How many hand-overs were ended in this way, and the broker agreed.
    #[must_use]
    pub fn settled(&self, how: impl Fn(How) -> bool) -> usize {
        let done = |end: &Settled| end.result.is_ok() && how(end.how);
        self.deliveries.iter().filter(|entry| entry.end.as_ref().is_some_and(done)).count()
    }
}

/// The last entries of each kind, a line each: for error messages.
impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zero = self.deliveries.first().map(|entry| entry.at);
        let since = |at: Instant| zero.map_or(0, |zero| at.duration_since(zero).as_millis());
        write!(f, "{} deliveries, {} runs", self.deliveries.len(), self.runs.len())?;
        let name = |received: &Received| {
            let id = received.id.as_ref().map_or_else(|| "no id".to_owned(), ToString::to_string);
            let text: String = body(received).chars().take(24).collect();
            format!("`{text}` ({id})")
        };
        for entry in &self.deliveries[self.deliveries.len().saturating_sub(SHOWN)..] {
            let Delivered { received, source, .. } = entry;
            write!(
                f,
                "\n  +{} ms {} to {}: attempt {}, deliveries {}",
                since(entry.at),
                name(received),
                source.group(),
                received.attempt(),
                received.deliveries
            )?;
            match &entry.end {
                Some(Settled { at, how, result: Ok(()), .. }) => {
                    write!(f, ", {how:?} at +{} ms", since(*at))?;
                }
                Some(Settled { how, result: Err(error), .. }) => {
                    write!(f, ", {how:?} failed: {error}")?;
                }
                None => f.write_str(", unsettled")?,
            }
        }
        for run in &self.runs[self.runs.len().saturating_sub(SHOWN)..] {
            write!(
                f,
                "\n  run +{} ms {} in {}: attempt {}, {}",
                since(run.at),
                name(&run.received),
                run.source.group(),
                run.attempt,
                run.end
                    .as_ref()
                    .map_or_else(|| "running".to_owned(), |end| format!("{:?}", end.how))
            )?;
        }
        Ok(())
    }
}
