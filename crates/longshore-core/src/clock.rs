use std::fmt::Debug;
use std::time::SystemTime;

/// Where the wall-clock time of retry records and dead letters comes from.
///
/// It is an input, so that a test can play a day in a second. Delays never come from it: they run
/// on monotonic time, here or in the broker.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
