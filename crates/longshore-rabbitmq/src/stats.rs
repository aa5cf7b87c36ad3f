//! Counts, as the queue itself tells them: those of the management interface lag by seconds.

use longshore_core::{Result, Source, Stats};

use crate::ask::Questions;
use crate::error::no_group;
use crate::names::{GroupNames, UNROUTED};
use crate::shared::Shared;

/// What is ready. The protocol tells no more: neither what is handed over, nor which of the messages
/// that wait in the shared levels are this group's, nor ages. What had nowhere to go is of the whole
/// virtual host.
pub(crate) async fn stats(shared: &Shared, source: &Source) -> Result<Stats> {
    let names = GroupNames::from_source(source);
    let mut questions = Questions::new(&shared.incoming, shared.deadline());
    let Some(queue) = questions.queue(names.of(source)).await? else {
        return Err(no_group(&names.topic, &names.group));
    };
    let mut stats = Stats { ready: queue.message_count().into(), ..Stats::default() };
    if matches!(source, Source::Group { .. }) {
        let parked = questions.queue(UNROUTED).await?;
        stats.unrouted = parked.map_or(0, |queue| queue.message_count().into());
    }
    Ok(stats)
}
