//! Topologies: made, verified or assumed.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{
    self, AckPolicy, Config as ConsumerConfig, DeliverPolicy, Info, IntoConsumerConfig as _, pull,
};
use async_nats::jetstream::stream::{
    self, Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType,
};
use longshore_core::{Drift, Error, ErrorKind, Group, Mode, Result, Start, Topology};
use serde_json::json;

use crate::config::Config;
use crate::consumer::LONGEST_DELAY_KEY;
use crate::drift::Compare;
use crate::error::{BACKEND, no_group, no_topic};
use crate::names::{GroupNames, TopicNames};
use crate::shared::{Shared, is_missing};

pub(crate) async fn stream_info(shared: &Shared, stream: &str) -> Result<stream::Info> {
    shared.api(&format!("STREAM.INFO.{stream}"), stream, &json!({})).await
}

pub(crate) async fn consumer_info(shared: &Shared, stream: &str, durable: &str) -> Result<Info> {
    shared.api(&format!("CONSUMER.INFO.{stream}.{durable}"), stream, &json!({})).await
}

async fn consumer_request(
    shared: &Shared,
    stream: &str,
    config: ConsumerConfig,
    action: &str,
) -> Result<Info> {
    let durable = config.durable_name.clone().unwrap_or_default();
    let request = json!({ "stream_name": stream, "config": config, "action": action });
    shared.api(&format!("CONSUMER.CREATE.{stream}.{durable}"), stream, &request).await
}

pub(crate) async fn create_consumer(
    shared: &Shared,
    stream: &str,
    config: ConsumerConfig,
) -> Result<Info> {
    consumer_request(shared, stream, config, "create").await
}

pub(crate) fn topic_config(config: &Config, names: &TopicNames) -> StreamConfig {
    StreamConfig {
        retention: match config.interest {
            true => RetentionPolicy::Interest,
            false => RetentionPolicy::Limits,
        },
        max_age: config.max_age,
        ..base(config, names.stream.clone(), names.subjects())
    }
}

fn ledger_config(config: &Config, names: &TopicNames) -> StreamConfig {
    StreamConfig {
        // A new record replaces the old one, and none goes by its age: a message may wait for long.
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        ..base(config, names.ledger.clone(), names.ledger_subjects())
    }
}

fn dlq_config(config: &Config, names: &GroupNames, retention: Duration) -> StreamConfig {
    StreamConfig {
        max_age: retention,
        duplicate_window: config.duplicate_window.min(retention),
        ..base(config, names.dlq_stream.clone(), vec![names.dlq.to_string()])
    }
}

fn base(config: &Config, name: String, subjects: Vec<String>) -> StreamConfig {
    StreamConfig {
        name,
        subjects,
        storage: StorageType::File,
        // A full stream says so, where the default would drop the oldest unread message.
        discard: DiscardPolicy::New,
        num_replicas: config.replicas,
        duplicate_window: config.duplicate_window,
        // A follower may answer a direct get with an old value.
        allow_direct: false,
        ..StreamConfig::default()
    }
}

/// A queue's age is a setting of its group.
fn age_setting(config: &StreamConfig) -> &'static str {
    if config.name.ends_with("=dlq") { "dead_letters" } else { "max_age" }
}

pub(crate) fn durable_config(
    durable: &str,
    filters: Vec<String>,
    lease: Duration,
    longest_delay: Duration,
    suspects: bool,
) -> ConsumerConfig {
    pull::Config {
        durable_name: Some(durable.to_owned()),
        filter_subjects: filters,
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease,
        // At a limit the message would stay, invisible, with an advisory that may be missed.
        max_deliver: -1,
        // Waiting retries count, so a limit would stop the group; of suspects it is the lane's own.
        max_ack_pending: if suspects { 1 } else { -1 },
        metadata: HashMap::from([(
            LONGEST_DELAY_KEY.to_owned(),
            longest_delay.as_millis().to_string(),
        )]),
        ..pull::Config::default()
    }
    .into_consumer_config()
}

