//! A test kit for programs that use longshore: a broker that is watched, a clock that jumps, faults
//! at a switch, and assertions that show the whole story when they fail.
//!
//! Needs the feature `testing`:
//!
//! ```toml
//! [dev-dependencies]
//! longshore = { version = "0.1", features = ["testing"] }
//! ```

pub use longshore_runtime::testing::{Entry, TestKit, What};

use crate::{Result, registry};

/// A kit on the broker at `url`: `memory://` with a clock that jumps, or a live one.
///
/// # Errors
/// As [`connect`](crate::connect).
pub async fn connect(url: &str) -> Result<TestKit> {
    TestKit::new(async |setup| registry().connect(url, setup).await).await
}
