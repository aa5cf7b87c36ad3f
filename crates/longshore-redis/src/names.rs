//! The names of what stands for a topic and a group on the server: the one place that makes them.

use std::fmt;
use std::str::FromStr;

use longshore_core::{GroupName, SmolStr, Source, TopicName};

/// Who has what waits. No instance is called so.
pub(crate) const PARKED: &str = "~parked";
/// The group by which a topic is made; it is gone at once.
pub(crate) const MAKER: &str = "~made";

/// The keys of a group. All have the topic's hash slot.
#[derive(Clone, Debug)]
pub(crate) struct GroupNames {
    pub(crate) topic: TopicName,
    pub(crate) group: GroupName,
    pub(crate) redrive: String,
    pub(crate) suspect: String,
    pub(crate) dlq: String,
    pub(crate) due: String,
    pub(crate) record: String,
    pub(crate) conf: String,
}

impl GroupNames {
    pub(crate) fn new(topic: &TopicName, group: &GroupName) -> Self {
        let name = |part: &str| format!("{{{topic}}}.{group}.{part}");
        Self {
            redrive: name("redrive"),
            suspect: name("suspect"),
            dlq: name("dlq"),
            due: name("due"),
            record: name("record"),
            conf: name("conf"),
            topic: topic.clone(),
            group: group.clone(),
        }
    }

    pub(crate) fn from_source(source: &Source) -> Self {
        Self::new(source.topic(), source.group())
    }

    pub(crate) fn stream(&self, lane: Lane) -> &str {
        match lane {
            Lane::Main => self.topic.as_str(),
            Lane::Redrive => &self.redrive,
            Lane::Suspect => &self.suspect,
        }
    }
}

/// Which stream of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    Main,
    Redrive,
    Suspect,
}

impl Lane {
    /// Before an entry's id, where ids of several streams meet: two may be the same.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Redrive => "r",
            Self::Suspect => "s",
        }
    }
}

/// An entry's id: milliseconds and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId {
    pub(crate) ms: u64,
    pub(crate) seq: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, seq) = text.split_once('-').ok_or(())?;
        Ok(Self { ms: ms.parse().map_err(drop)?, seq: seq.parse().map_err(drop)? })
    }
}

/// Where an entry of a group stands: its id, and in which of the group's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) lane: Lane,
    pub(crate) id: EntryId,
}

impl Place {
    /// As a member of the due times and of the records.
    pub(crate) fn member(self) -> SmolStr {
        longshore_core::SmolStr::new(self.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.lane.prefix(), self.id)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (lane, id) = match text.split_at_checked(1) {
            Some(("r", id)) => (Lane::Redrive, id),
            Some(("s", id)) => (Lane::Suspect, id),
            _ => (Lane::Main, text),
        };
        Ok(Self { lane, id: id.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire_page() {
        let topic = TopicName::new("shop.orders").unwrap();
        let names = GroupNames::new(&topic, &GroupName::new("billing").unwrap());
        assert_eq!(names.stream(Lane::Main), "shop.orders");
        assert_eq!(names.stream(Lane::Redrive), "{shop.orders}.billing.redrive");
        assert_eq!(names.stream(Lane::Suspect), "{shop.orders}.billing.suspect");
        assert_eq!(names.dlq, "{shop.orders}.billing.dlq");
        assert_eq!(names.due, "{shop.orders}.billing.due");
        assert_eq!(names.record, "{shop.orders}.billing.record");
        assert_eq!(names.conf, "{shop.orders}.billing.conf");
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["1700000000000-0", "r5-18446744073709551615", "s1-1"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for bad in ["", "r", "1", "1-", "-1", "x1-1", "1-1-1", "é-1"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
