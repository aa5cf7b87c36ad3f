//! What had nowhere to go: the retries of a group that was deleted, and messages of topics without a
//! group. The retries go back to their queue when it is declared again.

use bytes::Bytes;
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use longshore_core::Result;
use tokio::time::{Instant, timeout_at};

use crate::ask::Questions;
use crate::codec::copied;
use crate::copies::{Copy, store};
use crate::delay::ends_at;
use crate::error;
use crate::names::{DELIVER, DIRECT, UNROUTED, queue_token};
use crate::shared::Shared;

/// How many are looked at; a later declaration goes on behind them.
const LOOKED_AT: u32 = 4096;
/// How many of others are held meanwhile, and given back to where they stood. Those beyond go to the
/// end, so that all are looked at in time.
const HELD: usize = 256;
/// Copies that are written together.
const BATCH: usize = 64;

/// Gives the messages that are addressed to `queue` to it: confirmed there, then removed here. Others
/// stay. Several may do it at once: each message is with one of them.
///
/// # Errors
/// Of the connection, and where these credentials may not read what is parked. What could not be
/// moved stays, and is no error.
///
/// # Cancel safety
/// Dropped, a message is in both places at worst.
pub(crate) async fn bring_back(shared: &Shared, queue: &str) -> Result<()> {
    let deadline = shared.deadline();
    let parked = Questions::new(&shared.incoming, deadline).queue(UNROUTED).await?;
    let Some(parked) = parked.map(|it| it.message_count()).filter(|count| *count > 0) else {
        return Ok(());
    };
    // Acknowledgements must pass while the server takes no messages.
    let session = shared.incoming.session(deadline).await?;
    let channel = timeout_at(deadline, session.channel()).await;
    let channel = channel.unwrap_or_else(|_| Err(shared.incoming.silence()))?;
    let mut round = Round { shared, channel, moves: Vec::new(), held: 0, moved: 0, failed: false };
    let token = queue_token(queue);
    for _ in 0..parked.min(LOOKED_AT) {
        let Some(found) = round.next(deadline).await? else { break };
        let (exchange, key) = (found.exchange.as_str(), found.routing_key.as_str());
        if matches!(exchange, DELIVER | UNROUTED) && ends_at(key, &token) {
            round.plan(found, DIRECT, queue).await;
        } else if round.held < HELD {
            round.held += 1;
        } else {
            let key = key.to_owned();
            round.plan(found, UNROUTED, &key).await;
        }
        if round.failed || Instant::now() >= deadline {
            break;
        }
    }
    round.flush().await;
    if round.moved > 0 {
        tracing::info!(queue, moved = round.moved, "messages that had nowhere to go are back");
    }
    if round.failed || parked > LOOKED_AT {
        tracing::warn!(queue, parked, "not all that has nowhere to go was looked at");
    }
    // What is held goes back to where it stood.
    let closed = timeout_at(deadline, round.channel.close(200, "OK".into())).await;
    if let Ok(Err(native)) = closed {
        tracing::debug!(error = %native, "the channel was closed already");
    }
    Ok(())
}

struct Round<'a> {
    shared: &'a Shared,
    channel: Channel,
    /// Of each, the tag and the copy.
    moves: Vec<(u64, Copy)>,
    held: usize,
    moved: usize,
    failed: bool,
}

impl Round<'_> {
    async fn next(&self, deadline: Instant) -> Result<Option<BasicGetMessage>> {
        let get = self.channel.basic_get(UNROUTED.into(), BasicGetOptions::default());
        match timeout_at(deadline, get).await {
            Ok(found) => {
                found.map_err(|native| error::native(native).with_context("queue", UNROUTED))
            }
            Err(_) => Ok(None),
        }
    }

    async fn plan(&mut self, found: BasicGetMessage, exchange: &str, key: &str) {
        let delivery = found.delivery;
        let copy = Copy {
            exchange: exchange.to_owned(),
            key: key.to_owned(),
            properties: copied(&delivery.properties, []),
            body: Bytes::from(delivery.data),
        };
        self.moves.push((delivery.delivery_tag, copy));
        if self.moves.len() >= BATCH {
            self.flush().await;
        }
    }

    /// Writes the copies; removes the originals of those that are confirmed.
    async fn flush(&mut self) {
        let (tags, copies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.moves).into_iter().unzip();
        if copies.is_empty() {
            return;
        }
        for (tag, stored) in tags.into_iter().zip(store(self.shared, copies).await) {
            let removed = match stored {
                Ok(()) => self.channel.basic_ack(tag, BasicAckOptions::default()).await,
                Err(why) => {
                    tracing::warn!(error = %why, "a message that has nowhere to go stays there");
                    self.failed = true;
                    continue;
                }
            };
            match removed {
                Ok(()) => self.moved += 1,
                Err(native) => {
                    tracing::debug!(error = %native, "the channel is gone");
                    self.failed = true;
                }
            }
        }
    }
}
