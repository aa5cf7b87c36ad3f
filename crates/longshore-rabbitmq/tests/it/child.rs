//! Processes of their own that die: this executable, started again.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use longshore_core::{Probe, Record, Settlement, Setup, TopicName};
use longshore_rabbitmq::connect;
use longshore_testbed::Broker;
use tokio::process::Command;

use crate::hand::{failed, next, settle};
use crate::server::shared;
use crate::support::Bench;

const URL: &str = "LONGSHORE_TEST_CHILD_URL";
const STEP: &str = "LONGSHORE_TEST_CHILD_STEP";
const TOPIC: &str = "LONGSHORE_TEST_CHILD_TOPIC";
/// The gap of the retry that a child orders.
pub(crate) const GAP: Duration = Duration::from_secs(2);

/// Lets a process of its own receive one message and begin the move that has `step`, and returns
/// when the process was killed there.
pub(crate) async fn dies_at(step: &str, broker: &Broker, bench: &Bench) {
    let output = start(step, broker, &bench.topic).output();
    let output = tokio::time::timeout(Duration::from_secs(40), output).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.signal().is_some(), "{}: {told}", output.status);
    assert!(told.contains(&format!("hit {step}")), "it died elsewhere: {told}");
}

/// This executable again, as a child with a step to die at.
fn start(step: &str, broker: &Broker, topic: &TopicName) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", "child::one_that_is_not_killed_is_noticed"])
        .envs([(URL, broker.url()), (STEP, step), (TOPIC, topic.as_str())])
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
    if let (Ok(url), Ok(step), Ok(topic)) =
        (std::env::var(URL), std::env::var(STEP), std::env::var(TOPIC))
    {
        return is_killed_at(&step, &url, &topic).await;
    }
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    bench.publish(["m"]).await;
    let lives = start("retry.forgotten", &broker, &bench.topic).output().await.unwrap();
    assert_eq!(lives.status.code(), Some(101));
    let told = String::from_utf8_lossy(&lives.stderr);
    assert!(told.contains("no move has a step retry.forgotten"), "{told}");
}

async fn is_killed_at(step: &str, url: &str, topic: &str) {
    let setup = Setup { probe: Arc::new(Dies(step.to_owned())), ..Setup::default() };
    let rabbit = connect(url, setup).await.unwrap();
    let bench = Bench {
        rabbit,
        topic: TopicName::new(topic).unwrap(),
        group: "billing".try_into().unwrap(),
    };
    let source = match step {
        "redrive.copied" => bench.letters(),
        _ => bench.source(),
    };
    // One, so that the copy does not come here too.
    let consumer = bench.consumer(source, 1).await;
    let received = next(&*consumer).await;
    let (token, deliveries) = (received.token, received.deliveries);
    let settlement = match step {
        "retry.copied" => Settlement::Retry { token, after: GAP, record: failed(&received) },
        "release.copied" => {
            let record = Record { deliveries, explained: 1, ..Record::default() };
            Settlement::Release { token, record: Some(Box::new(record)) }
        }
        "suspect.copied" => {
            let record =
                Record { deliveries, explained: deliveries, suspect: true, ..Record::default() };
            Settlement::Suspect { token, record: Box::new(record) }
        }
        "dead_letter.copied" => Settlement::DeadLetter { token, letter: bench.letter(&received) },
        "redrive.copied" => {
            let record = Record { redrives: 1, ..Record::default() };
            Settlement::Redrive { token, record: Box::new(record) }
        }
        other => panic!("no move has a step {other}"),
    };
    let settled = settle(&*consumer, settlement).await;
    panic!("it lived through its step: {settled:?}");
}
