//! Counts and ages.

use std::time::{Duration, SystemTime};

use longshore_core::{Error, Result, Source, Stats};
use serde_json::json;

use crate::browse::next;
use crate::declare::{consumer_info, stream_info};
use crate::error::no_group;
use crate::names::{GroupNames, RESCUED};
use crate::shared::{Shared, is_missing};

/// What the server knows: it counts a waiting retry among the unsettled, so those with a record
/// are taken for waiting.
pub(crate) async fn stats(shared: &Shared, source: &Source) -> Result<Stats> {
    let names = GroupNames::from_source(source);
    let missing = |error: Error| match is_missing(&error) {
        true => no_group(&names.of.topic, &names.group).with_source(error),
        false => error,
    };
    let stream = &names.of.stream;
    let durable = match source {
        Source::DeadLetters { .. } => {
            let info = stream_info(shared, &names.dlq_stream).await.map_err(missing)?;
            let ready = info.state.messages;
            let oldest = next(shared, &names.dlq_stream, &names.dlq, 0).await?;
            let oldest_ready = oldest.map(|found| age(shared, found.place.published));
            return Ok(Stats { ready, oldest_ready, ..Stats::default() });
        }
        Source::Group { .. } => &names.durable,
        Source::Suspects { .. } => &names.suspect_durable,
    };
    let info = consumer_info(shared, stream, durable).await.map_err(missing)?;
    let unsettled = info.num_ack_pending as u64;
    let (subjects, recorded) = match source {
        Source::Group { .. } => (names.subjects(), recorded(shared, &names).await?),
        _ => (vec![names.suspect.to_string()], 0),
    };
    let waiting = recorded.min(unsettled);
    let mut oldest = None;
    if info.num_pending > 0 {
        for subject in &subjects {
            let first = next(shared, stream, subject, info.delivered.stream_sequence).await?;
            let published = first.map(|found| found.place.published);
            oldest = [oldest, published].into_iter().flatten().min();
        }
    }
    let oldest_waiting = match waiting {
        0 => None,
        _ => next(shared, &names.of.ledger, &names.ledger_subjects(), 0)
            .await?
            .map(|found| age(shared, found.place.published)),
    };
    Ok(Stats {
        ready: info.num_pending,
        in_flight: unsettled - waiting,
        waiting,
        oldest_ready: oldest.map(|published| age(shared, published)),
        oldest_waiting,
        unrouted: 0,
    })
}

/// How many of the group's messages have a record in the ledger.
async fn recorded(shared: &Shared, names: &GroupNames) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct Subjects {
        #[serde(default)]
        subjects: Option<std::collections::HashMap<String, u64>>,
    }
    #[derive(serde::Deserialize)]
    struct Counted {
        state: Subjects,
    }
    let stream = &names.of.ledger;
    let operation = format!("STREAM.INFO.{stream}");
    let ask = json!({ "subjects_filter": names.ledger_subjects() });
    let found: Counted = shared.api(&operation, stream, &ask).await?;
    let waits =
        |subject: &str| !subject.rsplit('.').next().is_some_and(|it| it.starts_with(RESCUED));
    let subjects = found.state.subjects.unwrap_or_default();
    Ok(subjects.iter().filter(|(subject, _)| waits(subject)).map(|(_, count)| count).sum())
}

fn age(shared: &Shared, since: SystemTime) -> Duration {
    shared.setup.clock.now().duration_since(since).unwrap_or_default()
}
