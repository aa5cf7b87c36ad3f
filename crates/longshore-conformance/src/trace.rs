use std::collections::BTreeMap;
use std::fmt::Write as _;

use longshore_core::{Reason, Received};

use crate::ledger::{Outcome, Records, body};

/// What came of each message, without times, order among messages, or who did it: the part that is
/// the same on every backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(BTreeMap<String, Life>);

/// What came of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Life {
    runs: Vec<(u32, Option<Outcome>)>,
    /// Reason, attempts and redrives; `None` inside: without readable metadata.
    letters: Vec<Option<(Reason, u32, u32)>>,
}

impl Trace {
    /// Reads it out of the ledger and the dead-letter queue; messages are told apart by their text.
    #[must_use]
    pub fn of(records: &Records, letters: &[Received]) -> Self {
        let mut lives: BTreeMap<String, Life> = BTreeMap::new();
        for run in &records.runs {
            let life = lives.entry(body(&run.received).to_owned()).or_default();
            life.runs.push((run.attempt, run.end.as_ref().map(|end| end.how)));
        }
        for dead in letters {
            let letter = dead.letter.as_ref();
            let known = letter.map(|known| (known.reason, known.attempts, known.redrive_count));
            lives.entry(body(dead).to_owned()).or_default().letters.push(known);
        }
        Self(lives)
    }

    /// A line for each message, in the order of their texts.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(text, life)| line(text, life)).collect()
    }
}

fn line(text: &str, life: &Life) -> String {
    let runs: Vec<_> = life
        .runs
        .iter()
        .map(|(attempt, how)| {
            let how = match how {
                Some(Outcome::Ok) => "ok",
                Some(Outcome::Failed) => "failed",
                Some(Outcome::Panicked) => "panicked",
                Some(Outcome::Dropped) => "dropped",
                None => "running",
            };
            format!("{attempt} {how}")
        })
        .collect();
    let mut line = format!("{text}: {}", runs.join(", "));
    for letter in &life.letters {
        let written = match letter {
            Some((reason, attempts, redrives)) => {
                write!(line, "; dead: {reason}, {attempts} attempts, {redrives} redrives")
            }
            None => line.write_str("; dead: unreadable"),
        };
        written.expect("a text takes whatever is written to it");
    }
    line
}
