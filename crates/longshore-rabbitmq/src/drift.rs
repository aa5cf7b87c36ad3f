//! What differs between the settings that were asked for and those that the server has.
//!
//! The protocol tells no settings. But it refuses a declaration that differs, and names one
//! difference: so what is named is taken over into the next declaration, until one is accepted.
//! What a policy adds or overrides is not told in this way; `audit` says so.

use lapin::protocol::AMQPSoftError;
use lapin::types::AMQPValue;
use longshore_core::{Drift, DriftEntry, Result};

use crate::ask::Questions;
use crate::error::{self, reply};
use crate::make::{Ask, declare};
use crate::objects::{Object, Shape};

/// More rounds than there are settings.
const ROUNDS: usize = 24;
/// The settings that a declaration compares, beside the arguments.
const DURABLE: &str = "durable";
const AUTO_DELETE: &str = "auto_delete";
/// All that the server names by these words; what is none of them has no name of its own here.
const KNOWN: &[&str] = &[
    "alternate-exchange",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-expires",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-mode",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-single-active-consumer",
];

/// Adds every difference between `object`, which exists, and what the server has. Where it does not
/// exist any more, it is made.
///
/// # Errors
/// Of the connection, or where the server does not let these credentials compare.
pub(crate) async fn compare(
    questions: &mut Questions<'_>,
    object: &Object,
    drift: &mut Drift,
) -> Result<()> {
    let mut asked = Asked { object: object.clone(), durable: true, auto_delete: false };
    for _ in 0..ROUNDS {
        let ask = Ask::As { durable: asked.durable, auto_delete: asked.auto_delete };
        let Err(native) = declare(questions, &asked.object, ask).await? else { return Ok(()) };
        let entry = |setting: &'static str, wanted: String, found: String| DriftEntry {
            object: object.label.clone(),
            setting,
            wanted,
            found,
        };
        if error::is_soft(&native, &AMQPSoftError::RESOURCELOCKED) {
            let held = entry("exclusive", "false".into(), "true".into());
            drift.entries.push(held);
            return Ok(());
        }
        if !error::is_soft(&native, &AMQPSoftError::PRECONDITIONFAILED) {
            return Err(error::native(native).with_context("object", object.label.clone()));
        }
        let said = reply_text(&native);
        let Some(difference) = said.as_deref().and_then(Difference::read) else {
            // A name so long that the server's text is cut off, or words of a later server.
            let found = "others".to_owned();
            drift.entries.push(entry("settings", "those of longshore".to_owned(), found));
            return Ok(());
        };
        let setting = difference.setting(object);
        let wanted = asked.wanted(&difference.argument);
        drift.entries.push(entry(setting, wanted, difference.shown()));
        if !asked.take_over(&difference) {
            return Ok(());
        }
    }
    Ok(())
}

struct Asked {
    object: Object,
    durable: bool,
    auto_delete: bool,
}

impl Asked {
    fn wanted(&self, argument: &str) -> String {
        match (argument, &self.object.shape) {
            (DURABLE, _) => self.durable.to_string(),
            (AUTO_DELETE, _) => self.auto_delete.to_string(),
            ("type", Shape::Exchange(kind)) => format!("{kind:?}").to_lowercase(),
            _ => shown(self.object.arguments.get(argument)),
        }
    }

    /// Whether the next declaration can go on from there.
    fn take_over(&mut self, difference: &Difference) -> bool {
        use lapin::ExchangeKind as Kind;
        let found = &difference.found;
        match (difference.argument.as_str(), &mut self.object.shape, found) {
            (DURABLE, _, Found::Word(word)) => self.durable = word == "true",
            (AUTO_DELETE, _, Found::Word(word)) => self.auto_delete = word == "true",
            ("type", Shape::Exchange(kind), Found::Word(word)) => {
                *kind = match word.as_str() {
                    "direct" => Kind::Direct,
                    "fanout" => Kind::Fanout,
                    "topic" => Kind::Topic,
                    "headers" => Kind::Headers,
                    other => Kind::Custom(other.to_owned()),
                };
            }
            (argument, _, found) => {
                let Some(known) = KNOWN.iter().find(|known| **known == argument) else {
                    return false;
                };
                let before = match found {
                    Found::None => self.object.arguments.remove(known),
                    Found::Value(value) => self.object.arguments.insert(known, value.clone()),
                    // The type of a queue is named without its own.
                    Found::Word(word) => {
                        let value = AMQPValue::LongString(word.as_str().into());
                        self.object.arguments.insert(known, value)
                    }
                    Found::Other(_) => return false,
                };
                // Named again although it was taken over: the server means something else.
                return before != self.object.arguments.get(known).cloned();
            }
        }
        true
    }
}

