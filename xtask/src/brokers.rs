//! `cargo xtask brokers`: real servers on loopback, to try things against.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use longshore_testbed::{Error, Options, Progress, Record, Testbed, find, rows};
use serde_json::{Value, json};

use crate::backends;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start brokers and leave them running.
    Up {
        #[command(flatten)]
        chosen: Chosen,
        /// Start every version of every broker.
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Run this server program, not the one that the testbed fetches.
        #[arg(long, value_name = "PATH", requires = "names")]
        server: Option<std::path::PathBuf>,
    },
    /// Stop what `up` left running.
    Down(Chosen),
    /// List what runs; that which a test holds, too.
    Status(Chosen),
}

#[derive(Debug, Args)]
struct Chosen {
    /// `nats@2.10`, or `nats`: its default version for `up`, all of them else. Where none is given,
    /// each broker in its default version for `up`, all else.
    #[arg(value_name = "BROKER[@VERSION]")]
    names: Vec<String>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let testbed = Testbed::workspace();
    runtime.block_on(async {
        match arguments.command {
            Command::Up { chosen, all, server } => up(&testbed, &chosen, all, server).await,
            Command::Down(chosen) => {
                let stopped = testbed.down(&chosen.names).await?;
                show(&stopped, chosen.json, |record| format!("{} stopped", record.name));
                Ok(true)
            }
            Command::Status(chosen) => {
                let running = pick(testbed.running().await?, &chosen.names)?;
                show(&running, chosen.json, line);
                Ok(true)
            }
        }
    })
}

async fn up(
    testbed: &Testbed,
    chosen: &Chosen,
    all: bool,
    server: Option<std::path::PathBuf>,
) -> Result<bool> {
    let names = to_start(&chosen.names, all)?;
    // What is up already is shown again, not started twice.
    let mut records = testbed.running().await?;
    records.retain(|record| record.owner.is_none() && names.contains(&record.name));
    let missing: Vec<_> =
        names.iter().filter(|name| !records.iter().any(|record| record.name == **name)).collect();
    for name in &missing {
        eprintln!("{}", cost(find(name)?));
    }
    let mut options = Options::default();
    if let Some(server) = server {
        options = options.server(std::path::absolute(&server).context("finding the server")?);
    }
    let mut failures = Vec::new();
    for outcome in testbed.brokers(&missing, &options, &Progress::shown()).await {
        match outcome.and_then(longshore_testbed::Broker::leave_running) {
            Ok(record) => records.push(record),
            Err(error) => failures.push(anyhow::Error::from(error)),
        }
    }
    show(&records, chosen.json, |record| {
        [Some(line(record)), try_it(record)].into_iter().flatten().collect::<Vec<_>>().join("\n")
    });
    for error in &failures {
        eprintln!("error: {error:#}");
    }
    Ok(failures.is_empty())
}

/// What `up` starts: without a name each broker once, since every version of each is a lot.
fn to_start(names: &[String], all: bool) -> Result<Vec<String>, Error> {
    if names.is_empty() {
        let rows = rows().iter().filter(|row| all || row.is_default());
        return Ok(rows.map(longshore_testbed::Row::name).collect());
    }
    full(names)
}

/// What a user should know before it is started.
fn cost(row: &longshore_testbed::Row) -> String {
    let cost = row.cost();
    format!(
        "{}: about {} MB of memory; {} MB to fetch, the first time",
        row.name(),
        cost.memory,
        cost.fetched
    )
}

/// The command to try a broker with; none where longshore has no backend for it.
fn try_it(record: &Record) -> Option<String> {
    let backend = backends::ALL.iter().find(|backend| backend.has(&record.name))?;
    let (feature, url) = (backend.name, &record.url);
    Some(format!("  cargo run --example quickstart --features {feature} -- {url}"))
}

/// The names with their versions, each once.
fn full(names: &[String]) -> Result<Vec<String>, Error> {
    let mut full = Vec::new();
    for name in names {
        let name = find(name)?.name();
        if !full.contains(&name) {
            full.push(name);
        }
    }
    Ok(full)
}

fn pick(mut records: Vec<Record>, names: &[String]) -> Result<Vec<Record>> {
    full(names)?;
    if !names.is_empty() {
        records.retain(|record| {
            names.iter().any(|name| *name == record.name || name == record.broker())
        });
    }
    Ok(records)
}

fn line(record: &Record) -> String {
    let held = record.owner.map(|owner| format!("  held by process {}", owner.pid));
    let Record { name, version, url, .. } = record;
    format!("{name}  {version}  {url}{}", held.unwrap_or_default())
}

fn show(records: &[Record], json: bool, text: impl Fn(&Record) -> String) {
    if json {
        println!("{:#}", records.iter().map(value).collect::<Value>());
    } else if records.is_empty() {
        println!("no broker is running");
    } else {
        records.iter().for_each(|record| println!("{}", text(record)));
    }
}

fn value(record: &Record) -> Value {
    json!({
        "name": record.name,
        "version": record.version,
        "url": record.url,
        "pid": record.pid(),
        "folder": record.folder,
        "held_by": record.owner.map(|owner| owner.pid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record {
            name: name.to_owned(),
            version: "2.15.1".to_owned(),
            url: "nats://127.0.0.1:20000".to_owned(),
            folder: "run/n".into(),
            ports: vec![20_000],
            owner: None,
            nodes: Vec::new(),
        }
    }

    #[test]
    fn a_bare_name_picks_every_version_and_an_unknown_one_is_refused() {
        let all = || vec![record("nats@2.15"), record("nats@2.10")];
        assert_eq!(pick(all(), &[]).unwrap().len(), 2);
        assert_eq!(pick(all(), &["nats".to_owned()]).unwrap().len(), 2);
        assert_eq!(pick(all(), &["nats@2.10".to_owned()]).unwrap(), [record("nats@2.10")]);
        assert!(pick(all(), &["mqtt".to_owned()]).is_err());
    }

    #[test]
    fn scripts_find_name_version_and_url() {
        let value = value(&record("nats@2.15"));
        assert_eq!(value["name"], "nats@2.15");
        assert_eq!(value["version"], "2.15.1");
        assert_eq!(value["url"], "nats://127.0.0.1:20000");
        assert!(value["pid"].is_null() && value["held_by"].is_null());
    }

    #[test]
    fn without_a_name_each_broker_is_started_once() {
        let started = to_start(&[], false).unwrap();
        assert_eq!(started, ["nats@2.15", "rabbitmq@4.0", "redis@8.0", "valkey@8.1"]);
        assert_eq!(to_start(&[], true).unwrap().len(), rows().len());
        assert_eq!(to_start(&["rabbitmq@3.10".to_owned()], false).unwrap(), ["rabbitmq@3.10"]);
    }

    #[test]
    fn only_a_broker_with_a_backend_shows_how_to_try_it() {
        let hint = try_it(&record("nats@2.15")).unwrap();
        assert!(hint.ends_with("--features nats -- nats://127.0.0.1:20000"), "{hint}");
        assert!(try_it(&record("valkey@8.1")).unwrap().contains("--features redis "));
        assert_eq!(try_it(&record("mqtt@5")), None);
    }

    #[test]
    fn a_broker_named_twice_is_started_once() {
        let names = ["nats".to_owned(), "nats@2.15".to_owned()];
        assert_eq!(full(&names).unwrap(), ["nats@2.15"]);
    }
}
