//! `cargo xtask`: the project's automation, in Rust, so that it runs wherever the project builds.

mod backends;
mod bench;
mod brokers;
mod conformance;
mod page;
mod process;
mod report;
mod sim;
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's automation")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the tests need and run everything, cheap checks first.
    Test(tests::Options),
    /// Run the conformance suite.
    Conformance(conformance::Options),
    /// Write the documentation page of the checks and of their results.
    Docs(page::Options),
    /// Run the engine against a model broker, seed after seed: `sim --help` has its options.
    Sim(sim::Options),
    /// Measure longshore beside the raw clients.
    Bench(bench::Options),
    /// Start, stop and list real brokers on this machine.
    Brokers(brokers::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test(options) => tests::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Docs(options) => page::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Brokers(arguments) => brokers::run(arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
