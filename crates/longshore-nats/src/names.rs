//! The names of what stands for a topic and a group on the server: the one place that makes them.

use longshore_core::{GroupName, Lane, SmolStr, Source, TopicName, derived};

/// Before the sequence of a message whose copy took its place.
pub(crate) const RESCUED: char = 'r';

/// How the name of a suspect lane's durable ends. No group's does: it has no `=`.
pub(crate) const SUSPECTS: &str = "=suspect";

/// A stream or durable name: these take no dots.
fn undotted(name: &str) -> String {
    name.replace('.', "=")
}

/// What belongs to a topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicNames {
    pub(crate) topic: TopicName,
    pub(crate) stream: String,
    pub(crate) ledger: String,
}

impl TopicNames {
    pub(crate) fn new(topic: &TopicName) -> Self {
        Self {
            topic: topic.clone(),
            stream: undotted(topic.as_str()),
            ledger: format!("longshore=ledger={}", undotted(topic.as_str())),
        }
    }

    pub(crate) fn subjects(&self) -> Vec<String> {
        let topic = &self.topic;
        vec![topic.to_string(), format!("{topic}.*.redrive"), format!("{topic}.*.suspect")]
    }

    pub(crate) fn ledger_subjects(&self) -> Vec<String> {
        vec![format!("longshore.ledger.{}.*.*", self.topic)]
    }
}

/// What belongs to a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupNames {
    pub(crate) of: TopicNames,
    pub(crate) group: GroupName,
    pub(crate) durable: String,
    pub(crate) suspect_durable: String,
    pub(crate) redrive: SmolStr,
    pub(crate) suspect: SmolStr,
    pub(crate) dlq: SmolStr,
    pub(crate) dlq_stream: String,
}

impl GroupNames {
    pub(crate) fn new(topic: &TopicName, group: &GroupName) -> Self {
        let dlq = derived(topic, group, Lane::Dlq);
        Self {
            of: TopicNames::new(topic),
            group: group.clone(),
            durable: group.to_string(),
            suspect_durable: format!("{group}{SUSPECTS}"),
            redrive: derived(topic, group, Lane::Redrive),
            suspect: derived(topic, group, Lane::Suspect),
            dlq_stream: undotted(&dlq),
            dlq,
        }
    }

    pub(crate) fn from_source(source: &Source) -> Self {
        Self::new(source.topic(), source.group())
    }

    /// What the group reads.
    pub(crate) fn subjects(&self) -> Vec<String> {
        vec![self.of.topic.to_string(), self.redrive.to_string()]
    }

    /// The same as the durable's filters: with `*` in place of the topic's last component, which in
    /// the topic's own stream picks the same subjects. Nats-server 2.10.27 passes over messages for
    /// good where of two filters one continues the other (`orders`, `orders.billing.redrive`) and
    /// no pull waits when they are published.
    pub(crate) fn filters(&self) -> Vec<String> {
        let head = self.head();
        vec![format!("{head}*"), format!("{head}*.{}.redrive", self.group)]
    }

    /// The same for the lane of suspects. With its plain subject beside the wildcards of the group,
    /// nats-server 2.10.27 takes a topic under interest retention for one that nobody reads: it
    /// confirms and drops.
    pub(crate) fn suspect_filters(&self) -> Vec<String> {
        vec![format!("{}*.{}.suspect", self.head(), self.group)]
    }

    /// What stands before the topic's last component.
    fn head(&self) -> &str {
        let topic = self.of.topic.as_str();
        topic.rfind('.').map_or("", |dot| &topic[..=dot])
    }

    /// Where the record of the message at `sequence` stands.
    pub(crate) fn ledger_subject(&self, sequence: u64) -> String {
        format!("longshore.ledger.{}.{}.{sequence}", self.of.topic, self.group)
    }

    /// All that the group has in the ledger.
    pub(crate) fn ledger_subjects(&self) -> String {
        format!("longshore.ledger.{}.{}.*", self.of.topic, self.group)
    }

    /// Where it stands that the message at `sequence` was replaced by a copy.
    pub(crate) fn rescued_subject(&self, sequence: u64) -> String {
        format!("longshore.ledger.{}.{}.{RESCUED}{sequence}", self.of.topic, self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire_page() {
        let topic = TopicName::new("shop.orders").unwrap();
        let names = GroupNames::new(&topic, &GroupName::new("billing").unwrap());
        assert_eq!(names.of.stream, "shop=orders");
        assert_eq!(names.of.ledger, "longshore=ledger=shop=orders");
        assert_eq!(names.of.subjects()[1..], ["shop.orders.*.redrive", "shop.orders.*.suspect"]);
        assert_eq!(names.subjects(), ["shop.orders", "shop.orders.billing.redrive"]);
        assert_eq!(names.filters(), ["shop.*", "shop.*.billing.redrive"]);
        assert_eq!(names.suspect_filters(), ["shop.*.billing.suspect"]);
        assert_eq!(names.suspect_durable, "billing=suspect");
        assert_eq!(names.dlq_stream, "shop=orders=billing=dlq");
        assert_eq!(names.ledger_subject(7), "longshore.ledger.shop.orders.billing.7");
    }
}
