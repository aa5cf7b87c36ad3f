//! How often a message is tried in all.

use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{Error, ErrorKind, Failure, Settlement};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Stop, Tier, ensure};
use crate::ledger;

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];
/// Above the limit that any broker sets by itself (RabbitMQ's quorum queues: 20).
const MANY: u32 = 25;
/// Above what a careless client sets (Watermill's conformance suite sees no loss below it).
const RETURNS: usize = 210;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "attempt.instances_share_the_cap",
        code: "T2",
        tier: Tier::Core,
        summary: "6 competing instances run a message as often together as one would",
        needs: NEEDS,
        run: |bench| Box::pin(instances_share_the_cap(bench)),
    },
    Check {
        id: "attempt.broker_limit_loses_nothing",
        code: "T7",
        tier: Tier::Core,
        summary: "no limit of the broker drops a message that the policy would still try",
        needs: NEEDS,
        run: |bench| Box::pin(broker_limit_loses_nothing(bench)),
    },
    Check {
        id: "attempt.copies_keep_the_cap",
        code: "T10",
        tier: Tier::Core,
        summary: "a retry that is a copy, and one that came back: the cap is not reset",
        needs: NEEDS,
        run: |bench| Box::pin(copies_keep_the_cap(bench)),
    },
];

/// T2.
async fn instances_share_the_cap(bench: &Bench) -> Outcome {
    const INSTANCES: usize = 6;
    const MESSAGES: usize = 6;
    const ATTEMPTS: u32 = 5;
    let (topic, group) = (bench.topic("capped"), bench.group("all"));
    let step = bench.delay(Duration::from_millis(50));
    let policy = bench.policy().max_attempts(ATTEMPTS).delayed([step]).build();
    let policy = policy.map_err(Error::from)?;
    let mut running = Vec::new();
    for _ in 0..INSTANCES {
        let member = bench.member().await?;
        let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
        let worker = member.work(&topic, &group).prefetch(1).concurrency(1);
        running.push(worker.policy(policy.clone()).handle(handler).start().await?);
    }
    let member = bench.member().await?;
    let sender = member.sender(&topic).await?;
    for n in 0..MESSAGES {
        sender.send(format!("m{n}")).await?;
    }
    let letters = member.wait_for_letters(&topic, &group, MESSAGES).await?;
    let total = MESSAGES * ATTEMPTS as usize;
    bench.stays("30 runs", WINDOW, |seen| seen.runs.len() == total).await?;
    for n in 0..MESSAGES {
        let attempts = bench.ledger().read(|seen| seen.attempts(&format!("m{n}")));
        ensure!(attempts == [1, 2, 3, 4, 5], "m{n}: expected attempts 1 to 5, got {attempts:?}");
    }
    let told = letters
        .iter()
        .all(|dead| dead.letter.as_ref().is_some_and(|letter| letter.attempts == ATTEMPTS));
    ensure!(told, "each letter has {ATTEMPTS} attempts: {letters:?}");
    for running in running {
        running.stop().await?;
    }
    Ok(())
}

/// T7. A policy that asks for more than the broker gives is refused at start, or the broker gives
/// it; and what was only handed over and given back is not tried at all.
async fn broker_limit_loses_nothing(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("limited"), bench.group("all"));
    let member = bench.member().await?;
    let step = bench.delay(Duration::from_millis(5));
    let policy = bench.policy().max_attempts(MANY).delayed([step]).build();
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let worker = member.work(&topic, &group).policy(policy.map_err(Error::from)?).handle(handler);
    let running = match worker.start().await {
        Ok(running) => running,
        // Said at start, and typed: as good.
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    member.sender(&topic).await?.send("tried").await?;
    // Each gap may be late by itself, so the patience is for one run and not for all of them.
    for runs in 1..=MANY as usize {
        bench.wait("another run", |seen| seen.attempts("tried").len() >= runs).await?;
    }
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("tried").len());
    ensure!(attempts == MANY as usize, "expected {MANY} runs, the broker allowed {attempts}");
    let reason = letters[0].letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::AttemptsExhausted), "wrong reason: {reason:?}");
    running.stop().await?;

    let returned = bench.topic("returned");
    member.client.declare(&bench.topology(&returned, &group)).await?;
    member.sender(&returned).await?.send("returned").await?;
    let consumer = member.consumer(bench.source(&returned, &group), 1).await?;
    for n in 0..RETURNS {
        let received = consumer.next().await.map_err(|_| {
            Stop::Failed(format!("given back {n} times, then it did not come any more"))
        })?;
        consumer.settle(Settlement::Release { token: received.token, record: None }).await?;
    }
    let received = consumer.next().await?;
    consumer.settle(Settlement::Ack(received.token)).await?;
    consumer.close().await?;
    Ok(())
}

/// T10. Between its retries it is handed to connections that go away with it.
async fn copies_keep_the_cap(bench: &Bench) -> Outcome {
    const ATTEMPTS: u32 = 4;
    let (topic, group) = (bench.topic("copied"), bench.group("all"));
    let policy = bench.policy().max_attempts(ATTEMPTS).build().map_err(Error::from)?;
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.sender(&topic).await?.send("m").await?;
    for attempt in 1..=ATTEMPTS {
        let gone = bench.member().await?;
        let consumer = gone.consumer(bench.source(&topic, &group), 1).await?;
        let received = consumer.next().await?;
        let number = received.attempt();
        ensure!(number == attempt, "below the runtime: attempt {attempt}, it came as {number}");
        drop(consumer);
        gone.client.close().await?;

        let process = bench.member().await?;
        let handler = process.handler(|_, _| async { Err(Failure::transient("never")) });
        let worker = process.work(&topic, &group).policy(policy.clone()).handle(handler);
        let running = worker.start().await?;
        let runs = attempt as usize;
        let settled = |seen: &ledger::Records| {
            seen.runs.len() >= runs
                && seen
                    .settled(|how| matches!(how, ledger::How::Retry(_) | ledger::How::DeadLetter))
                    >= runs
        };
        bench.wait("a failure", settled).await?;
        running.stop().await?;
    }
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("m"));
    ensure!(attempts == [1, 2, 3, 4], "expected attempts 1 to 4, got {attempts:?}");
    let told = letters[0].letter.as_ref().map(|letter| letter.attempts);
    ensure!(told == Some(ATTEMPTS), "the letter has {told:?} attempts, expected {ATTEMPTS}");
    Ok(())
}
