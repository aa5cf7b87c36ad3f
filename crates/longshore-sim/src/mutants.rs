//! Engines broken on purpose, each in one way: what goes in, what comes out, or how they are set
//! up. A simulator that finds nothing has proved something only if it finds these.

use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{ErrorKind, Policy, Received, Record, Settlement};

use crate::engine::{Action, Config, Input};

macro_rules! mutants {
    ($($name:ident = $text:literal: $($anomaly:literal)|+,)+) => {
        /// A defect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $text] $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it does.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The anomalies that name it rightly.
            #[must_use]
            pub fn anomalies(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($anomaly),+],)+
                }
            }
        }
    };
}

mutants! {
    SettlesBeforeCopy = "settles-before-copy": "lost",
    AcksOnStart = "acks-on-start": "settled-unasked" | "lost",
    AcksWhatFailed = "acks-what-failed": "wrong-settlement",
    AcksWhatIsReleased = "acks-what-is-released": "wrong-settlement",
    AcksWhatIsDead = "acks-what-is-dead": "wrong-settlement",
    ReleasesSuspects = "releases-suspects": "wrong-settlement",
    CountsCrashAsFailure = "counts-a-crash-as-a-failure": "count-drift",
    CountsReleaseAsFailure = "counts-a-release-as-a-failure": "count-drift",
    CountsTwice = "counts-a-failure-twice": "count-drift",
    ForgetsFailures = "forgets-failures": "count-drift",
    ForgetsFastFailures = "forgets-fast-failures-at-a-release": "count-drift",
    ForgetsDeliveries = "forgets-deliveries": "count-drift",
    ForgetsDelayed = "forgets-delayed-retries": "count-drift",
    ForgetsExplained = "forgets-what-explains-a-suspect": "count-drift",
    ForgetsRedrives = "forgets-redrives": "count-drift",
    ForgetsLease = "forgets-the-lease": "lease-forgotten",
    ExtendsLate = "extends-late": "lease-forgotten",
    ExtendsTooFar = "extends-too-far": "lease-forgotten",
    IgnoresLostLease = "ignores-a-lost-lease": "not-cancelled" | "leaked",
    ForgetsLostSettling = "takes-a-lost-lease-for-a-failed-settlement": "leaked" | "foreign-token",
    NeverCancels = "never-cancels": "not-cancelled",
    RetriesEarly = "retries-early": "early-retry",
    RetriesLate = "retries-late": "late-retry",
    PausesShort = "pauses-too-short": "early-retry",
    TriesTooOften = "tries-too-often": "order-missing" | "wrong-settlement",
    GivesUpEarly = "gives-up-early": "wrong-settlement" | "settled-unasked",
    NoIsolation = "isolates-nothing": "started-not-settled",
    BuriesFromMain = "buries-from-the-main-lane": "wrong-settlement",
    HandlesOversize = "handles-oversize": "started-not-settled",
    TakesErrorForOk = "takes-a-failed-settlement-for-done": "forgotten",
    ForgetsFailedSettle = "forgets-a-failed-settlement": "leaked" | "stuck" | "drain-stuck",
    AcksAfterFailedSettle = "acks-after-a-failed-settlement": "wrong-settlement",
    SettlesTwice = "settles-twice": "settled-twice",
    StartsTwice = "starts-twice": "started-twice",
    SettlesNeighbour = "settles-a-neighbour": "foreign-token" | "settled-unasked",
    IgnoresDrain = "ignores-a-drain": "order-missing" | "started-draining",
    IgnoresAbort = "ignores-the-end-of-a-drain": "not-cancelled",
    IgnoresRevocation = "ignores-a-revocation": "order-missing",
    ForgetsTimeOut = "forgets-time-outs": "not-cancelled" | "stuck",
    SleepsThrough = "misses-ticks": "stuck" | "hot-loop" | "not-cancelled",
    OneMoreRun = "runs-one-more-at-a-time": "over-concurrency",
    OneRunLess = "runs-one-less-at-a-time": "idle-slot",
    WrongReason = "names-another-reason": "metadata-drift",
    WrongLetter = "writes-no-attempts-into-letters": "metadata-drift",
    TrustsRecords = "trusts-forged-records": "count-drift",
}

