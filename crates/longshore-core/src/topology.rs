use std::fmt;
use std::time::Duration;

use crate::{GroupName, TopicName};

/// What [`Broker::declare`](crate::Broker::declare) does about objects that are missing or differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Make what is missing; what differs is a typed [`Drift`].
    #[default]
    Declare,
    /// Make nothing: what is missing is `NotFound`, what differs is a typed [`Drift`].
    Verify,
    /// Ask nothing: the operator vouches for it.
    Assume,
}

/// A named stream of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name, with the tenant's prefix.
    pub name: TopicName,
}

/// Where a new group starts. Acts when the group is made, and is no drift later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what is published after its declaration.
    #[default]
    Declared,
    /// With the oldest message that is still stored; needs the capability `replay`.
    Earliest,
}

/// All that a broker must know of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The topic that it reads.
    pub topic: TopicName,
    /// Its name.
    pub name: GroupName,
    /// Where it starts when it is made.
    pub start: Start,
    /// How long a delivery stays with a member that shows no life. Of two, the last declared holds
    /// for all members.
    pub lease: Duration,
    /// How long dead letters are kept; `None`: the group has no dead-letter queue.
    pub dead_letters: Option<Duration>,
    /// The longest delay that a retry will ask for, so that a broker's limit shows at start.
    pub longest_delay: Duration,
}

/// What should exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// What to do about what is missing or differs.
    pub mode: Mode,
    /// Topics.
    pub topics: Vec<Topic>,
    /// Groups; their topics need not be listed again.
    pub groups: Vec<Group>,
}

impl Topology {
    /// A topology of one topic.
    #[must_use]
    pub fn topic(name: TopicName) -> Self {
        Self { topics: vec![Topic { name }], ..Self::default() }
    }

    /// A topology of one group and its topic.
    #[must_use]
    pub fn group(group: Group) -> Self {
        Self { groups: vec![group], ..Self::default() }
    }
}

/// One setting that exists with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftEntry {
    /// The object, such as `group orders.billing`.
    pub object: String,
    /// The setting, such as `dead_letters`.
    pub setting: &'static str,
    /// The value asked for.
    pub wanted: String,
    /// The value found.
    pub found: String,
}

/// What exists differs from what was asked for: the source of an
/// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) error, reached by
/// [`Error::native`](crate::Error::native). Nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Every difference, not only the first.
    pub entries: Vec<DriftEntry>,
}

impl Drift {
    /// The error that carries this difference.
    #[must_use]
    pub fn into_error(self) -> crate::Error {
        crate::Error::new(crate::ErrorKind::AlreadyExists, "the topology differs from what exists")
            .with_operation("broker.declare")
            .with_source(self)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let DriftEntry { object, setting, wanted, found } = entry;
            write!(f, "{separator}{object}: {setting} is {found}, wanted {wanted}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Drift {}
