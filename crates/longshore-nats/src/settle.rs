//! Settlements: the durable step of each, then one confirmed batch of orders for all of them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use futures::future::join_all;
use longshore_core::{AckToken, Record, Result, Settlement};
use tokio::time::Instant;

use crate::ack::{self, Order};
use crate::codec;
use crate::consumer::Inner;
use crate::copy;
use crate::deliver::Unseen;
use crate::error::unsupported;
use crate::flight::{Held, in_place};
use crate::ledger;
use crate::naks;

/// What is to be sent for one settlement.
struct Ready {
    token: AckToken,
    /// Its place among the results.
    at: usize,
    /// Taken when it is sent.
    reply: Option<Subject>,
    order: Order,
    /// The ledger's entry that it makes useless.
    entry: Option<u64>,
}

pub(crate) async fn settle(inner: &Arc<Inner>, batch: &[Settlement], out: &mut Vec<Result<()>>) {
    let first = out.len();
    let now = Instant::now();
    let mut ready = Vec::with_capacity(batch.len());
    let mut moves = Vec::new();
    {
        let mut flight = inner.flight();
        for (index, settlement) in batch.iter().enumerate() {
            let (token, at) = (settlement.token(), first + index);
            let held = match flight.get(token, now) {
                Ok(held) => held,
                Err(lost) => {
                    out.push(Err(lost));
                    continue;
                }
            };
            out.push(Ok(()));
            let reply = Some(held.reply.clone());
            match settlement {
                Settlement::Ack(_) => {
                    ready.push(Ready { token, at, reply, order: Order::Ack, entry: held.entry });
                }
                Settlement::Release { record: None, .. } => {
                    let order = Order::Nak(Duration::ZERO);
                    ready.push(Ready { token, at, reply, order, entry: None });
                }
                _ => moves.push((at, held.clone(), settlement)),
            }
        }
    }
    let moved = moves.iter().map(|(_, held, settlement)| prepare(inner, held, settlement));
    for (result, (at, held, settlement)) in join_all(moved).await.into_iter().zip(&moves) {
        let (token, at, reply) = (settlement.token(), *at, Some(held.reply.clone()));
        match result {
            Ok((order, entry)) => ready.push(Ready { token, at, reply, order, entry }),
            Err(error) => out[at] = Err(error),
        }
    }
    defer(inner, &mut ready);
    finish(inner, ready, out).await;
}

/// Takes delayed NAKs out where a burst was sent just now: they are recorded, and leave with the
/// next one.
fn defer(inner: &Arc<Inner>, ready: &mut Vec<Ready>) {
    let delay = |one: &Ready| match one.order {
        Order::Nak(after) if !after.is_zero() => Some((one.token, after)),
        _ => None,
    };
    if ready.iter().all(|one| delay(one).is_none()) || inner.naks.begin() {
        return;
    }
    naks::later(inner, ready.iter().filter_map(delay));
    ready.retain(|one| delay(one).is_none());
}

async fn finish(inner: &Inner, mut ready: Vec<Ready>, out: &mut [Result<()>]) {
    let orders = ready.iter_mut().filter_map(|one| Some((one.reply.take()?, one.order))).collect();
    {
        // Before they are sent: a short delay is over before the answer is here.
        let mut flight = inner.flight();
        let back = ready.iter().filter(|one| matches!(one.order, Order::Nak(_)));
        back.for_each(|one| flight.give_back(one.token));
    }
    if let Err(why) = ack::send(&inner.shared, orders).await {
        let mut flight = inner.flight();
        for one in ready.iter().filter(|one| !flight.came_back(one.token)) {
            out[one.at] = Err(why.clone());
        }
        drop(flight);
        // Nobody listens where the consumer is gone.
        inner.suspicion.notify_one();
        return;
    }
    {
        let mut flight = inner.flight();
        ready.iter().for_each(|one| flight.remove(one.token));
    }
    if !ready.is_empty() {
        inner.wake.notify_one();
    }
    let entries = ready.iter().filter_map(|one| one.entry);
    join_all(entries.map(|entry| ledger::purge(&inner.shared, &inner.names, entry))).await;
}

