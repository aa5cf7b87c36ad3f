//! Settlements: each is one step on the server, and a batch is one round trip.

use std::time::Duration;

use bytes::Bytes;
use longshore_core::{AckToken, Letter, RETRY_HEADER, Record, Result, Settlement};
use redis::Value;
use tokio::time::Instant;

use crate::codec;
use crate::consumer::{Inner, chunks};
use crate::error::{lease_lost, unsupported};
use crate::flight::{Held, in_place};
use crate::keeper;
use crate::line::is_missing;
use crate::names::{Lane, Place};
use crate::release::{park, waits};
use crate::reply::{self, Fields};
use crate::script::{self, Call};

const LANES: [Lane; 3] = [Lane::Main, Lane::Redrive, Lane::Suspect];
/// The field that tells a copy in the dead-letter queue.
const LETTER_ID: &str = "longshore-dl-id";
/// What a server takes as one field; our limit of a message is lower.
pub(crate) const MAX_MESSAGE: usize = 512 * 1024 * 1024;

/// A settlement that has a script of its own, or a part in one for many.
struct One {
    token: AckToken,
    /// Its place among the results.
    at: usize,
    place: Place,
    after: After,
}

/// How its answer is read, and what follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// An ack by the local clock: what was not pending was acknowledged before.
    Acked,
    Nothing,
    /// Something is due after this.
    Due(Duration),
}

pub(crate) async fn settle(inner: &Inner, batch: &[Settlement], out: &mut Vec<Result<()>>) {
    let first = out.len();
    let now = Instant::now();
    let mut plain: [Vec<One>; 3] = [const { Vec::new() }; 3];
    let mut recorded: [Vec<One>; 3] = [const { Vec::new() }; 3];
    let mut calls = Vec::new();
    // Whom each call is for.
    let mut owners: Vec<Vec<One>> = Vec::new();
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
            let place = held.place;
            let one = |after| One { token, at, place, after };
            if let Settlement::Ack(_) = settlement {
                let after = if held.recorded { After::Nothing } else { After::Acked };
                let lists = if held.recorded { &mut recorded } else { &mut plain };
                lists[place.lane as usize].push(one(after));
                out.push(Ok(()));
                continue;
            }
            match prepare(inner, held, settlement) {
                Ok((call, after)) => {
                    // Whether it arrives or not, a record may stand there from now on.
                    held.recorded = true;
                    calls.push(call);
                    owners.push(vec![one(after)]);
                    out.push(Ok(()));
                }
                Err(why) => out.push(Err(why)),
            }
        }
    }
    for (lists, fenced) in [(plain, false), (recorded, true)] {
        for (lane, list) in LANES.into_iter().zip(lists) {
            let mut list = list.into_iter().peekable();
            while list.peek().is_some() {
                let part: Vec<_> = list.by_ref().take(script::MOST).collect();
                calls.push(ack(inner, lane, &part, fenced));
                owners.push(part);
            }
        }
    }
    if calls.is_empty() {
        return;
    }
    let answers = inner.line.run_all(calls).await;
    finish(inner, owners.into_iter().zip(answers), out);
}

fn ack(inner: &Inner, lane: Lane, part: &[One], fenced: bool) -> Call {
    let (names, stream) = (&inner.names, inner.names.stream(lane));
    let ids = part.iter().map(|one| one.place.id.to_string());
    match fenced {
        false => Call::new(&script::ACK, &[stream]).arg(inner.group()).args(ids),
        true => Call::new(&script::ACK_FENCED, &[stream, &names.record])
            .arg(inner.group())
            .arg(&inner.me)
            .arg(lane.prefix())
            .args(ids),
    }
}

/// The script of a settlement that is no ack.
fn prepare(inner: &Inner, held: &Held, settlement: &Settlement) -> Result<(Call, After)> {
    let names = &inner.names;
    match settlement {
        Settlement::Ack(_) => Ok((ack(inner, held.place.lane, &[], true), After::Nothing)),
        Settlement::Release { record, .. } => {
            // What was given back was no hand-over.
            let count = held.count.saturating_sub(1);
            let record = record.as_ref().map(|record| in_place(record, held).encode());
            let call = park(inner, held.place, Duration::ZERO, Some(count), record.as_deref());
            Ok((call, After::Due(Duration::ZERO)))
        }
        Settlement::Retry { after, record, .. } if waits(held.place.lane) => {
            let record = in_place(record, held).encode();
            let call = park(inner, held.place, *after, None, Some(&record));
            Ok((call, After::Due(*after)))
        }
        // Out of the suspect lane it waits where the group's retries wait.
        Settlement::Retry { after, record, .. } => {
            let mut record = (**record).clone();
            record.not_before = inner.shared.setup.clock.now().checked_add(*after);
            Ok((copy(inner, held, &names.redrive, record), After::Due(Duration::ZERO)))
        }
        Settlement::Suspect { record, .. } => {
            Ok((copy(inner, held, &names.suspect, (**record).clone()), After::Nothing))
        }
        Settlement::DeadLetter { letter, .. } => {
            if !inner.has_letters {
                return Err(unsupported("a dead letter of a group without a dead-letter queue"));
            }
            Ok((bury(inner, held, letter), After::Nothing))
        }
        Settlement::Redrive { .. } => Err(unsupported("a redrive of what is no dead letter")),
    }
}

