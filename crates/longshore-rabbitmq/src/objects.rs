//! What stands on the server, as it is wanted: exchanges, queues and their bindings.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use longshore_core::{Result, TopicName};

use crate::config::{Config, QueueType};
use crate::delay::{LEVELS, lasts};
use crate::names::{DELIVER, DIRECT, GroupNames, UNROUTED, delay_level, queue_token, short};

/// Settings by the server's own names.
pub(crate) type Arguments = BTreeMap<&'static str, AMQPValue>;

/// After so many returns a queue gives a message up; no life has as many.
const RETURNS: i64 = 1_000_000;

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Exchange(ExchangeKind),
    Queue,
}

/// An exchange or a queue; all are durable.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) name: String,
    /// What it is to a person: `group orders.billing`.
    pub(crate) label: String,
    pub(crate) shape: Shape,
    pub(crate) arguments: Arguments,
    pub(crate) bindings: Vec<Binding>,
}

/// Where an object gets its messages from.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) source: String,
    pub(crate) key: String,
}

impl Object {
    fn exchange(name: impl Into<String>, label: impl Into<String>, kind: ExchangeKind) -> Self {
        let (name, label) = (name.into(), label.into());
        let (arguments, bindings) = (Arguments::new(), Vec::new());
        Self { name, label, shape: Shape::Exchange(kind), arguments, bindings }
    }

    fn queue(name: impl Into<String>, label: impl Into<String>, arguments: Arguments) -> Self {
        let (name, label, bindings) = (name.into(), label.into(), Vec::new());
        Self { name, label, shape: Shape::Queue, arguments, bindings }
    }

    fn bound(mut self, source: impl Into<String>, key: impl Into<String>) -> Self {
        self.bindings.push(Binding { source: source.into(), key: key.into() });
        self
    }

    fn with(mut self, argument: &'static str, value: AMQPValue) -> Self {
        self.arguments.insert(argument, value);
        self
    }
}

/// As the protocol has them.
///
/// # Errors
/// None for the names of this crate.
pub(crate) fn table(arguments: &Arguments) -> Result<FieldTable> {
    let entries = arguments.iter().map(|(name, value)| Ok((short(name)?, value.clone())));
    Ok(FieldTable::from(entries.collect::<Result<BTreeMap<ShortString, AMQPValue>>>()?))
}

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// In milliseconds; the callers keep it below the server's limit.
fn millis(time: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// A topic: what has no group goes to the alternate.
pub(crate) fn topic(topic: &TopicName) -> Object {
    Object::exchange(topic.as_str(), format!("topic {topic}"), ExchangeKind::Fanout)
        .with("alternate-exchange", text(UNROUTED))
}

/// What all groups of the virtual host share, in an order in which each may be made: of levels, the
/// lowest first.
pub(crate) fn foundation() -> Vec<Object> {
    let label = |name: &str| format!("shared {name}");
    let mut all = vec![
        Object::exchange(UNROUTED, label(UNROUTED), ExchangeKind::Fanout),
        Object::queue(UNROUTED, label(UNROUTED), quorum(RETURNS)).bound(UNROUTED, ""),
        Object::exchange(DIRECT, label(DIRECT), ExchangeKind::Direct),
        Object::exchange(DELIVER, label(DELIVER), ExchangeKind::Topic)
            .with("alternate-exchange", text(UNROUTED)),
    ];
    for level in 0..LEVELS {
        let name = delay_level(level);
        let next = if level == 0 { DELIVER.to_owned() } else { delay_level(level - 1) };
        // The bits of the levels above come first.
        let above = "*.".repeat(LEVELS - 1 - level);
        let queue = Object::queue(&name, label(&name), at_least_once(quorum(RETURNS), &next))
            .with("x-message-ttl", millis(lasts(level)))
            .bound(&name, format!("{above}1.#"));
        all.push(Object::exchange(&name, label(&name), ExchangeKind::Topic));
        all.push(queue);
        // What need not wait here passes by. An exchange that is bound to another has its own name
        // as the destination: it is the lower one that is declared with the binding.
        let place = all.iter().position(|object| object.name == next);
        if let Some(object) = place.and_then(|place| all.get_mut(place)) {
            *object = object.clone().bound(&name, format!("{above}0.#"));
        }
    }
    all
}

/// The queues of a group; `letters` is how long a dead letter is kept.
pub(crate) fn group(config: &Config, names: &GroupNames, letters: Option<Duration>) -> Vec<Object> {
    let label = format!("group {}.{}", names.topic, names.group);
    let work = |name: &str, label: String| {
        let arguments = base(config);
        let arguments = match config.queue_type {
            QueueType::Quorum => at_least_once(arguments, DIRECT),
            QueueType::Classic => dead_lettered(arguments, DIRECT),
        };
        // A net for what the broker itself gives up, which our limits keep from happening.
        Object::queue(name, label, arguments)
            .with("x-dead-letter-routing-key", text(&names.dlq))
            .bound(DIRECT, name)
    };
    let mut all = Vec::new();
    if let Some(kept) = letters {
        let queue = Object::queue(names.dlq.as_str(), format!("{label}.dlq"), base(config));
        all.push(queue.with("x-message-ttl", millis(kept)).bound(DIRECT, names.dlq.as_str()));
    }
    if config.queue_type == QueueType::Quorum {
        all.push(
            work(&names.suspect, format!("{label}.suspect"))
                .with("x-single-active-consumer", AMQPValue::Boolean(true)),
        );
    }
    // Last, with the topic's binding last: what comes from then on reaches a group that is whole.
    all.push(
        work(&names.queue, label)
            .bound(DELIVER, format!("#.{}", queue_token(&names.queue)))
            .bound(names.topic.as_str(), ""),
    );
    all
}

/// The dead-letter queue of a group that is to have none, to look for.
pub(crate) fn unwanted_letters(config: &Config, names: &GroupNames) -> Object {
    let label = format!("group {}.{}.dlq", names.topic, names.group);
    Object::queue(names.dlq.as_str(), label, base(config))
}

fn base(config: &Config) -> Arguments {
    match config.queue_type {
        QueueType::Quorum => {
            let mut arguments = quorum(config.delivery_limit);
            if let Some(replicas) = config.replicas {
                let replicas = AMQPValue::LongLongInt(replicas.into());
                arguments.insert("x-quorum-initial-group-size", replicas);
            }
            arguments
        }
        QueueType::Classic => {
            let classic = ("x-queue-type", text("classic"));
            Arguments::from([classic, ("x-overflow", text("reject-publish"))])
        }
    }
}

fn quorum(returns: i64) -> Arguments {
    Arguments::from([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongLongInt(returns)),
        // A full queue says so. Without it, dead-lettering silently becomes at most once.
        ("x-overflow", text("reject-publish")),
    ])
}

