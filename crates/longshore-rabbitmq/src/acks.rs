//! Acknowledgements on one channel: many in few frames, written in the order in which they were
//! decided, none of them awaited by itself.
//!
//! A frame that covers everything up to a tag is only made for tags below the oldest delivery that
//! is still open, and every delivery that was read from the channel is open, seen by the runtime or
//! not. What the client library still buffers has a higher tag than all of them.

use std::fmt;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use longshore_core::Result;
use longshore_driver::Coalescer;
use tokio::time::{Instant, timeout};

use crate::error;

/// The acknowledgements of one channel.
pub(crate) struct Acks {
    channel: Channel,
    open: Coalescer,
    returns: Vec<u64>,
}

enum Frame {
    Ack { up_to: bool, tag: u64 },
    Return(u64),
}

/// The last frame of a batch in the client library's line. It is written when this resolves, and so
/// are all before it.
pub(crate) struct Written(BoxFuture<'static, lapin::Result<()>>);

impl Acks {
    pub(crate) fn new(channel: Channel) -> Self {
        // Each settle call writes what it brought, so neither bound is waited for.
        Self { channel, open: Coalescer::new(1, Duration::ZERO), returns: Vec::new() }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn delivered(&mut self, tag: u64) {
        self.open.delivered(tag);
    }

    /// Done with `tag`; leaves with the next [`Acks::write`].
    pub(crate) fn ack(&mut self, tag: u64, now: Instant) {
        self.open.ack(tag, now);
    }

    /// Back to its queue with `tag`; leaves with the next [`Acks::write`].
    pub(crate) fn give_back(&mut self, tag: u64) {
        self.returns.push(tag);
    }

    /// Puts all that was decided into the client library's line, without waiting.
    ///
    /// # Errors
    /// The channel is gone: everything on it returns to its queue.
    pub(crate) fn write(&mut self) -> lapin::Result<Option<Written>> {
        let mut frames: Vec<Frame> = Vec::new();
        // First: what is to return must not be open when the prefix is measured.
        for tag in std::mem::take(&mut self.returns) {
            self.open.settled(tag);
            frames.push(Frame::Return(tag));
        }
        let flush = self.open.flush();
        frames.extend(flush.up_to.map(|tag| Frame::Ack { up_to: true, tag }));
        frames.extend(flush.singles.into_iter().map(|tag| Frame::Ack { up_to: false, tag }));
        let Some(last) = frames.pop() else { return Ok(None) };
        for frame in frames {
            // The first poll queues the frame; what the rest would wait for, the last one waits for.
            self.send(&frame).now_or_never().transpose()?;
        }
        let channel = self.channel.clone();
        let mut last = async move { send(&channel, &last).await }.boxed();
        Ok(match (&mut last).now_or_never().transpose()? {
            None => Some(Written(last)),
            Some(()) => None,
        })
    }

    async fn send(&self, frame: &Frame) -> lapin::Result<()> {
        send(&self.channel, frame).await
    }
}

async fn send(channel: &Channel, frame: &Frame) -> lapin::Result<()> {
    match *frame {
        Frame::Ack { up_to, tag } => {
            channel.basic_ack(tag, BasicAckOptions { multiple: up_to }).await
        }
        Frame::Return(tag) => {
            let options = BasicNackOptions { multiple: false, requeue: true };
            channel.basic_nack(tag, options).await
        }
    }
}

impl Written {
    /// Waits until the frames are on the wire.
    ///
    /// # Errors
    /// The channel ended before that, or nothing could be written within `deadline`.
    pub(crate) async fn done(self, deadline: Duration) -> Result<()> {
        match timeout(deadline, self.0).await {
            Ok(written) => written.map_err(error::native),
            Err(_) => Err(error::timeout()),
        }
    }
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acks").field("channel", &self.channel.id()).finish_non_exhaustive()
    }
}
