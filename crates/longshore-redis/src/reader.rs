//! The reader: one task, on a connection of its own, which is never cancelled in the middle of a
//! read. What a read brought whose answer is lost is pending for us on the server, so after any
//! error of a read it is looked for there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_core::{Error, Event, Link, Result, Retryability};
use redis::{RedisError, Value};
use tokio::time::{Instant, sleep, timeout};

use crate::connect::Opened;
use crate::consumer::{Inner, chunks};
use crate::error;
use crate::line::{backoff, is_missing};
use crate::names::{EntryId, Lane, Place};
use crate::reply::{self, Entry};
use crate::script::{self, Call};

/// How long a read waits on the server.
const BLOCK: Duration = Duration::from_secs(2);
/// And how much longer its answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// A dead connection's last read may still have been carried out: it is looked for once more.
const LATER: Duration = Duration::from_secs(1);
/// How many of our own pending entries are looked at in one call.
const PAGE: usize = 500;

pub(crate) async fn run(inner: Arc<Inner>) {
    let mut backoff = backoff();
    let mut up = true;
    while inner.check().is_ok() {
        let connected = tokio::select! {
            connected = connect(&inner) => connected,
            () = stopped(&inner) => return,
        };
        let why = match connected {
            Ok((connection, id)) => {
                tell(&inner, &mut up, Ok(()));
                let since = Instant::now();
                let why = serve(&inner, connection, id).await;
                backoff.ended(since.elapsed());
                why
            }
            Err(why) => why,
        };
        inner.blocked.store(0, Ordering::Release);
        if inner.check().is_err() {
            return;
        }
        if why.retryability() == Retryability::Permanent {
            return inner.end(why);
        }
        tracing::debug!(error = %why, topic = %inner.names.topic, "the read connection is lost");
        tell(&inner, &mut up, Err(why));
        inner.doubt();
        let delay = backoff.delay(fastrand::f64());
        backoff.failed();
        tokio::select! {
            () = sleep(delay) => {}
            () = stopped(&inner) => return,
        }
    }
}

/// Waits for the end of the consumer or of the client.
async fn stopped(inner: &Inner) {
    while inner.check().is_ok() {
        tokio::select! {
            () = inner.room.notified() => {}
            () = inner.shared.end.reached() => {}
        }
    }
}

fn tell(inner: &Inner, up: &mut bool, now: Result<(), Error>) {
    if now.is_ok() != *up {
        *up = now.is_ok();
        let event = match now {
            Ok(()) => Link::Up,
            Err(why) => Link::Down { why },
        };
        inner.flight().events.push(Event::State(event));
        inner.wake.notify_one();
    }
}

async fn connect(inner: &Inner) -> Result<(Opened, i64)> {
    let key = inner.shared.key(&inner.names.topic);
    let mut connection =
        inner.shared.connector.open(key.map(longshore_core::TopicName::as_str)).await?;
    let mut ask = redis::cmd("CLIENT");
    ask.arg("ID");
    let answer = connection.ask(&ask, ANSWER).await?;
    Ok((connection, reply::number(&answer).ok_or_else(error::unreadable)?))
}

/// Reads until the connection is of no use.
async fn serve(inner: &Arc<Inner>, mut connection: Opened, id: i64) -> Error {
    let mut looked: Option<Instant> = None;
    loop {
        if let Err(closed) = inner.check() {
            return closed;
        }
        let doubts = inner.doubts.load(Ordering::Acquire);
        let settled = looked.is_none_or(|at| at.elapsed() >= LATER);
        if doubts > 1 || (doubts == 1 && settled) {
            if let Err(why) = reconcile(inner).await {
                return why;
            }
            looked = Some(Instant::now());
        }
        let (credit, enough) = {
            let credit = inner.credit();
            let flight = inner.flight();
            // In few large reads, as long as there is something to go on with.
            let enough = flight.unseen.is_empty() || credit >= flight.prefetch() / 4;
            (credit, credit > 0 && enough)
        };
        if !enough {
            tokio::select! {
                () = inner.room.notified() => {}
                () = inner.shared.end.reached() => {}
            }
            continue;
        }
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(inner.group()).arg(&inner.me);
        read.arg("COUNT").arg(credit).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        // For each stream as many: what is too much goes back at once, and redrives are rare.
        read.arg("STREAMS").arg(inner.names.stream(Lane::Main)).arg(&inner.names.redrive);
        read.arg(">").arg(">");
        inner.blocked.store(id, Ordering::Release);
        // What changed since the credit was counted ends this read by its number.
        if inner.credit() < credit || inner.check().is_err() {
            continue;
        }
        let answer =
            timeout(BLOCK + ANSWER, connection.connection.send_packed_command(&read)).await;
        inner.blocked.store(0, Ordering::Release);
        let answer = match answer {
            Ok(Ok(Value::ServerError(refused))) => Err(RedisError::from(refused)),
            Ok(answer) => answer,
            Err(_) => return error::timeout(),
        };
        match answer {
            Ok(answer) => match entries(inner, answer) {
                Ok(entries) => inner.arrived(entries, Instant::now()),
                Err(why) => return why,
            },
            Err(native) => {
                let why = error::native(native);
                if !is_missing(&why) {
                    return why;
                }
                if let Err(why) = repair(inner, &why).await {
                    return why;
                }
            }
        }
    }
}

