//! Measures longshore beside the raw clients, on the same broker and in the same run.
//!
//! Started by `cargo xtask bench`; what is compared and why stands in `docs/performance.md`.

mod allocations;
mod backends;
mod case;
mod contender;
mod course;
mod meter;
mod ours;
mod raw;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::backends::{Backend, Ready};
use crate::case::{Case, Work};
use crate::course::Effort;
use crate::report::Row;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures longshore beside the raw clients")]
struct Arguments {
    /// The backends, by name; all where none is given.
    #[arg(long, value_delimiter = ',')]
    backend: Vec<String>,
    /// Only these cases, by id.
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Only this size of body, in bytes, of those that a case has.
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Rounds of each case.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long one measurement lasts, about.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// A server that runs already, for the one backend that is named. How far others disturbed a
    /// round is unknown then.
    #[arg(long)]
    url: Option<String>,
    /// Write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One round of few messages: does everything work?
    #[arg(long)]
    smoke: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime");
    match runtime.and_then(|runtime| runtime.block_on(run(Arguments::parse()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let backends = backends::select(&arguments.backend)?;
    let cases = case::select(&arguments.case)?;
    ensure!(
        arguments.url.is_none() || arguments.backend.len() == 1,
        "`--url` needs one `--backend`"
    );
    let seconds = arguments.seconds;
    ensure!(seconds > 0.0 && seconds <= 10.0, "`--seconds` is more than 0 and at most 10");
    let effort = match (arguments.smoke, allocations::COUNTED) {
        (true, _) => Effort::Smoke,
        (false, true) => Effort::Counted,
        (false, false) => Effort::Timed { rounds: usize::from(arguments.rounds), seconds },
    };
    let plan: Vec<(&Case, usize)> = cases
        .iter()
        .filter(|case| !matches!(effort, Effort::Counted) || is_counted(case))
        .flat_map(|case| case.sizes.iter().map(|size| (*case, *size)))
        .filter(|(_, size)| arguments.size.is_none_or(|only| only == *size))
        .collect();
    ensure!(!plan.is_empty(), "no case of these has a body of that size");

    let mut rows = Vec::new();
    for backend in backends {
        rows.append(&mut measure(backend, &plan, effort, arguments.url.as_deref()).await?);
    }
    match effort {
        Effort::Counted => println!("{}", report::allocations(&rows)),
        Effort::Timed { .. } | Effort::Smoke => println!("{}", report::table(&rows)),
    }
    if cfg!(debug_assertions) {
        println!("This is a debug build: that it works is shown, and its figures mean nothing.");
    }
    match &arguments.json {
        Some(file) => write(file, &rows),
        None => Ok(()),
    }
}

/// What waits by design says nothing about allocations.
fn is_counted(case: &Case) -> bool {
    !matches!(case.work, Work::Latency | Work::DeadLetter | Work::Lateness)
}

async fn measure(
    backend: &'static Backend,
    plan: &[(&'static Case, usize)],
    effort: Effort,
    url: Option<&str>,
) -> Result<Vec<Row>> {
    let ready = backend.ready(url).await.with_context(|| backend.name)?;
    let bar = progress(&ready, plan, effort);
    let mut rows = Vec::new();
    for (case, size) in plan {
        bar.set_message(format!("{}: {}, {size} B", backend.name, case.title));
        let measured = course::measure(&ready, case, *size, effort, &bar).await?;
        rows.push(Row::new(&ready, &measured));
    }
    bar.finish_and_clear();
    ready.finish().await?;
    Ok(rows)
}

fn progress(ready: &Ready, plan: &[(&Case, usize)], effort: Effort) -> ProgressBar {
    // The bar's own work would be counted.
    if allocations::COUNTED {
        return ProgressBar::hidden();
    }
    let each = plan.iter().map(|(case, _)| course::seats(ready, case).len() * effort.rounds());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (eta {eta}) {msg}");
    let bar = ProgressBar::new(each.sum::<usize>() as u64);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn write(file: &PathBuf, rows: &[Row]) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let report = json!({
        "longshore": env!("CARGO_PKG_VERSION"),
        "debug_build": cfg!(debug_assertions),
        "counts_allocations": allocations::COUNTED,
        "cores": cores,
        "cases": rows,
    });
    let text = serde_json::to_string_pretty(&report).context("writing the figures")?;
    std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}
