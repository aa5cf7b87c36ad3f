use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_core::{Error, Failure};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::bench::{Bench, LEASE, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, How, Records};
use crate::member::{Handled, Member};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "shutdown.running_handlers_finish",
        code: "S1",
        tier: Tier::Core,
        summary: "what runs when the worker is stopped finishes, and is acknowledged",
        needs: &[],
        run: |bench| Box::pin(running_handlers_finish(bench)),
    },
    Check {
        id: "shutdown.nothing_starts_after_stop",
        code: "S2",
        tier: Tier::Core,
        summary: "nothing starts after the stop, and what had not started goes to others",
        needs: &[],
        run: |bench| Box::pin(nothing_starts_after_stop(bench)),
    },
    Check {
        id: "shutdown.drain_timeout_costs_no_attempt",
        code: "S3",
        tier: Tier::Core,
        summary: "the drain's end cancels and returns; another member gets the same attempt",
        needs: &[Need::Delay, Need::DeadLetters],
        run: |bench| Box::pin(drain_timeout_costs_no_attempt(bench)),
    },
];

/// A handler that waits at a gate, and the gate.
fn gated(
    member: &Member,
) -> (
    Arc<Semaphore>,
    impl Fn(
        longshore_core::Received,
        longshore_runtime::Context,
    ) -> futures::future::BoxFuture<'static, Handled>
    + Send
    + Sync
    + 'static
    + use<>,
) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let handler = member.handler(move |_, _| {
        let gate = waits.clone();
        async move {
            gate.acquire().await?.forget();
            Ok(())
        }
    });
    (gate, handler)
}

/// S1.
async fn running_handlers_finish(bench: &Bench) -> Outcome {
    const RUNNING: usize = 4;
    let (topic, group) = (bench.topic("draining"), bench.group("all"));
    let member = bench.member().await?;
    let (gate, handler) = gated(&member);
    let policy = bench.policy().drain(Duration::from_secs(30)).build().map_err(Error::from)?;
    let worker = member.work(&topic, &group).concurrency(RUNNING).policy(policy).handle(handler);
    let running = worker.start().await?;
    let sender = member.sender(&topic).await?;
    for n in 0..RUNNING {
        sender.send(format!("m{n}")).await?;
    }
    bench.wait("4 running handlers", |seen| seen.running() == RUNNING).await?;
    // Longer than a lease: a drain keeps what it holds.
    let open = async {
        let still = |seen: &Records| seen.running() == RUNNING;
        let stayed = bench.stays("4 running handlers in the drain", LEASE * 2, still).await;
        gate.add_permits(RUNNING);
        stayed
    };
    let (stopped, stayed) = tokio::join!(running.stop(), open);
    stopped?;
    stayed?;
    let (ok, acks) = bench
        .ledger()
        .read(|seen| (seen.ended(ledger::Outcome::Ok), seen.settled(|how| how == How::Ack)));
    ensure!(ok == RUNNING, "expected {RUNNING} handlers to finish, {ok} did");
    ensure!(acks == RUNNING, "expected {RUNNING} acks before the stop returned, got {acks}");

    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let next = other.work(&topic, &group).handle(handler).start().await?;
    let none = |seen: &Records| seen.runs.len() == RUNNING;
    bench.stays("nothing for the next worker", LEASE * 2, none).await?;
    next.stop().await?;
    Ok(())
}

/// S2.
async fn nothing_starts_after_stop(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 10;
    const RUNNING: usize = 2;
    let (topic, group) = (bench.topic("stopping"), bench.group("all"));
    let member = bench.member().await?;
    let (gate, handler) = gated(&member);
    let policy = bench.policy().drain(Duration::from_secs(30)).build().map_err(Error::from)?;
    let worker = member.work(&topic, &group).concurrency(RUNNING).policy(policy.clone());
    let running = worker.handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    for n in 0..MESSAGES {
        sender.send(format!("m{n}")).await?;
    }
    let held = |seen: &Records| seen.running() == RUNNING && seen.deliveries.len() == MESSAGES;
    bench.wait("2 running handlers and 8 buffered messages", held).await?;
    let open = async {
        let given_back =
            |seen: &Records| seen.settled(|how| how == How::Release) == MESSAGES - RUNNING;
        let released = bench.wait("8 releases of what had not started", given_back).await;
        gate.add_permits(MESSAGES);
        released
    };
    let (stopped, released) = tokio::join!(running.stop(), open);
    stopped?;
    released?;
    let started = bench.ledger().read(|seen| seen.runs.len());
    ensure!(started == RUNNING, "expected {RUNNING} runs in all, {started} were started");

    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let worker = other.work(&topic, &group).policy(policy).handle(handler);
    let next = worker.start().await?;
    let all = |seen: &Records| seen.ended(ledger::Outcome::Ok) == MESSAGES;
    bench.wait("the other 8 in the next worker", all).await?;
    let attempts: Vec<_> =
        bench.ledger().read(|seen| seen.runs.iter().map(|run| run.attempt).collect());
    ensure!(attempts == [1; MESSAGES], "a return is no failure: attempts {attempts:?}");
    next.stop().await?;
    Ok(())
}

/// S3. The message has failed once, so that its number is not the first by chance.
async fn drain_timeout_costs_no_attempt(bench: &Bench) -> Outcome {
    let drain = Duration::from_millis(500);
    let (topic, group) = (bench.topic("stuck"), bench.group("all"));
    let member = bench.member().await?;
    let told = Arc::new(AtomicBool::new(false));
    let seen_by_handler = told.clone();
    let handler = member.handler(move |_, context| {
        let told = seen_by_handler.clone();
        async move {
            if context.attempt() == 1 {
                return Err(Failure::transient("once"));
            }
            context.cancelled().await;
            told.store(true, Ordering::Relaxed);
            pending().await
        }
    });
    let policy = bench.policy().drain(drain).build().map_err(Error::from)?;
    let worker = member.work(&topic, &group).policy(policy.clone()).handle(handler);
    let running = worker.start().await?;
    member.sender(&topic).await?.send("m").await?;
    let stuck = |seen: &Records| seen.attempts("m") == [1, 2] && seen.running() == 1;
    bench.wait("the second run, which does not end", stuck).await?;
    let began = Instant::now();
    running.stop().await?;
    let (took, latest) = (began.elapsed(), drain + bench.bound());
    ensure!(took >= drain, "the drain of {drain:?} was over after {took:?}");
    ensure!(took <= latest, "the stop took {took:?}, latest {latest:?}");
    ensure!(told.load(Ordering::Relaxed), "the handler's context was never cancelled");

    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let next = other.work(&topic, &group).policy(policy).handle(handler).start().await?;
    bench.wait("a success of the next worker", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let once = |seen: &Records| seen.ended(ledger::Outcome::Ok) == 1;
    bench.stays("1 success", WINDOW, once).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("m"));
    ensure!(attempts == [1, 2, 2], "expected attempts 1, 2 and 2 again, got {attempts:?}");
    next.stop().await?;
    Ok(())
}
