use std::time::SystemTime;

use longshore_core::Clock;
use tokio::time::Instant;

/// A wall clock that follows tokio's: under paused time it stands and jumps with it, so that a test
/// plays a day of retries in a moment.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    wall: SystemTime,
    started: Instant,
}

impl TokioClock {
    /// A clock that starts at the system's time now. Needs a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        Self { wall: SystemTime::now(), started: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.wall + self.started.elapsed()
    }
}
