//! What must occur at least once in a long run: a fault that never bites proves nothing.

macro_rules! sights {
    ($($name:ident = $text:literal,)+) => {
        /// One of the things that a run must show.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Sight {
            $($name,)+
        }

        const ALL: &[(Sight, &str)] = &[$((Sight::$name, $text),)+];
    };
}

sights! {
    SeveralMembers = "several members",
    HandOverLost = "a hand-over that was lost",
    HandOverTwice = "a message handed over twice",
    HandOverSlow = "a hand-over that was late",
    Reordered = "a message that overtook another",
    AnswersReordered = "answers in another order than their orders",
    SettleLost = "a settlement that never arrived",
    SettleReplyLost = "a settlement that was done and not answered",
    SettleRefused = "a settlement that was refused",
    SettleLateFenced = "a late settlement that was fenced",
    SettleLateUnfenced = "a late ack that settled another's delivery",
    SettleUnconfirmedLost = "an unconfirmed settlement that was lost with its connection",
    CopyRefused = "a copy that was refused",
    ExtendLost = "an extension that was lost",
    ExtendFenced = "an extension of a lost lease",
    LeaseTaken = "a lease taken away by the broker",
    LeaseExpired = "a lease that ran out",
    OwnClockLost = "a lease given up by the member's own clock",
    LostWhileRunning = "a lease lost while the handler ran",
    LostWhilePausing = "a lease lost in a fast gap",
    LostWhileBuffered = "a lease lost before the handler ran",
    LostWhileSettling = "a lease lost while its settlement was under way",
    LostWhileStalled = "a lease lost while its settlement waited to be tried again",
    Disconnected = "a lost connection",
    DisconnectedInMove = "a connection lost inside a move",
    Paused = "a process that stood still",
    Revoked = "a revocation",
    SettledInGrace = "a settlement within the grace of a revocation",
    RevokedBuffered = "what had not started given back at a revocation",
    RevokedPausing = "a fast gap that went on in the broker at a revocation",
    CrashIdle = "a crash with nothing in hand",
    CrashBuffered = "a crash between hand-over and handler",
    CrashRunning = "a crash while the handler ran",
    CrashPausing = "a crash in a fast gap",
    CrashBeforeSettle = "a crash between the handler's end and the first durable step",
    CrashAfterCopy = "a crash between copy and settlement",
    CrashAfterRecord = "a crash between record and settlement",
    CrashBeforeAnswer = "a crash between settlement and answer",
    Restarted = "a member that came back",
    DrainReleased = "a buffered delivery given back by a drain",
    DrainPausing = "a fast gap that went on in the broker at a drain",
    DrainArrival = "a delivery that came while draining",
    DrainAborted = "a run cancelled by the end of a drain",
    DrainClosedHolding = "a drain that ended with settlements open",
    TimedOut = "a handler that exceeded its time",
    CancelledUnstarted = "a run cancelled before it began",
    CancelledOk = "a cancelled run that ended well",
    CancelledFailed = "a cancelled run that failed",
    Panicked = "a handler that panicked",
    FastRetry = "a fast retry",
    DurableRetry = "a durable retry",
    WantedGap = "a gap that the handler asked for",
    Suspected = "a message moved to the suspect lane",
    SuspectSucceeded = "a suspect that succeeded",
    SuspectRetried = "a suspect that was retried",
    CrashSuspect = "a message dead-lettered as crash-suspect",
    Exhausted = "attempts exhausted",
    RedriveExhausted = "redrives exhausted",
    TooOld = "a message too old to be tried again",
    Permanent = "a permanent failure",
    Discarded = "a discarded message",
    Oversize = "an oversize message",
    DeadLettersOff = "a message that would have died, acknowledged",
    Forged = "a forged record, clamped",
    ReleaseCounted = "a release that the broker counted",
    ReleaseRecorded = "a release that kept fast failures",
    ExtraCopy = "two copies of one message",
    FlagOnly = "a broker that knows only first or not",
    NoCounts = "a broker that does not count",
}

/// A set of what occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u128);

impl Seen {
    pub(crate) fn see(&mut self, sight: Sight) {
        self.0 |= 1 << sight as u32;
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What never occurred.
    #[must_use]
    pub fn missing(self) -> Vec<&'static str> {
        let never = |sight: Sight| self.0 & (1 << sight as u32) == 0;
        ALL.iter().filter(|(sight, _)| never(*sight)).map(|(_, text)| *text).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn total() -> usize {
        ALL.len()
    }
}
