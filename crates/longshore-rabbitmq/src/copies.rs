//! Copies: retries, suspects, dead letters and redriven messages. A copy is written when the server
//! has confirmed it and did not give it back.
//!
//! A message that is given back (a queue is missing) carries no number, and the client library hands
//! it to whichever confirmation comes next. So each batch has a channel for itself, and is judged
//! when all of its confirmations are there: all returns are, then. A return names its exchange and
//! its routing key, on which alone it depends where it went; so *every* copy of the batch to this
//! place counts as not written. At worst one was, just before the queue went: its original stays,
//! and comes again with the same id. By message ids it would be worse, for a foreign message may
//! have none, or another's.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use longshore_core::{Error, ErrorKind, Outcome, Result};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::error::{self, error};
use crate::lane::{Lane, Patience, confirmed};
use crate::names::short;
use crate::shared::Shared;

/// Copies of one batch: more of them on their way gain nothing on quorum queues.
const BATCH: usize = 256;
/// Batches under way at a time, each on a channel of its own.
const LANES: usize = 8;

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    /// One without an alternate exchange, which would take anything.
    pub(crate) exchange: String,
    pub(crate) key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// Channels for copies.
#[derive(Default)]
pub(crate) struct Lanes {
    idle: Mutex<Vec<Arc<Lane>>>,
}

/// The right to a channel, of which there are few.
pub(crate) struct Permits(Semaphore);

impl Default for Permits {
    fn default() -> Self {
        Self(Semaphore::new(LANES))
    }
}

impl Lanes {
    fn take(&self) -> Option<Arc<Lane>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|lane| lane.is_open());
        idle.pop()
    }

    fn give(&self, lane: Arc<Lane>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }
}

/// Writes copies by the outgoing connection; one outcome each, in order. Waits no longer than the
/// connection's deadline.
///
/// # Errors
/// `NotFound` where a place is missing, `Backpressure` where the server refuses or takes nothing,
/// `TooLarge` where a copy would not pass, `Timeout` and `Unavailable` where it is not known. After
/// any of them the original must stay.
///
/// # Cancel safety
/// Dropped, each copy is written or is not.
pub(crate) async fn store(shared: &Shared, copies: Vec<Copy>) -> Vec<Result<()>> {
    let deadline = Instant::now() + shared.config.publish_timeout;
    let mut outcomes: Vec<Result<()>> = copies.iter().map(|_| Ok(())).collect();
    // A missing exchange closes the channel: that shall not touch copies to another one.
    let exchanges: BTreeSet<&str> = copies.iter().map(|copy| copy.exchange.as_str()).collect();
    for exchange in exchanges {
        let places: Vec<usize> =
            (0..copies.len()).filter(|place| copies[*place].exchange == exchange).collect();
        for batch in places.chunks(BATCH) {
            let chosen: Vec<&Copy> = batch.iter().map(|place| &copies[*place]).collect();
            let written = write(shared, &chosen, deadline).await;
            batch.iter().zip(written).for_each(|(place, outcome)| outcomes[*place] = outcome);
        }
    }
    outcomes
}

async fn write(shared: &Shared, copies: &[&Copy], deadline: Instant) -> Vec<Result<()>> {
    let (mut outcomes, closed) = batch(shared, copies, deadline).await;
    // One copy above a limit of the server's that only its operator knows closes the channel for all
    // of the batch. Each for itself, only that one fails; what was written before is written twice.
    if closed && copies.len() > 1 {
        for (copy, outcome) in copies.iter().zip(&mut outcomes).filter(|(_, it)| it.is_err()) {
            let (again, _) = batch(shared, &[*copy], deadline).await;
            again.into_iter().for_each(|again| *outcome = again);
        }
    }
    outcomes
}

/// The outcomes, and whether the server closed the channel over one of these copies.
async fn batch(shared: &Shared, copies: &[&Copy], deadline: Instant) -> (Vec<Result<()>>, bool) {
    let none = |why: Error| (copies.iter().map(|_| Err(why.clone())).collect(), false);
    let Ok(Ok(_permit)) = timeout_at(deadline, shared.permits.0.acquire()).await else {
        return none(shared.outgoing.silence().with_outcome(Outcome::NotSent));
    };
    // The connection may be blocked, also where a channel is there.
    if let Err(why) = shared.outgoing.writable(deadline).await {
        return none(why);
    }
    let lane = match shared.lanes.take() {
        Some(lane) => lane,
        None => match Lane::open(&shared.outgoing, deadline).await {
            Ok(lane) => Arc::new(lane),
            Err(why) => return none(why),
        },
    };
    let flights: Vec<_> = copies
        .iter()
        .map(|copy| {
            lane.check(&copy.properties, copy.body.len())?;
            let (exchange, key) = (short(&copy.exchange)?, short(&copy.key)?);
            Ok(lane.publish(exchange, key, true, copy.properties.clone(), copy.body.clone()))
        })
        .collect();
    let mut patience = Patience::until(deadline);
    let mut returned: HashSet<(ShortString, ShortString)> = HashSet::new();
    let mut closed = false;
    let mut whole = true;
    let mut outcomes = Vec::with_capacity(copies.len());
    for flight in flights {
        let mut flight = match flight {
            Ok(flight) => flight,
            Err(why) => {
                outcomes.push(Err(why));
                continue;
            }
        };
        outcomes.push(match patience.answer(&mut flight).await {
            Some(Ok(confirmation)) => {
                let outcome = confirmed(&confirmation);
                if let Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back)) = confirmation
                {
                    returned.insert((back.exchange.clone(), back.routing_key.clone()));
                }
                outcome
            }
            Some(Err(native)) => {
                whole = false;
                closed |= error::is_soft(&native, &AMQPSoftError::PRECONDITIONFAILED);
                Err(match shared.outgoing.check() {
                    Ok(()) => unwritten(native),
                    // Closed by ourselves, or ended for good.
                    Err(end) => end.with_outcome(Outcome::Unknown).with_source(native),
                })
            }
            None => {
                whole = false;
                Err(shared.outgoing.silence().with_outcome(Outcome::Unknown))
            }
        });
    }
    if whole {
        // With an answer still to come, its return could be taken for the next batch's.
        shared.lanes.give(lane);
    }
    for (copy, outcome) in copies.iter().zip(&mut outcomes) {
        let came_back = returned
            .iter()
            .any(|(exchange, key)| exchange.as_str() == copy.exchange && key.as_str() == copy.key);
        if came_back {
            *outcome = Err(missing(copy));
        }
    }
    (outcomes, closed)
}

fn unwritten(native: lapin::Error) -> Error {
    if error::is_soft(&native, &AMQPSoftError::PRECONDITIONFAILED) {
        let text = "the server refused a copy: it exceeds a limit that was set there";
        return error(ErrorKind::TooLarge, text)
            .with_outcome(Outcome::Unknown)
            .with_source(error::native(native));
    }
    error::native(native).with_outcome(Outcome::Unknown)
}

fn missing(copy: &Copy) -> Error {
    error(ErrorKind::NotFound, "the copy is not written: its queue does not exist")
        .with_context("exchange", copy.exchange.clone())
        .with_context("key", copy.key.clone())
        .with_outcome(Outcome::Refused)
}
