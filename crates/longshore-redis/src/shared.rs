//! What publishers and consumers of one connection share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_core::{BrokerInfo, Result, Setup, TopicName};
use redis::Value;

use crate::config::{Config, Route};
use crate::connect::Connector;
use crate::error::{self, no_topic};
use crate::line::{End, Line};
use crate::reply;

/// The purposes that have a connection of their own: whoever waits for replicas keeps no settlement
/// waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Publish,
    Control,
}

/// In a cluster, each topic has its own.
type Lines = HashMap<(Purpose, Option<TopicName>), Arc<Line>>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) connector: Connector,
    pub(crate) setup: Setup,
    pub(crate) info: BrokerInfo,
    pub(crate) end: Arc<End>,
    lines: Mutex<Lines>,
    consumers: AtomicU64,
}

impl Shared {
    pub(crate) fn new(connector: Connector, setup: Setup, info: BrokerInfo, end: Arc<End>) -> Self {
        Self {
            config: connector.config.clone(),
            connector,
            setup,
            info,
            end,
            lines: Mutex::default(),
            consumers: AtomicU64::new(0),
        }
    }

    /// What decides to which server a topic's connection leads: nothing but in a cluster.
    pub(crate) fn key<'a>(&self, topic: &'a TopicName) -> Option<&'a TopicName> {
        Some(topic).filter(|_| self.config.route == Route::Cluster)
    }

    /// The connection for this, made when it is first used.
    pub(crate) fn line(&self, purpose: Purpose, topic: Option<&TopicName>) -> Arc<Line> {
        let key = topic.and_then(|topic| self.key(topic));
        // No code panics while it holds the lock.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry((purpose, key.cloned())).or_insert_with(|| {
            let key = key.map(ToString::to_string);
            Arc::new(Line::new(self.connector.clone(), key, self.end.clone()))
        });
        line.clone()
    }

    /// Their connections end when nobody uses them any more.
    pub(crate) fn forget_lines(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn control(&self, topic: &TopicName) -> Arc<Line> {
        self.line(Purpose::Control, Some(topic))
    }

    /// The name of a consumer: no other has it, in this process or the one before.
    pub(crate) fn member(&self) -> String {
        let number = self.consumers.fetch_add(1, Ordering::Relaxed);
        // Several clients of one process may have one instance.
        format!("{}.{number}-{:08x}", self.setup.instance, fastrand::u32(..))
    }

    /// # Errors
    /// `NotFound` where the topic does not exist; `Config` where its key holds something else.
    pub(crate) async fn check_topic(&self, topic: &TopicName) -> Result<()> {
        let mut ask = redis::cmd("TYPE");
        ask.arg(topic.as_str());
        let answer = self.control(topic).query(ask).await?;
        match answer {
            Value::SimpleString(kind) if kind == "stream" => Ok(()),
            Value::SimpleString(kind) if kind == "none" => Err(no_topic(topic)),
            Value::SimpleString(_) => Err(wrong_type(topic)),
            _ => Err(error::unreadable()),
        }
    }

    /// Whether the topic has this group.
    pub(crate) async fn has_group(&self, topic: &TopicName, group: &str) -> Result<bool> {
        let mut ask = redis::cmd("XINFO");
        ask.arg("GROUPS").arg(topic.as_str());
        let groups = reply::list(self.control(topic).query(ask).await?)?;
        for one in groups {
            let fields = reply::list(one)?;
            let mut pairs = fields.chunks_exact(2);
            if pairs.any(|pair| {
                reply::text(&pair[0]) == Some("name") && reply::text(&pair[1]) == Some(group)
            }) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn wrong_type(topic: &TopicName) -> longshore_core::Error {
    error::error(
        longshore_core::ErrorKind::Config,
        format!("the key `{topic}` is there and is no stream"),
    )
}