/// Into another stream, with the record as it is: the copy's own count starts anew.
fn copy(inner: &Inner, held: &Held, target: &str, mut record: Record) -> Call {
    record.origin.get_or_insert_with(|| held.place.member());
    record.published_at.get_or_insert(codec::published(held.place.id));
    let record = record.encode();
    let mut fields = codec::base(&held.fields, held.id.as_ref());
    fields.push((RETRY_HEADER.into(), Bytes::from(record.clone())));
    relocate(inner, held, target, (RETRY_HEADER, &record), &fields)
}

fn bury(inner: &Inner, held: &Held, letter: &Letter) -> Call {
    let mut fields = codec::base(&held.fields, held.id.as_ref());
    // The server's own limit is far above what a message of ours may have.
    let headers = letter.encode(usize::MAX).unwrap_or_default();
    for (name, value) in &headers {
        fields.push((Bytes::copy_from_slice(name.as_str().as_bytes()), value.clone()));
    }
    relocate(inner, held, &inner.names.dlq, (LETTER_ID, &letter.id), &fields)
}

fn relocate(
    inner: &Inner,
    held: &Held,
    target: &str,
    (name, value): (&str, &str),
    fields: &Fields,
) -> Call {
    let names = &inner.names;
    let keys = [names.stream(held.place.lane), &*names.record, target];
    let mut call = Call::new(&script::MOVE, &keys)
        .arg(inner.group())
        .arg(&inner.me)
        .arg(held.place.id.to_string())
        .arg(held.place.to_string())
        .arg(name)
        .arg(value);
    for (name, value) in fields {
        call = call.arg(&name[..]).arg(&value[..]);
    }
    call
}

fn finish(
    inner: &Inner,
    answers: impl Iterator<Item = (Vec<One>, Result<Value>)>,
    out: &mut [Result<()>],
) {
    let mut flight = inner.flight();
    let mut due: Option<Duration> = None;
    let mut any = false;
    for (owners, answer) in answers {
        // One for all that it was about, or one for each.
        let each = match &answer {
            Ok(Value::Array(each)) if each.len() == owners.len() => Some(each),
            _ => None,
        };
        for (index, one) in owners.iter().enumerate() {
            let result = match (&answer, each) {
                (Err(why), _) if is_missing(why) => Err(lease_lost().with_source(why.clone())),
                (Err(why), _) => Err(why.clone()),
                (Ok(_), Some(each)) => done(reply::number(&each[index])),
                (Ok(Value::Int(_)), None) if one.after == After::Acked => Ok(()),
                (Ok(answer), None) => done(reply::number(answer)),
            };
            let lost =
                |why: &longshore_core::Error| why.kind() == longshore_core::ErrorKind::LeaseLost;
            if result.is_ok() || result.as_ref().is_err_and(lost) {
                flight.remove(one.token);
                any = true;
            }
            if let (Ok(()), After::Due(after)) = (&result, one.after) {
                due = Some(due.map_or(after, |due| due.min(after)));
            }
            out[one.at] = result;
        }
    }
    drop(flight);
    if any {
        inner.room.notify_one();
        if inner.suspects {
            // The next of the lane.
            inner.work.notify_one();
        }
    }
    if let Some(after) = due {
        inner.due_in(after);
    }
}

fn done(answer: Option<i64>) -> Result<()> {
    match answer {
        Some(1) => Ok(()),
        // Somebody removed the entry: it is settled, and nothing can come again.
        Some(2) => Ok(()),
        Some(_) => Err(lease_lost()),
        None => Err(crate::error::unreadable()),
    }
}

pub(crate) async fn extend(inner: &Inner, tokens: &[AckToken], out: &mut Vec<Result<()>>) {
    let (first, now) = (out.len(), Instant::now());
    let mut lanes: [Vec<(usize, Place)>; 3] = [const { Vec::new() }; 3];
    {
        let mut flight = inner.flight();
        for (index, token) in tokens.iter().enumerate() {
            out.push(flight.get(*token, now).map(|held| {
                lanes[held.place.lane as usize].push((first + index, held.place));
            }));
        }
    }
    for (lane, list) in LANES.into_iter().zip(&lanes) {
        for part in chunks(list) {
            let places: Vec<_> = part.iter().map(|(_, place)| *place).collect();
            match keeper::extend(inner, lane, &places).await {
                Ok(answers) => {
                    for ((at, _), ours) in part.iter().zip(answers) {
                        if !ours {
                            out[*at] = Err(lease_lost());
                        }
                    }
                }
                Err(why) if is_missing(&why) => {
                    part.iter().for_each(|(at, _)| out[*at] = Err(lease_lost()));
                }
                Err(why) => part.iter().for_each(|(at, _)| out[*at] = Err(why.clone())),
            }
        }
    }
    let until = now + inner.held_for();
    let mut flight = inner.flight();
    for (token, result) in tokens.iter().zip(&mut out[first..]) {
        match result {
            Ok(()) => {
                *result = flight.get(*token, Instant::now()).map(|held| {
                    held.expires = held.expires.max(until);
                });
            }
            Err(why) if why.kind() == longshore_core::ErrorKind::LeaseLost => flight.remove(*token),
            Err(_) => {}
        }
    }
}
