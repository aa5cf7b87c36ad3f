use std::time::Duration;

/// How long to wait between two attempts to connect.
#[derive(Clone, Debug, PartialEq)]
pub struct BackoffConfig {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// By what each wait grows over the one before.
    pub factor: f64,
    /// Additive: a wait `d` becomes one of `[d, (1 + jitter) d]`, so that the clients of a broker
    /// that restarted do not come back all at once.
    pub jitter: f64,
    /// A connection that held for so long was a good one: the next wait is the first again. A
    /// shorter one was not, however well it began.
    pub steady_after: Duration,
}

impl Default for BackoffConfig {
    /// From 100 ms doubling to 30 s, a quarter of jitter, and steady after 30 s: a restart of the
    /// broker is noticed within a second, and an outage of hours costs two connects a minute.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.25,
            steady_after: Duration::from_secs(30),
        }
    }
}

/// The next wait. Asking does not advance it; only a failure does.
#[derive(Clone, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    failures: u32,
}

impl Backoff {
    /// Before the first failure.
    #[must_use]
    pub fn new(config: BackoffConfig) -> Self {
        Self { config, failures: 0 }
    }

    /// The wait that is due now; `roll` is of `[0, 1)`.
    #[must_use]
    pub fn delay(&self, roll: f64) -> Duration {
        let BackoffConfig { first, max, factor, jitter, .. } = &self.config;
        let grown = first.as_secs_f64() * factor.max(1.0).powf(f64::from(self.failures));
        // The cap comes before the sum, so neither an infinite power nor a jitter exceeds it much.
        let seconds = grown.min(max.as_secs_f64()) * (1.0 + jitter.max(0.0) * roll.clamp(0.0, 1.0));
        Duration::try_from_secs_f64(seconds).unwrap_or(*max)
    }

    /// Another attempt failed.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A connection ended that had held for `held`.
    pub fn ended(&mut self, held: Duration) {
        if held >= self.config.steady_after {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_doubles_to_the_cap_and_starts_again_after_a_steady_connection() {
        let mut backoff = Backoff::new(BackoffConfig::default());
        let mut seen = Vec::new();
        for _ in 0..12 {
            seen.push(backoff.delay(0.0).as_millis());
            backoff.failed();
        }
        assert_eq!(seen[..4], [100, 200, 400, 800]);
        assert_eq!(seen[9..], [30_000; 3]);
        backoff.ended(Duration::from_secs(29));
        assert_eq!(backoff.delay(0.0), Duration::from_secs(30));
        backoff.ended(Duration::from_secs(30));
        assert_eq!(backoff.delay(0.0), Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn a_delay_is_never_early_nor_beyond_its_jitter(failures in 0u32..2000, roll in 0.0f64..1.0) {
            let mut backoff = Backoff::new(BackoffConfig::default());
            backoff.failures = failures;
            let (least, most) = (backoff.delay(0.0), backoff.delay(1.0));
            let delay = backoff.delay(roll);
            prop_assert!(least <= delay && delay <= most);
            prop_assert!(most <= Duration::from_millis(37_500));
            prop_assert!(least >= Duration::from_millis(100));
        }
    }
}
