//! Questions to the server, of which a refused one closes the channel that it was put on.

use std::future::Future;

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{ExchangeKind, Queue};
use longshore_core::{Result, TopicName};
use tokio::time::{Instant, timeout_at};

use crate::error;
use crate::link::Link;
use crate::names::short;

/// Questions under one deadline, on one channel for as long as none is refused.
pub(crate) struct Questions<'a> {
    link: &'a Link,
    deadline: Instant,
    channel: Option<Channel>,
}

impl<'a> Questions<'a> {
    /// On the outgoing connection, or for what holds messages, on either.
    pub(crate) fn new(link: &'a Link, deadline: Instant) -> Self {
        Self { link, deadline, channel: None }
    }

    /// Puts one. The inner result is the server's word.
    ///
    /// # Errors
    /// Where there is no connection, or no answer until the deadline.
    ///
    /// # Cancel safety
    /// As that of the question; the channel is closed with this value.
    pub(crate) async fn put<T, F>(
        &mut self,
        question: impl FnOnce(Channel) -> F,
    ) -> Result<lapin::Result<T>>
    where
        F: Future<Output = lapin::Result<T>>,
    {
        let open = self.channel.take().filter(|channel| channel.status().connected());
        let channel = match open {
            Some(channel) => channel,
            None => {
                let session = self.link.session(self.deadline).await?;
                let opened = timeout_at(self.deadline, session.channel()).await;
                opened.unwrap_or_else(|_| Err(self.link.silence()))?
            }
        };
        let answer = timeout_at(self.deadline, question(channel.clone())).await;
        let answer = answer.map_err(|_| self.link.silence())?;
        self.channel = Some(channel);
        Ok(answer)
    }

    /// The queue, where it exists.
    ///
    /// # Errors
    /// Of the connection, or what else the server says.
    pub(crate) async fn queue(&mut self, name: &str) -> Result<Option<Queue>> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let name = short(name)?;
        let answer = self
            .put(move |channel| async move {
                channel.queue_declare(name, options, FieldTable::default()).await
            })
            .await?;
        found(answer)
    }

    /// Whether the exchange exists.
    ///
    /// # Errors
    /// As [`Questions::queue`].
    pub(crate) async fn has_exchange(&mut self, name: &str) -> Result<bool> {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = short(name)?;
        let answer = self
            .put(move |channel| async move {
                let kind = ExchangeKind::Fanout;
                channel.exchange_declare(name, kind, options, FieldTable::default()).await
            })
            .await?;
        Ok(found(answer)?.is_some())
    }

    /// # Errors
    /// `NotFound` where the topic does not exist.
    pub(crate) async fn topic(&mut self, topic: &TopicName) -> Result<()> {
        if self.has_exchange(topic.as_str()).await? { Ok(()) } else { Err(error::no_topic(topic)) }
    }
}

fn found<T>(answer: lapin::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(native) if error::is_soft(&native, &AMQPSoftError::NOTFOUND) => Ok(None),
        Err(native) => Err(error::native(native)),
    }
}
