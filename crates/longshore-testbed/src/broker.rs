//! A running broker, as a test sees it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::flavor::Flavor;
use crate::node::{LINES, Node};
use crate::slot::{Record, Slot};

/// A broker that runs on loopback and stops when it is dropped, or when this process ends.
///
/// What is done to the broker is done to all of its nodes; [`Self::nodes`] reaches one of them.
/// Dropping it blocks for the few milliseconds until the port is free again.
///
/// # Cancel safety
///
/// A cancelled call leaves the broker running or not, and never a process behind. What it was
/// about to do may be half done: a broker that was to be restarted may be stopped.
#[derive(Debug)]
pub struct Broker {
    flavor: &'static dyn Flavor,
    // Dropped in this order: the processes, then their folder.
    nodes: Vec<Node>,
    helpers: Vec<Node>,
    watchers: Vec<Node>,
    slot: Arc<Slot>,
    url: String,
    version: String,
}

impl Broker {
    pub(crate) fn new(
        flavor: &'static dyn Flavor,
        processes: Vec<Node>,
        slot: Arc<Slot>,
        url: String,
    ) -> Self {
        let mut behind = false;
        let (mut helpers, mut nodes, mut watchers) = (Vec::new(), Vec::new(), Vec::new());
        for process in processes {
            behind |= !process.is_helper();
            match (process.is_helper(), behind) {
                (false, _) => nodes.push(process),
                (true, false) => helpers.push(process),
                (true, true) => watchers.push(process),
            }
        }
        Self { flavor, nodes, helpers, watchers, slot, url, version: String::new() }
    }

    /// Starts all nodes, waits for each.
    pub(crate) async fn first_start(&mut self) -> Result<()> {
        self.slot.change(|record| record.url.clone_from(&self.url))?;
        self.version = self.start().await?;
        self.slot.change(|record| record.version.clone_from(&self.version))
    }

    /// Starts what does not run and waits for each; the version of the last.
    async fn start(&self) -> Result<String> {
        for helper in &self.helpers {
            helper.start().await?;
            helper.ready().await?;
        }
        for node in &self.nodes {
            node.start().await?;
        }
        let mut version = String::new();
        for node in &self.nodes {
            version = node.ready().await?.version;
        }
        if let [first, _, ..] = &*self.nodes
            && let Some(order) = self.flavor.gathered(self.nodes.len())
        {
            first.obey(&order).await?;
        }
        for watcher in &self.watchers {
            watcher.start().await?;
        }
        for watcher in &self.watchers {
            watcher.ready().await?;
        }
        Ok(version)
    }

    /// Kills all that runs of it, its helpers too.
    pub(crate) async fn give_up(&self) -> Result<()> {
        futures::future::try_join_all(self.processes().map(Node::kill)).await.map(|_| ())
    }

    /// What clients connect to, without a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The version that the server says it has.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The clients' address: of the first node in a cluster.
    pub fn address(&self) -> SocketAddr {
        let port = self.ports().next().unwrap_or_default();
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// All ports of all nodes.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().flat_map(|node| node.ports().iter().copied())
    }

    /// The folder of its data, configuration and logs.
    pub fn folder(&self) -> PathBuf {
        self.slot.record().folder
    }

    /// Its servers, in the order of their start; no helpers, which run until it is dropped.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Stops it if it runs, starts it with the same data and port, returns when it is ready. The
    /// way back after [`Self::stop`] and [`Self::kill`], too.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await.map(|_| ())
    }

    /// Stops it in order: TERM, then KILL. The data stays until the broker is dropped.
    pub async fn stop(&self) -> Result<()> {
        self.each(Node::stop).await
    }

    /// Kills it at once (SIGKILL), and returns when it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.each(Node::kill).await
    }

    /// Stops its clock (SIGSTOP): connections stay open and nothing is answered.
    pub async fn pause(&self) -> Result<()> {
        self.each(Node::pause).await
    }

    /// Lets it go on, and returns when it answers again.
    pub async fn resume(&self) -> Result<()> {
        self.each(Node::resume).await
    }

    /// [`Node::memory_alarm`] on each node.
    pub async fn memory_alarm(&self, on: bool) -> Result<()> {
        self.each(|node| node.memory_alarm(on)).await
    }

    /// The last lines of each process's log.
    pub fn log_tail(&self) -> String {
        let tail = |node: &Node| format!("{}:\n{}", node.name(), node.log_tail(LINES));
        self.processes().map(tail).collect::<Vec<_>>().join("\n")
    }

    /// Lets it run on after this process, until [`crate::Testbed::down`].
    pub fn leave_running(self) -> Result<Record> {
        // First the record: a crash between the two leaves one that the next sweep removes, not a
        // server that nobody knows of.
        self.slot.change(|record| record.owner = None)?;
        for node in self.processes() {
            node.leave()?;
        }
        Ok(self.slot.record())
    }

    fn processes(&self) -> impl Iterator<Item = &Node> {
        self.helpers.iter().chain(&self.nodes).chain(&self.watchers)
    }

    /// At all nodes at once: a cluster whose nodes end one by one elects leaders in between.
    async fn each<'a, F>(&'a self, action: impl Fn(&'a Node) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        futures::future::try_join_all(self.nodes.iter().map(action)).await.map(|_| ())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The folder is about to go, and the log is what explains a failed test.
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}
