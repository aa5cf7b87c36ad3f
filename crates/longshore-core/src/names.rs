//! Names: one grammar on all backends, refused and never escaped, and the one place where derived
//! names are made.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use smol_str::{SmolStr, format_smolstr};

use crate::{Error, Result};

const MAX_TOPIC: usize = 112;
const MAX_GROUP: usize = 64;
const MAX_TENANT: usize = 24;
/// Components that would make a name look like one of ours.
const RESERVED_ANYWHERE: [&str; 4] = ["dlq", "retry", "suspect", "redrive"];
/// First components that brokers or our internals own.
const RESERVED_FIRST: [&str; 2] = ["amq", "longshore"];

/// The name of a topic: 1 to 112 bytes of `[A-Za-z0-9_-]` with single inner dots. A tenant's prefix
/// comes on top.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TopicName(SmolStr);

/// The name of a group of competing consumers: 1 to 64 bytes of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct GroupName(SmolStr);

/// A prefix that separates one client's topics, groups, retries and dead letters from all others':
/// 1 to 24 bytes of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tenant(SmolStr);

macro_rules! name {
    ($type:ident, $what:literal, $max:expr, $dots:literal) => {
        impl $type {
            /// Checks a name against the grammar.
            ///
            /// # Errors
            /// [`ErrorKind::Config`](crate::ErrorKind::Config), saying which rule it breaks.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                let name = name.as_ref();
                check(name, $max, $dots).map_err(|rule| refused($what, name, rule))?;
                Ok(Self(SmolStr::new(name)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = Error;

            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&$type> for $type {
            type Error = Error;

            fn try_from(name: &$type) -> Result<Self> {
                Ok(name.clone())
            }
        }

        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(name).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(TopicName, "topic", MAX_TOPIC, true);
name!(GroupName, "group", MAX_GROUP, false);
name!(Tenant, "tenant", MAX_TENANT, false);

impl Tenant {
    /// The topic's name under this tenant: `{tenant}.{topic}`. What is derived from it has the
    /// prefix too.
    #[must_use]
    pub fn topic(&self, topic: &TopicName) -> TopicName {
        TopicName(format_smolstr!("{self}.{topic}"))
    }
}

fn refused(what: &str, name: &str, rule: &str) -> Error {
    let shown = crate::text::bounded(name, 64);
    Error::config(format!("`{shown}` is not a {what} name: {rule}"))
}

fn check(name: &str, max: usize, dots: bool) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > max {
        return Err("it is too long");
    }
    if name.starts_with("__") {
        return Err("a leading `__` belongs to the broker");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
        return Err("only letters, digits, `_`, `-` and single inner dots are allowed");
    }
    if !dots && name.contains('.') {
        return Err("dots are not allowed here");
    }
    for (index, component) in name.split('.').enumerate() {
        if component.is_empty() {
            return Err("a dot stands single and inside");
        }
        if RESERVED_ANYWHERE.contains(&component) {
            return Err("`dlq`, `retry`, `suspect` and `redrive` are longshore's own components");
        }
        if index == 0 && RESERVED_FIRST.contains(&component) {
            return Err("a first component `amq` or `longshore` is reserved");
        }
    }
    Ok(())
}

/// The durable places that belong to a group, each with a name of its own where the broker needs
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// What the group reads: `{topic}.{group}`.
    Main,
    /// Where a message waits for its next attempt.
    Retry,
    /// Where messages that may kill their handler's process run one at a time.
    Suspect,
    /// How dead letters come back to the group.
    Redrive,
    /// The dead-letter queue.
    Dlq,
}

/// The name of `lane` of a group: `{topic}.{group}` and a suffix. Unambiguous, since a group has no
/// dots and no component is a suffix; at most 211 bytes, inside every broker's limit.
#[must_use]
pub fn derived(topic: &TopicName, group: &GroupName, lane: Lane) -> SmolStr {
    let suffix = match lane {
        Lane::Main => "",
        Lane::Retry => ".retry",
        Lane::Suspect => ".suspect",
        Lane::Redrive => ".redrive",
        Lane::Dlq => ".dlq",
    };
    format_smolstr!("{topic}.{group}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grammar() {
        for good in ["orders", "a", "A-b_c.d1", "orders.eu", "my-dlq", "retryer", "x.amq"] {
            assert!(TopicName::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(113);
        for bad in [
            "",
            ".a",
            "a.",
            "a..b",
            "a b",
            "a*",
            "a>",
            "a/b",
            "{a}",
            "ä",
            "__x",
            "amq.topic",
            "longshore.x",
            "longshore",
            "orders.dlq",
            "retry.x",
            "a.suspect.b",
            "redrive",
            "a\n",
            &long,
        ] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        assert!(GroupName::new("a.b").is_err());
        assert!(GroupName::new("x".repeat(65)).is_err());
        assert!(Tenant::new("x".repeat(25)).is_err());
    }

    #[test]
    fn the_longest_derived_name_fits_every_broker() {
        let tenant = Tenant::new("t".repeat(24)).unwrap();
        let topic = tenant.topic(&TopicName::new("x".repeat(112)).unwrap());
        let group = GroupName::new("g".repeat(64)).unwrap();
        for lane in [Lane::Main, Lane::Retry, Lane::Suspect, Lane::Redrive, Lane::Dlq] {
            assert!(derived(&topic, &group, lane).len() <= 211);
        }
    }

    proptest! {
        #[test]
        fn no_two_groups_share_a_derived_name(
            a in "[a-z.]{1,8}", b in "[a-z]{1,5}", c in "[a-z.]{1,8}", d in "[a-z]{1,5}"
        ) {
            let names = |topic: &str, group: &str| {
                Some((TopicName::new(topic).ok()?, GroupName::new(group).ok()?))
            };
            if let (Some(one), Some(two)) = (names(&a, &b), names(&c, &d)) && one != two {
                let lanes = [Lane::Main, Lane::Retry, Lane::Suspect, Lane::Redrive, Lane::Dlq];
                for first in lanes {
                    for second in lanes {
                        prop_assert_ne!(
                            derived(&one.0, &one.1, first),
                            derived(&two.0, &two.1, second)
                        );
                    }
                }
            }
        }

        #[test]
        fn an_accepted_name_holds_no_character_that_a_broker_reads(name in ".{0,20}") {
            if TopicName::new(&name).is_ok() {
                let read_by_a_broker = ['*', '>', '{', '}', ' ', '#', '/', ':'];
                prop_assert!(!name.contains(read_by_a_broker));
            }
        }
    }
}
