//! `cargo xtask sim`: the engine against a model broker. The simulator is a program of its own, so
//! that whoever tests something else does not build it.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::process;

/// Everything is the simulator's own, `--help` too.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let status = command().args(&options.arguments).status().context("starting the simulator")?;
    Ok(status.success())
}

/// What every change must pass: the seeds, then all mutants.
pub(crate) fn ci() -> Command {
    let mut command = command();
    command.arg("--ci");
    command
}

fn command() -> Command {
    process::cargo(["run", "--quiet", "--locked", "-p", "longshore-sim", "--"])
}
