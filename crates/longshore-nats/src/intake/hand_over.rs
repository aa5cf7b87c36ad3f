//! From the inbox to the runtime: what is there and allowed, with what the ledger says of it.

use futures::future::join_all;
use longshore_core::{Event, Result, Retryability};
use tokio::time::Instant;

use super::Intake;
use crate::ack::{self, Order};
use crate::codec;
use crate::consumer::Inner;
use crate::deliver::{Unseen, deliver, is_fresh};
use crate::ledger;

impl Intake {
    /// Hands over what is there and allowed. What came again is looked up in the ledger first.
    pub(super) async fn hand_over(
        &mut self,
        inner: &Inner,
        out: &mut Vec<Event>,
        limit: usize,
    ) -> Result<bool> {
        let before = out.len();
        let mut room = inner.flight().room().min(limit);
        while room > 0 && !self.unseen.is_empty() {
            let (now, young) = (Instant::now(), inner.lease() / 3);
            let fresh = self.unseen.iter().take(room).take_while(|unseen| {
                is_fresh(inner, unseen) && now.duration_since(unseen.arrived) < young
            });
            let fresh = fresh.count();
            for unseen in self.unseen.drain(..fresh) {
                let parts = codec::incoming(unseen.headers.as_ref());
                deliver(inner, unseen, parts, None, out);
                room -= 1;
            }
            if room == 0 || self.unseen.is_empty() {
                break;
            }
            if out.len() > before {
                // Not kept waiting for the lookups of the others.
                break;
            }
            self.look_up(inner, out, room).await?;
            room = inner.flight().room().min(limit.saturating_sub(out.len() - before));
        }
        Ok(out.len() > before)
    }

    /// Hands over the first `room`, with what the ledger says of each.
    async fn look_up(&mut self, inner: &Inner, out: &mut Vec<Event>, room: usize) -> Result<()> {
        let lease = inner.held_for();
        self.unseen.retain(|unseen| unseen.arrived.elapsed() < lease);
        let batch = self.unseen.len().min(room);
        let wait = inner.lease() / 3;
        let old = self.unseen.iter().take(batch).filter(|unseen| unseen.arrived.elapsed() >= wait);
        let orders: Vec<_> = old.map(|unseen| (unseen.reply.clone(), Order::Extend)).collect();
        if !orders.is_empty() {
            let now = Instant::now();
            ack::send(&inner.shared, orders).await?;
            self.unseen.iter_mut().take(batch).for_each(|unseen| {
                if now.duration_since(unseen.arrived) >= wait {
                    unseen.arrived = now;
                }
            });
        }
        // In the first seconds of a durable every message is looked up, and hardly one has an entry:
        // one question, put after all of them have come, answers for the whole batch. What came
        // again has an entry more often than not.
        let first = |unseen: &&Unseen| unseen.place.delivered <= 1 && !is_fresh(inner, unseen);
        let blank = match self.unseen.iter().take(batch).filter(first).nth(1) {
            Some(_) => ledger::is_blank(&inner.shared, &inner.names).await,
            None => Ok(false),
        };
        let lookups = self.unseen.iter().take(batch).map(|unseen| async {
            let parts = codec::incoming(unseen.headers.as_ref());
            let entry = match &blank {
                _ if is_fresh(inner, unseen) => Ok(None),
                Ok(true) => Ok(None),
                Err(error) => Err(error.clone()),
                Ok(false) => {
                    let id = codec::identity(&parts, unseen.place);
                    ledger::read(&inner.shared, &inner.names, unseen.place, id.as_ref()).await
                }
            };
            (parts, entry)
        });
        let found = join_all(lookups).await;
        // No await from here on.
        for (unseen, (parts, entry)) in self.unseen.drain(..batch).zip(found) {
            match entry {
                Ok(entry) => deliver(inner, unseen, parts, entry, out),
                Err(error) if error.retryability() == Retryability::Permanent => inner.end(error),
                // Without its record it must not run; its lease brings it back.
                Err(error) => tracing::warn!(%error, "a record cannot be read; the message waits"),
            }
        }
        Ok(())
    }
}
