//! `cargo xtask conformance`: the suite on one backend after another, and one report of all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::backends::{self, Backend};
use crate::process::{self, Count};

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
}

impl Options {
    pub(crate) fn of(backends: &[&Backend], json: PathBuf) -> Self {
        let backend = backends.iter().map(|backend| backend.name.to_owned()).collect();
        Self { backend, check: Vec::new(), json: Some(json) }
    }
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let (passed, _) = count(options)?;
    Ok(passed)
}

/// Runs the suite; says whether all of it passed, and how much that was.
pub(crate) fn count(options: &Options) -> Result<(bool, Count)> {
    let mut report = Vec::new();
    let mut total = Count::default();
    let mut passed = true;
    for backend in backends::select(&options.backend)? {
        let file = part(backend)?;
        let mut command = process::cargo(["test", "--locked", "-p", backend.package]);
        command.args(["--test", "conformance", "--", "--json"]).arg(&file);
        for check in &options.check {
            command.args(["--check", check]);
        }
        let (ok, count) = process::run(&mut command)?;
        passed &= ok;
        total.add(count);
        report.append(&mut read(&file, backend)?);
    }
    if let Some(file) = &options.json {
        write(file, &Value::Array(report))?;
    }
    Ok((passed, total))
}

/// Where one backend's report goes; what an earlier run left there is removed.
fn part(backend: &Backend) -> Result<PathBuf> {
    let folder = target()?.join("conformance");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = folder.join(format!("{}.json", backend.name));
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(file),
    }
}

/// The folder of what is built, absolute: a test runs in its package's folder.
pub(crate) fn target() -> Result<PathBuf> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    std::path::absolute(folder).context("finding the target folder")
}

fn read(file: &Path, backend: &Backend) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("the suite left no report for {}", backend.name))?;
    match serde_json::from_str(&text) {
        Ok(Value::Array(entries)) => Ok(entries),
        Ok(_) => bail!("the report for {} is no list", backend.name),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn write(file: &Path, report: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("writing the report")?;
    fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}
