//! What one kind of broker needs: its files, its processes, and how to tell that it is ready.

pub(crate) mod nats;
pub(crate) mod rabbitmq;
pub(crate) mod redis;

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::{Result, Tried};
use crate::options::Options;

/// A kind of broker, the same in every version.
#[async_trait]
pub(crate) trait Flavor: Debug + Send + Sync {
    /// What the ports of one node are for; clients use the first.
    fn ports(&self) -> &'static [&'static str];

    /// Writes what the processes read, and says how each is started, in this order. A helper that
    /// the nodes share (a port mapper, a controller) is a unit of its own: ready before the servers
    /// start, or started behind them when they are one broker, where it stands behind them (those
    /// that watch them).
    fn units(&self, site: &Site<'_>) -> Result<Vec<Unit>>;

    /// What a client connects to.
    fn url(&self, site: &Site<'_>) -> String;

    /// Asks once, by a real request, whether this process serves; says what it answered if not.
    /// The answer must come from *our* server: another may hold the port.
    async fn probe(&self, unit: &Unit) -> Result<Facts, String>;

    /// Shows on the first of so many nodes, each of them ready, that they are one cluster. None
    /// where [`Self::probe`] tells that already.
    fn gathered(&self, nodes: usize) -> Option<Order>;

    /// Makes a node believe that its memory is full, or no longer. None where it has no such
    /// belief.
    fn memory_alarm(&self, on: bool) -> Option<Order>;
}

/// What the broker's own tool is told, again and again, until its answer shows that it is so.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) arguments: Vec<String>,
    pub(crate) done: fn(&str) -> bool,
}

/// What a ready server says of itself.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: String,
}

/// Where a broker is to run.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) scheme: &'static str,
    /// Unique on this machine, for the server to repeat when it is probed.
    pub(crate) name: &'a str,
    /// The folder of the programs.
    pub(crate) bin: &'a Path,
    pub(crate) options: &'a Options,
    pub(crate) nodes: Vec<NodeSite>,
}

/// Where one of its nodes is to run.
#[derive(Debug)]
pub(crate) struct NodeSite {
    pub(crate) folder: PathBuf,
    pub(crate) ports: Vec<u16>,
}

/// One process of a broker.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) name: String,
    /// Whether it serves the servers only.
    pub(crate) helper: bool,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// Its working folder; the log is in it.
    pub(crate) folder: PathBuf,
    pub(crate) ports: Vec<u16>,
    /// The broker's own command-line tool, and what makes it mean this process; it gets the
    /// process's environment.
    pub(crate) tool: Option<(PathBuf, Vec<OsString>)>,
}

impl Unit {
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Site<'_> {
    /// The program to run: the caller's own, or the kit's.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.options.server.clone().unwrap_or_else(|| self.bin.join(name))
    }

    /// A program that is run beside the servers: the kit's. With a server of the caller's own, the
    /// one in that server's folder, or else whichever the machine has.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        let Some(server) = &self.options.server else { return self.bin.join(name) };
        let beside = server.with_file_name(name);
        if beside.is_file() { beside } else { name.into() }
    }
}

impl NodeSite {
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Makes the node's folders and writes `name` from the template, the options' snippet behind
    /// it, and the options' files.
    pub(crate) fn write(
        &self,
        name: &str,
        template: &str,
        holes: &[(&str, String)],
        options: &Options,
    ) -> Result<PathBuf> {
        let data = self.data();
        std::fs::create_dir_all(&data).at("making", &data)?;
        let mut text = format!("{template}{}", options.config)
            .replace("@DATA@", &data.display().to_string())
            .replace("@FOLDER@", &self.folder.display().to_string())
            .replace("@PORT@", &self.ports[0].to_string());
        for (hole, value) in holes {
            text = text.replace(hole, value);
        }
        let config = self.folder.join(name);
        let files = options.files.iter().map(|(name, bytes)| (self.folder.join(name), &**bytes));
        for (file, bytes) in files.chain([(config.clone(), text.as_bytes())]) {
            std::fs::write(&file, bytes).at("writing", &file)?;
        }
        Ok(config)
    }
}
