//! Runs the suite: one test for each check and one for each mutant.

mod execute;
mod flags;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use self::execute::Verdict;
use self::flags::{Flags, Wish};
use crate::check::Check;
use crate::child::{self, Errand};
use crate::harness::Harness;
use crate::mutants::{self, CONTROL, Mutant};
use crate::report::{self, CheckEntry, MutantEntry, Report, Status};

/// The `main` of a backend's conformance test (`harness = false`).
///
/// Own flags: `--json FILE` writes the report, `--check ID` (or its code; may be repeated) restricts
/// checks and mutants, `--list` shows the checks. What else is given is understood as the built-in
/// test harness would.
#[must_use]
pub fn main(harness: impl Harness) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some((child::FLAG, words)) = arguments.split_first().map(|(flag, rest)| (&**flag, rest))
    {
        let Some(errand) = Errand::parse(words) else {
            eprintln!("a child is told a check, a step, a server, a topic, a group and a ledger");
            return ExitCode::from(2);
        };
        return errand.run(&harness);
    }
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    match flags.wish {
        Wish::List => {
            println!("{}", report::listing(&flags.checks));
            ExitCode::SUCCESS
        }
        Wish::Run => Suite::new(Arc::new(harness), &flags).run(&flags),
    }
}

/// Checks that stop the server run alone; all others beside each other.
static SERVER: RwLock<()> = RwLock::new(());

fn execute(
    harness: &Arc<dyn Harness>,
    server: &str,
    check: &'static Check,
    mutant: Option<&'static Mutant>,
) -> (Verdict, Option<String>) {
    // A broker that lives on virtual time lives in this process, and nobody stops it.
    if check.runs_alone() && !harness.virtual_clock() {
        let _alone = SERVER.write().unwrap_or_else(PoisonError::into_inner);
        return execute::execute(harness, server, check, mutant);
    }
    let _beside = SERVER.read().unwrap_or_else(PoisonError::into_inner);
    execute::execute(harness, server, check, mutant)
}

struct Suite {
    harness: Arc<dyn Harness>,
    checks: Vec<&'static Check>,
    mutants: Vec<&'static Mutant>,
    reports: Arc<Mutex<Vec<Report>>>,
}

impl Suite {
    fn new(harness: Arc<dyn Harness>, flags: &Flags) -> Self {
        let checks = flags.checks.clone();
        let wanted = |mutant: &&Mutant| {
            mutant.caught_by.iter().any(|id| checks.iter().any(|check| check.id == *id))
        };
        let mutants =
            if harness.mutants() { mutants::all().filter(wanted).collect() } else { Vec::new() };
        let servers = harness.servers();
        let several = servers.len() > 1;
        let reports = servers
            .into_iter()
            .map(|server| Report::new(harness.name(), several.then_some(server), &checks))
            .collect();
        Self { harness, checks, mutants, reports: Arc::new(Mutex::new(reports)) }
    }

    fn run(self, flags: &Flags) -> ExitCode {
        let arguments = Arguments::from_iter(&flags.rest);
        let conclusion = libtest_mimic::run(&arguments, self.trials());
        if arguments.list {
            return conclusion.exit_code();
        }
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = reports.iter().all(Report::is_empty);
        if !nothing {
            println!("{}", report::table(&reports));
        }
        if let Some(path) = &flags.json
            && let Err(error) = report::write_json(path, &reports)
        {
            eprintln!("the report could not be written to {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        // A filter that names another binary's test may match nothing here; without one, a suite that
        // runs nothing is not green.
        let filtered =
            arguments.filter.is_some() || !arguments.skip.is_empty() || arguments.ignored;
        if nothing && !filtered {
            eprintln!("nothing was run");
            return ExitCode::FAILURE;
        }
        conclusion.exit_code()
    }

    fn trials(&self) -> Vec<Trial> {
        let servers = self.harness.servers();
        let mut trials = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            let name = |name: &str| {
                if servers.len() > 1 { format!("{server}::{name}") } else { name.to_owned() }
            };
            for check in &self.checks {
                trials.push(self.check(index, server.clone(), name(check.id), check));
            }
            if !self.mutants.is_empty() {
                trials.push(self.control(server.clone(), name(CONTROL.name)));
            }
            for mutant in &self.mutants {
                let title = name(mutant.name);
                trials.push(self.mutant(index, server.clone(), title, mutant));
            }
        }
        trials
    }

    fn check(&self, index: usize, server: String, name: String, check: &'static Check) -> Trial {
        let (harness, reports) = (self.harness.clone(), self.reports.clone());
        Trial::ignorable_test(name, move || {
            let (verdict, version) = execute(&harness, &server, check, None);
            let (status, reason, completion) = judge(verdict);
            let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports[index].record(version, CheckEntry::new(check, status, reason));
            completion
        })
        .with_kind(check.code)
    }

    /// What the mutants are made with must change nothing by itself.
    fn control(&self, server: String, name: String) -> Trial {
        let (harness, checks) = (self.harness.clone(), self.checks.clone());
        Trial::test(name, move || {
            for check in checks {
                if let Verdict::Failed(seen) = execute(&harness, &server, check, Some(&CONTROL)).0 {
                    return Err(Failed::from(format!("{} fails: {seen}", check.id)));
                }
            }
            Ok(())
        })
        .with_kind("mutant")
    }

    fn mutant(&self, index: usize, server: String, name: String, mutant: &'static Mutant) -> Trial {
        let (harness, reports) = (self.harness.clone(), self.reports.clone());
        let judges: Vec<_> = self
            .checks
            .iter()
            .copied()
            .filter(|check| mutant.caught_by.contains(&check.id))
            .collect();
        Trial::ignorable_test(name, move || {
            let (mut caught_by, mut survived, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
            for check in judges {
                match execute(&harness, &server, check, Some(mutant)).0 {
                    Verdict::Failed(_) => caught_by.push(check.id),
                    Verdict::Passed => survived.push(check.id),
                    Verdict::Negative(reason)
                    | Verdict::NotApplicable(reason)
                    | Verdict::NotRun(reason) => unknown.push(format!("{}: {reason}", check.id)),
                }
            }
            let entry = MutantEntry { name: mutant.name, caught_by, survived: survived.clone() };
            let caught = entry.is_caught();
            let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports[index].mutants.push(entry);
            if caught {
                Ok(Completion::Completed)
            } else if survived.is_empty() {
                Ok(Completion::ignored_with(format!("not run: {}", unknown.join("; "))))
            } else {
                Err(Failed::from(format!("it survives {}", survived.join(", "))))
            }
        })
        .with_kind("mutant")
    }
}

/// What a verdict is in the report and for the test harness. Only what was seen to hold is green.
fn judge(verdict: Verdict) -> (Status, Option<String>, Result<Completion, Failed>) {
    let ignored =
        |text: &str, reason: &str| Ok(Completion::ignored_with(format!("{text}: {reason}")));
    match verdict {
        Verdict::Passed => (Status::Passed, None, Ok(Completion::Completed)),
        Verdict::Negative(reason) => (Status::Negative, Some(reason), Ok(Completion::Completed)),
        Verdict::NotApplicable(reason) => {
            let completion = ignored("not applicable", &reason);
            (Status::NotApplicable, Some(reason), completion)
        }
        Verdict::NotRun(reason) => {
            let completion = ignored("not run", &reason);
            (Status::NotRun, Some(reason), completion)
        }
        Verdict::Failed(reason) => {
            let failed = Failed::from(&reason);
            (Status::Failed, Some(reason), Err(failed))
        }
    }
}
