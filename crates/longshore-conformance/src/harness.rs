use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use longshore_core::{Broker, InstanceId, Result, Setup, TopicName};

/// A backend's side of the suite: how to reach the one broker under test, and what can be done to
/// it from outside.
///
/// The suite owns the rest: names, topology, policies and time. Every call of
/// [`connect`](Self::connect) is a further client of the *same* broker; checks use topics and groups
/// of their own, and may run beside each other.
///
/// The hooks are optional. A check that needs one which is missing says "not run" and why, and is
/// never green.
#[async_trait]
pub trait Harness: Debug + Send + Sync + 'static {
    /// The backend's name, as the report shows it.
    fn name(&self) -> &'static str;

    /// The server variants to run against, by names of the harness's own. One is the usual number.
    fn servers(&self) -> Vec<String> {
        vec![self.name().to_owned()]
    }

    /// Opens a further client of the broker `server`, one of [`servers`](Self::servers).
    ///
    /// # Errors
    /// Whatever the backend meets: the check then fails.
    async fn connect(&self, server: &str, setup: Setup) -> Result<Arc<dyn Broker>>;

    /// Whether the broker lives on tokio's clock alone. Each check then runs on a runtime of one
    /// thread whose time is paused and jumps to the next timer; else on real time and threads.
    fn virtual_clock(&self) -> bool {
        false
    }

    /// Whether the mutants run too. They prove the suite and not the backend, and what they break
    /// is found by waiting in vain: the default is to run them where time is virtual.
    fn mutants(&self) -> bool {
        self.virtual_clock()
    }

    /// Hook: makes `instance` play dead, as if its process were killed: nothing of it is settled,
    /// extended or given back. `broker` is its connection, from which
    /// [`native`](Broker::native) leads to the backend's own type.
    fn crash<'a>(
        &'a self,
        broker: &'a dyn Broker,
        instance: &'a InstanceId,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let _ = (broker, instance);
        None
    }

    /// Hook: publishes a message as another program would, with the broker's own client: no id, and
    /// none of our headers.
    fn inject<'a>(
        &'a self,
        broker: &'a dyn Broker,
        message: Foreign,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let _ = (broker, message);
        None
    }
}

/// What another program publishes.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Where to.
    pub topic: TopicName,
    /// The bytes.
    pub body: Bytes,
    /// Headers of its own.
    pub headers: Vec<(String, Bytes)>,
}
