//! How often this process allocated: known only in the build that counts.

#[cfg(feature = "count-allocations")]
mod counted {
    use std::alloc::System;

    use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

    #[global_allocator]
    static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

    pub(crate) fn count() -> u64 {
        let stats = GLOBAL.stats();
        // A vector that grows asks the allocator as much as one that is made.
        (stats.allocations + stats.reallocations) as u64
    }
}

/// Whether this build counts.
pub(crate) const COUNTED: bool = cfg!(feature = "count-allocations");

#[cfg(feature = "count-allocations")]
pub(crate) use counted::count;

#[cfg(not(feature = "count-allocations"))]
pub(crate) fn count() -> u64 {
    0
}