/// What the server has.
#[derive(Debug, PartialEq)]
enum Found {
    None,
    Value(AMQPValue),
    Word(String),
    Other(String),
}

#[derive(Debug, PartialEq)]
struct Difference {
    argument: String,
    found: Found,
}

impl Difference {
    /// `… inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received none but current is the
    /// value 'reject-publish' of type 'longstr'`.
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, current) = rest.rsplit_once(" but current is ")?;
        Some(Self { argument: argument.to_owned(), found: Found::read(current.trim())? })
    }

    fn setting(&self, object: &Object) -> &'static str {
        match self.argument.as_str() {
            // Of a dead-letter queue it is what the group was declared with.
            "x-message-ttl" if object.name.ends_with(".dlq") => "dead_letters",
            DURABLE => DURABLE,
            AUTO_DELETE => AUTO_DELETE,
            "type" => "type",
            other => KNOWN.iter().find(|known| **known == other).copied().unwrap_or("arguments"),
        }
    }

    fn shown(&self) -> String {
        match &self.found {
            Found::None => "none".to_owned(),
            Found::Value(value) => shown(Some(value)),
            Found::Word(word) | Found::Other(word) => word.clone(),
        }
    }
}

impl Found {
    fn read(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::None);
        }
        let Some(rest) = text.strip_prefix("the value ") else {
            return Some(Self::Word(text.strip_prefix('\'')?.strip_suffix('\'')?.to_owned()));
        };
        let (value, kind) = rest.split_once(" of type ")?;
        let bare = |text: &str| text.trim_matches('\'').to_owned();
        let value = bare(value);
        Some(match bare(kind).as_str() {
            "longstr" => Self::Value(AMQPValue::LongString(value.into())),
            "bool" => Self::Value(AMQPValue::Boolean(value == "true")),
            _ => match value.parse() {
                Ok(number) => Self::Value(AMQPValue::LongLongInt(number)),
                Err(_) => Self::Other(value),
            },
        })
    }
}

fn shown(value: Option<&AMQPValue>) -> String {
    match value {
        Some(value) => String::from_utf8_lossy(&crate::headers::bytes(value)).into_owned(),
        None => "none".to_owned(),
    }
}

fn reply_text(native: &lapin::Error) -> Option<String> {
    reply(native)?;
    match native.kind() {
        lapin::ErrorKind::ProtocolError(reply) => Some(reply.get_message().to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_read() {
        let head = "PRECONDITION_FAILED - inequivalent arg";
        let tail = "for queue 'q' in vhost '/': received none but current is";
        let text = |value: &str| Found::Value(AMQPValue::LongString(value.into()));
        for (said, argument, found) in [
            (
                format!("{head} 'x-overflow' {tail} the value 'drop-head' of type 'longstr'"),
                "x-overflow",
                text("drop-head"),
            ),
            (
                format!("{head} 'x-message-ttl' {tail} the value '60000' of type 'signedint'"),
                "x-message-ttl",
                Found::Value(AMQPValue::LongLongInt(60_000)),
            ),
            (format!("{head} 'x-expires' {tail} none"), "x-expires", Found::None),
            (format!("{head} 'durable' {tail} 'false'"), "durable", Found::Word("false".into())),
        ] {
            let wanted = Difference { argument: argument.to_owned(), found };
            assert_eq!(Difference::read(&said), Some(wanted), "{said}");
        }
        for odd in ["", "PRECONDITION_FAILED - other", &format!("{head} 'x-overflow' for que")] {
            assert_eq!(Difference::read(odd), None, "{odd}");
        }
    }
}
