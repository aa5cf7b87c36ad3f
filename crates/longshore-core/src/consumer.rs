use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, InstanceId, Letter, Received, Record, Result, Source};

/// The incoming side: one consumer of one source.
///
/// # Promises of every implementation
/// 1. No method retries a message; none decides.
/// 2. It hands over no more unsettled deliveries than the prefetch of its [`ConsumerSpec`].
/// 3. Reconnecting happens below [`receive`](Self::receive); the runtime hears of it by
///    [`Event::State`] and [`Event::Lost`]. Only an error that no reconnect can mend ends it.
/// 4. A move is atomic, or copy, confirm, then settle the original; never the reverse. A copy that
///    cannot be written leaves the original unsettled.
/// 5. What it does not understand of a message survives every copy byte for byte.
#[async_trait]
pub trait Consumer: Debug + Send + Sync + 'static {
    /// Waits for at least one event and appends at most `limit` to `out`.
    ///
    /// # Behaviour
    /// - An error is final: the consumer is closed.
    /// - At most one call at a time; [`settle`](Self::settle) and [`extend`](Self::extend) run
    ///   beside it.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, no event is lost: the next call returns it.
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()>;

    /// Executes `batch` and appends one result each to `out`, in order.
    ///
    /// # Behaviour
    /// - Settling one delivery never settles, delays or loses another.
    /// - A token stays valid after an error, but for `LeaseLost`: the same settlement may be tried
    ///   again, and one that was done already is `Ok` or `LeaseLost`, never done twice.
    /// - A record that comes with a settlement is durable before the settlement is.
    /// - Calls may overlap.
    ///
    /// # Cancel safety
    /// The runtime drives every call to its end. Dropped all the same, each settlement either
    /// happened or did not.
    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>);

    /// Extends the leases of `tokens` to `by` from now, and appends one result each, in order.
    /// `LeaseLost` where another member may have the message.
    async fn extend(&self, tokens: &[AckToken], by: Duration, out: &mut Vec<Result<()>>);

    /// Sets how many unsettled deliveries [`receive`](Self::receive) hands over at most from now
    /// on: from 0 to the prefetch of its [`ConsumerSpec`], with which it starts.
    ///
    /// # Behaviour
    /// - Where fewer fit now, the broker is asked for no more. What is underway and was not handed
    ///   over goes back to the group when this returns, at once and as a
    ///   [`Settlement::Release`] does; what was handed over stays until it is settled.
    /// - With 0, [`receive`](Self::receive) goes on telling what is no message, and its errors. The
    ///   consumer stays a member of its group, and keeps no lane to itself.
    /// - Called with no [`receive`](Self::receive) pending: the runtime drops it first.
    /// - Waits for a bounded time. What it cannot do now, a lost connection does.
    ///
    /// # Cancel safety
    /// The runtime drives it to its end. Dropped all the same, what is underway comes back at the
    /// latest with the end of its lease.
    async fn set_prefetch(&self, prefetch: u16);

    /// Stops handing over, writes what settlements are pending, and gives what is unsettled back to
    /// the group. Idempotent.
    async fn close(&self) -> Result<()>;
}

/// What a consumer is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// What it reads.
    pub source: Source,
    /// The most unsettled deliveries at a time; [`Consumer::set_prefetch`] lowers it for a while.
    pub prefetch: u16,
    /// How long a delivery is held without a sign of life; used only where the broker keeps no
    /// lease for the group.
    pub lease: Duration,
    /// Who reads.
    pub instance: InstanceId,
}

/// What a consumer hears.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every event is a message")]
pub enum Event {
    /// A delivery.
    Message(Received),
    /// The deliveries of `epoch` will be taken away: what settles within `grace` still counts.
    Revoking {
        /// Which.
        epoch: u32,
        /// How long is left.
        grace: Duration,
    },
    /// The deliveries of `epoch` are gone: others may have them, and their tokens are invalid.
    Lost {
        /// Which.
        epoch: u32,
        /// Why.
        why: Error,
    },
    /// The link to the broker changed.
    State(Link),
}

/// The link to the broker.
#[derive(Clone, Debug)]
pub enum Link {
    /// Attached and reading.
    Up,
    /// Not attached; the backend is trying again by itself.
    Down {
        /// What ended it.
        why: Error,
    },
}

/// The right to settle one delivery, once.
///
/// A plain value: the native message stays with the backend, so that copies are byte for byte and
/// settling allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AckToken {
    /// One connection, or one assignment of one partition.
    pub epoch: u32,
    /// The place in the backend's table of deliveries in flight.
    pub slot: u32,
    /// The delivery that held the place when the token was made; tells a later one from it.
    pub seq: u64,
}

/// The order that ends a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// Done: it never comes again.
    Ack(AckToken),
    /// Back to the group at once. From a DLQ: the letter stays, and this consumer sees it no more.
    Release {
        /// The delivery.
        token: AckToken,
        /// Present where fast failures are kept, or where the broker counts releases and the
        /// message was redelivered.
        record: Option<Box<Record>>,
    },
    /// Back to the group after a delay, never early.
    Retry {
        /// The delivery.
        token: AckToken,
        /// The delay.
        after: Duration,
        /// What travels to the next attempt.
        record: Box<Record>,
    },
    /// Into the group's suspect lane.
    Suspect {
        /// The delivery.
        token: AckToken,
        /// What travels there: all returns explained.
        record: Box<Record>,
    },
    /// Into the group's dead-letter queue.
    DeadLetter {
        /// The delivery.
        token: AckToken,
        /// Why, and what happened before.
        letter: Box<Letter>,
    },
    /// Out of the dead-letter queue, back to the group that failed it, and to no other.
    Redrive {
        /// The delivery of the letter.
        token: AckToken,
        /// All cleared but redrives + 1 and the origin.
        record: Box<Record>,
    },
}

impl Settlement {
    /// The delivery that it ends.
    #[must_use]
    pub fn token(&self) -> AckToken {
        match self {
            Self::Ack(token)
            | Self::Release { token, .. }
            | Self::Retry { token, .. }
            | Self::Suspect { token, .. }
            | Self::DeadLetter { token, .. }
            | Self::Redrive { token, .. } => *token,
        }
    }
}

// The traits stay object-safe: the facade holds every backend as one type.
const _: fn(&dyn crate::Broker, &dyn crate::Publisher, &dyn Consumer) = |_, _, _| {};
// Copied per message in every layer.
const _: () = assert!(size_of::<AckToken>() == 16);
