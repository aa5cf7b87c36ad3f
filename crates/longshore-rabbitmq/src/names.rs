//! The names of what stands for a topic and a group on the server: the one place that makes them.

use lapin::types::ShortString;
use longshore_core::{ErrorKind, GroupName, Lane, Result, SmolStr, Source, TopicName, derived};

use crate::error::error;

/// The direct exchange without an alternate that every queue is bound to by its name: a copy to a
/// queue that is missing comes back, and is never taken for written.
pub(crate) const DIRECT: &str = "longshore.direct";
/// The topic exchange behind the last delay level; each group's queue is bound to it by its token.
pub(crate) const DELIVER: &str = "longshore.deliver";
/// The fanout exchange and the queue for what has nowhere to go: the alternate of topics and of
/// [`DELIVER`].
pub(crate) const UNROUTED: &str = "longshore.unrouted";

/// The protocol's limit of names and routing keys.
const LONGEST: usize = 255;

/// The exchange and the queue of delay level `k`.
pub(crate) fn delay_level(k: usize) -> String {
    format!("longshore.delay.{k}")
}

/// A queue's name as one word of a routing key.
pub(crate) fn queue_token(queue: &str) -> String {
    queue.replace('.', "=")
}

/// A name or key as the protocol has it.
///
/// # Errors
/// `Config` above 255 bytes, where the client library would panic.
pub(crate) fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|native| {
        let text = format!("a name of {} bytes exceeds the limit of {LONGEST}", text.len());
        error(ErrorKind::Config, text).with_source(native)
    })
}

/// What belongs to a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupNames {
    pub(crate) topic: TopicName,
    pub(crate) group: GroupName,
    /// What the group reads.
    pub(crate) queue: SmolStr,
    pub(crate) suspect: SmolStr,
    pub(crate) dlq: SmolStr,
}

impl GroupNames {
    pub(crate) fn new(topic: &TopicName, group: &GroupName) -> Self {
        Self {
            topic: topic.clone(),
            group: group.clone(),
            queue: derived(topic, group, Lane::Main),
            suspect: derived(topic, group, Lane::Suspect),
            dlq: derived(topic, group, Lane::Dlq),
        }
    }

    pub(crate) fn from_source(source: &Source) -> Self {
        Self::new(source.topic(), source.group())
    }

    /// The queue of `source`.
    pub(crate) fn of(&self, source: &Source) -> &SmolStr {
        match source {
            Source::Group { .. } => &self.queue,
            Source::Suspects { .. } => &self.suspect,
            Source::DeadLetters { .. } => &self.dlq,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire_page() {
        let topic = TopicName::new("shop.orders").unwrap();
        let names = GroupNames::new(&topic, &GroupName::new("billing").unwrap());
        assert_eq!(names.queue, "shop.orders.billing");
        assert_eq!(names.suspect, "shop.orders.billing.suspect");
        assert_eq!(names.dlq, "shop.orders.billing.dlq");
        assert_eq!(queue_token(&names.queue), "shop=orders=billing");
        assert_eq!(delay_level(22), "longshore.delay.22");
    }

    #[test]
    fn a_name_beyond_the_protocols_limit_is_refused() {
        assert!(short(&"x".repeat(255)).is_ok());
        let refused = short(&"x".repeat(256)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
}
