use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

const STEP: Duration = Duration::from_millis(50);
const LEAST: Duration = Duration::from_secs(2);
const FACTOR: u32 = 5;

/// A timer that does nothing else, run beside a check: how late this machine is by itself.
#[derive(Debug)]
pub struct Control {
    latest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Control {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        let latest = Arc::new(AtomicU64::new(0));
        let seen = latest.clone();
        let task = tokio::spawn(async move {
            loop {
                let due = Instant::now() + STEP;
                tokio::time::sleep_until(due).await;
                let late = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
                seen.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { latest, task }
    }

    /// How late anything may be, beyond its own time: two seconds, or five times what the timer
    /// alone was late in this run.
    #[must_use]
    pub fn bound(&self) -> Duration {
        let late = Duration::from_nanos(self.latest.load(Ordering::Relaxed));
        late.saturating_mul(FACTOR).max(LEAST)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}
