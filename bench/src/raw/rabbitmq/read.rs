//! The consuming side.

use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;

use super::{Outgoing, Rabbit, ensure_handled, queue};
use crate::case::{CONCURRENCY, LATENCY_PACE, SLOW_SHARE, WINDOW};
use crate::contender::{Job, Tracker, now, number, paced};
use crate::meter::Sample;

/// Unsettled messages: longshore's, too.
const PREFETCH: u16 = 1000;
/// One ack for so many messages, which are handled in order. More gained nothing.
const ACK_EACH: usize = 64;
/// Unconfirmed messages while a queue is filled, which nobody times.
const FILL: usize = 1024;

impl Rabbit {
    pub(super) async fn consume(
        &self,
        job: &Job,
        outgoing: Arc<Outgoing>,
        wait: Option<Duration>,
    ) -> Result<Sample> {
        outgoing.send(job, FILL).await?;
        let tracker = Tracker::new(job, 1)?;
        self.read(&tracker, job, wait, |_| Ok(())).await
    }

    pub(super) async fn both(&self, job: &Job, outgoing: Arc<Outgoing>) -> Result<Sample> {
        let tracker = Tracker::new(job, 1)?;
        tracker.begin();
        let sent = job.clone();
        let sending = tokio::spawn(async move { outgoing.send(&sent, WINDOW).await });
        let sample = self.read(&tracker, job, None, |_| Ok(())).await?;
        sending.await??;
        Ok(sample)
    }

    pub(super) async fn latency(&self, job: &Job, outgoing: Arc<Outgoing>) -> Result<Sample> {
        let tracker = Tracker::new(job, 1)?;
        tracker.begin();
        let sent = Arc::new(job.clone());
        let sending = tokio::spawn(async move {
            paced(sent.messages, LATENCY_PACE, move |_| {
                let (outgoing, job) = (outgoing.clone(), sent.clone());
                async move { outgoing.publish(job.numbered(now())).await.await }
            })
            .await
        });
        let arrived = |delivery: &Delivery| {
            tracker.time(now().saturating_sub(number(&delivery.data)?));
            Ok(())
        };
        let sample = self.read(&tracker, job, None, arrived).await?;
        sending.await??;
        Ok(sample)
    }

    /// Handles and acks each message, and stops the clock when the server has the acks.
    async fn read(
        &self,
        tracker: &Tracker,
        job: &Job,
        wait: Option<Duration>,
        arrived: impl Fn(&Delivery) -> Result<()>,
    ) -> Result<Sample> {
        let channel = self.consuming.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (name, options) = (queue(&job.topic).into(), BasicConsumeOptions::default());
        let consumer = channel.basic_consume(name, "".into(), options, FieldTable::default());
        let mut handled = consumer.await?.map_err(anyhow::Error::from).and_then(|delivery| {
            let checked = arrived(&delivery);
            ready(checked.map(|()| (tracker.run(), delivery.delivery_tag)))
        });
        let mut acks = Acks { channel: channel.clone(), under_way: FuturesUnordered::new() };
        let mut done = 0;
        if let Some(wait) = wait {
            let slow = handled.map_ok(|(number, tag)| async move {
                if number.is_multiple_of(SLOW_SHARE) {
                    tokio::time::sleep(wait).await;
                }
                anyhow::Ok(tag)
            });
            let mut slow = std::pin::pin!(slow.try_buffer_unordered(CONCURRENCY));
            while done < job.messages {
                let tag = slow.try_next().await?.context("the stream of messages ended")?;
                done += 1;
                // Not in order: each for itself.
                acks.ack(tag, false).await?;
            }
        } else {
            // A burst that pauses is settled at once: the next may be long in coming.
            while done < job.messages {
                let (_, mut tag) =
                    handled.try_next().await?.context("the stream of messages ended")?;
                done += 1;
                let mut open = 1;
                while open < ACK_EACH && done < job.messages {
                    let Poll::Ready(next) = next_at_once(&mut handled).await else { break };
                    (_, tag) = next?.context("the stream of messages ended")?;
                    done += 1;
                    open += 1;
                }
                acks.ack(tag, true).await?;
            }
        }
        acks.under_way.try_for_each(|()| async { Ok(()) }).await?;
        // An ack is answered by nobody. What comes after it on the same channel is.
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let sample = tracker.stop()?;
        channel.close(200, "done".into()).await?;
        ensure_handled(&self.consuming, &job.topic).await?;
        Ok(sample)
    }
}

/// The next message if it is here.
async fn next_at_once<S, T>(stream: &mut S) -> Poll<Result<Option<T>>>
where
    S: futures::Stream<Item = Result<T>> + Unpin,
{
    poll_fn(|context| Poll::Ready(stream.poll_next_unpin(context).map(Option::transpose))).await
}

/// Acks whose frames are queued.
struct Acks {
    channel: Channel,
    under_way: FuturesUnordered<BoxFuture<'static, Result<()>>>,
}

impl Acks {
    /// Polled once: that queues the frame. To wait until it is written costs a switch of threads.
    async fn ack(&mut self, tag: u64, multiple: bool) -> Result<()> {
        let channel = self.channel.clone();
        let mut ack: BoxFuture<'static, Result<()>> = Box::pin(async move {
            channel.basic_ack(tag, BasicAckOptions { multiple }).await.map_err(Into::into)
        });
        match futures::poll!(&mut ack) {
            Poll::Ready(done) => done?,
            Poll::Pending => self.under_way.push(ack),
        }
        while let Poll::Ready(Some(done)) = futures::poll!(self.under_way.next()) {
            done?;
        }
        Ok(())
    }
}
