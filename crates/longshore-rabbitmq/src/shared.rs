//! What publishers and consumers of one broker share.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use longshore_core::{BrokerInfo, Result, Setup};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::config::Config;
use crate::copies::{Lanes, Permits};
use crate::link::Link;
use crate::longest::Longest;

pub(crate) struct Shared {
    /// Publishes, copies, declarations.
    pub(crate) outgoing: Link,
    /// Consumers and their settlements: never held up by what the server does to publishers.
    pub(crate) incoming: Link,
    pub(crate) lanes: Lanes,
    pub(crate) permits: Permits,
    pub(crate) longest: Longest,
    pub(crate) config: Arc<Config>,
    pub(crate) setup: Setup,
    pub(crate) info: BrokerInfo,
    /// Where what nobody waits for is seen to its end.
    pub(crate) runtime: Handle,
    /// The generation of the outgoing connection that found or made what all groups share.
    pub(crate) founded: AtomicU32,
}

impl Shared {
    /// When what begins now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    pub(crate) fn patience(&self) -> Duration {
        self.config.publish_timeout
    }

    /// # Errors
    /// What ended either connection for good.
    pub(crate) fn check(&self) -> Result<()> {
        self.outgoing.check()?;
        self.incoming.check()
    }

    pub(crate) fn hit(&self, step: &'static str) {
        self.setup.probe.hit(step);
    }
}
