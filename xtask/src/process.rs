//! Running cargo and reading what it counted.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The tests of one or more runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) not_run: u64,
}

impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run += other.not_run;
    }

    /// What a `test result:` line says; nothing for any other line.
    fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut count = Self::default();
        for part in counts.split(';') {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => count.passed = number.parse().ok()?,
                Some((number, "failed")) => count.failed = number.parse().ok()?,
                Some((number, "ignored")) => count.not_run = number.parse().ok()?,
                _ => {}
            }
        }
        Some(count)
    }
}

/// How many tests of the program that runs have ended.
#[derive(Debug, Default)]
struct Progress {
    ended: u64,
    all: u64,
}

impl Progress {
    /// What to show before `line`: for a test, how many it is of how many.
    fn before(&mut self, line: &str) -> String {
        let announced = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
        if let Some(all) = announced.and_then(|(all, _)| all.parse().ok()) {
            *self = Self { ended: 0, all };
        } else if line.starts_with("test ") && line.contains(" ... ") {
            self.ended += 1;
            return format!("{:>4}/{} ", self.ended, self.all);
        }
        String::new()
    }
}

/// The cargo that runs us, so that one toolchain does everything.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(arguments);
    command
}

/// Runs `command`, shows what it prints, counts its tests, and says whether it succeeded.
pub(crate) fn run(command: &mut Command) -> Result<(bool, Count)> {
    run_told(command, "")
}

/// The same with `input` to read: what cargo must not show with the command line of a program that
/// fails.
pub(crate) fn run_told(command: &mut Command, input: &str) -> Result<(bool, Count)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended already says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (mut count, mut progress) = (Count::default(), Progress::default());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("reading what cargo prints")?;
            let text = String::from_utf8_lossy(&line);
            count.add(Count::of_line(&text).unwrap_or_default());
            // Whoever reads us may be gone; the run goes on.
            let _ = writeln!(std::io::stdout(), "{}{text}", progress.before(&text));
        }
    }
    let status = child.wait().context("waiting for cargo")?;
    Ok((status.success(), count))
}

/// Whether `command` can be run at all.
pub(crate) fn exists(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_shows_how_many_are_left() {
        let mut progress = Progress::default();
        assert_eq!(progress.before("running 12 tests"), "");
        assert_eq!(progress.before("test [R4] retry.never_early ... ok"), "   1/12 ");
        assert_eq!(progress.before("test a has been running for over 60 seconds"), "");
        assert_eq!(progress.before("test b - should panic ... FAILED"), "   2/12 ");
        assert_eq!(progress.before("running 1 test"), "");
        assert_eq!(progress.before("test c ... ignored"), "   1/1 ");
        assert_eq!(progress.before("test result: ok. 1 passed; 0 failed"), "");
    }

    #[test]
    fn the_runners_closing_line_is_read() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out";
        assert_eq!(Count::of_line(line), Some(Count { passed: 12, failed: 3, not_run: 1 }));
        assert_eq!(Count::of_line("test result_of_a_thing ... ok"), None);
        assert_eq!(Count::of_line("12 passed"), None);
    }
}
