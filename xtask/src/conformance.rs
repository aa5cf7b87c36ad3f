//! `cargo xtask conformance`: the suite on one backend after another, and one report of all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::backends::{self, Backend, Chosen};
use crate::process::{self, Count};
use crate::report::{self, Report};

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// The backends, by name; all where none is given.
    #[arg(long, value_delimiter = ',')]
    backend: Vec<String>,
    /// Only these checks, by id (`retry.never_early`) or by the catalogue's code (`R4`).
    #[arg(long, value_delimiter = ',')]
    check: Vec<String>,
    /// Write the report here: a list, one entry a backend and server version.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use the broker there and start none. The scheme says of which backend it is; without
    /// `--backend`, only that one is run.
    #[arg(long)]
    url: Option<String>,
    /// The mutants to run: `all`, those of checks that need a `server`, or `none`. Where absent:
    /// all on the embedded broker, `server` on others.
    #[arg(long, value_parser = ["all", "server", "none"])]
    mutants: Option<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) count: Count,
    reports: Vec<Report>,
    /// How many seconds each backend took.
    took: Vec<(&'static str, f64)>,
    /// The backends whose suite failed.
    failed: Vec<&'static str>,
    /// Those of them that left no report.
    silent: Vec<&'static str>,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let chosen = backends::select(&options.backend, options.url.as_deref())?;
    let outcome = on(&chosen, options)?;
    println!("\n{}", outcome.summary());
    println!("{} passed, {} failed", outcome.count.passed, outcome.count.failed);
    Ok(outcome.passed())
}

/// The whole suite on these, with the report in the target folder.
pub(crate) fn whole(chosen: &[Chosen]) -> Result<Outcome> {
    let json = Some(target()?.join("conformance.json"));
    on(chosen, &Options { json, ..Options::default() })
}

impl Outcome {
    pub(crate) fn passed(&self) -> bool {
        self.failed.is_empty()
    }

    /// The table of all servers, and what it does not show.
    pub(crate) fn summary(&self) -> String {
        let mut text = report::table(&self.reports, &self.took);
        for name in &self.silent {
            text.push_str(&format!("\nfailed: the suite left no report for {name}; see above"));
        }
        text
    }
}

fn on(chosen: &[Chosen], options: &Options) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for Chosen { backend, url } in chosen {
        let file = part(backend)?;
        let mut command = suite(backend);
        command.arg("--json").arg(&file);
        for check in &options.check {
            command.args(["--check", check]);
        }
        if url.is_some() {
            command.args(["--url", "-"]);
        }
        if let Some(mutants) = &options.mutants {
            command.args(["--mutants", mutants]);
        }
        let begun = Instant::now();
        let (passed, count) = process::run_told(&mut command, url.as_deref().unwrap_or_default())?;
        outcome.took.push((backend.name, begun.elapsed().as_secs_f64()));
        outcome.count.add(count);
        if !passed {
            outcome.failed.push(backend.name);
        }
        match read(&file)? {
            Some(mut reports) => outcome.reports.append(&mut reports),
            // No other backend knows a check that this one does not.
            None if !options.check.is_empty() => {
                bail!("the suite on {} ran nothing; its reason is above", backend.name)
            }
            None => {
                outcome.failed.retain(|name| *name != backend.name);
                outcome.failed.push(backend.name);
                outcome.silent.push(backend.name);
                outcome.count.failed += u64::from(count.failed == 0);
            }
        }
    }
    if let Some(file) = &options.json {
        write(file, &outcome.reports)?;
    }
    Ok(outcome)
}

/// The suite's program of a backend, to be followed by its flags.
pub(crate) fn suite(backend: &Backend) -> std::process::Command {
    let arguments = ["test", "--locked", "-p", backend.package, "--test", "conformance", "--"];
    process::cargo(arguments)
}

/// Where one backend's report goes; what an earlier run left there is removed.
fn part(backend: &Backend) -> Result<PathBuf> {
    let file = folder()?.join(format!("{}.json", backend.name));
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(file),
    }
}

/// Where the suite's programs leave what they found.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = target()?.join("conformance");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// The folder of what is built, absolute: a test runs in its package's folder.
pub(crate) fn target() -> Result<PathBuf> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    std::path::absolute(folder).context("finding the target folder")
}

/// The reports in a file; nothing where there is none.
pub(crate) fn read(file: &Path) -> Result<Option<Vec<Report>>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", file.display()))?,
    };
    let reports = serde_json::from_str(&text);
    reports.map(Some).with_context(|| format!("understanding {}", file.display()))
}

fn write(file: &Path, reports: &[Report]) -> Result<()> {
    let text = serde_json::to_string_pretty(reports).context("writing the report")?;
    fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}
