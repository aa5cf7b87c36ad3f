//! The testbed of a checkout: where servers are kept and where they run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broker::Broker;
use crate::error::{Error, Result, blocking};
use crate::flavor::{NodeSite, Site};
use crate::kit;
use crate::node::{Node, Terms};
use crate::options::Options;
use crate::ports;
use crate::progress::{Progress, Task};
use crate::run::Run;
use crate::slot::Record;
use crate::table::{self, Row};

/// How often a start is tried whose ports another program took in between.
const TRIES: usize = 5;

/// A folder of fetched servers, and a folder of running ones.
#[derive(Clone, Debug)]
pub struct Testbed {
    kits: PathBuf,
    run: PathBuf,
}

impl Testbed {
    /// The one in the workspace's target folder, which `cargo xtask brokers` uses too.
    pub fn workspace() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = manifest.ancestors().nth(2).unwrap_or(manifest);
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
        Self::at(workspace.join(target).join("testbed"))
    }

    /// One under `root`, which is made when it is needed.
    pub fn at(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        Self { kits: root.join("kits"), run: root.join("run") }
    }

    /// The same servers, another run folder: it knows nothing of the brokers here.
    #[must_use]
    pub fn run_in(self, run: impl Into<PathBuf>) -> Self {
        Self { run: run.into(), ..self }
    }

    /// Starts a broker of the workspace's testbed: `nats@2.15`, or `nats` for its default version.
    /// The first start of a row fetches its server, which takes seconds.
    pub async fn start(name: &str, options: Options) -> Result<Broker> {
        Self::workspace().broker(name, options, &Progress::silent()).await
    }

    /// Starts a broker, and shows its steps.
    pub async fn broker(&self, name: &str, options: Options, shown: &Progress) -> Result<Broker> {
        let row = table::find(name)?;
        if options.sentinels && !row.flavor.ports().contains(&"sentinel") {
            return Err(Error::Unsupported { node: row.name(), what: "sentinel" });
        }
        let task = shown.task(row.name());
        let outcome = self.start_row(row, &options, &task).await;
        match &outcome {
            Ok(broker) => task.end(&format!("{} ready at {}", broker.version(), broker.url())),
            Err(_) => task.end("failed"),
        }
        outcome
    }

    /// The folder of a row's programs, which are fetched if they are not there: for tests that run a
    /// server in ways of their own.
    pub async fn programs(&self, name: &str) -> Result<PathBuf> {
        let row = table::find(name)?;
        self.fetched(row, &Progress::silent().task(row.name())).await
    }

    async fn fetched(&self, row: &'static Row, task: &Task) -> Result<PathBuf> {
        kit::ensure(row, &self.kits, task).await.map_err(|error| Error::Fetch {
            broker: row.name(),
            container: row.container(),
            source: error.into(),
        })
    }

    /// The folder of a library of Python, for `PYTHONPATH`: a wheel that is fetched by pip if it is
    /// not there, and installed nowhere. For tests that let a program of another language in.
    pub async fn python_library(&self, package: &str, version: &str) -> Result<PathBuf> {
        kit::library(&self.kits, package, version).await
    }

    /// Starts several at once; one outcome each, in the order of their names.
    pub async fn brokers<S: AsRef<str>>(
        &self,
        names: &[S],
        options: &Options,
        shown: &Progress,
    ) -> Vec<Result<Broker>> {
        let start = |name: &S| {
            let name = name.as_ref().to_owned();
            async move { self.broker(&name, options.clone(), shown).await }
        };
        futures::future::join_all(names.iter().map(start)).await
    }

    /// What runs here; what a crash left behind is ended and removed.
    pub async fn running(&self) -> Result<Vec<Record>> {
        let run = self.run.clone();
        blocking("reading the run folder", move || Run::lock(&run)?.sweep()).await
    }

    /// Stops what was left running, by process and never by name: all, or those of the given names
    /// (`nats` is every version). Brokers that a live process holds are its own affair.
    pub async fn down(&self, names: &[String]) -> Result<Vec<Record>> {
        for name in names {
            table::find(name)?;
        }
        let (run, names) = (self.run.clone(), names.to_vec());
        blocking("stopping brokers", move || {
            Run::lock(&run)?.down(|record| {
                let named = |name: &String| *name == record.name || name == record.broker();
                names.is_empty() || names.iter().any(named)
            })
        })
        .await
    }

    async fn start_row(&self, row: &'static Row, options: &Options, task: &Task) -> Result<Broker> {
        let bin = match &options.server {
            Some(_) => PathBuf::new(),
            None => self.fetched(row, task).await?,
        };
        task.step("starting");
        let mut tries = 1;
        loop {
            let mut broker = self.place(row, options, &bin).await?;
            match broker.first_start().await {
                Ok(()) => return Ok(broker),
                Err(error @ Error::Died { .. }) if tries < TRIES => {
                    // All of it is dead then, and yet somebody listens at a port that was free?
                    broker.give_up().await?;
                    if broker.ports().all(ports::is_free) {
                        return Err(error);
                    }
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Claims a place for a broker and writes its files.
    async fn place(&self, row: &'static Row, options: &Options, bin: &Path) -> Result<Broker> {
        let (run, bin, options) = (self.run.clone(), bin.to_owned(), options.clone());
        blocking("making a broker's folder", move || {
            let count = options.nodes.unwrap_or(row.nodes);
            let slot = Arc::new(Run::lock(&run)?.claim(row, count)?);
            let record = slot.record();
            let nodes = record.ports.chunks(row.flavor.ports().len()).enumerate();
            let nodes = nodes.map(|(index, ports)| NodeSite {
                folder: record.folder.join(format!("n{}", index + 1)),
                ports: ports.to_vec(),
            });
            let name = record.folder.file_name().unwrap_or_default().to_string_lossy();
            let site = Site {
                scheme: row.scheme,
                name: &format!("{name}-{}", std::process::id()),
                bin: &bin,
                options: &options,
                nodes: nodes.collect(),
            };
            let units = row.flavor.units(&site)?;
            let terms = Terms { flavor: row.flavor, patience: options.patience };
            let nodes = units.into_iter().map(|unit| Node::new(unit, terms, slot.clone()));
            Ok(Broker::new(row.flavor, nodes.collect(), slot, row.flavor.url(&site)))
        })
        .await
    }
}