/// The durable step; gives what then settles the original, and the entry that it makes useless.
async fn prepare(
    inner: &Inner,
    held: &Held,
    settlement: &Settlement,
) -> Result<(Order, Option<u64>)> {
    let (shared, names) = (&inner.shared, &inner.names);
    match settlement {
        Settlement::Ack(_) => Ok((Order::Ack, held.entry)),
        Settlement::Release { record, .. } => {
            if let Some(record) = record {
                write(inner, held, settlement.token(), in_place(record, held)).await?;
                shared.hit("release.recorded");
            }
            Ok((Order::Nak(Duration::ZERO), None))
        }
        Settlement::Retry { after, record, .. } if inner.suspects => {
            let mut record = (**record).clone();
            record.not_before = shared.setup.clock.now().checked_add(*after);
            copy::retry(shared, names, held, record).await?;
            Ok((Order::Ack, held.entry))
        }
        Settlement::Retry { token, after, record } => {
            let mut record = in_place(record, held);
            if !after.is_zero() {
                record.not_before = shared.setup.clock.now().checked_add(*after);
            }
            write(inner, held, *token, record).await?;
            shared.hit("retry.recorded");
            Ok((Order::Nak(*after), None))
        }
        Settlement::Suspect { record, .. } => {
            copy::suspect(shared, names, held, record).await?;
            Ok((Order::Ack, held.entry))
        }
        Settlement::DeadLetter { letter, .. } => {
            copy::dead_letter(shared, names, held, letter).await?;
            Ok((Order::Ack, held.entry))
        }
        Settlement::Redrive { .. } => Err(unsupported("a redrive of what is no dead letter")),
    }
}

async fn write(inner: &Inner, held: &Held, token: AckToken, record: Record) -> Result<()> {
    let (shared, names) = (&inner.shared, &inner.names);
    let entry = ledger::write(shared, names, held.place, held.entry, &record).await?;
    // A second try of this settlement finds what the first one wrote.
    if let Ok(held) = inner.flight().get(token, Instant::now()) {
        held.entry = Some(entry);
    }
    Ok(())
}

/// Puts back, unseen, what came before its time: an explained return, and a NAK for the rest. In a
/// task of its own, since it is rare and whoever receives may stop waiting.
pub(crate) fn put_back(inner: &Inner, held: Held, record: Record, rest: Duration) {
    let (shared, names) = (inner.shared.clone(), inner.names.clone());
    tokio::spawn(async move {
        let record = explained(record, &held);
        let done = async {
            ledger::write(&shared, &names, held.place, held.entry, &record).await?;
            ack::send(&shared, vec![(held.reply, Order::Nak(rest))]).await
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "a message before its time waits for the end of its lease");
        }
    });
}

/// One more return that was no crash. The server counts it, so the record explains it.
fn explained(mut record: Record, held: &Held) -> Record {
    record.explained = record.explained.saturating_add(1);
    record.id = held.id.clone();
    record
}

/// Gives everything back to the group at the end of a consumer: what the runtime never saw, and
/// what it did not settle.
pub(crate) async fn give_back(inner: &Inner, unseen: Vec<Unseen>, held: Vec<Held>) -> Result<()> {
    let now = Instant::now();
    let mut orders: Vec<(Subject, Order)> = held
        .iter()
        .filter(|held| held.expires > now)
        .map(|held| (held.reply.clone(), Order::Nak(Duration::ZERO)))
        .collect();
    let recorded = join_all(unseen.into_iter().map(|unseen| explain(inner, unseen))).await;
    orders.extend(recorded.into_iter().flatten());
    if orders.is_empty() || !inner.shared.link.is_up() {
        return Ok(());
    }
    ack::send(&inner.shared, orders).await
}

async fn explain(inner: &Inner, unseen: Unseen) -> Option<(Subject, Order)> {
    let Unseen { headers, reply, place, .. } = unseen;
    let mut order = Order::Nak(Duration::ZERO);
    // The engine allows for one return that nobody explained, so a first one costs no record.
    if place.delivered > 1 {
        let (shared, names) = (&inner.shared, &inner.names);
        let parts = codec::incoming(headers.as_ref());
        let id = codec::identity(&parts, place);
        let entry = ledger::read(shared, names, place, id.as_ref()).await.ok()?;
        let sequence = entry.as_ref().map(|entry| entry.sequence);
        let record = entry.and_then(|entry| entry.record).or(parts.record).unwrap_or_default();
        let due = record.not_before.map(|due| due.duration_since(shared.setup.clock.now()));
        if let Some(Ok(rest)) = due {
            order = Order::Nak(rest);
        }
        let record = Record { explained: record.explained.saturating_add(1), id, ..record };
        ledger::write(shared, names, place, sequence, &record).await.ok()?;
    }
    Some((reply, order))
}
