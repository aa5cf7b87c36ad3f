//! What a seed stands for: a kind of broker, a policy, members, messages and faults, all drawn
//! before anything runs. So a part can be left out and the rest stays as it was.

use std::time::Duration;

use fastrand::Rng;
use longshore_core::Policy;
use longshore_core::policy::DeadLetters;

use crate::keep::Keep;

/// Nanoseconds since the start of the world.
pub(crate) type Time = u64;
pub(crate) const MS: Time = 1_000_000;
/// No fault begins later; members that are down come back soon after.
pub(crate) const FAULTS_END_MS: u64 = 12_000;

/// How a broker moves a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In one step.
    Atomic,
    /// The record first, then the settlement, where the message stands.
    Ledger,
    /// A copy, then the settlement of the original.
    Copy,
}

/// How well a broker counts deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    Exact,
    /// First or not.
    Flag,
    None,
}

/// A kind of broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// How long a lease is; none where the connection is the lease.
    pub(crate) lease: Option<Time>,
    /// How a retry, and a release with a record, is written.
    pub(crate) retry: Way,
    /// How a suspect or a dead letter moves.
    pub(crate) moves: Way,
    pub(crate) counts: Counts,
    pub(crate) release_counted: bool,
    /// Whether `Ok` means that the broker has settled, not only that it was asked to.
    pub(crate) settle_confirmed: bool,
    /// Whether the broker refuses an ack whose lease is lost; if not, it settles another's delivery.
    pub(crate) fenced: bool,
}

impl Kind {
    /// As the worker decides it from the capabilities.
    pub(crate) fn isolates(&self) -> bool {
        self.counts == Counts::Exact
    }
}

/// One message, and how its handler behaves.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its number in the scenario, which stays where others are left out.
    pub(crate) index: usize,
    pub(crate) at: Time,
    pub(crate) keyed: bool,
    pub(crate) oversize: bool,
    pub(crate) redrives: u32,
    /// Whether it comes with a record that claims more failures than there can be.
    pub(crate) forged: bool,
    /// How many of its runs kill the process.
    pub(crate) aborts: u32,
    /// The end of each attempt; beyond the list, success.
    pub(crate) ends: Vec<End>,
}

/// How a handler run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Fail,
    Permanent,
    RetryAfter(Time),
    Reject,
    Discard,
    Undecodable,
    Panic,
    /// Never.
    Hang,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process dies.
    Crash { at: u64, member: usize, down: u64 },
    /// A member drains, stops and starts again.
    Restart { at: u64, member: usize, down: u64 },
    /// A connection is lost.
    Disconnect { at: u64, member: usize, down: u64 },
    /// A process stands still.
    Pause { at: u64, member: usize, time: u64 },
    /// Deliveries are taken away, with notice.
    Revoke { at: u64, member: usize, grace: u64 },
    /// The broker takes one delivery away, without notice.
    LoseLease { at: u64, member: usize },
    /// Copies cannot be written for a while.
    Refuse { at: u64, time: u64 },
    /// Something happens to a settlement, numbered over the run.
    Settle { nth: u64, what: Bad },
    /// An extension is lost or refused.
    Extend { nth: u64, what: Bad },
    /// Something happens to a hand-over.
    HandOver { nth: u64, what: Bad },
}

/// What happens to one call or hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It never arrives.
    Lost,
    /// It is done, and nobody is told.
    ReplyLost,
    /// It is refused.
    Refused,
    /// It takes this long, in milliseconds.
    Slow(u64),
    /// The message is handed over once more at once.
    Twice,
    /// The process dies after so many durable steps.
    Crash(u8),
    /// The connection dies after so many durable steps.
    Disconnect(u8),
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) calm: bool,
    pub(crate) kind: Kind,
    pub(crate) policy: Policy,
    pub(crate) members: usize,
    pub(crate) prefetch: usize,
    pub(crate) concurrency: usize,
    /// Hours that the clocks of members are off; only where no rule is about age.
    pub(crate) skew: bool,
    pub(crate) messages: Vec<Plan>,
    /// With their numbers, which stay where others are left out.
    pub(crate) faults: Vec<(usize, Fault)>,
}

impl Scenario {
    pub(crate) fn of(seed: u64, keep: &Keep) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let kind = kind(rng);
        let (policy, skew) = policy(rng);
        let members = rng.usize(1..=3);
        let concurrency = rng.usize(1..=3);
        let prefetch = concurrency + rng.usize(0..=3);
        let messages = (0..rng.usize(1..=10)).map(|index| message(rng, index, &kind, &policy));
        let mut messages: Vec<_> = messages.collect();
        let faults = rng.usize(0..=9);
        let faults = (0..faults).map(|_| fault(rng, &kind, members)).enumerate();
        let mut faults: Vec<_> = faults.collect();
        if let Some(kept) = &keep.messages {
            messages.retain(|plan| kept.contains(&plan.index));
        }
        if let Some(kept) = &keep.faults {
            faults.retain(|(index, _)| kept.contains(index));
        }
        for (_, fault) in &mut faults {
            fault.round(keep.round);
        }
        let members = keep.members.map_or(members, |kept| kept.clamp(1, members));
        let calm = keep.calm;
        Self { seed, calm, kind, policy, members, prefetch, concurrency, skew, messages, faults }
    }
}

