//! The suite's own completeness.

use std::collections::BTreeSet;

use crate::{Tier, checks, mutants};

/// The core tier of the catalogue, by its codes: each has one check.
const CORE: &[&str] = &[
    "P1", "P2", "P3", "P4", "P6", "P7", "P8", "C1", "C2", "C3", "C5", "A1", "A2", "A3", "A4", "A6",
    "A8", "N1", "N2", "N3", "N6", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10",
    "R12", "R13", "R16", "R17", "T1", "T2", "T3", "T4", "T5", "T7", "T10", "D1", "D2", "D3", "D4",
    "D5", "D6", "D7", "D9", "D10", "D13", "O1", "G1", "G2", "G6", "G8", "X1", "X3", "X6", "K1",
    "K6", "S1", "S2", "S3", "H1", "H2", "H3", "H7", "L2", "B3", "M1", "M2", "M3", "M8", "I1", "I2",
    "I4", "Z1", "W1", "W2", "W3",
];

/// What there is of the certification tier.
const CERTIFICATION: &[&str] = &["V1", "V2", "V3", "V4"];

#[test]
fn every_code_of_the_core_tier_has_one_check() {
    let codes: Vec<_> = checks::all().map(|check| check.code).collect();
    let unique: BTreeSet<_> = codes.iter().copied().collect();
    assert_eq!(unique.len(), codes.len(), "{codes:?}");
    let of = |tier: Tier| -> BTreeSet<_> {
        checks::all().filter(|check| check.tier == tier).map(|check| check.code).collect()
    };
    assert_eq!(of(Tier::Core), CORE.iter().copied().collect());
    assert_eq!(of(Tier::Certification), CERTIFICATION.iter().copied().collect());
}

#[test]
fn ids_are_unique_and_explain_themselves() {
    let ids: Vec<_> = checks::all().map(|check| check.id).collect();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    for id in ids {
        let words = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        assert!(id.split_once('.').is_some_and(|(area, what)| words(area) && words(what)), "{id}");
    }
}

#[test]
fn every_check_has_a_mutant_and_every_mutant_a_check() {
    let caught: BTreeSet<_> = mutants::all().flat_map(|mutant| mutant.caught_by).collect();
    for check in checks::all() {
        assert!(caught.contains(&check.id), "{} has no mutant", check.id);
        assert!(!check.summary.is_empty());
    }
    for mutant in mutants::all() {
        assert!(!mutant.caught_by.is_empty(), "{} is caught by nobody", mutant.name);
        for id in mutant.caught_by {
            assert!(checks::all().any(|check| check.id == *id), "{id} of {}", mutant.name);
        }
    }
}

#[test]
fn mutants_are_told_apart() {
    let names: Vec<_> = mutants::all().map(|mutant| mutant.name).collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}
