//! The servers under test: the testbed's, or one that somebody else started.

use std::collections::BTreeMap;

use longshore_conformance::{Access, Act, Target};
use longshore_core::{Error, ErrorKind, Result};
use longshore_testbed::{Broker, Options, Testbed};
use tokio::runtime::Runtime;

/// The servers that are promised.
const ROWS: [&str; 3] = ["redis@8.0", "redis@7.0", "valkey@8.1"];
/// A default user without rights would cost the servers what scripts wrote when they restart.
const USERS: &str = "user default off ~* +@all\nuser suite on >right ~* resetchannels +@all";

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
            Self::Given(_) => vec!["redis".to_owned()],
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
            (Self::Given(url), Access::Full) => Some(url.clone()),
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
    url.replacen("redis://", "redis://suite:right@", 1)
}

fn failed(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}
