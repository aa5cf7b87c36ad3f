//! Settlements: plain ones at once and in few frames; moves as copy, confirm, then the ack.
//!
//! Where a crash, of this process, of the broker or of the connection, can fall in a move:
//!
//! 1. before the copy is confirmed: the original returns. The copy may exist all the same: then
//!    there are two with one id;
//! 2. after the copy is confirmed and before the original's ack arrives (the probe's step): two,
//!    with one id, each with a budget of its own;
//! 3. after the ack is written and before the broker has it: the same. Of a plain ack: the message
//!    comes again, because nothing confirms an ack. A move is `Ok` when the broker has read its ack;
//! 4. in a release without a record: the message returns by the end of the channel instead.
//!
//! At none of them is the original acked without a confirmed copy. A copy that comes back as
//! unroutable was not written: the original stays, and its token stays valid.

use std::sync::Arc;

use lapin::options::BasicQosOptions;
use longshore_core::{AckToken, Error, ErrorKind, Result, Settlement};

use tokio::time::timeout;

use crate::acks::Written;
use crate::copies::{self, Copy};
use crate::error::{self, lease_lost, unsupported};
use crate::flight::Flight;
use crate::moves::{self, Plan};
use crate::reading::Reading;

/// One move: what is to be durable before its original is acked.
struct Move {
    token: AckToken,
    /// Its place among the results.
    at: usize,
    copies: Vec<Copy>,
    step: &'static str,
    /// It goes to the dead-letter queue, which may not exist.
    letter: bool,
}

pub(crate) async fn settle(
    reading: &Arc<Reading>,
    batch: &[Settlement],
    out: &mut Vec<Result<()>>,
) {
    let first = out.len();
    let mut plain: Vec<usize> = Vec::with_capacity(batch.len());
    let mut moves: Vec<Move> = Vec::new();
    let written = {
        let mut flight = reading.flight();
        for (index, settlement) in batch.iter().enumerate() {
            let at = first + index;
            match begin(reading, &mut flight, settlement) {
                Ok(None) => {
                    plain.push(at);
                    out.push(Ok(()));
                }
                Ok(Some((copies, step, letter))) => {
                    moves.push(Move { token: settlement.token(), at, copies, step, letter });
                    out.push(Ok(()));
                }
                Err(error) => out.push(Err(error)),
            }
        }
        flight.write()
    };
    // In a task of its own: a move that was begun ends, whoever stops waiting for it.
    let begun: Vec<usize> = moves.iter().map(|one| one.at).collect();
    let moving = (!moves.is_empty()).then(|| tokio::spawn(run(reading.clone(), moves)));
    if let Err(why) = arrive(reading, written).await {
        plain.iter().for_each(|at| out[*at] = Err(why.clone()));
    }
    reading.wake.notify_one();
    let Some(moving) = moving else { return };
    match moving.await {
        Ok(results) => results.into_iter().for_each(|(at, result)| out[at] = result),
        // The runtime is shutting down: nothing is known of them.
        Err(_) => begun.iter().for_each(|at| out[*at] = Err(error::closed("connection"))),
    }
}

type Begun = (Vec<Copy>, &'static str, bool);

/// Decides a plain settlement, or gives what a move must write first.
fn begin(reading: &Reading, flight: &mut Flight, settlement: &Settlement) -> Result<Option<Begun>> {
    let token = settlement.token();
    let full = flight.passed_over() >= moves::PASSED_OVER;
    let held = flight.get(token)?;
    if held.moving {
        return Err(error::underway());
    }
    match moves::plan(reading, held, settlement, full)? {
        Plan::Ack => flight.ack(token)?,
        Plan::GiveBack => flight.give_back(token)?,
        Plan::PassOver(letter) => flight.pass_over(token, letter),
        Plan::Move { copies, step, letter } => {
            held.moving = true;
            return Ok(Some((copies, step, letter)));
        }
    }
    Ok(None)
}

/// Waits until what was decided is on the wire. Where it does not get there, the channel is given
/// up: nobody could say what of it the broker has seen, and what it has not comes again.
pub(crate) async fn arrive(reading: &Reading, written: Result<Option<Written>>) -> Result<()> {
    let Some(written) = written? else { return Ok(()) };
    let epoch = reading.flight().epoch();
    written.done(reading.shared.patience()).await.map_err(|why| {
        reading.flight().give_up(epoch, &why);
        reading.wake.notify_one();
        lease_lost().with_source(why)
    })
}

/// Waits for the broker's word that it has read what was written, by a question on the same channel.
/// A message that was moved and whose ack is lost is there twice; moves are rare enough for the
/// question. Where no answer comes, that is all that can be lost.
async fn seen(reading: &Reading) {
    let channel = reading.flight().channel().cloned();
    if let Some(channel) = channel {
        let most = u16::try_from(reading.prefetch).unwrap_or(u16::MAX);
        // Holds for the next consumer of the channel only, which sets its own.
        let asked = channel.basic_qos(most, BasicQosOptions { global: false });
        let _ = timeout(reading.shared.patience(), asked).await;
    }
}

/// Writes the copies, and then acks the originals of those that are confirmed.
async fn run(reading: Arc<Reading>, moves: Vec<Move>) -> Vec<(usize, Result<()>)> {
    let mut copies = Vec::new();
    let moves: Vec<_> = moves
        .into_iter()
        .map(|one| {
            let Move { token, at, copies: mut own, step, letter } = one;
            let count = own.len();
            copies.append(&mut own);
            (token, at, count, step, letter)
        })
        .collect();
    let mut stored = copies::store(&reading.shared, copies).await.into_iter();
    let mut results = Vec::with_capacity(moves.len());
    for (token, at, count, step, letter) in moves {
        // A letter that does not fit beside its message is two copies: both, or it is not moved.
        let mut result: Result<()> = Ok(());
        for one in stored.by_ref().take(count) {
            result = result.and(one);
        }
        match &result {
            Ok(()) => reading.shared.hit(step),
            Err(why) if letter && why.kind() == ErrorKind::NotFound => {
                let text = "a dead letter of a group without a dead-letter queue";
                result = Err(unsupported(text).with_source(why.clone()));
            }
            Err(_) => {}
        }
        results.push((token, at, result));
    }
    let written = {
        let mut flight = reading.flight();
        for (token, _, result) in &mut results {
            match result {
                // Lost meanwhile: the original comes again, beside its copy.
                Ok(()) => *result = flight.get(*token).map(drop).and_then(|()| flight.ack(*token)),
                Err(why) => {
                    if flight.stuck(*token) {
                        let _ = flight.give_back(*token);
                        *why = stuck(why.clone());
                    }
                }
            }
        }
        flight.write()
    };
    let arrived = arrive(&reading, written).await;
    if arrived.is_ok() {
        seen(&reading).await;
    }
    reading.wake.notify_one();
    let settled = |result: Result<()>| result.and_then(|()| arrived.clone());
    results.into_iter().map(|(_, at, result)| (at, settled(result))).collect()
}

fn stuck(why: Error) -> Error {
    tracing::warn!(
        error = %why,
        "a copy could not be written for long; the message went back to its queue, so that others \
         can be handled"
    );
    lease_lost().with_source(why)
}