/// The share of a gap that a defect waits, in tenths.
const EARLY: u32 = 9;
const LATE: u32 = 14;

impl Mutant {
    /// By its name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// What its harm alone is found as, without a look at the steps; none where it is only untidy,
    /// or where the step is the harm.
    #[must_use]
    pub fn harm(self) -> Option<&'static str> {
        Some(match self {
            Self::SettlesBeforeCopy
            | Self::AcksOnStart
            | Self::AcksWhatFailed
            | Self::AcksWhatIsReleased
            | Self::AcksWhatIsDead
            | Self::AcksAfterFailedSettle => "lost",
            // Without its failures a message gets the first gap again, and that is the shortest.
            Self::RetriesEarly | Self::PausesShort | Self::ForgetsFailures => "early-retry",
            Self::TriesTooOften => "over-attempt",
            Self::NoIsolation => "crash-loop",
            Self::ForgetsLease | Self::ExtendsLate => "lease-forgotten",
            Self::ForgetsTimeOut => "stuck",
            _ => return None,
        })
    }

    pub(crate) fn settles_first(self) -> bool {
        self == Self::SettlesBeforeCopy
    }

    pub(crate) fn config(self, config: &mut Config) {
        let policy = &config.policy;
        let max = policy.max_attempts();
        let changed = |builder: longshore_core::policy::Builder| builder.build().ok();
        let policy = match self {
            Self::PausesShort => {
                let short = policy.fast_delays().iter().map(|gap| *gap * EARLY / 10);
                let builder = policy.to_builder().jitter(0.0);
                changed(builder.fast_delays(short.collect::<Vec<_>>()))
            }
            Self::TriesTooOften => changed(policy.to_builder().max_attempts(max + 1)),
            Self::GivesUpEarly => changed(policy.to_builder().max_attempts((max - 1).max(1))),
            Self::ForgetsTimeOut => {
                changed(policy.to_builder().handler_timeout(Duration::from_secs(100_000)))
            }
            Self::TrustsRecords => changed(policy.to_builder().max_attempts(max)),
            _ => None,
        };
        if let Some(policy) = policy {
            config.policy = std::sync::Arc::<Policy>::new(policy);
        }
        match self {
            Self::NoIsolation => config.isolation = false,
            Self::BuriesFromMain => config.suspects = true,
            Self::HandlesOversize => config.max_body = usize::MAX,
            Self::OneMoreRun => config.concurrency += 1,
            Self::OneRunLess => config.concurrency -= 1,
            _ => {}
        }
    }

    /// Changes what goes in; false where it is swallowed.
    pub(crate) fn input(self, input: &mut Input) -> bool {
        match (self, input) {
            (Self::CountsCrashAsFailure, Input::Received(received))
                if received.unexplained() > 0 =>
            {
                edit(received, |record| record.failures += 1);
            }
            (Self::ExtendsLate, Input::Received(received)) => {
                received.lease = received.lease.map(|lease| lease * 5);
            }
            (Self::TrustsRecords, Input::Received(received)) => {
                edit(received, |record| record.failures = record.failures.min(1));
            }
            (Self::IgnoresLostLease, Input::Lost { .. })
            | (Self::IgnoresDrain, Input::Drain)
            | (Self::IgnoresAbort, Input::Abort)
            | (Self::IgnoresRevocation, Input::Revoking { .. }) => return false,
            (Self::IgnoresLostLease, Input::Extended { result, .. }) => *result = Ok(()),
            (Self::ForgetsLostSettling, Input::Settled { result: Err(error), .. })
                if error.kind() == ErrorKind::LeaseLost =>
            {
                *error = longshore_core::Error::new(ErrorKind::Unavailable, "no answer");
            }
            (Self::TakesErrorForOk, Input::Settled { result, .. }) => *result = Ok(()),
            (Self::ForgetsFailedSettle, Input::Settled { result: Err(error), .. }) => {
                return error.kind() == ErrorKind::LeaseLost;
            }
            (Self::AcksAfterFailedSettle, Input::Settled { settlement, result: Err(_), .. }) => {
                *settlement = Settlement::Ack(settlement.token());
            }
            (Self::SleepsThrough, Input::Tick) => return false,
            _ => {}
        }
        true
    }

    /// Changes what comes out.
    pub(crate) fn actions(self, actions: &mut Vec<Action>) {
        match self {
            Self::ForgetsLease => actions.retain(|a| !matches!(a, Action::Extend { .. })),
            Self::NeverCancels => actions.retain(|a| !matches!(a, Action::Cancel { .. })),
            Self::AcksOnStart => {
                let ack = |action: &Action| match action {
                    Action::Start(start) => {
                        let settlement = Settlement::Ack(start.received.token);
                        Some(Action::Settle { key: start.key, settlement })
                    }
                    _ => None,
                };
                let acks: Vec<_> = actions.iter().filter_map(ack).collect();
                actions.extend(acks);
            }
            Self::SettlesTwice => {
                let again = |action: &Action| match action {
                    Action::Settle { key, settlement } => {
                        Some(Action::Settle { key: *key, settlement: settlement.clone() })
                    }
                    _ => None,
                };
                let more: Vec<_> = actions.iter().filter_map(again).collect();
                actions.extend(more);
            }
            Self::StartsTwice => {
                let again = |action: &Action| match action {
                    Action::Start(start) => Some(Action::Start(crate::engine::Start {
                        key: start.key,
                        received: start.received.clone(),
                        attempt: start.attempt,
                    })),
                    _ => None,
                };
                let more: Vec<_> = actions.iter().filter_map(again).collect();
                actions.extend(more);
            }
            _ => actions.iter_mut().for_each(|action| self.action(action)),
        }
    }

    fn action(self, action: &mut Action) {
        match action {
            Action::Extend { by, .. } if self == Self::ExtendsTooFar => *by *= 2,
            Action::Settle { settlement, .. } => self.settlement(settlement),
            _ => {}
        }
    }

    fn settlement(self, settlement: &mut Settlement) {
        let token = settlement.token();
        match (self, &mut *settlement) {
            (Self::AcksWhatFailed, Settlement::Retry { .. })
            | (Self::AcksWhatIsReleased, Settlement::Release { .. })
            | (Self::AcksWhatIsDead, Settlement::DeadLetter { .. }) => {
                *settlement = Settlement::Ack(token);
            }
            (Self::ReleasesSuspects, Settlement::Suspect { .. }) => {
                *settlement = Settlement::Release { token, record: None };
            }
            (Self::CountsReleaseAsFailure, Settlement::Release { record: Some(record), .. }) => {
                record.failures += 1;
            }
            (Self::ForgetsFastFailures, Settlement::Release { record, .. }) => *record = None,
            (Self::CountsTwice, Settlement::Retry { record, .. }) => record.failures += 1,
            (Self::ForgetsFailures, Settlement::Retry { record, .. }) => record.failures = 0,
            (Self::ForgetsDeliveries, Settlement::Retry { record, .. }) => record.deliveries = 0,
            (Self::ForgetsDelayed, Settlement::Retry { record, .. }) => record.delayed = 0,
            (Self::ForgetsExplained, Settlement::Suspect { record, .. }) => record.explained = 0,
            (Self::ForgetsRedrives, Settlement::Retry { record, .. }) => record.redrives = 0,
            (Self::RetriesEarly, Settlement::Retry { after, .. }) => *after = *after * EARLY / 10,
            (Self::RetriesLate, Settlement::Retry { after, .. }) => *after = *after * LATE / 10,
            (Self::WrongReason, Settlement::DeadLetter { letter, .. }) => {
                letter.reason = Reason::BrokerLimit;
            }
            (Self::WrongLetter, Settlement::DeadLetter { letter, .. }) => letter.attempts = 99,
            (Self::SettlesNeighbour, Settlement::Ack(token)) => {
                token.seq = token.seq.saturating_sub(1)
            }
            _ => {}
        }
    }
}

fn edit(received: &mut Received, change: impl FnOnce(&mut Record)) {
    let mut record = received.record.as_deref().cloned().unwrap_or_default();
    change(&mut record);
    received.record = Some(std::sync::Arc::new(record));
}
