//! What a start shows while it runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where the steps of a start are shown.
#[derive(Clone, Debug)]
pub struct Progress(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Silent,
    Lines,
    Spinners(MultiProgress),
}

impl Progress {
    /// Nowhere; for tests.
    pub fn silent() -> Self {
        Self(Mode::Silent)
    }

    /// On standard error: a spinner a broker on a terminal, plain lines elsewhere.
    pub fn shown() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self(if terminal { Mode::Spinners(MultiProgress::new()) } else { Mode::Lines })
    }

    pub(crate) fn task(&self, name: String) -> Task {
        let spinner = match &self.0 {
            Mode::Spinners(all) => {
                let spinner = all.add(ProgressBar::new_spinner());
                // The template is a constant; should it not parse, the default one serves.
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                    spinner.set_style(style);
                }
                spinner.enable_steady_tick(Duration::from_millis(100));
                Some(spinner)
            }
            Mode::Silent | Mode::Lines => None,
        };
        let lines = matches!(self.0, Mode::Lines);
        Task { name, begun: Instant::now(), spinner, lines }
    }
}

/// One broker's line.
#[derive(Debug)]
pub(crate) struct Task {
    name: String,
    begun: Instant,
    spinner: Option<ProgressBar>,
    lines: bool,
}

impl Task {
    pub(crate) fn step(&self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{}: {what}", self.name));
        } else if self.lines {
            eprintln!("{}: {what}", self.name);
        }
    }

    pub(crate) fn end(&self, how: &str) {
        let text = format!("{how} after {:.2} s", self.begun.elapsed().as_secs_f64());
        match &self.spinner {
            Some(spinner) => spinner.finish_with_message(format!("{}: {text}", self.name)),
            None => self.step(&text),
        }
    }
}
