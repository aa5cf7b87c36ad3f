//! Faults of the way in: what is stored is not what was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use longshore_core::{GroupName, Headers, Message, MessageId, TopicName};

use super::Mutant;
use super::fault::Fault;

/// Larger than any check's ordinary message, smaller than its oversize one.
const TRUNCATED: usize = 512 * 1024;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "every tenth publish is confirmed and dropped",
        caught_by: &["publish.concurrent_senders_lose_nothing", "reconnect.broker_restart"],
        make: || Box::new(DropTenth::default()),
    },
    Mutant {
        name: "a message is overtaken by the next of its key",
        caught_by: &["publish.one_key_keeps_its_order", "order.one_sender_one_handler"],
        make: || Box::new(Swap::default()),
    },
    Mutant {
        name: "ids are replaced",
        caught_by: &["publish.every_message_has_an_id", "consume.everything_arrives_unchanged"],
        make: || Box::new(Alter(|message| message.id = Some(MessageId::generate()))),
    },
    Mutant {
        name: "keys are stripped",
        caught_by: &["consume.everything_arrives_unchanged", "dead_letter.message_is_unchanged"],
        make: || Box::new(Alter(|message| message.key = None)),
    },
    Mutant {
        name: "the first header is dropped",
        caught_by: &["consume.everything_arrives_unchanged"],
        make: || {
            Box::new(Alter(|message| {
                message.headers = message.headers.iter().skip(1).cloned().collect();
            }))
        },
    },
    Mutant {
        name: "all headers but one are dropped",
        caught_by: &["consume.everything_arrives_unchanged", "fidelity.awkward_headers"],
        make: || Box::new(Alter(|message| message.headers.retain(|name| name.as_str() == "test"))),
    },
    Mutant {
        name: "headers of one name are collapsed into the last",
        caught_by: &["consume.everything_arrives_unchanged"],
        make: || Box::new(Alter(|message| message.headers = collapse(&message.headers))),
    },
    Mutant {
        name: "headers are reversed",
        caught_by: &["consume.everything_arrives_unchanged"],
        make: || {
            Box::new(Alter(|message| {
                message.headers = message.headers.iter().rev().cloned().collect();
            }))
        },
    },
    Mutant {
        name: "header values are read as text",
        caught_by: &["consume.everything_arrives_unchanged", "fidelity.awkward_headers"],
        make: || Box::new(Alter(|message| message.headers = as_text(&message.headers))),
    },
    Mutant {
        name: "the message type is dropped",
        caught_by: &["consume.everything_arrives_unchanged"],
        make: || Box::new(Alter(|message| message.message_type = None)),
    },
    Mutant {
        name: "the content type is dropped",
        caught_by: &["consume.everything_arrives_unchanged"],
        make: || Box::new(Alter(|message| message.content_type = None)),
    },
    Mutant {
        name: "bodies are read as text",
        caught_by: &[
            "fidelity.every_byte_value",
            "consume.everything_arrives_unchanged",
            "dead_letter.undecodable_is_kept_raw",
        ],
        make: || {
            Box::new(Alter(|message| {
                message.body = String::from_utf8_lossy(&message.body).into_owned().into();
            }))
        },
    },
    Mutant {
        name: "empty bodies are confirmed and dropped",
        caught_by: &["fidelity.empty_body"],
        make: || Box::new(SwallowEmpty),
    },
    Mutant {
        name: "bodies over the limit are cut off",
        caught_by: &["large.over_the_limit_is_refused"],
        make: || Box::new(Alter(|message| message.body.truncate(TRUNCATED))),
    },
    Mutant {
        name: "messages reach other topics too",
        caught_by: &[
            "consume.topics_do_not_mix",
            "names.tenants_are_apart",
            "names.grammar_is_one",
        ],
        make: || Box::new(CrossTalk),
    },
];

fn collapse(headers: &Headers) -> Headers {
    let all = headers.as_slice();
    let last = |index: usize| !all[index + 1..].iter().any(|(name, _)| *name == all[index].0);
    (0..all.len()).filter(|index| last(*index)).map(|index| all[index].clone()).collect()
}

fn as_text(headers: &Headers) -> Headers {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| (name.clone(), text(value).into())).collect()
}

#[derive(Debug)]
struct Alter(fn(&mut Message));

impl Fault for Alter {
    fn publish(&self, _: &TopicName, mut message: Message, out: &mut Vec<Message>) {
        (self.0)(&mut message);
        out.push(message);
    }
}

#[derive(Debug, Default)]
struct DropTenth(AtomicU64);

impl Fault for DropTenth {
    fn publish(&self, _: &TopicName, message: Message, out: &mut Vec<Message>) {
        if self.0.fetch_add(1, Ordering::Relaxed) % 10 != 9 {
            out.push(message);
        }
    }
}

#[derive(Debug, Default)]
struct Swap {
    count: AtomicU64,
    held: Mutex<Option<Message>>,
}

impl Fault for Swap {
    fn publish(&self, _: &TopicName, message: Message, out: &mut Vec<Message>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.count.fetch_add(1, Ordering::Relaxed) == 20 {
            *held = Some(message);
            return;
        }
        let key = message.key.clone();
        out.push(message);
        out.extend(held.take_if(|held| held.key == key));
    }
}

#[derive(Debug)]
struct SwallowEmpty;

impl Fault for SwallowEmpty {
    fn publish(&self, _: &TopicName, message: Message, out: &mut Vec<Message>) {
        if !message.body.is_empty() {
            out.push(message);
        }
    }
}

#[derive(Debug)]
struct CrossTalk;

impl Fault for CrossTalk {
    fn stray(&self, topic: &TopicName, known: &[(TopicName, GroupName)]) -> Option<TopicName> {
        known.iter().map(|(other, _)| other).find(|other| *other != topic).cloned()
    }
}
