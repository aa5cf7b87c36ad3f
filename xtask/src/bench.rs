//! `cargo xtask bench`: the benchmark in a release build, and once more to count allocations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::conformance;
use crate::process;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The backends, by name; all where none is given.
    #[arg(long, value_delimiter = ',')]
    backend: Vec<String>,
    /// Only these cases, by id (`publish-64`).
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Only this size of body, in bytes.
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Rounds of each case.
    #[arg(long)]
    rounds: Option<u16>,
    /// How long one measurement lasts, about.
    #[arg(long)]
    seconds: Option<f64>,
    /// A server that runs already, for the one backend that is named.
    #[arg(long)]
    url: Option<String>,
    /// Write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One round of few messages in a debug build: does everything work? Ten seconds.
    #[arg(long)]
    smoke: bool,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.smoke {
        let mut command = process::cargo(["run", "--locked", "--quiet", "-p", "bench", "--"]);
        options.pass_on(&mut command, options.json.as_deref());
        return succeeds(command.arg("--smoke"));
    }
    let folder = conformance::target()?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (timed, counted) = (folder.join("timed.json"), folder.join("allocations.json"));
    if !succeeds(&mut options.command(&[], &timed))? {
        return Ok(false);
    }
    // Counting costs time, so it is a build of its own.
    if has_counted(&options.case) {
        if !succeeds(&mut options.command(&["--features", "count-allocations"], &counted))? {
            return Ok(false);
        }
    } else {
        write(&counted, &Value::Null)?;
    }
    if let Some(file) = &options.json {
        let report = json!({ "timed": read(&timed)?, "allocations": read(&counted)? });
        write(file, &report)?;
    }
    Ok(true)
}

/// Whether any of the chosen cases says something about allocations.
fn has_counted(cases: &[String]) -> bool {
    let waits = ["latency", "dead-letter", "lateness"];
    cases.is_empty() || cases.iter().any(|case| !waits.contains(&case.as_str()))
}

impl Options {
    fn command(&self, build: &[&str], json: &Path) -> Command {
        let mut command = process::cargo(["run", "--locked", "--release", "-p", "bench"]);
        command.args(build).arg("--");
        self.pass_on(&mut command, Some(json));
        command
    }

    fn pass_on(&self, command: &mut Command, json: Option<&Path>) {
        if !self.backend.is_empty() {
            command.args(["--backend", &self.backend.join(",")]);
        }
        if !self.case.is_empty() {
            command.args(["--case", &self.case.join(",")]);
        }
        let size = self.size.map(|size| ("--size", size.to_string()));
        let rounds = self.rounds.map(|rounds| ("--rounds", rounds.to_string()));
        let seconds = self.seconds.map(|seconds| ("--seconds", seconds.to_string()));
        let url = self.url.clone().map(|url| ("--url", url));
        for (name, value) in [size, rounds, seconds, url].into_iter().flatten() {
            command.args([name, &value]);
        }
        if let Some(file) = json {
            command.arg("--json").arg(file);
        }
    }
}

fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()));
    Ok(status?.success())
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

fn write(file: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing the figures")?;
    fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}
