//! The switches.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many of the next calls go wrong, by kind.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) refused_publishes: AtomicUsize,
    pub(super) lost_confirms: AtomicUsize,
    pub(super) refused_settlements: AtomicUsize,
}

/// Takes one from a switch; false where none is left.
pub(super) fn strike(switch: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    switch.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
}
