//! `longshore-sim`: many seeds on all cores, and what they showed.

mod fleet;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use longshore_sim::{Keep, Mutant, Options};

use fleet::{Bound, Fleet};

/// Fewer seeds need not show everything. Wherever they began, 5,000 have; this is four times that.
const SHOWS_ALL: u64 = 20_000;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", about = "The engine against a model broker, from a seed")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run for so long instead of a number of seeds.
    #[arg(long)]
    minutes: Option<u64>,
    /// Give the engine this defect, which must be found; `all` tries one after another.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Run the seeds, then all mutants.
    #[arg(long, conflicts_with = "mutant")]
    ci: bool,
    /// With `--keep`: judge what becomes of messages only, not each step.
    #[arg(long, requires = "keep")]
    ends_only: bool,
    /// Play one seed, only these parts of it, and print its history: `f0,m2,n1,t100,calm`.
    #[arg(long, value_name = "PARTS")]
    keep: Option<Keep>,
}

fn main() -> ExitCode {
    // A panic of the engine is an anomaly, and is printed as one.
    std::panic::set_hook(Box::new(|_| {}));
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let mutants = mutants(arguments.mutant.as_deref())?;
    if let Some(keep) = &arguments.keep {
        let mutant = match mutants[..] {
            [] => None,
            [mutant] => Some(mutant),
            _ => bail!("--keep plays one seed, with one mutant at most"),
        };
        let ends_only = arguments.ends_only;
        let options = Options { mutant, keep: keep.clone(), ends_only, timeline: true };
        return Ok(report::one(arguments.seed, &options));
    }
    let bound = match arguments.minutes {
        Some(minutes) => Bound::Time(Duration::from_secs(
            minutes.checked_mul(60).context("so many minutes are no time")?,
        )),
        None => Bound::Seeds(arguments.seeds),
    };
    let fleet = Fleet { first: arguments.seed, bound };
    if !mutants.is_empty() {
        return Ok(hunt(&fleet, &mutants));
    }
    let healthy = healthy(&fleet);
    Ok(if arguments.ci { healthy & hunt(&fleet, Mutant::ALL) } else { healthy })
}

fn mutants(name: Option<&str>) -> anyhow::Result<Vec<Mutant>> {
    match name {
        None => Ok(Vec::new()),
        Some("all") => Ok(Mutant::ALL.to_vec()),
        Some(name) => match Mutant::of(name) {
            Some(mutant) => Ok(vec![mutant]),
            None => {
                let known: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
                bail!("`{name}` is no mutant; known: all, {}", known.join(", "))
            }
        },
    }
}

/// The engine as it is: no anomaly, and everything was shown.
fn healthy(fleet: &Fleet) -> bool {
    let found = fleet.run(&Options::default());
    println!(
        "{} seeds, {} steps of the engine, {} seeds played twice, {:.1} s",
        found.seeds,
        found.steps,
        found.twice,
        found.took.as_secs_f64()
    );
    if let Some(seed) = found.anomaly {
        report::failed(seed, Options::default());
        return false;
    }
    let missing = found.seen.missing();
    let total = longshore_sim::Seen::total();
    println!("shown: {} of {total} things that can occur", total - missing.len());
    if found.seeds < SHOWS_ALL {
        return true;
    }
    for what in &missing {
        println!("never occurred: {what}");
    }
    missing.is_empty()
}

/// The harm of a mutant that does some must be found without a look at the steps, too.
fn harm(fleet: &Fleet, mutant: Mutant) -> Result<String, String> {
    let Some(wanted) = mutant.harm() else { return Ok(String::new()) };
    let options = Options { mutant: Some(mutant), ends_only: true, ..Options::default() };
    let Some(seed) = fleet.run(&options).anomaly else {
        return Err(format!("; ITS HARM WAS NOT FOUND: {wanted}"));
    };
    match longshore_sim::run(seed, &options).anomaly {
        Some(anomaly) if anomaly.name == wanted => {
            Ok(format!("; its harm as {wanted}, at seed {seed}"))
        }
        other => {
            report::failed(seed, options);
            let name = other.map_or("nothing", |anomaly| anomaly.name);
            Err(format!("; ITS HARM, {wanted}, WAS NAMED WRONGLY: {name}, at seed {seed}"))
        }
    }
}

/// Each mutant must be caught, under its right name.
fn hunt(fleet: &Fleet, mutants: &[Mutant]) -> bool {
    let mut caught = 0;
    for &mutant in mutants {
        let options = Options { mutant: Some(mutant), ..Options::default() };
        let found = fleet.run(&options);
        let anomaly = found.anomaly.and_then(|seed| {
            longshore_sim::run(seed, &options).anomaly.map(|anomaly| (seed, anomaly))
        });
        let name = mutant.name();
        match anomaly {
            Some((seed, anomaly)) if mutant.anomalies().contains(&anomaly.name) => {
                let harm = harm(fleet, mutant);
                caught += usize::from(harm.is_ok());
                let (Ok(harm) | Err(harm)) = harm;
                println!("caught: {name}, as {}, at seed {seed}{harm}", anomaly.name);
            }
            Some((seed, anomaly)) => {
                println!("NAMED WRONGLY: {name}, as {}, at seed {seed}", anomaly.name);
                report::failed(seed, options);
            }
            None => println!("NOT CAUGHT: {name}, in {} seeds", found.seeds),
        }
    }
    println!("{caught} of {} mutants caught", mutants.len());
    caught == mutants.len()
}
