//! What came of the checks: a table for people, JSON for programs.

use std::fmt;
use std::io;
use std::path::Path;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::check::Check;
use crate::mutants;

/// What came of one backend and server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// The server and its version, as the backend says; before it, where the harness has several,
    /// the name of the variant.
    pub server: String,
    #[serde(skip)]
    variant: Option<String>,
    /// Check by check, in the order of the catalogue.
    pub checks: Vec<CheckEntry>,
    /// Mutant by mutant.
    pub mutants: Vec<MutantEntry>,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckEntry {
    /// Its stable id.
    pub id: &'static str,
    /// Its code in the catalogue.
    pub code: &'static str,
    /// Its tier.
    pub tier: &'static str,
    /// What came of it.
    pub status: Status,
    /// Why, where it is not simply passed.
    pub reason: Option<String>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The promise was seen to hold.
    Passed,
    /// The backend declares that it lacks the ability, and refuses it.
    Negative,
    /// It has no meaning on this backend.
    NotApplicable,
    /// It was not run. Never green.
    NotRun,
    /// The promise is broken.
    Failed,
}

impl Status {
    const ALL: [Self; 5] =
        [Self::Passed, Self::Negative, Self::NotApplicable, Self::NotRun, Self::Failed];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Negative => "negative",
            Self::NotApplicable => "not applicable",
            Self::NotRun => "not run",
            Self::Failed => "failed",
        })
    }
}

/// Which checks caught a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MutantEntry {
    /// What was broken.
    pub name: &'static str,
    /// The checks that failed on it.
    pub caught_by: Vec<&'static str>,
    /// The checks that should have, and did not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub survived: Vec<&'static str>,
    /// The checks that could not be run on it here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_run: Vec<&'static str>,
}

impl MutantEntry {
    /// Whether it was found, by every check that could be run on it.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.survived.is_empty() && !self.caught_by.is_empty()
    }
}

impl CheckEntry {
    pub(crate) fn new(check: &Check, status: Status, reason: Option<String>) -> Self {
        Self { id: check.id, code: check.code, tier: check.tier.as_str(), status, reason }
    }
}

impl Report {
    /// A report in which nothing was run yet.
    pub(crate) fn new(backend: &str, variant: Option<String>, checks: &[&'static Check]) -> Self {
        let unselected = || Some("not selected by the filter".to_owned());
        Self {
            backend: backend.to_owned(),
            server: variant.clone().unwrap_or_else(|| "unknown".to_owned()),
            variant,
            checks: checks
                .iter()
                .map(|check| CheckEntry::new(check, Status::NotRun, unselected()))
                .collect(),
            mutants: Vec::new(),
        }
    }

    pub(crate) fn record(&mut self, server: Option<String>, entry: CheckEntry) {
        if let Some(server) = server {
            self.server = match &self.variant {
                Some(variant) => format!("{variant}: {server}"),
                None => server,
            };
        }
        if let Some(place) = self.checks.iter_mut().find(|known| known.id == entry.id) {
            *place = entry;
        }
    }

    /// Whether not one check and not one mutant was run.
    pub(crate) fn is_empty(&self) -> bool {
        self.mutants.is_empty() && self.count(Status::NotRun) == self.checks.len()
    }

    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|entry| entry.status == status).count()
    }
}

/// The reports as a table: what is not passed, line by line, and the counts.
#[must_use]
pub(crate) fn table(reports: &[Report]) -> String {
    let mut out = String::new();
    let mut odd = plain();
    odd.set_header(["server", "check", "code", "status", "reason"]);
    let mut any = false;
    for report in reports {
        for entry in report.checks.iter().filter(|entry| entry.status != Status::Passed) {
            any = true;
            let reason = entry.reason.clone().unwrap_or_default();
            let reason = reason.lines().next().unwrap_or_default().to_owned();
            let status = entry.status.to_string();
            odd.add_row([
                report.server.clone(),
                entry.id.into(),
                entry.code.into(),
                status,
                reason,
            ]);
        }
    }
    if any {
        out.push_str(&format!("\n{odd}\n"));
    }
    let mut counts = plain();
    let statuses = Status::ALL.iter().map(ToString::to_string);
    let header = ["backend", "server"].map(str::to_owned).into_iter().chain(statuses);
    counts.set_header(header.chain(["mutants caught".to_owned()]));
    for report in reports {
        let caught = report.mutants.iter().filter(|mutant| mutant.is_caught()).count();
        let numbers = Status::ALL.iter().map(|status| report.count(*status).to_string());
        let names = [report.backend.clone(), report.server.clone()].into_iter();
        let mutants = match report.mutants.len() {
            0 => "none was run".to_owned(),
            all => format!("{caught} of {all}"),
        };
        counts.add_row(names.chain(numbers).chain([mutants]));
    }
    out.push_str(&format!("\n{counts}"));
    out
}

