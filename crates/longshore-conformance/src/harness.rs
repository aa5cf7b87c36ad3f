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
/// never green. What has no meaning on a backend is declared in [`not_applicable`], and printed.
///
/// [`not_applicable`]: Self::not_applicable
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

    /// Which mutants run too, unless `--mutants` says otherwise. They prove the suite and not the
    /// backend, and what they break is found by waiting in vain. So the default is to run all of
    /// them where time is virtual, and on a real server those that need one.
    fn mutants(&self) -> Mutants {
        if self.virtual_clock() { Mutants::All } else { Mutants::Server }
    }

    /// Why the check with this code of the catalogue has no meaning here: a backend without a server
    /// of its own has none to restart. `None`: it has. The reason is printed, and a part of another
    /// check that stands on the same ground is left out with it.
    fn not_applicable(&self, code: &str) -> Option<&'static str> {
        let _ = code;
        None
    }

    /// Hook: the URL of `server`. Where it is given, [`open`](Self::open) must be too.
    fn url(&self, server: &str, access: Access) -> Option<String> {
        let _ = (server, access);
        None
    }

    /// Hook: the backend's own `connect(url, setup)`, which the registry of a program calls.
    fn open(
        &self,
        url: String,
        setup: Setup,
    ) -> Option<BoxFuture<'static, Result<Arc<dyn Broker>>>> {
        let _ = (url, setup);
        None
    }

    /// Hook: does something to the process of `server`, and returns when it is done. Checks that
    /// ask for it run alone.
    fn server<'a>(&'a self, server: &'a str, act: Act) -> Option<BoxFuture<'a, Result<()>>> {
        let _ = (server, act);
        None
    }

    /// Hook: how many messages without a group `topic` has aside, where the capability
    /// `no_subscriber` says `Park`.
    fn parked<'a>(
        &'a self,
        broker: &'a dyn Broker,
        topic: &'a TopicName,
    ) -> Option<BoxFuture<'a, Result<u64>>> {
        let _ = (broker, topic);
        None
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

/// The broker that a harness is opened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Brokers of the harness's own: it starts them, and ends them with itself.
    Own,
    /// The one at this URL, which somebody else started: [`Harness::servers`] has one name, and the
    /// server is not stopped. A child of the suite gets the URL of its parent's server so.
    Given(String),
}

/// Which mutants are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutants {
    /// Every one, by every check that must catch it.
    All,
    /// Those of the checks that a broker inside the process cannot run
    /// ([`Check::needs_server`](crate::Check::needs_server)), by these checks, on the first server.
    Server,
    /// None.
    None,
}

/// As whom a URL reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As the checks do.
    Full,
    /// With a password that is wrong.
    WrongPassword,
}

/// What can be done to a server from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ends it, as a crash would where that can be had: what was confirmed must survive it.
    Stop,
    /// Starts it again, with what it had stored; returns when it can be connected to.
    Start,
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
