//! The servers under test: the testbed's, or one that `LONGSHORE_NATS_URL` names.

use std::collections::BTreeMap;

use longshore_conformance::{Access, Act};
use longshore_core::{Error, ErrorKind, Result};
use longshore_testbed::{Broker, Options, Testbed};
use tokio::runtime::Runtime;

/// The versions that are promised.
const ROWS: [&str; 2] = ["nats@2.15", "nats@2.10"];
const USERS: &str = "authorization { users = [ { user: suite, password: right } ] }";

/// Servers of this process, which end with it; or somebody else's.
#[derive(Debug)]
pub(crate) enum Servers {
    Own {
        brokers: BTreeMap<&'static str, Broker>,
        _runtime: Runtime,
    },
    /// By the name of each, the address that its starter gave it.
    Given(BTreeMap<String, String>),
}

impl Servers {
    /// Starts them. A child, which is to be killed, finds those of the process that started it.
    pub(crate) fn open() -> Result<Self> {
        let runtime = Runtime::new().map_err(|error| failed("no runtime").with_source(error))?;
        if let Ok(url) = std::env::var("LONGSHORE_NATS_URL") {
            return Ok(Self::Given(BTreeMap::from([("nats".to_owned(), url)])));
        }
        let testbed = Testbed::workspace();
        if std::env::args().any(|word| word == "--child") {
            let parent = std::os::unix::process::parent_id();
            let running = runtime.block_on(testbed.running());
            let running = running.map_err(|error| failed("no servers").with_source(error))?;
            let ours = running.into_iter().filter(|it| it.owner.is_some_and(|o| o.pid == parent));
            return Ok(Self::Given(
                ours.map(|record| (record.name, with_user(&record.url))).collect(),
            ));
        }
        let mut brokers = BTreeMap::new();
        for row in ROWS {
            let options = Options::default().config(USERS);
            let broker = runtime.block_on(Testbed::start(row, options));
            brokers.insert(row, broker.map_err(|e| failed("a server is missing").with_source(e))?);
        }
        Ok(Self::Own { brokers, _runtime: runtime })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Own { .. } => ROWS.map(str::to_owned).to_vec(),
            Self::Given(urls) => urls.keys().cloned().collect(),
        }
    }

    pub(crate) fn url(&self, server: &str, access: Access) -> Option<String> {
        match (self, access) {
            (Self::Own { brokers, .. }, Access::Full) => {
                Some(with_user(brokers.get(server)?.url()))
            }
            (Self::Own { .. }, Access::WrongPassword) => {
                Some(self.url(server, Access::Full)?.replacen(":right@", ":wrong@", 1))
            }
            (Self::Given(urls), Access::Full) => urls.get(server).cloned(),
            (Self::Given(_), Access::WrongPassword) => None,
        }
    }

    /// Only our own are stopped.
    pub(crate) async fn act(&self, server: &str, act: Act) -> Option<Result<()>> {
        let Self::Own { brokers, .. } = self else { return None };
        let broker = brokers.get(server)?;
        let done = match act {
            Act::Stop => broker.kill().await,
            Act::Start => broker.restart().await,
        };
        Some(done.map_err(|error| failed("the server did not do it").with_source(error)))
    }
}

fn with_user(url: &str) -> String {
    url.replacen("nats://", "nats://suite:right@", 1)
}

fn failed(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