/// The checks as a table.
#[must_use]
pub(crate) fn listing(checks: &[&Check]) -> String {
    let mut table = plain();
    table.set_header(["code", "check", "tier", "what it asserts"]);
    for check in checks {
        table.add_row([check.code, check.id, check.tier.as_str(), check.summary]);
    }
    table.to_string()
}

/// A check as the listing for programs has it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listed {
    id: &'static str,
    code: &'static str,
    tier: &'static str,
    asserts: &'static str,
    mutants: Vec<&'static str>,
}

/// The checks, for programs.
#[must_use]
pub(crate) fn entries(checks: &[&Check]) -> Vec<Listed> {
    let listed = |check: &&Check| Listed {
        id: check.id,
        code: check.code,
        tier: check.tier.as_str(),
        asserts: check.summary,
        mutants: mutants::all()
            .filter(|mutant| mutant.caught_by.contains(&check.id))
            .map(|mutant| mutant.name)
            .collect(),
    };
    checks.iter().map(listed).collect()
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table
}

/// Writes a report as JSON, whole or not at all: a reader never sees half of it.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let written = std::fs::write(&partial, &text).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // What is left of it helps nobody; that it cannot be removed is not the news.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks;

    fn report() -> Report {
        let all: Vec<_> = checks::all().take(3).collect();
        let mut report = Report::new("memory", Some("paused".to_owned()), &all);
        assert!(report.is_empty());
        let server = Some("memory 1".to_owned());
        report.record(server, CheckEntry::new(all[0], Status::Passed, None));
        let lost = Some("one was lost\nthe ledger".to_owned());
        report.record(None, CheckEntry::new(all[1], Status::Failed, lost));
        report.mutants.push(MutantEntry {
            name: "lossy",
            caught_by: vec![all[0].id],
            survived: Vec::new(),
            not_run: vec![all[1].id],
        });
        report
    }

    #[test]
    fn the_json_has_the_documented_form() {
        let json = serde_json::to_value([report()]).unwrap();
        assert_eq!(json[0]["backend"], "memory");
        assert_eq!(json[0]["server"], "paused: memory 1");
        assert_eq!(json[0]["checks"][0]["status"], "passed");
        assert_eq!(json[0]["checks"][0]["reason"], serde_json::Value::Null);
        assert_eq!(json[0]["checks"][1]["status"], "failed");
        assert_eq!(json[0]["checks"][2]["status"], "not-run");
        assert_eq!(json[0]["checks"][0]["tier"], "core");
        assert_eq!(json[0]["mutants"][0]["caught_by"][0], json[0]["checks"][0]["id"]);
        assert!(json[0]["mutants"][0].get("survived").is_none());
        assert_eq!(json[0]["mutants"][0]["not_run"][0], json[0]["checks"][1]["id"]);
    }

    #[test]
    fn the_listing_names_the_mutants_of_each_check() {
        let all: Vec<_> = checks::all().collect();
        let json = serde_json::to_value(entries(&all)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), all.len());
        assert_eq!(json[0]["code"], all[0].code);
        assert_eq!(json[0]["asserts"], all[0].summary);
        assert!(!json[0]["mutants"].as_array().unwrap().is_empty());
    }

    #[test]
    fn the_table_counts_and_shows_what_is_not_green() {
        let text = table(&[report()]);
        assert!(text.contains("one was lost") && !text.contains("the ledger"), "{text}");
        assert!(text.contains("not selected by the filter"), "{text}");
        assert!(text.contains("1 of 1"), "{text}");
    }

    #[test]
    fn a_report_is_written_whole() {
        let name = format!("longshore-conformance-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        write_json(&path, &[report()]).unwrap();
        let read: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read[0]["backend"], "memory");
        std::fs::remove_file(&path).unwrap();
        assert!(write_json(Path::new("/nonexistent/report.json"), &[report()]).is_err());
    }
}
