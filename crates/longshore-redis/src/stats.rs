//! Counts and ages.

use std::time::Duration;

use longshore_core::{Result, Source, Stats};
use redis::Value;

use crate::browse::{letters as page, missing};
use crate::error::unreadable;
use crate::letters;
use crate::names::{EntryId, GroupNames, Lane, PARKED};
use crate::reply;
use crate::script::{self, Call};
use crate::shared::Shared;

/// How many entries are counted where the server does not know how many are left.
const COUNTED: usize = 1000;

pub(crate) async fn stats(shared: &Shared, source: &Source) -> Result<Stats> {
    let names = GroupNames::from_source(source);
    let line = shared.control(&names.topic);
    let (main, redrive, suspect) =
        (names.stream(Lane::Main), names.stream(Lane::Redrive), names.stream(Lane::Suspect));
    let keys = match source {
        Source::DeadLetters { .. } => {
            letters::check(shared, &names).await?;
            line.run(Call::new(&script::EXPIRE, &[&names.dlq, &names.conf])).await?;
            let mut length = redis::cmd("XLEN");
            length.arg(&names.dlq);
            let ready = reply::number(&line.query(length).await?).ok_or_else(unreadable)?;
            let oldest = page(&line, &names, None, 1).await?;
            let oldest = oldest.first().map(|found| codec_age(shared, found.place.id));
            let ready = u64::try_from(ready).unwrap_or_default();
            return Ok(Stats { ready, oldest_ready: oldest, ..Stats::default() });
        }
        Source::Group { .. } => vec![&*names.due, main, redrive],
        // What is parked in the suspect lane has no due time: it is ready.
        Source::Suspects { .. } => vec![suspect, suspect],
    };
    shared.check_topic(&names.topic).await.map_err(|error| missing(&names, error))?;
    let call = Call::new(&script::STATS, &keys).arg(names.group.as_str()).arg(PARKED).arg(COUNTED);
    let answer = line.run(call).await.map_err(|error| missing(&names, error))?;
    let parts = reply::list(answer)?;
    let count =
        |at: usize| parts.get(at).and_then(reply::number).and_then(|n| u64::try_from(n).ok());
    let now = count(5).ok_or_else(unreadable)?;
    let age = |value: Option<&Value>| {
        let id: EntryId = value.and_then(reply::text)?.parse().ok()?;
        Some(Duration::from_millis(now.saturating_sub(id.ms)))
    };
    Ok(Stats {
        ready: count(0).ok_or_else(unreadable)?,
        in_flight: count(1).ok_or_else(unreadable)?,
        waiting: count(2).ok_or_else(unreadable)?,
        oldest_ready: age(parts.get(3)),
        oldest_waiting: age(parts.get(4)),
        unrouted: 0,
    })
}

fn codec_age(shared: &Shared, id: EntryId) -> Duration {
    let published = crate::codec::published(id);
    shared.setup.clock.now().duration_since(published).unwrap_or_default()
}
