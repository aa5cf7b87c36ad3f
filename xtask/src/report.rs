//! The suite's report, as its JSON has it, and what stands in all of it together.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

/// What came of one backend and server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) backend: String,
    pub(crate) server: String,
    pub(crate) checks: Vec<Check>,
    pub(crate) mutants: Vec<Mutant>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Check {
    pub(crate) id: String,
    pub(crate) code: String,
    pub(crate) tier: String,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    Passed,
    Negative,
    NotApplicable,
    NotRun,
    Failed,
}

impl Status {
    pub(crate) const ALL: [Self; 5] =
        [Self::Passed, Self::Negative, Self::NotApplicable, Self::NotRun, Self::Failed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Negative => "negative",
            Self::NotApplicable => "not applicable",
            Self::NotRun => "not run",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) caught_by: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) survived: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_run: Vec<String>,
}

impl Report {
    pub(crate) fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

/// The mutants of all backends together: one that a check cannot judge on one backend is judged by
/// it on another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caught {
    pub(crate) caught: usize,
    pub(crate) all: usize,
    /// The others, each with the checks that must catch it and did not.
    pub(crate) left: BTreeMap<String, BTreeSet<String>>,
}

impl Caught {
    pub(crate) fn of(reports: &[Report]) -> Self {
        let mut wanting = BTreeMap::<&str, BTreeSet<&str>>::new();
        let mut seen = BTreeSet::new();
        for mutant in reports.iter().flat_map(|report| &report.mutants) {
            let judges = mutant.survived.iter().chain(&mutant.not_run).map(String::as_str);
            wanting.entry(&mutant.name).or_default().extend(judges);
            seen.extend(mutant.caught_by.iter().map(|check| (&*mutant.name, &**check)));
        }
        // A check that let it through on one backend is not excused by another.
        for mutant in reports.iter().flat_map(|report| &report.mutants) {
            mutant.survived.iter().for_each(|check| {
                seen.remove(&(&*mutant.name, &**check));
            });
        }
        let mut total = Self { all: wanting.len(), ..Self::default() };
        for (name, judges) in wanting {
            let left: BTreeSet<_> = judges
                .into_iter()
                .filter(|check| !seen.contains(&(name, *check)))
                .map(str::to_owned)
                .collect();
            if left.is_empty() {
                total.caught += 1;
            } else {
                total.left.insert(name.to_owned(), left);
            }
        }
        total
    }
}

/// One table of all backends and servers; under it why something is not applicable or was not run.
/// `took`: how long each backend took in all, in seconds.
pub(crate) fn table(reports: &[Report], took: &[(&str, f64)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let statuses = Status::ALL.iter().map(|status| status.as_str());
    table.set_header(
        ["backend", "server"].into_iter().chain(statuses).chain(["mutants caught", "time"]),
    );
    let (mut why, mut last) = (Vec::new(), None);
    for report in reports {
        let numbers = Status::ALL.iter().map(|status| report.count(*status).to_string());
        let own = Caught::of(std::slice::from_ref(report));
        // The servers of one backend are tested beside each other.
        let time = took.iter().find(|(name, _)| *name == report.backend && last != Some(*name));
        last = time.map_or(last, |(name, _)| Some(*name));
        let time = time.map_or(String::new(), |(_, seconds)| format!("{seconds:.0} s"));
        let mutants = match own.all {
            0 => "none was run".to_owned(),
            all => format!("{} of {all}", own.caught),
        };
        let names = [report.backend.clone(), report.server.clone()];
        table.add_row(names.into_iter().chain(numbers).chain([mutants, time]));
        for check in &report.checks {
            if !matches!(check.status, Status::Passed) {
                let reason = check.reason.as_deref().unwrap_or_default();
                let reason = reason.lines().next().unwrap_or_default();
                let (server, status) = (&report.server, check.status.as_str());
                why.push(format!("{status}: {} ({}) on {server}: {reason}", check.id, check.code));
            }
        }
    }
    let caught = Caught::of(reports);
    why.extend(caught.left.iter().map(|(mutant, checks)| {
        let checks: Vec<_> = checks.iter().map(String::as_str).collect();
        format!("not caught: \"{mutant}\", by {}", checks.join(", "))
    }));
    // A run of a few checks has hundreds that were not selected, and the table says how many.
    const SHOWN: usize = 20;
    let more = why.len().saturating_sub(SHOWN);
    why.truncate(SHOWN);
    if more > 0 {
        why.push(format!("and {more} more, in the report"));
    }
    let mutants = format!("mutants: {} of {} caught", caught.caught, caught.all);
    format!("{table}\n{}\n{mutants}", why.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(name: &str, caught: &[&str], survived: &[&str], not_run: &[&str]) -> Mutant {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (caught_by, survived, not_run) = (own(caught), own(survived), own(not_run));
        Mutant { name: name.to_owned(), caught_by, survived, not_run }
    }

    fn report(backend: &str, mutants: Vec<Mutant>) -> Report {
        let check = |code: &str, status, reason: Option<&str>| Check {
            id: format!("id.{}", code.to_lowercase()),
            code: code.to_owned(),
            tier: "core".to_owned(),
            status,
            reason: reason.map(str::to_owned),
        };
        let checks = vec![
            check("A1", Status::Passed, None),
            check("K1", Status::NotApplicable, Some("no server\nmore")),
        ];
        let server = format!("{backend} 1");
        Report { backend: backend.to_owned(), server, checks, mutants }
    }

    #[test]
    fn what_one_backend_cannot_judge_another_does() {
        let memory = report("memory", vec![mutant("both", &["A1"], &[], &["K1"])]);
        let alone = Caught::of(std::slice::from_ref(&memory));
        assert_eq!((alone.caught, alone.all), (0, 1));
        assert!(alone.left["both"].contains("K1"));
        let nats = report("nats", vec![mutant("both", &["K1"], &[], &[])]);
        assert_eq!(Caught::of(&[memory, nats]).caught, 1);
    }

    #[test]
    fn a_check_that_let_a_mutant_through_is_not_excused() {
        let good = report("memory", vec![mutant("one", &["A1"], &[], &[])]);
        let bad = report("nats", vec![mutant("one", &[], &["A1"], &[])]);
        assert_eq!(Caught::of(std::slice::from_ref(&good)).caught, 1);
        let both = Caught::of(&[good, bad]);
        assert_eq!((both.caught, both.all), (0, 1));
    }

    #[test]
    fn the_table_has_the_reasons_and_the_time_once() {
        let reports = [report("memory", vec![]), report("nats", vec![]), report("nats", vec![])];
        let text = table(&reports, &[("memory", 2.0), ("nats", 61.4)]);
        assert!(text.contains("not applicable: id.k1 (K1) on memory 1: no server"), "{text}");
        assert!(!text.contains("more"), "{text}");
        assert_eq!(text.matches("61 s").count(), 1, "{text}");
        assert!(text.ends_with("mutants: 0 of 0 caught"), "{text}");
    }
}
