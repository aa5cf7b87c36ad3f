//! Foreign messages with headers that the client library cannot read.
//!
//! NATS itself keeps any bytes in a header; the library breaks the connection over what is not
//! UTF-8, and its task panics over a lone carriage return. The message would come again with every
//! lease and break it again. So what is unsettled is looked through by a question whose answer is
//! base64, and a message that cannot be read is replaced: a readable copy into the group's redrive
//! lane, confirmed, then a mark in the ledger, then the original is settled.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::Info;
use async_nats::{HeaderMap, Subject};
use futures::future::join_all;
use longshore_core::Result;

use crate::ack::{self, Order};
use crate::consumer::Inner;
use crate::copy;
use crate::raw::{self, Ask, Stored};

/// How many of the latest deliveries are looked through. What broke the connection was among the
/// last that left the server: at most the prefetch of each member since.
const MOST: u64 = 1024;
/// Questions at a time.
const AT_ONCE: usize = 32;
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks through what is unsettled, newest first. What cannot be done now is done at the next
/// break: the message comes again with its lease.
pub(crate) async fn look(inner: &Inner, info: &Info) {
    if info.num_ack_pending == 0 || inner.suspects {
        return;
    }
    let last = info.delivered.stream_sequence;
    let first = info.ack_floor.stream_sequence.max(last.saturating_sub(MOST)) + 1;
    let done = tokio::time::timeout(PATIENCE, range(inner, first, last)).await;
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "unsettled messages could not be looked through"),
        Err(_) => tracing::warn!("unsettled messages could not be looked through in time"),
    }
}

async fn range(inner: &Inner, first: u64, last: u64) -> Result<()> {
    let all: Vec<u64> = (first..=last).rev().collect();
    for some in all.chunks(AT_ONCE) {
        let questions = some.iter().map(|seq| at(inner, *seq));
        for stored in join_all(questions).await {
            if let Some(stored) = stored?.filter(|stored| !stored.readable) {
                replace(inner, stored).await?;
            }
        }
    }
    Ok(())
}

/// The message at a place, where it is one of the group's.
async fn at(inner: &Inner, seq: u64) -> Result<Option<Stored>> {
    let stored = raw::get(&inner.shared, &inner.names.of.stream, &Ask::At { seq }).await?;
    let subjects = inner.names.subjects();
    Ok(stored.filter(|stored| subjects.contains(&stored.subject)))
}

async fn replace(inner: &Inner, stored: Stored) -> Result<()> {
    let (shared, names) = (&inner.shared, &inner.names);
    let (sequence, published) = (stored.sequence, stored.time);
    let mark = names.rescued_subject(sequence);
    let ask = Ask::Last { last_by_subj: &mark };
    let marked = raw::get(shared, &names.of.ledger, &ask).await?;
    // A mark that is older is of a message that had this place in a stream before.
    if marked.is_none_or(|marked| marked.time < published) {
        tracing::error!(
            topic = %names.of.topic,
            group = %names.group,
            sequence,
            "the client library cannot read the headers of this message, which broke the \
             connection; a readable copy takes its place, at the end of the topic"
        );
        copy::readable(shared, names, stored).await?;
        shared.store(&mark, HeaderMap::new(), bytes::Bytes::new()).await?;
    }
    ack::send(shared, vec![(reply(inner, sequence, published), Order::Ack)]).await
}

/// Where the delivery is settled. The message itself never arrived; the server finds what is
/// unsettled by the sequence in the stream, and the other numbers only inform.
fn reply(inner: &Inner, sequence: u64, published: SystemTime) -> Subject {
    let since = published.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (stream, durable) = (&inner.names.of.stream, inner.durable());
    Subject::from(format!("$JS.ACK.{stream}.{durable}.1.{sequence}.1.{}.0", since.as_nanos()))
}
