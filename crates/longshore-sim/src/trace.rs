//! What happened, as one number and, where asked for, as lines.

use crate::dice::mix;
use crate::scenario::{MS, Time};

#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    /// The message that a line is about, and the line.
    pub(crate) lines: Option<Vec<(Option<usize>, String)>>,
}

impl Trace {
    pub(crate) fn new(seed: u64, lines: bool) -> Self {
        Self { hash: seed, lines: lines.then(Vec::new) }
    }

    /// `what` and `number` go into the hash, `text` into the line.
    pub(crate) fn note(
        &mut self,
        now: Time,
        message: Option<usize>,
        what: &'static str,
        number: u64,
        text: impl FnOnce() -> String,
    ) {
        self.hash = mix(self.hash, now);
        for chunk in what.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = mix(self.hash, u64::from_le_bytes(word));
        }
        self.hash = mix(self.hash, number);
        if let Some(lines) = &mut self.lines {
            let of = message.map_or_else(String::new, |index| format!("m{index}"));
            lines.push((message, format!("{:>10} ms  {of:<3} {what}{}", clock(now), text())));
        }
    }

    /// What was about one message or about none, by message.
    pub(crate) fn by_message(&mut self, about: Option<usize>) -> Vec<String> {
        let lines = self.lines.take().unwrap_or_default();
        let wanted = |of: &Option<usize>| about.is_none() || of.is_none() || *of == about;
        lines.into_iter().filter(|(of, _)| wanted(of)).map(|(_, line)| line).collect()
    }
}

/// Milliseconds with their thousandths.
pub(crate) fn clock(time: Time) -> String {
    format!("{}.{:03}", time / MS, time % MS / 1_000)
}
