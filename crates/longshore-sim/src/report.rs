//! What is printed of a seed that failed.

use longshore_sim::{Options, run, shrink};

/// Prints one seed's history, and whether it ended well.
pub(crate) fn one(seed: u64, options: &Options) -> bool {
    let outcome = run(seed, options);
    for line in &outcome.timeline {
        println!("{line}");
    }
    println!("seed {seed}: {} steps, trace {:016x}", outcome.steps, outcome.hash);
    match &outcome.anomaly {
        Some(anomaly) => println!("{}: {}", anomaly.name, anomaly.text),
        None => println!("no anomaly"),
    }
    let again = run(seed, options).hash == outcome.hash;
    if !again {
        println!("NOT DETERMINISTIC: a second run went another way");
    }
    outcome.anomaly.is_none() && again
}

/// Makes a failing seed smaller and prints it, with the line that repeats it.
pub(crate) fn failed(seed: u64, mut options: Options) {
    options.keep = shrink(seed, &options);
    options.timeline = true;
    one(seed, &options);
    let keep = match options.keep.to_string() {
        // Nothing could be left out: all of it is kept.
        none if none.is_empty() => "\"\"".to_owned(),
        keep => keep,
    };
    let mutant = options.mutant.map(|mutant| format!(" --mutant {}", mutant.name()));
    let mutant = mutant.unwrap_or_default();
    let ends = if options.ends_only { " --ends-only" } else { "" };
    println!("again: cargo xtask sim --seed {seed} --keep {keep}{mutant}{ends}");
}
