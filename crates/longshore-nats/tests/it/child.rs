//! Processes of their own that die: this executable, started again.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use longshore_core::policy::Policy;
use longshore_core::{Probe, Received, Record, Settlement, Setup};
use longshore_runtime::Client;
use tokio::process::Command;

use crate::server::Server;
use crate::support::{Bench, failed, next, settle};

const URL: &str = "LONGSHORE_TEST_CHILD_URL";
const STEP: &str = "LONGSHORE_TEST_CHILD_STEP";
/// The errand of a worker.
pub(crate) const WORK: &str = "work";
/// The lease of the worker that crashes: what it held is another's so soon.
pub(crate) const CRASH_LEASE: Duration = Duration::from_secs(2);
/// The gap of the retry that a child orders: longer than a lease.
pub(crate) const GAP: Duration = Duration::from_secs(8);

/// Lets a process of its own receive one message and begin the move that has `step`, and returns
/// when the process was killed there.
pub(crate) async fn dies_at(step: &str, url: &str) {
    let output = start(step, url).output();
    let output = tokio::time::timeout(Duration::from_secs(40), output).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.signal().is_some(), "{}: {told}", output.status);
    assert!(told.contains(&format!("hit {step}")), "it died elsewhere: {told}");
}

/// This executable again, as a child with an errand: a step to die at, or [`WORK`].
pub(crate) fn start(errand: &str, url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", "child::one_that_is_not_killed_is_noticed"])
        .envs([(URL, url), (STEP, errand)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[derive(Debug)]
struct Dies(String);

impl Probe for Dies {
    fn hit(&self, step: &'static str) {
        if step == self.0 {
            eprintln!("hit {step}");
            std::process::abort();
        }
    }
}

/// By itself, it sees that a child is noticed that lives on; as a child, it does its errand.
#[tokio::test]
async fn one_that_is_not_killed_is_noticed() {
    if let (Ok(url), Ok(step)) = (std::env::var(URL), std::env::var(STEP)) {
        return match &*step {
            WORK => works_until_a_message_kills_it(&url).await,
            step => is_killed_at(step, &url).await,
        };
    }
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    bench.publish("m").await.unwrap();
    let lives = start("retry.forgotten", &server.url()).output().await.unwrap();
    assert_eq!(lives.status.code(), Some(101));
    let told = String::from_utf8_lossy(&lives.stderr);
    assert!(told.contains("no move has a step retry.forgotten"), "{told}");
}

async fn is_killed_at(step: &str, url: &str) {
    let setup = Setup { probe: Arc::new(Dies(step.to_owned())), ..Setup::default() };
    let bench = Bench::with(url, setup).await;
    let source = match step {
        "redrive.copied" => bench.letters(),
        "retry.copied" => bench.suspects(),
        _ => bench.source(),
    };
    let consumer = bench.consumer(source).await;
    let received = next(&*consumer).await;
    let (token, record) = (received.token, failed(&received));
    let settlement = match step {
        "retry.recorded" | "retry.copied" => Settlement::Retry { token, after: GAP, record },
        "release.recorded" => {
            let deliveries = received.deliveries;
            let record = Box::new(Record { deliveries, explained: 1, ..Record::default() });
            Settlement::Release { token, record: Some(record) }
        }
        "suspect.copied" => {
            let deliveries = received.deliveries;
            let record =
                Record { deliveries, explained: deliveries, suspect: true, ..Record::default() };
            Settlement::Suspect { token, record: Box::new(record) }
        }
        "dead_letter.copied" => Settlement::DeadLetter { token, letter: bench.letter(&received) },
        "redrive.copied" => {
            let record = Record { redrives: 1, origin: Some("1".into()), ..Record::default() };
            Settlement::Redrive { token, record: Box::new(record) }
        }
        other => panic!("no move has a step {other}"),
    };
    let settled = settle(&*consumer, settlement).await;
    panic!("it lived through its step: {settled:?}");
}

/// That of the tests' group.
pub(crate) fn policy() -> Policy {
    Policy::from_toml("dead_letter = { retention = \"1d\" }").unwrap()
}

/// A worker whose process ends in the middle of a run, whenever it meets the body `kills`.
async fn works_until_a_message_kills_it(url: &str) {
    let setup = Setup::default();
    let broker = longshore_nats::connect(url, setup.clone()).await.unwrap();
    let client = Client::new(Arc::new(broker), setup);
    let handler = |received: Received| async move {
        if received.body == "kills" {
            eprintln!("killed");
            std::process::abort();
        }
        Ok(())
    };
    let worker = client.worker("orders", "billing").lease(CRASH_LEASE).policy(policy());
    worker.handle(handler).start().await.unwrap().ended().await;
}
