//! One broker's place under the run folder, and the record of what runs in it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Result, Tried, remove_folder};
use crate::process::Identity;

const FILE: &str = "state.json";

/// What is known of a broker that runs, or did when its process was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The row's full name, `nats@2.15`.
    pub name: String,
    /// The server's own version; empty until it was ready once.
    pub version: String,
    /// What clients connect to.
    pub url: String,
    /// Its folder: data, configuration, logs.
    pub folder: PathBuf,
    /// Every port that it uses, also while it is down for a restart.
    pub ports: Vec<u16>,
    /// The process that it dies with; none where it was left running.
    pub owner: Option<Identity>,
    /// Its processes.
    pub nodes: Vec<NodeRecord>,
}

/// One process of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name in the testbed.
    pub name: String,
    /// Its last start.
    pub process: Identity,
    /// Whether it is no server and only serves those, as a port mapper does.
    #[serde(default)]
    pub helper: bool,
}

impl Record {
    /// The broker's name without the version.
    pub fn broker(&self) -> &str {
        self.name.split_once('@').map_or(&self.name, |(broker, _)| broker)
    }

    /// The number of its first server's process.
    pub fn pid(&self) -> Option<u32> {
        self.servers().next().map(|node| node.process.pid)
    }

    fn servers(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.iter().filter(|node| !node.helper)
    }

    /// Whether anybody still answers for it: its owner, or where it has none, a server of its own.
    pub(crate) fn is_live(&self) -> bool {
        match self.owner {
            Some(owner) => owner.is_alive(),
            None => self.servers().any(|node| node.process.is_alive()),
        }
    }

    /// Nothing where there is none, or none that is whole.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Written beside and renamed, so that a reader finds the old record or the new.
    pub(crate) fn write(&self) -> Result<()> {
        let (file, next) = (self.folder.join(FILE), self.folder.join("state.json.next"));
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        std::fs::write(&next, text.at("writing", &next)?).at("writing", &next)?;
        std::fs::rename(&next, &file).at("writing", &file)
    }
}

/// The place of a broker that this process holds. Dropped, the folder is gone.
#[derive(Debug)]
pub(crate) struct Slot {
    record: Mutex<Record>,
}

impl Slot {
    pub(crate) fn new(record: Record) -> Result<Self> {
        record.write()?;
        Ok(Self { record: Mutex::new(record) })
    }

    pub(crate) fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a start, before anybody waits for it.
    pub(crate) fn started(&self, name: &str, process: Identity, helper: bool) -> Result<()> {
        self.change(|record| {
            match record.nodes.iter_mut().find(|node| node.name == name) {
                Some(node) => node.process = process,
                None => record.nodes.push(NodeRecord { name: name.to_owned(), process, helper }),
            };
        })
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        record.write()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let record = self.record.get_mut().unwrap_or_else(PoisonError::into_inner);
        if record.owner.is_some() {
            // What cannot be removed now is swept by the next run.
            let _ = remove_folder(&record.folder);
        }
    }
}