/// `[[stream, [[id, fields] ..]] ..]`, or nothing.
fn entries(inner: &Inner, answer: Value) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    for stream in reply::list(answer)? {
        let mut parts = reply::list(stream)?.into_iter();
        let name = parts.next().unwrap_or_default();
        let redriven = reply::text(&name) == Some(&*inner.names.redrive);
        let lane = if redriven { Lane::Redrive } else { Lane::Main };
        for entry in reply::list(parts.next().ok_or_else(error::unreadable)?)? {
            let (id, fields) = reply::ranged(entry)?;
            let id = id.parse().map_err(|()| error::unreadable())?;
            out.push(Entry { place: Place { lane, id }, fields, count: 1, record: None });
        }
    }
    Ok(out)
}

/// Somebody deleted the group, or its topic, or everything: it is made anew and reads from the
/// start, which may bring what was settled and loses nothing.
pub(crate) async fn repair(inner: &Inner, why: &Error) -> Result<()> {
    let names = &inner.names;
    let keys = [
        names.stream(Lane::Main),
        names.stream(Lane::Redrive),
        names.stream(Lane::Suspect),
        &names.conf,
    ];
    let settings = inner.settings();
    let call = Call::new(&script::REPAIR, &keys)
        .arg(inner.group())
        .arg(crate::settings::ms_up(settings.lease))
        .arg(settings.retention_ms())
        .arg(crate::settings::ms_up(settings.longest_delay));
    let made = inner.line.run(call).await?;
    tracing::warn!(
        topic = %names.topic, group = %names.group, streams = reply::number(&made),
        "the group was deleted by another program; it is made anew and reads from the start"
    );
    inner.flight().lose(why);
    inner.wake.notify_one();
    Ok(())
}

/// Takes again what is pending for us and not here.
async fn reconcile(inner: &Arc<Inner>) -> Result<()> {
    // No answer of the keeper's is under way while this is held.
    let _taking = inner.taking.lock().await;
    for lane in [Lane::Main, Lane::Redrive] {
        match lost(inner, lane).await {
            // The next read finds that out, and makes it anew.
            Err(error) if is_missing(&error) => {}
            done => done?,
        }
    }
    // What was doubted again meanwhile is looked for again.
    let _ = inner.doubts.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    Ok(())
}

async fn lost(inner: &Arc<Inner>, lane: Lane) -> Result<()> {
    let stream = inner.names.stream(lane);
    let mut from = "-".to_owned();
    loop {
        let own = Call::new(&script::OWN, &[stream]);
        let own = own.arg(inner.group()).arg(&inner.me).arg(&from).arg(PAGE);
        let answer = reply::list(inner.line.run(own).await?)?;
        let ids: Vec<EntryId> = answer
            .chunks(2)
            .map(|pair| {
                reply::text(&pair[0]).and_then(|id| id.parse().ok()).ok_or_else(error::unreadable)
            })
            .collect::<Result<_>>()?;
        let full = ids.len() == PAGE;
        if let Some(last) = ids.last() {
            from = format!("({last}");
        }
        let missing: Vec<_> = {
            let flight = inner.flight();
            ids.into_iter().filter(|id| !flight.knows(Place { lane, id: *id })).collect()
        };
        for part in chunks(&missing) {
            let call = Call::new(&script::RETAKE, &[stream, &*inner.names.record])
                .arg(inner.group())
                .arg(&inner.me)
                .arg(lane.prefix())
                .args(part.iter().map(ToString::to_string));
            let mut answer = reply::list(inner.line.run(call).await?)?.into_iter();
            let taken = reply::entries(answer.next().unwrap_or_default())?;
            inner.arrived(taken, Instant::now());
        }
        if !full {
            return Ok(());
        }
    }
}
