//! `cargo xtask test`: everything, in the order of its cost.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::backends;
use crate::conformance;
use crate::process::{self, Count, cargo};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run the conformance suite on these backends only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// What was done, for the summary.
#[derive(Debug, Default)]
struct Summary {
    total: Count,
    failed: Vec<&'static str>,
    not_run: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    // A misspelt backend shows at once, not after half an hour.
    let backends = backends::for_tests(&options.only)?;
    install()?;
    let mut summary = Summary::default();

    summary.check("format", &mut cargo(["fmt", "--all", "--check"]))?;
    let lint = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    summary.check("lints", &mut cargo(lint))?;
    let bare = ["clippy", "--locked", "-p", "longshore", "--no-default-features", "--"];
    summary.check("lints without any backend", cargo(bare).args(["-D", "warnings"]))?;
    let docs = ["doc", "--locked", "--workspace", "--no-deps"];
    summary.check("docs", cargo(docs).env("RUSTDOCFLAGS", "-D warnings"))?;
    supply_chain(&mut summary)?;
    summary.tests("tests and examples", &mut cargo(["test", "--locked", "--workspace"]))?;
    let bare = ["test", "--locked", "-p", "longshore", "--no-default-features"];
    summary.tests("tests without any backend", cargo(bare).args(["--test", "no_backend"]))?;

    let smoke = ["run", "--locked", "--quiet", "-p", "bench", "--", "--smoke"];
    summary.check("benchmark, smoke", &mut cargo(smoke))?;

    heading("conformance");
    let report = conformance::target()?.join("conformance.json");
    let (passed, count) = conformance::count(&conformance::Options::of(&backends, report))?;
    summary.count("conformance", passed, count);
    for backend in backends::ALL {
        if !backends.iter().any(|chosen| chosen.name == backend.name) {
            let why = backend.pending.unwrap_or("left out by --only");
            summary.not_run.push(format!("conformance on {}: {why}", backend.name));
        }
    }
    Ok(summary.close())
}

/// Installs what the tests need and a bare toolchain may lack.
fn install() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if process::exists(&mut cargo([tool, "--version"])) {
            continue;
        }
        heading(&format!("installing {component}"));
        let added = Command::new("rustup").args(["component", "add", component]).status();
        if !added.is_ok_and(|status| status.success()) {
            bail!("`cargo {tool}` is missing and `rustup component add {component}` failed");
        }
    }
    Ok(())
}

/// Licences, sources, banned crates. Its advisories need a database from the network, so it is not
/// installed by itself; where it is installed, it must pass.
fn supply_chain(summary: &mut Summary) -> Result<()> {
    if process::exists(&mut cargo(["deny", "--version"])) {
        let check = ["deny", "--locked", "check", "bans", "licenses", "sources"];
        return summary.check("supply chain", &mut cargo(check));
    }
    let why = "supply chain: cargo-deny is not installed (`cargo install cargo-deny --locked`)";
    summary.not_run.push(why.to_owned());
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}

impl Summary {
    /// A step that passes or fails as a whole.
    fn check(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        let (passed, _) = self.timed(name, command)?;
        let count = Count { passed: passed.into(), failed: (!passed).into(), not_run: 0 };
        self.count(name, passed, count);
        Ok(())
    }

    /// A step that counts tests.
    fn tests(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        let (passed, count) = self.timed(name, command.arg("--no-fail-fast"))?;
        self.count(name, passed, count);
        Ok(())
    }

    fn timed(&mut self, name: &str, command: &mut Command) -> Result<(bool, Count)> {
        heading(name);
        let begun = Instant::now();
        let outcome = process::run(command);
        println!("   {name}: {:.0} s", begun.elapsed().as_secs_f64());
        outcome
    }

    fn count(&mut self, name: &'static str, passed: bool, mut count: Count) {
        if !passed {
            self.failed.push(name);
            // One that does not even build has failed too.
            count.failed = count.failed.max(1);
        }
        self.total.add(count);
    }

    /// Prints the outcome, the line that counts last.
    fn close(self) -> bool {
        heading("summary");
        for name in &self.failed {
            println!("failed: {name}");
        }
        for what in &self.not_run {
            println!("not run: {what}");
        }
        if self.total.not_run > 0 {
            println!("not run: {} tests, each with its reason above", self.total.not_run);
        }
        println!("{} passed, {} failed", self.total.passed, self.total.failed);
        self.failed.is_empty() && self.total.failed == 0
    }
}
