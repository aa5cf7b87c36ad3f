//! The metadata of a dead letter, and its form on the wire: one header each, all single-valued
//! UTF-8 text under `longshore-dl-`. `docs/dead-letters.md` is its public description.

mod codec;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use sha2::{Digest, Sha256};
use smol_str::SmolStr;

pub use codec::MAX_LETTER;

use crate::policy::Reason;
use crate::text::hex;
use crate::{GroupName, HistoryEntry, MessageId, Position, TopicName};

/// Why a message is a dead letter, and what happened before.
///
/// The engine makes it; the backend writes it beside the untouched message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Deterministic ([`dead_letter_id`]): a duplicate copy is recognisable, and a second death
    /// after a redrive differs.
    pub id: SmolStr,
    /// Why.
    pub reason: Reason,
    /// More of why, for people.
    pub reason_detail: Option<String>,
    /// The last error, where there was one.
    pub cause: Option<Cause>,
    /// The topic that it was published to, with the tenant's prefix.
    pub source: SmolStr,
    /// The backend's name.
    pub source_backend: SmolStr,
    /// The group that failed it.
    pub source_group: SmolStr,
    /// Where it stood when it was published.
    pub position: Position,
    /// The message's id.
    pub original_id: SmolStr,
    /// When it was published, where that is known.
    pub original_published_at: Option<SystemTime>,
    /// Handler runs.
    pub attempts: u32,
    /// Hand-overs, crashes and lost connections included.
    pub deliveries: u32,
    /// Durable delayed retries.
    pub delayed_retries: u32,
    /// When a run first failed.
    pub first_failed_at: SystemTime,
    /// When the last run failed.
    pub last_failed_at: SystemTime,
    /// When it was moved.
    pub dead_lettered_at: SystemTime,
    /// The last failures, oldest first.
    pub history: Vec<HistoryEntry>,
    /// The name of the handler.
    pub handler: SmolStr,
    /// The message's type.
    pub message_type: Option<SmolStr>,
    /// Which instance failed it last.
    pub instance: SmolStr,
    /// The version of longshore that wrote this.
    pub lib_version: SmolStr,
    /// The fingerprint of the policy that decided.
    pub policy: SmolStr,
    /// How often it had been redriven before it died.
    pub redrive_count: u32,
    /// The id of the letter that it was before the last redrive.
    pub redrive_of: Option<SmolStr>,
    /// SHA-256 of the body.
    pub payload_sha256: SmolStr,
}

/// The error of the last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The type's name.
    pub error_type: String,
    /// What it says.
    pub message: String,
    /// The code that the handler gave it.
    pub code: Option<String>,
    /// Whether trying again could have helped.
    pub transient: bool,
    /// What caused it, outermost first.
    pub chain: Vec<String>,
    /// Where it arose, where that was asked for.
    pub backtrace: Option<String>,
}

impl Letter {
    /// SHA-256 of `body`, as the field `payload_sha256` holds it.
    #[must_use]
    pub fn payload_sha256(body: &[u8]) -> SmolStr {
        hex(&Sha256::digest(body)).into()
    }
}

/// The id of a dead letter: the first 16 bytes of SHA-256 over the length-prefixed topic, group,
/// origin position, message id and redrive count, in hexadecimal.
#[must_use]
pub fn dead_letter_id(
    topic: &TopicName,
    group: &GroupName,
    origin: &str,
    id: Option<&MessageId>,
    redrives: u32,
) -> SmolStr {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(topic.as_str().as_bytes());
    part(group.as_str().as_bytes());
    part(origin.as_bytes());
    match id {
        Some(id) => id.with_str(|id| part(id.as_bytes())),
        None => part(b""),
    }
    part(redrives.to_string().as_bytes());
    hex(&hash.finalize()[..16]).into()
}
