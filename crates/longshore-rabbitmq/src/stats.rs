//! Counts, as the queue itself tells them: those of the management interface lag by seconds.

use longshore_core::{Result, Source, Stats};

use crate::ask::Questions;
use crate::error::no_group;
use crate::names::GroupNames;
use crate::shared::Shared;

/// What is ready. The protocol tells no more: neither what is handed over, nor which of the messages
/// that wait in the shared levels are this group's, nor ages.
pub(crate) async fn stats(shared: &Shared, source: &Source) -> Result<Stats> {
    let names = GroupNames::from_source(source);
    let mut questions = Questions::new(&shared.incoming, shared.deadline());
    match questions.queue(names.of(source)).await? {
        Some(queue) => Ok(Stats { ready: queue.message_count().into(), ..Stats::default() }),
        None => Err(no_group(&names.topic, &names.group)),
    }
}
