//! A process of its own, killed at a step inside a move. Only a broker that outlives it has such
//! steps.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use longshore_core::{
    Error, ErrorKind, Failure, GroupName, InstanceId, Probe, Result, Setup, SystemClock, TopicName,
};
use longshore_runtime::Client;

use crate::bench::{LEASE, PATIENCE, quick};
use crate::harness::Harness;

/// The first word of the command line of a child.
pub(crate) const FLAG: &str = "--child";
/// How a child ends that was not killed: the step was not reached.
const UNREACHED: u8 = 3;

/// What a child is told, in the order of its command line.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    /// The check, by its code: `D6` buries its messages, all others retry them.
    pub(crate) check: String,
    /// Where it dies.
    pub(crate) step: String,
    /// The URL of the server.
    pub(crate) url: String,
    /// What it reads.
    pub(crate) topic: String,
    /// As whose member.
    pub(crate) group: String,
    /// Where it writes what it does, before it does it.
    pub(crate) ledger: PathBuf,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At its step, with this many handler runs before.
    Killed(usize),
    /// The step was not reached.
    Unreached,
    /// In some other way.
    Other(String),
}

impl Errand {
    /// Reads the command line of a child, without its first word.
    pub(crate) fn parse(words: &[String]) -> Option<Self> {
        let [check, step, url, topic, group, ledger] = words else { return None };
        Some(Self {
            check: check.clone(),
            step: step.clone(),
            url: url.clone(),
            topic: topic.clone(),
            group: group.clone(),
            ledger: ledger.into(),
        })
    }

    /// Starts this executable again and waits for its end, which comes by itself.
    pub(crate) fn send(&self) -> std::io::Result<End> {
        let Self { check, step, url, topic, group, ledger } = self;
        let output = Command::new(std::env::current_exe()?)
            .args([FLAG, check, step, url, topic, group])
            .arg(ledger)
            .output()?;
        let text = std::fs::read_to_string(ledger).unwrap_or_default();
        // It may not have come so far as to write one.
        let _ = std::fs::remove_file(ledger);
        let died = output.status.code().is_none();
        if died && text.lines().any(|line| line == format!("hit {step}")) {
            return Ok(End::Killed(text.lines().filter(|line| line.starts_with("run ")).count()));
        }
        if output.status.code() == Some(UNREACHED.into()) {
            return Ok(End::Unreached);
        }
        let told = String::from_utf8_lossy(&output.stderr);
        Ok(End::Other(format!("{}, having written {text:?}: {told}", output.status)))
    }

    /// What the child does.
    pub(crate) fn run(self, harness: &dyn Harness) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let done = match runtime {
            Ok(runtime) => runtime.block_on(self.work(harness)),
            Err(error) => Err(Error::new(ErrorKind::Unexpected, "no runtime").with_source(error)),
        };
        match done {
            Ok(()) => ExitCode::from(UNREACHED),
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::FAILURE
            }
        }
    }

    async fn work(self, harness: &dyn Harness) -> Result<()> {
        // The harness was opened on one URL, so it has one server.
        let servers = harness.servers();
        let server = servers.first().ok_or_else(|| Error::config("the harness has no server"))?;
        let probe = Arc::new(Dies { step: self.step, ledger: self.ledger.clone() });
        let instance = InstanceId::generate();
        let setup = Setup { instance, probe, clock: Arc::new(SystemClock) };
        let broker = harness.connect(server, setup.clone()).await?;
        let policy = quick(&broker.info().capabilities).build()?;
        let client = Client::new(broker, setup);
        let (ledger, buries) = (self.ledger, self.check == "D6");
        let handler = move |received: longshore_core::Received| {
            write(&ledger, &format!("run {}", crate::ledger::body(&received)));
            async move {
                Err(if buries { Failure::permanent("never") } else { Failure::transient("once") })
            }
        };
        let topic = TopicName::new(self.topic)?;
        let worker = client.worker(&topic, &GroupName::new(self.group)?).policy(policy);
        let running = worker.lease(LEASE).concurrency(1).handle(handler).start().await?;
        tokio::time::sleep(PATIENCE / 2).await;
        running.stop().await.map(|_| ())
    }
}

#[derive(Debug)]
struct Dies {
    step: String,
    ledger: PathBuf,
}

impl Probe for Dies {
    fn hit(&self, step: &'static str) {
        if step == self.step {
            write(&self.ledger, &format!("hit {step}"));
            std::process::abort();
        }
    }
}

/// Appends a line. What cannot be written is missed by the parent, which then fails.
fn write(ledger: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(ledger);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
        eprintln!("the ledger {} cannot be written: {error}", ledger.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_everything_or_nothing() {
        let words: Vec<_> =
            ["D6", "dead_letter.copied", "x://h", "t", "g", "/tmp/x"].map(str::to_owned).into();
        let errand = Errand::parse(&words).unwrap();
        assert_eq!((&*errand.check, &*errand.step), ("D6", "dead_letter.copied"));
        assert_eq!(errand.ledger, PathBuf::from("/tmp/x"));
        assert!(Errand::parse(&words[1..]).is_none());
    }

    #[test]
    fn what_a_child_does_is_written_line_by_line() {
        let ledger = std::env::temp_dir().join(format!("child-{}", std::process::id()));
        let dies = Dies { step: "retry.copied".to_owned(), ledger: ledger.clone() };
        write(&ledger, "run m");
        // Another step than its own: it lives on and says nothing.
        dies.hit("suspect.copied");
        write(&ledger, "run m");
        let text = std::fs::read_to_string(&ledger).unwrap();
        std::fs::remove_file(&ledger).unwrap();
        assert_eq!(text, "run m\nrun m\n");
    }
}