fn dead_lettered(mut arguments: Arguments, exchange: &str) -> Arguments {
    arguments.insert("x-dead-letter-exchange", text(exchange));
    arguments
}

fn at_least_once(mut arguments: Arguments, exchange: &str) -> Arguments {
    arguments.insert("x-dead-letter-strategy", text("at-least-once"));
    dead_lettered(arguments, exchange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::GroupName;

    /// Follows a key through the bindings; how long it waited, and where it came out.
    fn follow(all: &[Object], exchange: &str, key: &str) -> (Duration, Vec<String>) {
        fn matches(pattern: &str, key: &str) -> bool {
            let (mut pattern, mut key) = (pattern.split('.'), key.split('.'));
            loop {
                match (pattern.next(), key.next()) {
                    (Some("#"), _) | (None, None) => return true,
                    (Some("*"), Some(_)) => {}
                    (Some(word), Some(found)) if word == found => {}
                    _ => return false,
                }
            }
        }
        if exchange == DELIVER {
            return (Duration::ZERO, vec![key.to_owned()]);
        }
        let takes = |object: &&Object| {
            object.bindings.iter().any(|it| it.source == exchange && matches(&it.key, key))
        };
        let targets: Vec<_> = all.iter().filter(takes).collect();
        let [target] = targets[..] else { panic!("{exchange} {key}: {targets:?}") };
        let (waits, next) = match &target.shape {
            Shape::Exchange(_) => (Duration::ZERO, target.name.clone()),
            Shape::Queue => {
                let AMQPValue::LongLongInt(ttl) = target.arguments["x-message-ttl"] else {
                    panic!()
                };
                let AMQPValue::LongString(next) = &target.arguments["x-dead-letter-exchange"]
                else {
                    panic!()
                };
                (Duration::from_millis(ttl.try_into().unwrap()), next.to_string())
            }
        };
        let (rest, out) = follow(all, &next, key);
        (waits + rest, out)
    }

    #[test]
    fn every_route_waits_as_long_as_it_says_and_comes_out() {
        let all = foundation();
        for seconds in [0, 1, 5, 60, 3_600, 86_400, 800_000, 838_860] {
            let route = crate::delay::route(Duration::from_secs(seconds), "orders.billing");
            let (waited, out) = follow(&all, &route.exchange, &route.key);
            assert_eq!(waited, route.rounded, "{seconds}");
            assert!(out[0].ends_with(".orders=billing"));
        }
    }

    #[test]
    fn a_group_is_bound_to_its_topic_last() {
        let names = GroupNames::new(&TopicName::new("a.b").unwrap(), &GroupName::new("c").unwrap());
        let config = Config::parse("amqp://h?replicas=3").unwrap();
        let all = group(&config, &names, Some(Duration::from_secs(60)));
        let queues: Vec<_> = all.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(queues, ["a.b.c.dlq", "a.b.c.suspect", "a.b.c"]);
        assert!(all.iter().all(|it| it.arguments.contains_key("x-quorum-initial-group-size")));
        let sources: Vec<_> = all[2].bindings.iter().map(|it| it.source.as_str()).collect();
        assert_eq!(sources, [DIRECT, DELIVER, "a.b"]);
        let classic = Config::parse("amqp://h?queue_type=classic").unwrap();
        let all = group(&classic, &names, None);
        assert_eq!(all.len(), 1);
        assert!(!all[0].arguments.contains_key("x-dead-letter-strategy"));
    }
}
