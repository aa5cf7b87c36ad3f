//! `cargo xtask docs`: the page of the checks and of what came of them, made from both.

mod render;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::report::{Caught, Report, Status};
use crate::{backends, conformance, process};

const PAGE: &str = "docs/conformance.md";
const RESULTS: &str = "docs/conformance.json";

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// A report of `cargo xtask conformance --json FILE` that becomes the page's results. Where
    /// absent: the results that are committed.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write nothing; fail where the page is not what it would become.
    #[arg(long, conflicts_with = "report")]
    check: bool,
}

/// A check of the suite, as its program lists it.
#[derive(Clone, Debug, Deserialize)]
struct Listed {
    id: String,
    code: String,
    tier: String,
    asserts: String,
    mutants: Vec<String>,
}

/// What is committed of a report: the page's second source.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Results {
    servers: Vec<Server>,
    mutants: Mutants,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Server {
    backend: String,
    server: String,
    /// The codes of what passed.
    passed: Vec<String>,
    /// What did not, and why.
    others: Vec<Other>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Other {
    code: String,
    status: Status,
    reason: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Mutants {
    caught: usize,
    all: usize,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let checks = listed()?;
    if options.check {
        return is_current(&checks);
    }
    let results = match &options.report {
        Some(file) => {
            let results = Results::of(&reports(file)?, &checks)?;
            fs::write(RESULTS, results.text()?).with_context(|| format!("writing {RESULTS}"))?;
            results
        }
        None => committed()?,
    };
    fs::write(PAGE, render::page(&checks, &results)).with_context(|| format!("writing {PAGE}"))?;
    println!("{PAGE} is written");
    Ok(true)
}

/// Whether the committed page is what its sources say.
pub(crate) fn current() -> Result<bool> {
    is_current(&listed()?)
}

fn is_current(checks: &[Listed]) -> Result<bool> {
    let page = fs::read_to_string(PAGE).with_context(|| format!("reading {PAGE}"))?;
    let same = page == render::page(checks, &committed()?);
    match same {
        true => println!("{PAGE} is what its sources say"),
        false => eprintln!("{PAGE} differs from its sources: run `cargo xtask docs`"),
    }
    Ok(same)
}

/// The checks, from the suite's program of the first backend: it starts no server for it.
fn listed() -> Result<Vec<Listed>> {
    let file = conformance::folder()?.join("checks.json");
    let Some(backend) = backends::ALL.first() else { bail!("there is no backend") };
    let (done, _) =
        process::run(conformance::suite(backend).args(["--list", "--json"]).arg(&file))?;
    if !done {
        bail!("the suite did not list its checks");
    }
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("understanding {}", file.display()))
}

fn reports(file: &Path) -> Result<Vec<Report>> {
    let reports = conformance::read(file)?;
    reports.with_context(|| format!("there is no report at {}", file.display()))
}

fn committed() -> Result<Results> {
    let text = fs::read_to_string(RESULTS).with_context(|| format!("reading {RESULTS}"))?;
    serde_json::from_str(&text).with_context(|| format!("understanding {RESULTS}"))
}

impl Results {
    /// The results of a run that left nothing out.
    fn of(reports: &[Report], checks: &[Listed]) -> Result<Self> {
        for backend in backends::ALL {
            if !reports.iter().any(|report| report.backend == backend.name) {
                bail!("the report has nothing of {}; the page shows every backend", backend.name);
            }
        }
        for report in reports {
            for check in checks {
                let entry = report.checks.iter().find(|entry| entry.id == check.id);
                if entry.is_none_or(|entry| entry.status == Status::NotRun) {
                    bail!(
                        "{} was not run on {}; the page shows whole runs on servers of our own",
                        check.id,
                        report.server
                    );
                }
            }
        }
        let Caught { caught, all, .. } = Caught::of(reports);
        let servers = reports.iter().map(Server::of).collect();
        Ok(Self { servers, mutants: Mutants { caught, all } })
    }

    /// One line for each server, so that a difference can be read.
    fn text(&self) -> Result<String> {
        let servers: serde_json::Result<Vec<_>> =
            self.servers.iter().map(serde_json::to_string).collect();
        let servers = servers.context("writing the results")?.join(",\n");
        let mutants = serde_json::to_string(&self.mutants).context("writing the results")?;
        Ok(format!("{{\"servers\": [\n{servers}\n],\n\"mutants\": {mutants}}}\n"))
    }
}

impl Server {
    fn of(report: &Report) -> Self {
        let passed = |status| status == Status::Passed;
        let codes = report.checks.iter().filter(|check| passed(check.status));
        let other = |check: &crate::report::Check| {
            let reason = check.reason.as_deref().unwrap_or_default();
            let reason = reason.lines().next().unwrap_or_default().to_owned();
            Other { code: check.code.clone(), status: check.status, reason }
        };
        Self {
            backend: report.backend.clone(),
            server: report.server.clone(),
            passed: codes.map(|check| check.code.clone()).collect(),
            others: report.checks.iter().filter(|it| !passed(it.status)).map(other).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Check, Mutant};

    pub(super) fn listed(code: &str, tier: &str) -> Listed {
        Listed {
            id: format!("area.{}", code.to_lowercase()),
            code: code.to_owned(),
            tier: tier.to_owned(),
            asserts: format!("{code} | holds"),
            mutants: vec!["it is lost".to_owned(), "it comes twice".to_owned()],
        }
    }

    fn report(backend: &str, k1: Status) -> Report {
        let check = |code: &str, status, reason: Option<&str>| {
            let Listed { id, code, tier, .. } = listed(code, "core");
            Check { id, code, tier, status, reason: reason.map(str::to_owned) }
        };
        let mutant = Mutant {
            name: "it is lost".to_owned(),
            caught_by: vec!["area.a1".to_owned()],
            survived: Vec::new(),
            not_run: Vec::new(),
        };
        Report {
            backend: backend.to_owned(),
            server: format!("{backend} 1"),
            checks: vec![check("A1", Status::Passed, None), check("K1", k1, Some("why\nmore"))],
            mutants: vec![mutant],
        }
    }

    #[test]
    fn a_whole_report_becomes_the_results_and_comes_back() {
        let checks = [listed("A1", "core"), listed("K1", "core")];
        let reports = [
            report("memory", Status::NotApplicable),
            report("nats", Status::Passed),
            report("rabbitmq", Status::Passed),
            report("redis", Status::Passed),
        ];
        let results = Results::of(&reports, &checks).unwrap();
        let text = results.text().unwrap();
        let again: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(again.text().unwrap(), text);
        assert_eq!(again.servers[0].passed, ["A1"]);
        assert_eq!(again.servers[0].others[0].reason, "why");
        assert_eq!(again.servers[1].passed, ["A1", "K1"]);
        assert_eq!((again.mutants.caught, again.mutants.all), (1, 1));
    }

    #[test]
    fn a_report_with_gaps_is_refused() {
        let checks = [listed("A1", "core"), listed("K1", "core")];
        let refused = |reports: &[Report], checks: &[Listed]| {
            Results::of(reports, checks).unwrap_err().to_string()
        };
        let memory = || report("memory", Status::NotApplicable);
        assert!(refused(&[memory()], &checks).contains("nothing of nats"));
        let with = |nats| {
            let passed = |backend| report(backend, Status::Passed);
            [memory(), report("nats", nats), passed("rabbitmq"), passed("redis")]
        };
        let spared = with(Status::NotRun);
        assert!(refused(&spared, &checks).contains("area.k1 was not run on nats 1"));
        let newer = [listed("A1", "core"), listed("V1", "certification")];
        let old = with(Status::Passed);
        assert!(refused(&old, &newer).contains("area.v1 was not run"));
    }
}
