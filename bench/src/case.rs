//! What is measured: one row a case.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

/// What one measurement does to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many tasks, each sends one message and waits until it is confirmed.
    Tasks(usize),
    /// One task that keeps so many messages unconfirmed, and takes the confirmations in order.
    Window(usize),
    /// A full queue is handled and settled.
    Consume,
    /// Messages are published (with a window of 1024), handled and settled at once.
    Both,
    /// Messages are published at a steady rate; each is timed from its send to its handler.
    Latency,
    /// As `Consume`, and each hundredth handler waits.
    Slow,
    /// Every handler run fails; after one durable retry each message is a dead letter.
    DeadLetter,
    /// Every first run fails; the second is timed against the moment it was due.
    Lateness,
}

impl Work {
    /// Whether it reads what it publishes.
    pub(crate) fn consumes(self) -> bool {
        !matches!(self, Self::Tasks(_) | Self::Window(_))
    }
}

/// The window of [`Work::Both`], and the default one of a longshore sender.
pub(crate) const WINDOW: usize = 1024;
/// Handlers at a time.
pub(crate) const CONCURRENCY: usize = 64;
/// Between two sends of [`Work::Latency`]: 1,000 a second, far below what any broker bears.
pub(crate) const LATENCY_PACE: Duration = Duration::from_millis(1);
/// Between two sends of [`Work::Lateness`]: an idle broker.
pub(crate) const LATENESS_PACE: Duration = Duration::from_millis(5);
/// One handler in so many waits.
pub(crate) const SLOW_SHARE: usize = 100;
/// For so long.
pub(crate) const SLOW_WAIT: Duration = Duration::from_millis(20);
/// The durable gap of [`Work::DeadLetter`].
pub(crate) const DEAD_LETTER_GAP: Duration = Duration::from_millis(50);
/// The durable gap of [`Work::Lateness`].
pub(crate) const LATENESS_GAP: Duration = Duration::from_millis(500);

/// How a case's result is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Messages a second: more is better.
    Rate,
    /// Percentiles of a time: less is better.
    Time,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) work: Work,
    pub(crate) sizes: &'static [usize],
    pub(crate) unit: Unit,
    /// Whether a raw client has something to set against it, and a round a control.
    pub(crate) paired: bool,
}

const BOTH_SIZES: &[usize] = &[128, 1024];
const LARGE: &[usize] = &[1024];
const SMALL: &[usize] = &[128];

pub(crate) const ALL: &[Case] = &[
    rate("publish-1", "publish, one at a time", Work::Tasks(1), BOTH_SIZES),
    rate("publish-64", "publish, 64 tasks", Work::Tasks(64), BOTH_SIZES),
    rate("publish-1024", "publish, window of 1024", Work::Window(WINDOW), BOTH_SIZES),
    rate("consume", "consume and settle", Work::Consume, BOTH_SIZES),
    rate("both", "publish, consume and settle", Work::Both, BOTH_SIZES),
    rate("slow", "consume, 1 % of handlers wait 20 ms", Work::Slow, LARGE),
    Case {
        id: "latency",
        title: "publish to handler, 1,000 a second",
        work: Work::Latency,
        sizes: LARGE,
        unit: Unit::Time,
        paired: true,
    },
    Case {
        id: "dead-letter",
        title: "fail, retry after 50 ms, dead-letter",
        work: Work::DeadLetter,
        sizes: LARGE,
        unit: Unit::Rate,
        paired: false,
    },
    Case {
        id: "lateness",
        title: "retry after 500 ms: how late",
        work: Work::Lateness,
        sizes: SMALL,
        unit: Unit::Time,
        paired: false,
    },
];

const fn rate(id: &'static str, title: &'static str, work: Work, sizes: &'static [usize]) -> Case {
    Case { id, title, work, sizes, unit: Unit::Rate, paired: true }
}

/// Those that were named; all where none was.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Case>> {
    for name in names {
        if ALL.iter().all(|case| case.id != name) {
            let known: Vec<_> = ALL.iter().map(|case| case.id).collect();
            bail!("no case is named `{name}`; known: {}", known.join(", "));
        }
    }
    let named = |case: &&Case| names.is_empty() || names.iter().any(|name| name == case.id);
    Ok(ALL.iter().filter(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_case_lists_the_known() {
        assert_eq!(select(&[]).unwrap().len(), ALL.len());
        let error = select(&["flow".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("no case is named `flow`; known: publish-1, "), "{error}");
    }
}
