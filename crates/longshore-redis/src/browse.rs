//! Looking without settling.

use longshore_core::{Cursor, Error, Page, Position, Received, Record, Result, Source};
use redis::Value;

use crate::codec;
use crate::error::{self, BACKEND, no_group, unreadable};
use crate::letters;
use crate::line::{Line, is_missing};
use crate::names::{EntryId, GroupNames, Lane, Place};
use crate::reply::{self, Fields};
use crate::script::{self, Call};
use crate::shared::Shared;

/// How many entries are looked at in one call; each may be large.
const PAGE: usize = 100;

/// An entry that is only looked at.
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) fields: Fields,
    count: u32,
    record: Option<Record>,
}

fn place(cursor: Option<&Cursor>) -> Result<Option<Place>> {
    let text = match cursor {
        None | Some(Position::None) => return Ok(None),
        Some(Position::Entry(text)) => text.clone(),
        Some(other) => other.to_text(),
    };
    text.parse().map(Some).map_err(|()| {
        Error::config(format!("`{text:.64}` is no cursor of this broker")).with_backend(BACKEND)
    })
}

pub(crate) async fn browse(shared: &Shared, source: &Source, page: &Page) -> Result<Vec<Received>> {
    let names = GroupNames::from_source(source);
    let after = place(page.after.as_ref())?;
    let line = shared.control(&names.topic);
    let found = match source {
        Source::DeadLetters { .. } => {
            letters::check(shared, &names).await?;
            let expire = Call::new(&script::EXPIRE, &[&names.dlq, &names.conf]);
            line.run(expire).await?;
            letters(&line, &names, after.map(|place| place.id), page.limit).await?
        }
        Source::Group { .. } => {
            let mut found = Vec::new();
            for lane in [Lane::Main, Lane::Redrive] {
                found.extend(open(&line, &names, lane, after, page.limit).await?);
            }
            // Oldest first, over both streams: a cursor is a place in this order.
            found.sort_by_key(|found| order(found.place));
            found.truncate(page.limit);
            found
        }
        Source::Suspects { .. } => open(&line, &names, Lane::Suspect, after, page.limit).await?,
    };
    let received = found.into_iter().map(|Found { place, fields, count, record }| {
        let mut parts = codec::incoming(&fields);
        let record = record.or(parts.record.take());
        codec::received(&names.topic, parts, place, count, record, None)
    });
    Ok(received.collect())
}

fn order(place: Place) -> (EntryId, Lane) {
    (place.id, place.lane)
}

/// Letters behind `after`.
pub(crate) async fn letters(
    line: &Line,
    names: &GroupNames,
    after: Option<EntryId>,
    limit: usize,
) -> Result<Vec<Found>> {
    let mut out = Vec::new();
    let mut from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
    while out.len() < limit {
        let count = (limit - out.len()).min(PAGE);
        let mut range = redis::cmd("XRANGE");
        range.arg(&names.dlq).arg(&from).arg("+").arg("COUNT").arg(count);
        let page = reply::list(line.query(range).await?)?;
        let full = page.len() == count;
        for entry in page {
            let (id, fields) = reply::ranged(entry)?;
            let id: EntryId = id.parse().map_err(|()| unreadable())?;
            from = format!("({id}");
            let place = Place { lane: Lane::Main, id };
            out.push(Found { place, fields: fields.unwrap_or_default(), count: 1, record: None });
        }
        if !full {
            break;
        }
    }
    Ok(out)
}

/// What of a lane is not settled, behind `after`.
async fn open(
    line: &Line,
    names: &GroupNames,
    lane: Lane,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<Found>> {
    let mut out = Vec::new();
    let mut from = match after {
        None => "-".to_owned(),
        // The place itself is behind the one of a lane that comes first in the order.
        Some(after) if lane > after.lane => after.id.to_string(),
        Some(after) => format!("({}", after.id),
    };
    while out.len() < limit {
        let call = Call::new(&script::BROWSE, &[names.stream(lane), &names.record])
            .arg(names.group.as_str())
            .arg(&from)
            .arg(PAGE)
            .arg(lane.prefix());
        let answer = line.run(call).await.map_err(|error| missing(names, error))?;
        let mut answer = reply::list(answer)?.into_iter();
        let next = answer.next().unwrap_or_default();
        next_page(&next).ok_or_else(unreadable)?.clone_into(&mut from);
        for entry in reply::entries(answer.next().unwrap_or_default())? {
            out.push(Found {
                place: entry.place,
                fields: entry.fields.unwrap_or_default(),
                count: entry.count,
                record: entry.record.as_deref().and_then(Record::decode),
            });
        }
        if from == "-" {
            break;
        }
    }
    out.truncate(limit);
    Ok(out)
}

fn next_page(value: &Value) -> Option<&str> {
    reply::text(value)
}

/// A group or a topic that is not there: the server's own error for a missing key has no code.
pub(crate) fn missing(names: &GroupNames, error: Error) -> Error {
    if is_missing(&error) || error::is_plain(&error) {
        no_group(&names.topic, &names.group).with_source(error)
    } else {
        error
    }
}
