//! A channel in confirm mode, and publishes on their way over it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use longshore_core::{Error, ErrorKind, Outcome, Result};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::codec;
use crate::error::{self, error};
use crate::link::{Link, Session};

/// What frames need beside their payload.
const FRAME_OVERHEAD: usize = 8;

/// A channel in confirm mode.
pub(crate) struct Lane {
    channel: Channel,
    /// Keeps the connection open.
    session: Arc<Session>,
    /// Messages that were neither confirmed nor refused.
    open: AtomicUsize,
}

/// The bare answer to a publish.
pub(crate) type Answer = lapin::Result<Confirmation>;

/// One publish on its way; its frames are queued. Needs no polling to be sent.
pub(crate) enum Flight {
    Waiting(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// Boxed: with what may have come back it is large.
    Known(Option<Box<Answer>>),
}

impl Lane {
    /// # Errors
    /// Of the channel; or why nothing was heard until `deadline`. Nothing was sent.
    ///
    /// # Cancel safety
    /// Dropped, the channel is closed.
    pub(crate) async fn open(link: &Link, deadline: Instant) -> Result<Self> {
        let session = link.writable(deadline).await?;
        let opened = async {
            let channel = session.channel().await?;
            let confirmed = channel.confirm_select(ConfirmSelectOptions::default()).await;
            confirmed.map(|()| channel).map_err(error::native)
        };
        let opened = timeout_at(deadline, opened).await.unwrap_or_else(|_| Err(link.silence()));
        let channel = opened.map_err(|why| why.with_outcome(Outcome::NotSent))?;
        Ok(Self { channel, session, open: AtomicUsize::new(0) })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// One message is confirmed or refused. Not to be called for what ended with the channel.
    pub(crate) fn settled(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the channel was closed with no more than one message under way.
    pub(crate) fn is_alone(&self) -> bool {
        self.open.load(Ordering::Relaxed) <= 1
    }

    /// Checks what would close the channel or even the connection, with all that is under way on it.
    ///
    /// # Errors
    /// `TooLarge`, and not sent.
    pub(crate) fn check(&self, properties: &BasicProperties, body: usize) -> Result<()> {
        let refuse = |text| Err(error(ErrorKind::TooLarge, text).with_outcome(Outcome::NotSent));
        let frame = self.session.connection.configuration().frame_max() as usize;
        let header = codec::size(properties) + FRAME_OVERHEAD;
        if frame > 0 && header > frame {
            return refuse(format!(
                "{header} bytes of headers exceed the server's frame of {frame}"
            ));
        }
        let most = self.session.greeting.max_message();
        if body > most {
            return refuse(format!("a body of {body} bytes exceeds the server's limit of {most}"));
        }
        Ok(())
    }

    /// Queues a message. Whoever shares the lane calls it under a lock: the client library numbers
    /// messages under one lock and queues them under another, so that of two at once each could get
    /// the other's confirmation.
    pub(crate) fn publish(
        self: &Arc<Self>,
        exchange: ShortString,
        key: ShortString,
        mandatory: bool,
        properties: BasicProperties,
        body: Bytes,
    ) -> Flight {
        self.open.fetch_add(1, Ordering::Relaxed);
        let lane = self.clone();
        let options = BasicPublishOptions { mandatory, immediate: false };
        let mut sent = Box::pin(async move {
            let written = lane.channel.basic_publish(exchange, key, options, &body, properties);
            written.await?.await
        });
        // The first poll numbers and queues it. That the frames are written is not waited for: it
        // costs a fifth of the throughput.
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Flight::Known(Some(Box::new(answer))),
            Poll::Pending => Flight::Waiting(sent),
        }
    }
}

impl Flight {
    /// Whether the channel was closed before the message could be queued.
    pub(crate) fn is_unsent(&self) -> bool {
        let Self::Known(Some(answer)) = self else { return false };
        let refused = answer.as_ref().as_ref().err().map(lapin::Error::kind);
        matches!(refused, Some(lapin::ErrorKind::InvalidChannelState(..)))
    }
}

impl Future for Flight {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut *self {
            Self::Waiting(sent) => sent.as_mut().poll(cx),
            Self::Known(answer) => Poll::Ready(match answer.take() {
                Some(answer) => *answer,
                None => Err(lapin::ErrorKind::FutureCompleted.into()),
            }),
        }
    }
}

/// One deadline for many answers.
pub(crate) struct Patience(Pin<Box<Sleep>>);

impl Patience {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self(Box::pin(sleep_until(deadline)))
    }

    /// The answer; none where it did not come in time. What came is given also after the deadline.
    ///
    /// # Cancel safety
    /// Safe to drop: the flight goes on.
    pub(crate) async fn answer(&mut self, flight: &mut Flight) -> Option<Answer> {
        std::future::poll_fn(|cx| match Pin::new(&mut *flight).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.0.is_elapsed() => Poll::Ready(None),
            Poll::Pending => self.0.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

/// What a confirmation without regard to returns says.
pub(crate) fn confirmed(confirmation: &Confirmation) -> Result<()> {
    match confirmation {
        Confirmation::Ack(_) => Ok(()),
        // A queue is full, or its node could not write it: no queue has it that counts.
        Confirmation::Nack(_) => Err(refused()),
        Confirmation::NotRequested => {
            Err(error(ErrorKind::Unexpected, "the channel does not confirm")
                .with_outcome(Outcome::Unknown))
        }
    }
}

fn refused() -> Error {
    error(
        ErrorKind::Backpressure,
        "the server refused the message: a queue is full or not available",
    )
    .with_outcome(Outcome::Refused)
}
