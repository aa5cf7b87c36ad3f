//! The servers under test: the testbed's, or one that somebody else started.

use std::collections::BTreeMap;

use longshore_conformance::{Access, Act, Target};
use longshore_core::{Error, ErrorKind, Result};
use longshore_testbed::{Broker, Options, Progress, Testbed};
use tokio::runtime::Runtime;

/// The versions that are promised.
const ROWS: [&str; 2] = ["rabbitmq@4.0", "rabbitmq@3.10"];

/// After a restart, a delay level that finds the next queue without its leader waits for the answer
/// for so long before it tries again: three minutes by default, longer than a check waits. Where it
/// is not set, retries that were due in those first moments are as much later.
const ADVANCED: &str = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].";

/// Servers of this process, which end with it; or somebody else's.
#[derive(Debug)]
pub(crate) enum Servers {
    Own {
        brokers: BTreeMap<&'static str, Broker>,
        _runtime: Runtime,
    },
    /// At this URL.
    Given(String),
}

impl Servers {
    pub(crate) fn open(target: Target) -> Result<Self> {
        if let Target::Given(url) = target {
            return Ok(Self::Given(url));
        }
        let runtime = Runtime::new().map_err(|error| failed("no runtime").with_source(error))?;
        // Beside each other: one start takes seconds.
        let options = Options::default().file("advanced.config", ADVANCED);
        let shown = Progress::silent();
        let testbed = Testbed::workspace();
        let started = runtime.block_on(testbed.brokers(&ROWS, &options, &shown));
        let broker = |(row, broker): (_, longshore_testbed::Result<Broker>)| {
            let broker = broker.map_err(|error| failed("a server is missing").with_source(error));
            Ok((row, broker?))
        };
        let brokers = ROWS.into_iter().zip(started).map(broker).collect::<Result<_>>()?;
        Ok(Self::Own { brokers, _runtime: runtime })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Own { .. } => ROWS.map(str::to_owned).to_vec(),
            Self::Given(_) => vec!["rabbitmq".to_owned()],
        }
    }

    pub(crate) fn url(&self, server: &str, access: Access) -> Option<String> {
        match (self, access) {
            (Self::Own { brokers, .. }, access) => {
                let password = match access {
                    Access::Full => "guest",
                    Access::WrongPassword => "wrong",
                };
                let user = format!("amqp://guest:{password}@");
                Some(brokers.get(server)?.url().replacen("amqp://", &user, 1))
            }
            (Self::Given(url), Access::Full) => Some(url.clone()),
            (Self::Given(_), Access::WrongPassword) => None,
        }
    }

    /// Only our own are stopped.
    pub(crate) async fn act(&self, server: &str, act: Act) -> Option<Result<()>> {
        let Self::Own { brokers, .. } = self else { return None };
        let broker = brokers.get(server)?;
        let done = match act {
            // In order: a single node that is killed can come back without a queue that was just
            // declared, and such a queue has no leader ever after.
            Act::Stop => broker.stop().await,
            Act::Start => broker.restart().await,
        };
        Some(done.map_err(|error| failed("the server did not do it").with_source(error)))
    }
}

fn failed(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
