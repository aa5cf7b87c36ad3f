//! One run of one check, on a thread and a runtime of its own: what it leaves behind, a panic or an
//! endless wait included, is nobody else's.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::FutureExt as _;

use crate::bench::Bench;
use crate::check::{Check, Stop};
use crate::harness::Harness;
use crate::mutants::{Mutant, World};

/// The longest that a check may take, in real time.
const LIMIT: Duration = Duration::from_secs(180);
/// The longest in its own time, which may be virtual.
const OWN_LIMIT: Duration = Duration::from_secs(600);

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// A declared incapability was seen to be refused.
    Negative(String),
    NotApplicable(String),
    NotRun(String),
    Failed(String),
}

/// Runs `check`, on a broker that is broken by `mutant` if there is one. Also says which server it
/// was, where that became known.
pub(super) fn execute(
    harness: &Arc<dyn Harness>,
    server: &str,
    check: &'static Check,
    mutant: Option<&'static Mutant>,
) -> (Verdict, Option<String>) {
    let (harness, server) = (harness.clone(), server.to_owned());
    let (done, outcome) = mpsc::channel();
    let thread = std::thread::Builder::new().name(check.id.to_owned()).spawn(move || {
        let verdict = match runtime(harness.virtual_clock()) {
            Ok(runtime) => {
                let verdict = runtime.block_on(perform(harness, &server, check, mutant));
                // Tasks of the check that still wait are not waited for.
                runtime.shutdown_background();
                verdict
            }
            Err(error) => (Verdict::NotRun(format!("no runtime: {error}")), None),
        };
        // Nobody listens to what comes after the limit.
        let _ = done.send(verdict);
    });
    if let Err(error) = thread {
        return (Verdict::NotRun(format!("no thread: {error}")), None);
    }
    outcome.recv_timeout(LIMIT).unwrap_or_else(|why| {
        let text = match why {
            mpsc::RecvTimeoutError::Timeout => format!("it did not end within {LIMIT:?}"),
            mpsc::RecvTimeoutError::Disconnected => "its thread ended".to_owned(),
        };
        (Verdict::Failed(text), None)
    })
}

fn runtime(virtual_clock: bool) -> std::io::Result<tokio::runtime::Runtime> {
    if virtual_clock {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
    } else {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()
    }
}

async fn perform(
    harness: Arc<dyn Harness>,
    server: &str,
    check: &'static Check,
    mutant: Option<&'static Mutant>,
) -> (Verdict, Option<String>) {
    if let Some(reason) = harness.not_applicable(check.code) {
        return (Verdict::NotApplicable(reason.to_owned()), None);
    }
    let world = mutant.map(|mutant| Arc::new(World::new(mutant)));
    let bench = match Bench::open(harness, server, world).await {
        Ok(bench) => bench,
        Err(error) => return (Verdict::Failed(format!("no connection: {error:?}")), None),
    };
    let version = Some(bench.info().server.clone());
    let missing = check.needs.iter().copied().find(|need| !need.is_met(&bench.info().capabilities));
    let run = async {
        match missing {
            Some(need) => bench.refuses(need).await,
            None => (check.run)(&bench).await,
        }
    };
    let run = tokio::time::timeout(OWN_LIMIT, AssertUnwindSafe(run).catch_unwind());
    let verdict = match run.await {
        Ok(Ok(outcome)) => match (outcome, missing) {
            (Ok(()), None) => Verdict::Passed,
            (Ok(()), Some(need)) => Verdict::Negative(format!("{need} are refused as declared")),
            (Err(Stop::Failed(seen)), _) => Verdict::Failed(seen),
            (Err(Stop::NotRun(reason)), _) => Verdict::NotRun(reason),
            (Err(Stop::NotApplicable(reason)), _) => Verdict::NotApplicable(reason),
        },
        Ok(Err(panic)) => Verdict::Failed(format!("it panicked: {}", text(&*panic))),
        Err(_) => Verdict::Failed(format!("it did not end within {OWN_LIMIT:?} of its own time")),
    };
    bench.close().await;
    (verdict, version)
}

fn text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without a text",
    }
}
