//! The run folder: who runs where, and what a crash left behind.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{GONE, Result, Tried, remove_folder};
use crate::node::STOP;
use crate::ports;
use crate::process::{Identity, Process};
use crate::slot::{Record, Slot};
use crate::supervisor::KILL;
use crate::table::Row;

/// The run folder while nobody else changes it. All of it blocks: the lock is held by other
/// processes too, for as long as it takes to make a folder or to stop a server.
#[derive(Debug)]
pub(crate) struct Run {
    folder: PathBuf,
    // Unlocked when it is closed, also by a crash.
    _lock: File,
}

impl Run {
    pub(crate) fn lock(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).at("making", folder)?;
        let path = folder.join(".lock");
        let lock = File::create(&path).at("opening", &path)?;
        lock.lock().at("locking", &path)?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The brokers that run, by folder; what is stale is ended and removed.
    pub(crate) fn sweep(&self) -> Result<Vec<Record>> {
        let mut running = Vec::new();
        for entry in std::fs::read_dir(&self.folder).at("reading", &self.folder)? {
            let folder = entry.at("reading", &self.folder)?.path();
            if !folder.is_dir() {
                continue;
            }
            // On its way out; if its remover was killed, this finishes the work.
            if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(GONE)) {
                let _ = std::fs::remove_dir_all(&folder);
                continue;
            }
            // A place is made and recorded under this lock: without a record it is a left-over.
            match Record::read(&folder) {
                Some(record) if record.is_live() => running.push(record),
                Some(record) => end(&record, Signal::KILL)?,
                None => remove_folder(&folder)?,
            }
        }
        running.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(running)
    }

    /// A place for a broker of `row` with so many nodes, and ports that no other has.
    pub(crate) fn claim(&self, row: &Row, nodes: usize) -> Result<Slot> {
        let taken: BTreeSet<u16> =
            self.sweep()?.into_iter().flat_map(|record| record.ports).collect();
        let count = nodes * row.flavor.ports().len();
        let ports = ports::free(count, &taken).tried(|| "choosing ports".to_owned())?;
        let name = row.folder();
        let mut numbers = 1..;
        let folder = numbers.find_map(|number| {
            let folder = self.folder.join(format!("{name}-{number}"));
            (!folder.exists()).then_some(folder)
        });
        let folder = folder.unwrap_or_else(|| self.folder.join(&name));
        std::fs::create_dir(&folder).at("making", &folder)?;
        Slot::new(Record {
            name: row.name(),
            version: String::new(),
            url: String::new(),
            folder,
            ports,
            owner: Identity::of(std::process::id()),
            nodes: Vec::new(),
        })
    }

    /// Stops those that were left running and that `chosen` picks; says which.
    pub(crate) fn down(&self, chosen: impl Fn(&Record) -> bool) -> Result<Vec<Record>> {
        let mut stopped = self.sweep()?;
        stopped.retain(|record| record.owner.is_none() && chosen(record));
        for record in &stopped {
            end(record, Signal::TERM)?;
        }
        Ok(stopped)
    }
}

/// Ends the record's processes, the last started first, and removes its folder.
fn end(record: &Record, signal: Signal) -> Result<()> {
    let nodes = record.nodes.iter().rev();
    let processes: Vec<_> = nodes.filter_map(|node| Process::open(node.process)).collect();
    for process in &processes {
        process.signal(signal)?;
        process.signal(Signal::CONT)?;
    }
    let deadline = Instant::now() + STOP;
    for process in &processes {
        let left = deadline.saturating_duration_since(Instant::now());
        if !process.ends_within(left.max(Duration::from_millis(1))) {
            process.signal(Signal::KILL)?;
            process.ends_within(KILL);
        }
    }
    remove_folder(&record.folder)
}
