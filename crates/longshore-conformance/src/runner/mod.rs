//! Runs the suite: one test for each check and one for each mutant.

mod execute;
mod flags;
mod plan;

use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use libtest_mimic::Arguments;
use longshore_core::{Result, Setup};

use self::flags::{Flags, Wish};
use self::plan::Suite;
use crate::child::{self, Errand};
use crate::harness::{Harness, Target};
use crate::report::{self, Report};

/// How many checks run beside each other for each processor, where time is real: most of a check is
/// waiting. What they may be late by is measured in the same run, so load does not fail them.
const BESIDE: usize = 4;

/// The `main` of a backend's conformance test (`harness = false`). `open` makes the harness, once the
/// command line is understood: a mistake in it starts no server.
///
/// Own flags: `--json FILE` writes the report, `--check ID` (or its code; may be repeated) restricts
/// checks and mutants, `--url URL` takes the broker there in place of one that is started
/// (`-`: the URL is read from the standard input),
/// `--mutants all|server|none` says which mutants run, `--list` shows the checks (with `--json`:
/// writes them). What else is given is understood as the built-in test harness would.
#[must_use]
pub fn main<H: Harness>(open: impl FnOnce(Target) -> Result<H>) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some((child::FLAG, words)) = arguments.split_first().map(|(flag, rest)| (&**flag, rest))
    {
        let Some(errand) = Errand::parse(words) else {
            return refuse("a child is told a check, a step, a URL, a topic, a group and a ledger");
        };
        return match open(Target::Given(errand.url.clone())) {
            Ok(harness) => errand.run(&harness),
            Err(error) => fail(&format!("{error:?}")),
        };
    }
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(wrong) => return refuse(&wrong),
    };
    if flags.wish == Wish::List {
        return list(&flags);
    }
    let target = match told(flags.target.clone(), std::io::stdin()) {
        Ok(target) => target,
        Err(error) => return fail(&format!("no URL could be read: {error}")),
    };
    let harness: Arc<dyn Harness> = match open(target) {
        Ok(harness) => Arc::new(harness),
        Err(error) => return fail(&format!("no broker to test: {error:?}")),
    };
    if let Target::Given(_) = flags.target
        && let Err(error) = reach(&*harness)
    {
        return fail(&format!("the broker of `--url` cannot be used: {error:?}"));
    }
    run(&Suite::new(harness, &flags), &flags)
}

/// A URL that is `-` is read from `input`: it may hold a password, and a command line can be seen.
fn told(target: Target, input: impl std::io::Read) -> std::io::Result<Target> {
    match target {
        Target::Given(url) if url == "-" => {
            let url = std::io::read_to_string(input)?;
            Ok(Target::Given(url.trim().to_owned()))
        }
        target => Ok(target),
    }
}

/// One error in the place of one for each check.
fn reach(harness: &dyn Harness) -> Result<()> {
    let broken = |error: std::io::Error| {
        longshore_core::Error::new(longshore_core::ErrorKind::Unexpected, "no runtime")
            .with_source(error)
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().map_err(broken)?;
    runtime.block_on(async {
        for server in harness.servers() {
            harness.connect(&server, Setup::default()).await?.close().await?;
        }
        Ok(())
    })
}

fn list(flags: &Flags) -> ExitCode {
    let Some(path) = &flags.json else {
        println!("{}", report::listing(&flags.checks));
        return ExitCode::SUCCESS;
    };
    match report::write_json(path, &report::entries(&flags.checks)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("no list could be written to {}: {error}", path.display())),
    }
}

fn run(suite: &Suite, flags: &Flags) -> ExitCode {
    let mut arguments = Arguments::from_iter(&flags.rest);
    if !suite.harness.virtual_clock() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        arguments.test_threads.get_or_insert(processors * BESIDE);
    }
    let conclusion = libtest_mimic::run(&arguments, suite.trials());
    if arguments.list {
        return conclusion.exit_code();
    }
    let reports = suite.reports.lock().unwrap_or_else(PoisonError::into_inner);
    let nothing = reports.iter().all(Report::is_empty);
    if !nothing {
        println!("{}", report::table(&reports));
    }
    if let Some(path) = &flags.json
        && let Err(error) = report::write_json(path, &*reports)
    {
        return fail(&format!("the report could not be written to {}: {error}", path.display()));
    }
    // A filter that names another binary's test may match nothing here; without one, a suite that
    // runs nothing is not green.
    let filtered = arguments.filter.is_some() || !arguments.skip.is_empty() || arguments.ignored;
    if nothing && !filtered {
        return fail("nothing was run");
    }
    conclusion.exit_code()
}

/// The command line is wrong.
fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_can_be_kept_off_the_command_line() {
        let told = |target, input: &str| told(target, input.as_bytes()).unwrap();
        let given = |url: &str| Target::Given(url.to_owned());
        assert_eq!(told(given("-"), "nats://user:secret@host\n"), given("nats://user:secret@host"));
        assert_eq!(told(given("nats://host"), "other"), given("nats://host"));
        assert_eq!(told(Target::Own, "other"), Target::Own);
    }
}
