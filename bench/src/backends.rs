//! The backends that are measured: one row each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use longshore_testbed::{Broker, Options, Progress, Testbed};
use tokio::time::Instant;

use crate::contender::{Contender, Left};
use crate::meter::Server;
use crate::ours::Ours;
use crate::raw::{self, rabbitmq::QueueType};

/// One backend.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    place: Place,
    /// The most messages of one run, so that a queue and its disk stay small.
    pub(crate) most: usize,
}

type Connect = fn(String) -> BoxFuture<'static, Result<Vec<Arc<dyn Contender>>>>;

enum Place {
    /// A new broker in this process for each run.
    Embedded(&'static str),
    /// A server of the testbed.
    Server {
        row: &'static str,
        /// Of longshore's URL, besides the server's own.
        options: &'static str,
        /// The raw clients: the first is what longshore is compared with, the others are
        /// information.
        raw: Connect,
    },
}

pub(crate) const ALL: &[Backend] = &[
    // Its default capacity.
    Backend { name: "memory", place: Place::Embedded("memory://"), most: 100_000 },
    Backend {
        name: "nats",
        place: Place::Server {
            row: "nats",
            options: "",
            raw: |url| raw::nats::connect(url).boxed(),
        },
        most: 200_000,
    },
    Backend {
        name: "rabbitmq",
        place: Place::Server {
            row: "rabbitmq",
            options: "",
            raw: |url| raw::rabbitmq::connect(url, QueueType::Quorum).boxed(),
        },
        most: 100_000,
    },
    Backend {
        name: "rabbitmq-classic",
        place: Place::Server {
            row: "rabbitmq",
            options: "queue_type=classic",
            raw: |url| raw::rabbitmq::connect(url, QueueType::Classic).boxed(),
        },
        most: 100_000,
    },
];

/// A group's first seconds are no steady state: NATS looks up the record of each message that was
/// published up to five seconds after its group was made.
const FIRST_SECONDS: Duration = Duration::from_secs(6);

/// The topic and group of all runs in which longshore consumes.
pub(crate) struct Kept {
    pub(crate) topic: String,
    pub(crate) usable: Instant,
}

/// A backend that is ready to be measured.
pub(crate) struct Ready {
    pub(crate) backend: &'static Backend,
    pub(crate) version: String,
    pub(crate) ours: Arc<dyn Contender>,
    pub(crate) raw: Vec<Arc<dyn Contender>>,
    pub(crate) server: Server,
    /// None where each run has a broker of its own.
    pub(crate) kept: Option<Kept>,
    /// Stops when it is dropped.
    _broker: Option<Broker>,
}

impl Backend {
    /// Starts it, or connects to the one at `url`.
    pub(crate) async fn ready(&'static self, url: Option<&str>) -> Result<Ready> {
        let (row, options, connect) = match self.place {
            Place::Embedded(own) => {
                ensure!(url.is_none(), "{} is in this process and has no other URL", self.name);
                let ours = Arc::new(Ours::embedded(own));
                return Ok(Ready {
                    backend: self,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ours,
                    raw: Vec::new(),
                    server: Server::Here,
                    kept: None,
                    _broker: None,
                });
            }
            Place::Server { row, options, raw } => (row, options, raw),
        };
        let (broker, url) = match url {
            Some(url) => (None, url.to_owned()),
            None => {
                let testbed = Testbed::workspace();
                let shown = Progress::shown();
                let broker = testbed.broker(row, Options::default(), &shown).await?;
                let url = broker.url().to_owned();
                (Some(broker), url)
            }
        };
        let server = match &broker {
            Some(broker) => {
                let pid = broker.nodes().first().and_then(longshore_testbed::Node::pid);
                Server::Process(pid.context("the server ended")?.try_into()?)
            }
            None => Server::Elsewhere,
        };
        let topic = format!("bench-{}-kept", std::process::id());
        let ours = Ours::connected(&with(&url, options), &topic).await?;
        Ok(Ready {
            backend: self,
            version: broker.as_ref().map_or_else(|| "given".to_owned(), |b| b.version().to_owned()),
            ours: Arc::new(ours),
            raw: connect(url).await?,
            server,
            kept: Some(Kept { topic, usable: Instant::now() + FIRST_SECONDS }),
            _broker: broker,
        })
    }
}

/// A URL with further options.
fn with(url: &str, options: &str) -> String {
    let joint = match (options, url.contains('?')) {
        ("", _) => "",
        (_, false) => "?",
        (_, true) => "&",
    };
    format!("{url}{joint}{options}")
}

impl Ready {
    /// Removes what was kept: the server may be someone's own.
    pub(crate) async fn finish(&self) -> Result<()> {
        if let (Some(kept), Some(raw)) = (&self.kept, self.raw.first()) {
            raw.clean(&kept.topic, Left::Everything).await?;
        }
        Ok(())
    }
}

/// Those that were named; all where none was.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Backend>> {
    for name in names {
        if ALL.iter().all(|backend| backend.name != name) {
            let known: Vec<_> = ALL.iter().map(|backend| backend.name).collect();
            bail!("no backend is named `{name}`; known: {}", known.join(", "));
        }
    }
    let named = |backend: &&Backend| names.is_empty() || names.iter().any(|n| n == backend.name);
    Ok(ALL.iter().filter(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_backend_lists_the_known() {
        let error = select(&["mqtt".to_owned()]).err().unwrap().to_string();
        assert_eq!(
            error,
            "no backend is named `mqtt`; known: memory, nats, rabbitmq, rabbitmq-classic"
        );
        assert_eq!(select(&["nats".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn options_are_joined_to_a_url_of_any_form() {
        assert_eq!(with("amqp://host", ""), "amqp://host");
        assert_eq!(with("amqp://host", "a=b"), "amqp://host?a=b");
        assert_eq!(with("amqp://host?x=y", "a=b"), "amqp://host?x=y&a=b");
    }
}