pub(crate) async fn declare(shared: &Shared, topology: &Topology) -> Result<()> {
    if topology.mode == Mode::Assume {
        return Ok(());
    }
    topology.groups.iter().try_for_each(check)?;
    let mut topics: Vec<TopicNames> = Vec::new();
    let named = topology.topics.iter().map(|topic| &topic.name);
    for topic in named.chain(topology.groups.iter().map(|group| &group.topic)) {
        if topics.iter().all(|known| known.topic != *topic) {
            topics.push(TopicNames::new(topic));
        }
    }
    // All is looked at first: where anything differs, nothing is made.
    let mut plan = Plan { shared, mode: topology.mode, drift: Drift::default(), make: Vec::new() };
    for names in &topics {
        plan.topic(names).await?;
    }
    for (index, group) in topology.groups.iter().enumerate() {
        plan.twice(&topology.groups[..index], group);
        plan.group(group).await?;
    }
    plan.refuse_drift()?;
    for make in std::mem::take(&mut plan.make) {
        plan.run(make).await?;
    }
    plan.refuse_drift()
}

/// A duration of zero would hand a message over for ever, or drop each letter at once.
fn check(group: &Group) -> Result<()> {
    for (setting, value) in [("lease", Some(group.lease)), ("dead_letters", group.dead_letters)] {
        if value == Some(Duration::ZERO) {
            let text = format!("group `{}.{}`: {setting} is zero", group.topic, group.name);
            return Err(Error::config(text).with_backend(BACKEND));
        }
    }
    Ok(())
}

enum Make {
    Stream(Box<StreamConfig>, String),
    Consumer { stream: String, config: Box<ConsumerConfig>, object: String, update: bool },
}

struct Plan<'a> {
    shared: &'a Shared,
    mode: Mode,
    drift: Drift,
    make: Vec<Make>,
}

