//! A failing scenario made smaller: faults first, then messages, members, times.

use std::collections::BTreeSet;

use crate::keep::Keep;
use crate::{Options, run, world};

/// What a scenario consists of.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) faults: Vec<usize>,
    pub(crate) messages: Vec<usize>,
    pub(crate) members: usize,
}

/// The smallest part of the seed's scenario found that still shows an anomaly of the same name.
/// Without an anomaly, `options.keep` as it is.
#[must_use]
pub fn shrink(seed: u64, options: &Options) -> Keep {
    let keep = options.keep.clone();
    let Some(anomaly) = run(seed, options).anomaly else { return keep };
    let fails = |keep: &Keep| {
        let options = Options { keep: keep.clone(), timeline: false, ..options.clone() };
        run(seed, &options).anomaly.is_some_and(|other| other.name == anomaly.name)
    };
    let sizes = world::sizes(seed, &keep);
    let with = |keep: &Keep, faults: &[usize]| Keep {
        faults: Some(faults.iter().copied().collect::<BTreeSet<_>>()),
        ..keep.clone()
    };
    let faults = minimal(sizes.faults, |faults| fails(&with(&keep, faults)));
    let mut keep = with(&keep, &faults);
    let with = |keep: &Keep, messages: &[usize]| Keep {
        messages: Some(messages.iter().copied().collect::<BTreeSet<_>>()),
        ..keep.clone()
    };
    let messages = minimal(sizes.messages, |messages| fails(&with(&keep, messages)));
    keep = with(&keep, &messages);
    let smaller = |keep: Keep, change: Keep| if fails(&change) { change } else { keep };
    for members in (1..sizes.members).rev() {
        let fewer = Keep { members: Some(members), ..keep.clone() };
        keep = smaller(keep, fewer);
    }
    let calm = Keep { calm: true, ..keep.clone() };
    keep = smaller(keep, calm);
    for round in [10, 100, 1_000] {
        let rounder = Keep { round, ..keep.clone() };
        keep = smaller(keep, rounder);
    }
    keep
}

/// Zeller's ddmin: leaves out ever smaller parts while what is left still fails.
fn minimal(mut items: Vec<usize>, fails: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    if !items.is_empty() && fails(&[]) {
        return Vec::new();
    }
    let mut parts = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(parts);
        let without = (0..items.len()).step_by(size).find_map(|at| {
            let end = (at + size).min(items.len());
            let rest: Vec<_> = items[..at].iter().chain(&items[end..]).copied().collect();
            fails(&rest).then_some(rest)
        });
        match without {
            Some(rest) => {
                items = rest;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(items.len()),
        }
    }
    items
}
