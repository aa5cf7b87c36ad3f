//! What of a failure is tried again, and how it counts.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{Error, Failure};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger;

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "retry.succeeds_after_failures",
        code: "R1",
        tier: Tier::Core,
        summary: "k transient failures, then success: k + 1 runs",
        needs: NEEDS,
        run: |bench| Box::pin(succeeds_after_failures(bench)),
    },
    Check {
        id: "retry.permanent_failure_is_not_retried",
        code: "R2",
        tier: Tier::Core,
        summary: "a permanent failure: one run, one dead letter",
        needs: NEEDS,
        run: |bench| Box::pin(permanent_failure_is_not_retried(bench)),
    },
    Check {
        id: "retry.unknown_error_is_transient",
        code: "R3",
        tier: Tier::Core,
        summary: "an error that the handler did not classify is tried again",
        needs: NEEDS,
        run: |bench| Box::pin(unknown_error_is_transient(bench)),
    },
    Check {
        id: "retry.panic_is_an_attempt",
        code: "R12",
        tier: Tier::Core,
        summary: "a panic is a failed attempt, and the worker survives it",
        needs: NEEDS,
        run: |bench| Box::pin(panic_is_an_attempt(bench)),
    },
    Check {
        id: "retry.timeout_is_an_attempt",
        code: "R13",
        tier: Tier::Core,
        summary: "a time-out is a failed attempt, and the handler is cancelled",
        needs: NEEDS,
        run: |bench| Box::pin(timeout_is_an_attempt(bench)),
    },
];

/// R1.
async fn succeeds_after_failures(bench: &Bench) -> Outcome {
    const FAILURES: u32 = 3;
    let (topic, group) = (bench.topic("transient"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() <= FAILURES { Err(Failure::transient("not yet")) } else { Ok(()) }
    });
    let policy = bench.policy().max_attempts(FAILURES + 2).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send("m").await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("m"));
    ensure!(attempts == [1, 2, 3, 4], "expected attempts 1 to 4, got {attempts:?}");
    let runs = |seen: &ledger::Records| seen.runs.len() == FAILURES as usize + 1;
    bench.stays("4 runs", WINDOW, runs).await?;
    running.stop().await?;
    Ok(())
}

/// R2.
async fn permanent_failure_is_not_retried(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("permanent"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
    let policy = bench.policy().build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send("m").await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    bench.stays("1 run", WINDOW, |seen| seen.runs.len() == 1).await?;
    ensure!(letters.len() == 1, "expected 1 dead letter, found {}", letters.len());
    let reason = letters[0].letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::Permanent), "expected reason `permanent`, got {reason:?}");
    running.stop().await?;
    Ok(())
}

/// R3.
async fn unknown_error_is_transient(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("unknown"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() == 1 {
            Err(std::io::Error::other("disk"))?;
        }
        Ok(())
    });
    let policy = bench.policy().build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send("m").await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("m"));
    ensure!(attempts == [1, 2], "expected attempts 1 and 2, got {attempts:?}");
    let letters = member.letters(&topic, &group).await?;
    ensure!(letters.is_empty(), "expected no dead letter, found {}", letters.len());
    running.stop().await?;
    Ok(())
}

/// R12.
async fn panic_is_an_attempt(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("panic"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, context| async move {
        if context.attempt() == 1 && received.body == "bad" {
            // As `panic!` unwinds, without a report on the terminal: it is meant.
            std::panic::resume_unwind(Box::new("this handler panics"));
        }
        Ok(())
    });
    let policy = bench.policy().build().map_err(Error::from)?;
    // One at a time: the panic is on the path of all that comes after it.
    let worker = member.work(&topic, &group).concurrency(1).policy(policy).handle(handler);
    let running = worker.start().await?;
    let sender = member.sender(&topic).await?;
    sender.send("bad").await?;
    sender.send("good").await?;
    bench.wait("2 successes", |seen| seen.ended(ledger::Outcome::Ok) >= 2).await?;
    let (bad, good) = bench.ledger().read(|seen| (seen.attempts("bad"), seen.attempts("good")));
    ensure!(bad == [1, 2], "expected a panic as attempt 1 and a run as attempt 2, got {bad:?}");
    ensure!(good == [1], "expected the other message to run once, got attempts {good:?}");
    running.stop().await?;
    Ok(())
}

/// R13.
async fn timeout_is_an_attempt(bench: &Bench) -> Outcome {
    let limit = Duration::from_millis(400);
    let (topic, group) = (bench.topic("slow"), bench.group("all"));
    let member = bench.member().await?;
    let told = Arc::new(AtomicBool::new(false));
    let seen_by_handler = told.clone();
    let handler = member.handler(move |_, context| {
        let told = seen_by_handler.clone();
        async move {
            if context.attempt() == 1 {
                context.cancelled().await;
                told.store(true, Ordering::Relaxed);
                // It does not obey: its next await is its last.
                pending::<()>().await;
            }
            Ok(())
        }
    });
    let policy = bench.policy().handler_timeout(limit).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send("m").await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("m"));
    ensure!(attempts == [1, 2], "expected attempts 1 and 2, got {attempts:?}");
    ensure!(told.load(Ordering::Relaxed), "the handler's context was never cancelled");
    let first = bench.ledger().read(|seen| {
        let run = &seen.runs[0];
        run.end.as_ref().map(|end| (end.how, end.at - run.at))
    });
    let Some((how, took)) = first else {
        return Err("the first run has no end".to_owned().into());
    };
    ensure!(how == ledger::Outcome::Dropped, "expected a cancelled run, it ended as {how:?}");
    let latest = limit + bench.bound();
    ensure!(took >= limit, "cancelled after {took:?}, before its {limit:?} were over");
    ensure!(took <= latest, "cancelled after {took:?}, latest {latest:?}");
    running.stop().await?;
    Ok(())
}
