//! The dead letters of a group: look at them, and send them back.

mod redrive;

use std::sync::Arc;

use longshore_core::{Cursor, GroupName, Letter, Page, Received, Result, Source, TopicName};

pub use redrive::{Redrive, Redriven};

use crate::client::Client;

/// The dead-letter queue of one group.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    client: Client,
    source: Source,
}

/// A message that will not be tried again, and why.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The message, byte for byte as published.
    pub message: Received,
    /// Why, and what happened before. Absent where something else put it here, or where the
    /// metadata cannot be read.
    pub letter: Option<Arc<Letter>>,
}

impl DeadLetter {
    fn new(mut message: Received) -> Self {
        let letter = message.letter.take();
        Self { message, letter }
    }

    /// Where it stands in the queue, for [`DeadLetters::browse_after`].
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.message.position
    }
}

impl DeadLetters {
    pub(crate) fn new(client: Client, topic: TopicName, group: GroupName) -> Self {
        Self { client, source: Source::DeadLetters { topic, group } }
    }

    /// The first `limit` letters, oldest first. Settles nothing.
    ///
    /// # Errors
    /// `NotFound` where the group has no dead-letter queue; whatever the connection meets.
    pub async fn browse(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.page(Page { after: None, limit }).await
    }

    /// The next `limit` letters behind one that was seen.
    ///
    /// # Errors
    /// As [`DeadLetters::browse`].
    pub async fn browse_after(&self, cursor: &Cursor, limit: usize) -> Result<Vec<DeadLetter>> {
        self.page(Page { after: Some(cursor.clone()), limit }).await
    }

    /// How many there are.
    ///
    /// # Errors
    /// As [`DeadLetters::browse`].
    pub async fn count(&self) -> Result<u64> {
        let stats = self.client.broker().stats(&self.source).await?;
        Ok(stats.ready + stats.in_flight)
    }

    /// Begins to send letters back to the group that failed them, and to no other. Await it.
    pub fn redrive(&self) -> Redrive {
        Redrive::new(self.clone())
    }

    async fn page(&self, page: Page) -> Result<Vec<DeadLetter>> {
        let letters = self.client.broker().browse(&self.source, &page).await?;
        Ok(letters.into_iter().map(DeadLetter::new).collect())
    }
}
