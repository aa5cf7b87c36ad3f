//! The simulator itself: same seed, same history; smaller scenarios; the line that repeats one.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use longshore_sim::{Keep, Mutant, Options, Seen, run, shrink};

/// Enough for each test to see what it is about, in about a second.
const SEEDS: u64 = 2_000;

fn broken(mutant: Mutant) -> Options {
    Options { mutant: Some(mutant), ..Options::default() }
}

fn first_failing(options: &Options) -> u64 {
    (0..SEEDS).find(|seed| run(*seed, options).anomaly.is_some()).unwrap()
}

#[test]
fn the_engine_keeps_the_contract() {
    for seed in 0..SEEDS {
        let outcome = run(seed, &Options::default());
        assert_eq!(outcome.anomaly, None, "cargo xtask sim --seed {seed} --keep \"\"");
        assert!(outcome.steps > 0);
    }
}

#[test]
fn a_seed_is_one_history_and_another_seed_another() {
    let hashes = || (0..100).map(|seed| run(seed, &Options::default()).hash).collect::<Vec<_>>();
    let first = hashes();
    assert_eq!(first, hashes());
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len());
}

#[test]
fn a_timeline_changes_nothing_and_tells_the_story() {
    let with = Options { timeline: true, ..Options::default() };
    let told = run(3, &with);
    assert_eq!(told.hash, run(3, &Options::default()).hash);
    assert!(told.timeline.iter().any(|line| line.contains("published")), "{:?}", told.timeline);
}

#[test]
fn every_mutant_has_one_name_and_is_caught_under_a_right_anomaly() {
    for &mutant in Mutant::ALL {
        assert_eq!(Mutant::of(mutant.name()), Some(mutant));
        let options = broken(mutant);
        let anomaly = run(first_failing(&options), &options).anomaly.unwrap();
        let right = mutant.anomalies().contains(&anomaly.name);
        assert!(right, "{}: {anomaly:?}", mutant.name());
    }
}

#[test]
fn a_shrunk_scenario_fails_in_the_same_way_and_its_text_repeats_it() {
    for mutant in [Mutant::SettlesBeforeCopy, Mutant::IgnoresLostLease, Mutant::RetriesEarly] {
        let options = broken(mutant);
        let seed = first_failing(&options);
        let whole = run(seed, &options);
        let keep: Keep = shrink(seed, &options).to_string().parse().unwrap();
        let again = run(seed, &Options { keep, ..options });
        assert_eq!(again.anomaly.unwrap().name, whole.anomaly.unwrap().name, "{mutant:?}");
        assert!(again.steps <= whole.steps, "{mutant:?}");
    }
}

#[test]
fn what_is_kept_is_read_as_it_is_written_and_nonsense_is_refused() {
    for text in ["", "f0,f3,m1,n2,t100,calm", "f-,m-", "n1"] {
        assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
    }
    for bad in ["x1", "f", "fx", "m-1", "calmer", "f99999999999", "é1"] {
        let error = bad.parse::<Keep>().unwrap_err();
        assert!(error.to_string().contains("known"), "{error}");
    }
}

#[test]
fn a_scenario_without_messages_ends() {
    let options = Options { keep: "m-".parse().unwrap(), ..Options::default() };
    (0..50).for_each(|seed| assert_eq!(run(seed, &options).anomaly, None, "seed {seed}"));
}

#[test]
fn sights_add_up() {
    let nothing = Seen::default();
    assert_eq!(nothing.missing().len(), Seen::total());
    let seen = (0..200).fold(nothing, |seen, seed| seen.and(run(seed, &Options::default()).seen));
    assert!(seen.missing().len() < Seen::total() / 2, "{:?}", seen.missing());
}

#[test]
fn the_page_knows_every_anomaly_that_names_a_mutant() {
    let page = include_str!("../../../docs/simulator.md");
    assert!(page.contains(&format!("{} of them", Mutant::ALL.len())));
    for mutant in Mutant::ALL {
        for name in mutant.anomalies().iter().copied().chain(mutant.harm()) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}
