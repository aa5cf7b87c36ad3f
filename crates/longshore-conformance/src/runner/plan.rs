//! What is run, in which order, and what comes of it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use libtest_mimic::{Completion, Failed, Trial};

use super::execute::{self, Verdict};
use super::flags::Flags;
use crate::check::Check;
use crate::harness::{Harness, Mutants, Target};
use crate::mutants::{self, CONTROL, Mutant};
use crate::report::{CheckEntry, MutantEntry, Report, Status};

pub(super) struct Suite {
    pub(super) harness: Arc<dyn Harness>,
    pub(super) reports: Arc<Mutex<Vec<Report>>>,
    servers: Vec<Server>,
    checks: Vec<&'static Check>,
    mutants: Mutants,
}

/// One broker under test.
#[derive(Clone, Debug)]
struct Server {
    index: usize,
    name: String,
    given: bool,
    /// Checks that stop it run alone on it; all others beside each other.
    alone: Arc<RwLock<()>>,
}

/// A trial, and whether it waits for the others on its server to end.
type Planned = (bool, Trial);

impl Suite {
    pub(super) fn new(harness: Arc<dyn Harness>, flags: &Flags) -> Self {
        let checks = flags.checks.clone();
        let names = harness.servers();
        let several = names.len() > 1;
        let report =
            |name: &String| Report::new(harness.name(), several.then(|| name.clone()), &checks);
        let reports = names.iter().map(report).collect();
        let given = flags.target != Target::Own;
        let server = |(index, name)| Server { index, name, given, alone: Arc::default() };
        let servers = names.into_iter().enumerate().map(server).collect();
        let mutants = flags.mutants.unwrap_or_else(|| harness.mutants());
        Self { harness, reports: Arc::new(Mutex::new(reports)), servers, checks, mutants }
    }

    /// The checks of all servers beside each other, as the catalogue has them; at the end those
    /// that run alone, so that the others are not held up around each.
    pub(super) fn trials(&self) -> Vec<Trial> {
        let mut planned = Vec::new();
        for check in &self.checks {
            planned.extend(self.servers.iter().map(|server| self.check(server, check)));
        }
        for server in &self.servers {
            planned.extend(self.broken(server));
        }
        planned.sort_by_key(|(alone, _)| *alone);
        planned.into_iter().map(|(_, trial)| trial).collect()
    }

    fn title(&self, server: &Server, name: &str) -> String {
        match self.servers.len() {
            1 => name.to_owned(),
            _ => format!("{}::{name}", server.name),
        }
    }

    fn check(&self, server: &Server, check: &'static Check) -> Planned {
        let title = self.title(server, check.id);
        let (harness, reports) = (self.harness.clone(), self.reports.clone());
        let alone = stops(&harness, check);
        let server = server.clone();
        let trial = Trial::ignorable_test(title, move || {
            let (verdict, version) = server.execute(&harness, check, None);
            let (status, reason, completion) = judge(verdict);
            let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports[server.index].record(version, CheckEntry::new(check, status, reason));
            completion
        });
        (alone, trial.with_kind(check.code))
    }

    /// The mutants of `server`, and what they are made with.
    fn broken(&self, server: &Server) -> Vec<Planned> {
        let judges: Vec<_> = match self.mutants {
            Mutants::All => self.checks.clone(),
            Mutants::Server if server.index == 0 => {
                self.checks.iter().copied().filter(|check| check.needs_server()).collect()
            }
            Mutants::Server | Mutants::None => Vec::new(),
        };
        let wanted = |mutant: &Mutant| judges.iter().any(|it| mutant.caught_by.contains(&it.id));
        let mutants: Vec<_> = mutants::all().filter(|mutant| wanted(mutant)).collect();
        if mutants.is_empty() {
            return Vec::new();
        }
        let mut planned = vec![self.control(server, &judges)];
        planned.extend(mutants.into_iter().map(|mutant| self.mutant(server, mutant, &judges)));
        planned
    }

    /// What the mutants are made with must change nothing by itself.
    fn control(&self, server: &Server, judges: &[&'static Check]) -> Planned {
        let title = self.title(server, CONTROL.name);
        let (harness, judges, server) = (self.harness.clone(), judges.to_vec(), server.clone());
        let alone = judges.iter().any(|check| stops(&harness, check));
        let trial = Trial::ignorable_test(title, move || {
            let mut ran = false;
            for check in judges {
                match server.execute(&harness, check, Some(&CONTROL)).0 {
                    Verdict::Failed(seen) => {
                        return Err(Failed::from(format!("{} fails: {seen}", check.id)));
                    }
                    Verdict::Passed | Verdict::Negative(_) => ran = true,
                    Verdict::NotApplicable(_) | Verdict::NotRun(_) => {}
                }
            }
            match ran {
                true => Ok(Completion::Completed),
                false => Ok(Completion::ignored_with("not run: none of its checks could be")),
            }
        });
        (alone, trial.with_kind("mutant"))
    }

    fn mutant(
        &self,
        server: &Server,
        mutant: &'static Mutant,
        judges: &[&'static Check],
    ) -> Planned {
        let title = self.title(server, mutant.name);
        let (harness, reports, server) =
            (self.harness.clone(), self.reports.clone(), server.clone());
        let judges: Vec<_> =
            judges.iter().copied().filter(|check| mutant.caught_by.contains(&check.id)).collect();
        let alone = judges.iter().any(|check| stops(&harness, check));
        let trial = Trial::ignorable_test(title, move || {
            let (mut caught_by, mut survived, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
            for check in judges {
                match server.execute(&harness, check, Some(mutant)).0 {
                    Verdict::Failed(_) => caught_by.push(check.id),
                    Verdict::Passed => survived.push(check.id),
                    Verdict::Negative(reason)
                    | Verdict::NotApplicable(reason)
                    | Verdict::NotRun(reason) => unknown.push((check.id, reason)),
                }
            }
            let not_run = unknown.iter().map(|(id, _)| *id).collect();
            let entry =
                MutantEntry { name: mutant.name, caught_by, survived: survived.clone(), not_run };
            let caught = entry.is_caught();
            let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports[server.index].mutants.push(entry);
            if caught {
                Ok(Completion::Completed)
            } else if survived.is_empty() {
                let unknown: Vec<_> =
                    unknown.into_iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
                Ok(Completion::ignored_with(format!("not run: {}", unknown.join("; "))))
            } else {
                Err(Failed::from(format!("it survives {}", survived.join(", "))))
            }
        });
        (alone, trial.with_kind("mutant"))
    }
}

/// Whether `check` stops a server. A broker that lives on virtual time lives in this process, and
/// nobody stops it.
fn stops(harness: &Arc<dyn Harness>, check: &Check) -> bool {
    check.runs_alone() && !harness.virtual_clock()
}

impl Server {
    fn execute(
        &self,
        harness: &Arc<dyn Harness>,
        check: &'static Check,
        mutant: Option<&'static Mutant>,
    ) -> (Verdict, Option<String>) {
        if self.given
            && !harness.virtual_clock()
            && let Some(why) = check.spares_given()
        {
            return (Verdict::NotRun(why.to_owned()), None);
        }
        if stops(harness, check) {
            let _alone = self.alone.write().unwrap_or_else(PoisonError::into_inner);
            return execute::execute(harness, &self.name, check, mutant);
        }
        let _beside = self.alone.read().unwrap_or_else(PoisonError::into_inner);
        execute::execute(harness, &self.name, check, mutant)
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