impl Fault {
    /// Begins at a rounder time.
    fn round(&mut self, step: u64) {
        match self {
            Self::Crash { at, .. }
            | Self::Restart { at, .. }
            | Self::Disconnect { at, .. }
            | Self::Pause { at, .. }
            | Self::Revoke { at, .. }
            | Self::LoseLease { at, .. }
            | Self::Refuse { at, .. } => *at -= *at % step.max(1),
            Self::Settle { .. } | Self::Extend { .. } | Self::HandOver { .. } => {}
        }
    }
}

fn kind(rng: &mut Rng) -> Kind {
    let counts = match rng.u8(0..10) {
        0 => Counts::Flag,
        1 => Counts::None,
        _ => Counts::Exact,
    };
    Kind {
        lease: (rng.u8(0..10) < 7).then(|| rng.u64(15..=40) * 100 * MS),
        retry: [Way::Atomic, Way::Ledger, Way::Copy][rng.usize(0..3)],
        moves: [Way::Atomic, Way::Copy][rng.usize(0..2)],
        counts,
        release_counted: rng.bool(),
        settle_confirmed: rng.u8(0..10) < 7,
        fenced: rng.u8(0..10) < 7,
    }
}

/// A policy of short gaps, and whether clocks may be off under it.
fn policy(rng: &mut Rng) -> (Policy, bool) {
    let ms = Duration::from_millis;
    let by_age = rng.u8(0..10) == 0;
    // What the breaker and the rate do is not judged here: their own properties are.
    let policy = Policy::builder()
        .breaker(None)
        .max_attempts(rng.u32(1..=5))
        .fast_delays((0..rng.usize(0..=2)).map(|n| ms(rng.u64(20..=90) << n)))
        .delayed([ms(rng.u64(200..=600)), ms(rng.u64(700..=1_500))])
        .jitter(if rng.bool() { 0.25 } else { 0.0 })
        .max_retry_age(if by_age { ms(rng.u64(50..=2_000)) } else { ms(24 * 3_600_000) })
        .handler_timeout(ms(rng.u64(5..=15) * 100))
        .crash_suspect_after(rng.u32(2..=3))
        .drain(ms(rng.u64(1..=20) * 100))
        .dead_letter(DeadLetters { enabled: rng.u8(0..10) < 8, ..DeadLetters::default() })
        .build()
        .expect("every draw is within the rules");
    (policy, !by_age)
}

fn message(rng: &mut Rng, index: usize, kind: &Kind, policy: &Policy) -> Plan {
    let mut ends = Vec::new();
    let mut aborts = 0;
    match rng.u8(0..100) {
        0..35 => {}
        35..65 => ends = (0..rng.usize(1..=3)).map(|_| failure(rng)).collect(),
        65..75 => ends = (0..2 * policy.max_attempts()).map(|_| failure(rng)).collect(),
        75..88 => {
            let last = [End::Permanent, End::Reject, End::Discard, End::Undecodable];
            ends = (0..rng.usize(0..=1)).map(|_| failure(rng)).collect();
            ends.push(last[rng.usize(0..last.len())]);
        }
        // Without isolation nothing ends a crash loop but the message itself.
        _ if kind.isolates() => aborts = [1, 2, 3, 50][rng.usize(0..4)],
        _ => aborts = rng.u32(1..=2),
    }
    Plan {
        index,
        at: rng.u64(0..4_000) * MS,
        keyed: rng.bool(),
        oversize: rng.u8(0..40) == 0,
        redrives: if rng.u8(0..12) == 0 { rng.u32(1..=3) } else { 0 },
        forged: rng.u8(0..60) == 0,
        aborts,
        ends,
    }
}

fn failure(rng: &mut Rng) -> End {
    match rng.u8(0..10) {
        0 => End::Panic,
        1 => End::Hang,
        2 => End::RetryAfter(rng.u64(1..=3_000) * MS),
        _ => End::Fail,
    }
}

fn fault(rng: &mut Rng, kind: &Kind, members: usize) -> Fault {
    let at = rng.u64(0..FAULTS_END_MS / 2);
    let member = rng.usize(0..members);
    let down = rng.u64(10..=1_500);
    let nth = rng.u64(0..20);
    match rng.u8(0..20) {
        0 | 1 => Fault::Crash { at, member, down },
        2 | 3 => Fault::Restart { at, member, down },
        4 => Fault::Disconnect { at, member, down },
        5 => Fault::Pause { at, member, time: rng.u64(500..=6_000) },
        6 | 7 => Fault::Revoke { at, member, grace: rng.u64(1..=300) },
        8 if kind.lease.is_some() => Fault::LoseLease { at, member },
        9 => Fault::Refuse { at, time: rng.u64(100..=9_000) },
        10 | 11 => Fault::Extend { nth, what: [Bad::Lost, Bad::Refused][rng.usize(0..2)] },
        12 | 13 => {
            let slow = Bad::Slow(rng.u64(100..=1_200));
            // Where the connection is the lease, it delivers what it carries or dies.
            let all = [slow, Bad::Crash(0), Bad::Disconnect(0), Bad::Lost, Bad::Twice];
            let bad = all[rng.usize(0..if kind.lease.is_some() { 5 } else { 3 })];
            Fault::HandOver { nth, what: bad }
        }
        _ => {
            let what = match rng.u8(0..9) {
                0 => Bad::Lost,
                1 | 2 => Bad::ReplyLost,
                3 => Bad::Refused,
                4 => Bad::Slow(rng.u64(100..=9_000)),
                5 | 6 => Bad::Crash(rng.u8(0..=2)),
                _ => Bad::Disconnect(rng.u8(0..=2)),
            };
            Fault::Settle { nth, what }
        }
    }
}
