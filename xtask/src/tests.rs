//! `cargo xtask test`: everything, in the order of its cost.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::backends::{self, Chosen};
use crate::process::{self, Count, cargo};
use crate::{conformance, page, sim};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run the server tests and the conformance suite on these backends only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run the conformance suite on the broker there and start none. The scheme says of which
    /// backend it is; without `--only`, only that one is run.
    #[arg(long)]
    url: Option<String>,
}

/// What was done, for the summary.
#[derive(Debug, Default)]
struct Summary {
    total: Count,
    steps: Vec<(String, Duration)>,
    failed: Vec<String>,
    not_run: Vec<String>,
    conformance: String,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    // A misspelt backend shows at once, not after half an hour.
    let chosen = backends::select(&options.only, options.url.as_deref())?;
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
    summary.check("simulator", &mut sim::ci())?;
    summary.tests("tests and examples", &mut cargo(["test", "--locked", "--workspace"]))?;
    let bare = ["test", "--locked", "-p", "longshore", "--no-default-features"];
    summary.tests("tests without any backend", cargo(bare).args(["--test", "no_backend"]))?;

    let smoke = ["run", "--locked", "--quiet", "-p", "bench", "--", "--smoke"];
    summary.check("benchmark, smoke", &mut cargo(smoke))?;
    summary.step("page of the checks", || Ok((page::current()?, Count::default())))?;
    for it in &chosen {
        server_tests(&mut summary, it)?;
    }
    testbed_tests(&mut summary, &chosen)?;
    let mut text = String::new();
    summary.step("conformance", || {
        let outcome = conformance::whole(&chosen)?;
        text = outcome.summary();
        Ok((outcome.passed(), outcome.count))
    })?;
    summary.conformance = text;
    let option = if options.only.is_empty() { "--url" } else { "--only" };
    for backend in backends::ALL {
        if !chosen.iter().any(|chosen| chosen.backend == backend) {
            let what = if backend.rows.is_empty() { "" } else { "server tests and " };
            let name = backend.name;
            summary.not_run.push(format!("{what}conformance on {name}: left out by {option}"));
        }
    }
    Ok(summary.close())
}

/// Those that kill servers, on each row of the testbed.
fn server_tests(summary: &mut Summary, Chosen { backend, url }: &Chosen) -> Result<()> {
    for row in backend.rows {
        let name = format!("server tests on {row}");
        if url.is_some() {
            let why = "they start servers of their own, and --url gives one";
            summary.not_run.push(format!("{name}: {why}"));
            continue;
        }
        let variable = format!("LONGSHORE_{}", backend.name.to_uppercase());
        let arguments = ["test", "--locked", "-p", backend.package, "--test", "it"];
        summary.tests(&name, cargo(arguments).env(variable, row))?;
    }
    for row in backend.by_hand {
        let variable = format!("LONGSHORE_{}", backend.name.to_uppercase());
        let command = format!("{variable}={row} cargo test -p {} --test it", backend.package);
        summary.not_run.push(format!("server tests on {row}: minutes more; `{command}`"));
    }
    Ok(())
}

/// Those of the testbed that take minutes of Erlang's: with the backend that stands on them.
fn testbed_tests(summary: &mut Summary, chosen: &[Chosen]) -> Result<()> {
    let name = "testbed, RabbitMQ";
    let stands = |it: &Chosen| it.backend.name == "rabbitmq" && it.url.is_none();
    if chosen.iter().any(stands) {
        let arguments = ["test", "--locked", "-p", "longshore-testbed", "--test", "rabbitmq"];
        return summary.tests(name, &mut cargo(arguments));
    }
    let why = "left out with the backend's server tests";
    summary.not_run.push(format!("{name}: {why}"));
    Ok(())
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
    /// A command that passes or fails as a whole.
    fn check(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.step(name, || {
            let (passed, _) = process::run(command)?;
            Ok((passed, Count { passed: passed.into(), ..Count::default() }))
        })
    }

    /// A command that counts tests.
    fn tests(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.step(name, || process::run(command.arg("--no-fail-fast")))
    }

    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<(bool, Count)>) -> Result<()> {
        heading(name);
        let begun = Instant::now();
        let (passed, mut count) = run()?;
        self.steps.push((name.to_owned(), begun.elapsed()));
        if !passed {
            self.failed.push(name.to_owned());
            // One that does not even build has failed too.
            count.failed = count.failed.max(1);
        }
        self.total.add(count);
        Ok(())
    }

    /// Prints the outcome, the line that counts last.
    fn close(self) -> bool {
        heading("summary");
        for (name, took) in &self.steps {
            println!("{:>6.0} s  {name}", took.as_secs_f64());
        }
        println!("\n{}\n", self.conformance);
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