impl Plan<'_> {
    fn refuse_drift(&mut self) -> Result<()> {
        let drift = std::mem::take(&mut self.drift);
        if drift.entries.is_empty() {
            Ok(())
        } else {
            Err(drift.into_error().with_backend(BACKEND))
        }
    }

    async fn stream(&mut self, wanted: StreamConfig, object: String, missing: Error) -> Result<()> {
        match stream_info(self.shared, &wanted.name).await {
            Ok(info) => {
                let age = age_setting(&wanted);
                Compare::new(&mut self.drift, object).stream(age, &wanted, &info.config);
                Ok(())
            }
            Err(error) if is_missing(&error) && self.mode == Mode::Verify => {
                Err(missing.with_source(error))
            }
            Err(error) if is_missing(&error) => {
                self.make.push(Make::Stream(Box::new(wanted), object));
                Ok(())
            }
            Err(error) => Err(error.with_operation("broker.declare")),
        }
    }

    async fn topic(&mut self, names: &TopicNames) -> Result<()> {
        let (config, topic) = (&self.shared.config, &names.topic);
        let (wanted, ledger) = (topic_config(config, names), ledger_config(config, names));
        self.stream(wanted, format!("topic {topic}"), no_topic(topic)).await?;
        self.stream(ledger, format!("ledger of {topic}"), no_topic(topic)).await
    }

    /// What the same topology says of this group further up.
    fn twice(&mut self, before: &[Group], group: &Group) {
        let same = |other: &&Group| (&other.topic, &other.name) == (&group.topic, &group.name);
        if let Some(other) = before.iter().find(same) {
            let object = format!("group {}.{}", group.topic, group.name);
            Compare::new(&mut self.drift, object).entry(
                "dead_letters",
                group.dead_letters,
                other.dead_letters,
            );
        }
    }

    async fn group(&mut self, group: &Group) -> Result<()> {
        let names = GroupNames::new(&group.topic, &group.name);
        let object = format!("group {}.{}", group.topic, group.name);
        let missing = || no_group(&group.topic, &group.name);
        for suspects in [false, true] {
            let (durable, filters, object) = match suspects {
                false => (&names.durable, names.filters(), object.clone()),
                true => {
                    (&names.suspect_durable, names.suspect_filters(), format!("{object}.suspect"))
                }
            };
            let mut config =
                durable_config(durable, filters, group.lease, group.longest_delay, suspects);
            config.num_replicas = self.shared.config.replicas;
            config.deliver_policy = match (suspects, group.start) {
                (false, Start::Declared) => DeliverPolicy::New,
                _ => DeliverPolicy::All,
            };
            self.consumer(&names, config, object, missing()).await?;
        }
        match group.dead_letters {
            Some(retention) => {
                let config = dlq_config(&self.shared.config, &names, retention);
                self.stream(config, format!("{object}.dlq"), missing()).await
            }
            None => self.no_letters(&names, object).await,
        }
    }

    /// A queue that exists although none is wanted: its letters would be forgotten.
    async fn no_letters(&mut self, names: &GroupNames, object: String) -> Result<()> {
        match stream_info(self.shared, &names.dlq_stream).await {
            Ok(info) => {
                let found = Some(info.config.max_age);
                Compare::new(&mut self.drift, object).entry("dead_letters", None, found);
                Ok(())
            }
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn consumer(
        &mut self,
        names: &GroupNames,
        mut config: ConsumerConfig,
        object: String,
        missing: Error,
    ) -> Result<()> {
        let stream = names.of.stream.clone();
        let durable = config.durable_name.clone().unwrap_or_default();
        match consumer_info(self.shared, &stream, &durable).await {
            Ok(info) => {
                Compare::new(&mut self.drift, object.clone()).consumer(&config, &info.config);
                let known = info.config.metadata.get(LONGEST_DELAY_KEY);
                let differs = info.config.ack_wait != config.ack_wait
                    || known != config.metadata.get(LONGEST_DELAY_KEY);
                if differs && self.mode == Mode::Declare {
                    // Where it started cannot be changed, and is no difference.
                    config.deliver_policy = info.config.deliver_policy;
                    let config = Box::new(config);
                    self.make.push(Make::Consumer { stream, config, object, update: true });
                }
                Ok(())
            }
            Err(error) if is_missing(&error) && self.mode == Mode::Verify => {
                Err(missing.with_source(error))
            }
            Err(error) if is_missing(&error) => {
                let config = Box::new(config);
                self.make.push(Make::Consumer { stream, config, object, update: false });
                Ok(())
            }
            Err(error) => Err(error.with_operation("broker.declare")),
        }
    }

    async fn run(&mut self, make: Make) -> Result<()> {
        let shared = self.shared;
        match make {
            Make::Stream(wanted, object) => {
                let made: Result<stream::Info> = shared
                    .api(&format!("STREAM.CREATE.{}", wanted.name), &wanted.name, &*wanted)
                    .await;
                let info = match made {
                    Ok(info) => info,
                    // Another process was faster; a subject that someone else's stream takes has
                    // no stream of this name.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        match stream_info(shared, &wanted.name).await {
                            Ok(info) => info,
                            Err(_) => return Err(error.with_operation("broker.declare")),
                        }
                    }
                    Err(error) => return Err(error.with_operation("broker.declare")),
                };
                let age = age_setting(&wanted);
                Compare::new(&mut self.drift, object).stream(age, &wanted, &info.config);
            }
            Make::Consumer { stream, config, object, update } => {
                let action = if update { "update" } else { "create" };
                let durable = config.durable_name.clone().unwrap_or_default();
                let made = consumer_request(shared, &stream, (*config).clone(), action).await;
                let info: consumer::Info = match made {
                    Ok(info) => info,
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        consumer_info(shared, &stream, &durable).await?
                    }
                    Err(error) => return Err(error.with_operation("broker.declare")),
                };
                Compare::new(&mut self.drift, object).consumer(&config, &info.config);
            }
        }
        Ok(())
    }
}
