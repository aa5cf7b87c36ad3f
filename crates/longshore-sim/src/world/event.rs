//! What happens in a world, and when.

use std::cmp::Ordering;

use crate::scenario::Time;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Publish {
        message: usize,
    },
    /// A hand-over arrives.
    Arrive {
        delivery: usize,
    },
    /// A lease may be over.
    Expire {
        delivery: usize,
    },
    /// A retry may be due.
    Due {
        copy: usize,
    },
    /// A shard takes a run.
    Begin {
        delivery: usize,
        run: u32,
    },
    /// A run ends.
    End {
        delivery: usize,
        run: u32,
        cancelled: bool,
    },
    /// The next step of a settlement arrives at the broker.
    Step {
        call: usize,
    },
    Answer {
        call: usize,
        answer: Answer,
    },
    Extend {
        delivery: usize,
    },
    ExtendAnswer {
        delivery: usize,
        answer: Answer,
    },
    Tick {
        member: usize,
        inc: u32,
        lane: usize,
    },
    Fault {
        index: usize,
    },
    /// A member starts.
    Up {
        member: usize,
        inc: u32,
    },
    Revoking {
        member: usize,
        inc: u32,
        epoch: u32,
    },
    /// The grace is over.
    Revoked {
        member: usize,
        inc: u32,
        epoch: u32,
    },
    Lost {
        member: usize,
        inc: u32,
        lane: usize,
        epoch: u32,
    },
    /// The drain budget is spent.
    Abort {
        member: usize,
        inc: u32,
    },
    /// The last settlements had their time.
    Close {
        member: usize,
        inc: u32,
    },
    /// A process dies.
    Die {
        member: usize,
        inc: u32,
    },
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    LeaseLost,
    Unavailable,
}

/// When it happens; what was ordered first comes first at one time.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) at: Time,
    pub(super) seq: u64,
    pub(super) event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}
