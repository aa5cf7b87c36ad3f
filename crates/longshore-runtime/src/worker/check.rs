//! What is asked for against what the broker can do: a conflict shows at start, never later.

use std::time::Duration;

use longshore_core::policy::Ordering;
use longshore_core::{Capabilities, Error, ErrorKind, Policy, Result, Start, Support};

/// The default length of a lease.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// A shorter lease could not be extended in time.
const MIN_LEASE: Duration = Duration::from_millis(100);

/// The prefetch that was asked for, or one that keeps every slot busy.
pub(crate) fn prefetch(
    asked: Option<u16>,
    concurrency: usize,
    capabilities: &Capabilities,
) -> Result<u16> {
    if concurrency == 0 || concurrency > usize::from(u16::MAX) {
        return Err(Error::config(format!("a concurrency of {concurrency} makes no sense")));
    }
    let max = capabilities.max_prefetch;
    let Some(asked) = asked else {
        let default = u16::try_from((concurrency * 2).max(16)).unwrap_or(u16::MAX);
        return Ok(default.min(max));
    };
    if asked == 0 || asked > max {
        return Err(Error::config(format!("a prefetch is from 1 to {max}, not {asked}")));
    }
    Ok(asked)
}

/// What the policy's rate lets start within one handler time-out, and one more: the rate is reached
/// however long handlers take, and nothing waits longer for it here, while others could have it.
pub(crate) fn within_rate(prefetch: u16, policy: &Policy) -> u16 {
    let Some(limit) = policy.rate_limit() else { return prefetch };
    let spent = policy.handler_timeout().as_nanos().saturating_mul(limit.count.into());
    let starts = spent.div_ceil(limit.per.as_nanos().max(1)).saturating_add(1);
    prefetch.min(u16::try_from(starts).unwrap_or(u16::MAX))
}

/// What a group asks for, read by a worker or by a subscription.
pub(crate) fn check_group(
    policy: &Policy,
    start: Start,
    lease: Duration,
    backend: &'static str,
    capabilities: &Capabilities,
) -> Result<()> {
    if lease < MIN_LEASE {
        return Err(Error::config(format!("a lease is at least {MIN_LEASE:?}")));
    }
    if start == Start::Earliest && !capabilities.replay {
        return Err(Error::unsupported(backend, "starting a new group at the earliest message"));
    }
    if policy.dead_letter().enabled && capabilities.dead_letters == Support::Unsupported {
        return Err(Error::unsupported(backend, "a dead-letter queue"));
    }
    match capabilities.delay_max {
        Some(max) if policy.longest_delay() > max => Err(Error::new(
            ErrorKind::Unsupported,
            format!("the policy's longest delay exceeds this broker's {max:?}"),
        )
        .with_backend(backend)),
        _ => Ok(()),
    }
}

/// What a worker's policy asks for.
pub(crate) fn check(
    policy: &Policy,
    backend: &'static str,
    capabilities: &Capabilities,
) -> Result<()> {
    let unsupported = |ability: &str| Err(Error::unsupported(backend, ability));
    if policy.ordering() != Ordering::Unordered {
        return unsupported("an ordering other than `unordered`");
    }
    // Also without delayed gaps: a handler may ask for one, and a drain makes fast ones durable.
    if policy.max_attempts() > 1 && capabilities.delay == Support::Unsupported {
        return unsupported("a durable delay");
    }
    Ok(())
}
