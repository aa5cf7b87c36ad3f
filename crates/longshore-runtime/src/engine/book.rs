//! What is written about a message: the retry record that travels, and the letter of a dead one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use longshore_core::policy::Reason;
use longshore_core::{
    Cause, Failure, GroupName, HistoryEntry, InstanceId, Letter, MessageId, Position, Received,
    Record, SmolStr, TopicName, dead_letter_id,
};

/// Who writes: the facts of one worker or subscription.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) topic: TopicName,
    pub(crate) group: GroupName,
    pub(crate) backend: &'static str,
    pub(crate) handler: SmolStr,
    pub(crate) instance: InstanceId,
    pub(crate) policy: SmolStr,
}

/// Writes records and letters.
#[derive(Clone, Debug)]
pub(crate) struct Book(pub(crate) Arc<Facts>);

impl Book {
    /// The record that the next settlement starts from: what came with the message, or a new one.
    /// `fresh` is the id for a message that has none.
    pub(crate) fn open(
        &self,
        received: &Received,
        fresh: impl FnOnce() -> MessageId,
    ) -> Box<Record> {
        let mut record = Box::new(received.record.as_deref().cloned().unwrap_or_default());
        if received.id.is_none() && record.id.is_none() {
            record.id = Some(fresh());
        }
        if record.origin.is_none() && received.position != Position::None {
            record.origin = Some(received.position.to_text());
        }
        record.published_at = record.published_at.or(received.published_at);
        record.deliveries = received.deliveries;
        record.not_before = None;
        record
    }

    /// Counts a failure of run `attempt`.
    pub(crate) fn failed(
        &self,
        record: &mut Record,
        failure: &Failure,
        now: SystemTime,
        gap: Option<Duration>,
    ) {
        let n = record.failures.saturating_add(1);
        record.failures = n;
        record.first_failed_at.get_or_insert(now);
        record.remember(HistoryEntry {
            n,
            at: Some(now),
            delay_ms: gap.map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
            error_type: failure.error_type().into(),
            instance: self.0.instance.as_str().into(),
        });
    }

    /// The letter of a message that will not be tried again. `record` has counted the last failure.
    pub(crate) fn letter(
        &self,
        received: &Received,
        record: &Record,
        reason: Reason,
        failure: Option<(&Failure, bool)>,
        now: SystemTime,
    ) -> Box<Letter> {
        let facts = &*self.0;
        let id = received.id.as_ref().or(record.id.as_ref());
        let origin = record.origin.clone().unwrap_or_default();
        let id_at = |redrives| dead_letter_id(&facts.topic, &facts.group, &origin, id, redrives);
        let last = record.history.last().and_then(|entry| entry.at);
        Box::new(Letter {
            id: id_at(record.redrives),
            reason,
            reason_detail: None,
            cause: failure.map(|(failure, transient)| Cause {
                error_type: failure.error_type().to_owned(),
                message: failure.to_string(),
                code: failure.code().map(str::to_owned),
                transient,
                chain: failure.chain(),
                backtrace: None,
            }),
            source: facts.topic.as_str().into(),
            source_backend: facts.backend.into(),
            source_group: facts.group.as_str().into(),
            position: origin_position(&received.position, &origin),
            original_id: id.map(|id| id.with_str(|id| SmolStr::new(id))).unwrap_or_default(),
            original_published_at: record.published_at.or(received.published_at),
            attempts: record.failures,
            deliveries: received.deliveries,
            delayed_retries: record.delayed,
            first_failed_at: record.first_failed_at.unwrap_or(now),
            last_failed_at: last.unwrap_or(now),
            dead_lettered_at: now,
            history: record.history.clone(),
            handler: facts.handler.clone(),
            message_type: received.message_type.clone(),
            instance: facts.instance.as_str().into(),
            lib_version: SmolStr::new_static(env!("CARGO_PKG_VERSION")),
            policy: facts.policy.clone(),
            redrive_count: record.redrives,
            redrive_of: record.redrives.checked_sub(1).map(id_at),
            payload_sha256: Letter::payload_sha256(&received.body),
        })
    }
}

/// The record of a redriven letter: all cleared but the redrives and the origin, and the id of a
/// message that has none of its own.
pub(crate) fn redrive_record(letter: &Letter, message: &Received) -> Box<Record> {
    let origin = letter.position.to_text();
    let id = if message.id.is_none() { MessageId::new(&letter.original_id).ok() } else { None };
    Box::new(Record {
        id,
        redrives: letter.redrive_count.saturating_add(1),
        origin: (!origin.is_empty()).then_some(origin),
        published_at: letter.original_published_at,
        ..Record::default()
    })
}

/// The origin in the position's own terms: the copy's position is of the same broker.
fn origin_position(own: &Position, origin: &str) -> Position {
    match own {
        Position::Sequence(_) => origin.parse().map_or(Position::None, Position::Sequence),
        Position::Entry(_) => Position::Entry(origin.into()),
        Position::Offset { .. } => origin
            .split_once(':')
            .and_then(|(partition, offset)| {
                Some(Position::Offset {
                    partition: partition.parse().ok()?,
                    offset: offset.parse().ok()?,
                })
            })
            .unwrap_or_default(),
        Position::None => Position::None,
    }
}
