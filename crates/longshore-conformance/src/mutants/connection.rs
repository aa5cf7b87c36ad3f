//! Faults of opening, closing and holding.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use longshore_core::{Error, ErrorKind, Message, MessageId, Settlement, TopicName};

use super::Mutant;
use super::fault::{Closing, Fault};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a publish is confirmed before it is stored, and dropped at the close",
        caught_by: &["publish.confirmed_is_stored"],
        make: || Box::new(Buffers::default()),
    },
    Mutant {
        name: "a publisher that is closed goes on",
        caught_by: &["publish.closed_is_an_error"],
        make: || Box::new(NeverCloses),
    },
    Mutant {
        name: "an id is stored again inside its window",
        caught_by: &["swap.declared_is_observed"],
        make: || Box::new(NoWindow),
    },
    Mutant {
        name: "extending a lease does nothing",
        caught_by: &[
            "settle.long_handler_keeps_its_lease",
            "retry.delay_may_exceed_the_lease",
            "flow.rate_is_kept",
        ],
        make: || Box::new(NoExtension),
    },
    Mutant {
        name: "a delivery that is unsettled for long is taken for done",
        caught_by: &[
            "settle.long_handler_keeps_its_lease",
            "shutdown.drain_timeout_costs_no_attempt",
        ],
        make: || Box::new(Impatient),
    },
    Mutant {
        name: "a consumer that is closed acknowledges what it holds",
        caught_by: &["settle.token_settles_once"],
        make: || Box::new(Closes(Closing::Acks)),
    },
    Mutant {
        name: "a close takes long",
        caught_by: &["shutdown.drain_timeout_costs_no_attempt"],
        make: || Box::new(Closes(Closing::After(Duration::from_secs(20)))),
    },
    Mutant {
        name: "a dead letter that cannot be written is acknowledged",
        caught_by: &["dead_letter.failed_write_keeps_the_message"],
        make: || Box::new(AcksFailed),
    },
    Mutant {
        name: "a wrong password is taken for a broker that is away",
        caught_by: &["reconnect.wrong_password_is_fatal"],
        make: || Box::new(PasswordIsAway),
    },
];

#[derive(Debug, Default)]
struct Buffers(Mutex<Option<Message>>);

impl Fault for Buffers {
    fn publish(&self, _: &TopicName, message: Message, out: &mut Vec<Message>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.extend(held.replace(message));
    }
}

#[derive(Debug)]
struct NeverCloses;

impl Fault for NeverCloses {
    fn closes_publishers(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct NoWindow;

impl Fault for NoWindow {
    fn publish(&self, _: &TopicName, mut message: Message, out: &mut Vec<Message>) {
        message.id = Some(MessageId::generate());
        out.push(message);
    }
}

#[derive(Debug)]
struct NoExtension;

impl Fault for NoExtension {
    fn extends(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Impatient;

impl Fault for Impatient {
    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_millis(300))
    }
}

#[derive(Debug)]
struct Closes(Closing);

impl Fault for Closes {
    fn closing(&self) -> Closing {
        self.0
    }
}

#[derive(Debug)]
struct AcksFailed;

impl Fault for AcksFailed {
    fn failed(&self, settlement: &Settlement) -> Option<Settlement> {
        match settlement {
            Settlement::DeadLetter { token, .. } => Some(Settlement::Ack(*token)),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct PasswordIsAway;

impl Fault for PasswordIsAway {
    fn refused(&self, error: Error) -> Error {
        Error::new(ErrorKind::Unavailable, "the broker is away").with_source(error)
    }
}
