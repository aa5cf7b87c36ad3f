//! What the policy asks for after a failed run, written anew from `docs/policy.md`.

use longshore_core::policy::{Failure, Policy, Reason};

use crate::broker::nanos;
use crate::scenario::{End, MS, Time};

/// What arithmetic with fractions may round, in nanoseconds.
const ROUNDING: Time = 1_000;

/// What must follow a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fast { min: Time, max: Time },
    Retry { min: Time, max: Time },
    Dead(Reason),
    Discard,
}

/// How a run failed: its handler's end, or a time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    End(End),
    TimedOut,
}

/// What is known of the run that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Past {
    pub(crate) attempt: u32,
    pub(crate) age: Time,
    pub(crate) redrives: u32,
}

pub(crate) fn verdict(policy: &Policy, past: Past, failed: Failed) -> Verdict {
    let dead = |reason| {
        if policy.dead_letter().enabled { Verdict::Dead(reason) } else { Verdict::Discard }
    };
    match failed {
        Failed::End(End::Discard) => return Verdict::Discard,
        Failed::End(End::Reject) => return dead(Reason::Rejected),
        Failed::End(End::Undecodable) => return dead(Reason::Undecodable),
        Failed::End(End::Permanent) => return dead(Reason::Permanent),
        _ => {}
    }
    if past.attempt >= policy.max_attempts() {
        let redriven = past.redrives >= policy.dead_letter().max_redrives.max(1);
        return dead(match failed {
            _ if redriven => Reason::RedriveExhausted,
            Failed::End(End::Panic) => Reason::Panicked,
            Failed::TimedOut => Reason::TimedOut,
            Failed::End(_) => Reason::AttemptsExhausted,
        });
    }
    if past.age > nanos(policy.max_retry_age()) {
        return dead(Reason::TooOld);
    }
    if let Failed::End(End::RetryAfter(wanted)) = failed {
        let gap = wanted.clamp(MS, longest(policy));
        return Verdict::Retry { min: gap.saturating_sub(ROUNDING), max: gap + ROUNDING };
    }
    let n = past.attempt as usize - 1;
    let (fast, delayed) = (policy.fast_delays(), policy.delayed());
    if let Some(gap) = fast.get(n) {
        let (min, max) = (nanos(*gap), jittered(nanos(*gap), policy) + ROUNDING);
        return Verdict::Fast { min, max };
    }
    let gap = nanos(delayed[(n - fast.len()).min(delayed.len() - 1)]);
    Verdict::Retry { min: gap, max: jittered(gap, policy) + ROUNDING }
}

fn longest(policy: &Policy) -> Time {
    let all = policy.fast_delays().iter().chain(policy.delayed());
    jittered(all.copied().map(nanos).max().unwrap_or_default(), policy)
}

/// The latest end of a gap.
fn jittered(gap: Time, policy: &Policy) -> Time {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "gaps are seconds"
    )]
    let extra = (gap as f64 * policy.jitter()) as Time;
    gap + extra
}

/// The failure that a handler returns for its end; none where it succeeds.
pub(crate) fn failure(end: End) -> Option<Failure> {
    Some(match end {
        End::Ok | End::Hang => return None,
        End::Fail => Failure::from("the till is closed"),
        End::Permanent => Failure::permanent("no such account"),
        End::RetryAfter(wanted) => {
            Failure::retry_after(std::time::Duration::from_nanos(wanted), "the limit resets soon")
        }
        End::Reject => Failure::reject("closed", "the account is closed"),
        End::Discard => Failure::discard("nothing to do"),
        End::Undecodable => Failure::undecodable("not a document"),
        End::Panic => Failure::panicked("out of range".to_owned()),
    })
}
