//! A process that dies, and what another finds.

use std::future::pending;

use longshore_core::{Deliveries, Error, Failure};
use tokio::time::Instant;

use crate::bench::{Bench, LEASE, STEP, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::harness::Act;
use crate::ledger::{self, How, Records};
use crate::member::Member;

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "crash.held_message_returns",
        code: "X1",
        tier: Tier::Core,
        summary: "killed in the middle of a handler: the message is another's within the deadline",
        needs: &[],
        run: |bench| Box::pin(held_message_returns(bench)),
    },
    Check {
        id: "attempt.crash_is_no_failure",
        code: "T4",
        tier: Tier::Core,
        summary: "a crash raises the deliveries, not the failures",
        needs: &[],
        run: |bench| Box::pin(crash_is_no_failure(bench)),
    },
    Check {
        id: "attempt.survives_restart",
        code: "T3",
        tier: Tier::Core,
        summary: "the count goes on where every process was killed, and the broker restarted",
        needs: NEEDS,
        run: |bench| Box::pin(survives_restart(bench)),
    },
    Check {
        id: "retry.waits_without_consumers",
        code: "R7",
        tier: Tier::Core,
        summary: "what waits survives the death of all consumers, and a restart of the broker",
        needs: NEEDS,
        run: |bench| Box::pin(waits_without_consumers(bench)),
    },
    Check {
        id: "reconnect.broker_restart",
        code: "K1",
        tier: Tier::Core,
        summary: "the broker restarts: workers and senders go on by themselves, nothing is lost",
        needs: &[],
        run: |bench| Box::pin(broker_restart(bench)),
    },
];

/// Starts a worker whose handler never ends, and kills it in its first run.
async fn dies_in_its_handler(
    bench: &Bench,
    topic: &longshore_core::TopicName,
    group: &longshore_core::GroupName,
) -> Outcome<Instant> {
    let dies = bench.member().await?;
    let before = bench.ledger().read(|seen| seen.runs.len());
    let handler = dies.handler(|_, _| pending());
    let running = dies.work(topic, group).handle(handler).start().await?;
    bench.wait("a run to be killed", |seen| seen.runs.len() > before).await?;
    bench.crash(&dies).await?;
    let at = Instant::now();
    drop(running);
    Ok(at)
}

/// X1.
async fn held_message_returns(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("killed"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let id = member.sender(&topic).await?.send("m").await?.id;
    let killed = dies_in_its_handler(bench, &topic, &group).await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let (came, same) = bench.ledger().read(|seen| {
        let ok = |run: &&ledger::Ran| run.instance == member.instance;
        let run = seen.runs.iter().find(ok);
        run.map_or((LEASE * 100, false), |run| {
            (run.at - killed, run.received.id == Some(id.clone()))
        })
    });
    let latest = LEASE + bench.bound();
    ensure!(same, "another message than `{id}` came");
    ensure!(came <= latest, "it came back {came:?} after the kill, latest {latest:?}");
    bench.stays("2 deliveries", WINDOW, |seen| seen.deliveries.len() == 2).await?;
    running.stop().await?;
    Ok(())
}

/// T4. Killed once: twice would make it a suspect.
async fn crash_is_no_failure(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("crashed"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.sender(&topic).await?.send("m").await?;
    dies_in_its_handler(bench, &topic, &group).await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let (attempts, deliveries) = bench.ledger().read(|seen| {
        let deliveries: Vec<_> = seen.runs.iter().map(|run| run.received.deliveries).collect();
        (seen.attempts("m"), deliveries)
    });
    ensure!(attempts == [1, 1], "a crash is no failure: expected attempts 1 and 1, {attempts:?}");
    let right = match bench.info().capabilities.deliveries {
        Deliveries::Exact => deliveries == [1, 2],
        Deliveries::Suspected => deliveries[0] == 1 && deliveries[1] >= 2,
        Deliveries::Flag => true,
    };
    ensure!(right, "a crash is a delivery: expected 1, then 2; got {deliveries:?}");
    running.stop().await?;
    Ok(())
}

/// A worker that fails every attempt below `until`.
async fn fails_until(
    member: &Member,
    bench: &Bench,
    (topic, group): (&longshore_core::TopicName, &longshore_core::GroupName),
    until: u32,
) -> Outcome<longshore_runtime::Running> {
    let handler = member.handler(move |_, context| async move {
        if context.attempt() < until { Err(Failure::transient("not yet")) } else { Ok(()) }
    });
    let delay = bench.delay(LEASE);
    let policy = bench.policy().max_attempts(6).delayed([delay]).build().map_err(Error::from)?;
    Ok(member.work(topic, group).policy(policy).handle(handler).start().await?)
}

fn retries(seen: &Records) -> usize {
    seen.settled(|how| matches!(how, How::Retry(_)))
}

/// T3. Each process sees one failure and is killed while the message waits; the broker restarts
/// once, unless the harness declares that there is no server.
async fn survives_restart(bench: &Bench) -> Outcome {
    const PROCESSES: usize = 3;
    let (topic, group) = (bench.topic("restarted"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.sender(&topic).await?.send("m").await?;
    let mut restarted = Ok(false);
    for process in 0..PROCESSES {
        let dies = bench.member().await?;
        let running = fails_until(&dies, bench, (&topic, &group), u32::MAX).await?;
        bench.wait("a durable retry", |seen| retries(seen) > process).await?;
        bench.crash(&dies).await?;
        drop(running);
        if process == 0 {
            restarted = bench.restart().await;
        }
    }
    let last = bench.member().await?;
    let running = fails_until(&last, bench, (&topic, &group), 4).await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("m"));
    ensure!(attempts == [1, 2, 3, 4], "over 4 processes, expected 1 to 4, got {attempts:?}");
    running.stop().await?;
    // Without the hook, all else is seen to hold and the check is not run.
    restarted.map(|_| ())
}

/// R7. Longer than a lease, so that nothing comes back merely because its holder is dead. The broker
/// restarts too, unless the harness declares that there is no server.
async fn waits_without_consumers(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 10;
    let delay = bench.delay(LEASE * 2);
    let (topic, group) = (bench.topic("orphaned"), bench.group("all"));
    let policy = bench.policy().delayed([delay]).build().map_err(Error::from)?;
    let dies = bench.member().await?;
    let handler = dies.handler(|_, _| async { Err(Failure::transient("later")) });
    let worker = dies.work(&topic, &group).policy(policy.clone()).handle(handler);
    let running = worker.start().await?;
    let sender = dies.sender(&topic).await?;
    for n in 0..MESSAGES {
        sender.send(format!("m{n}")).await?;
    }
    bench.wait("10 messages in the retry lane", |seen| retries(seen) >= MESSAGES).await?;
    bench.crash(&dies).await?;
    drop(running);
    let restarted = bench.restart().await;

    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    bench.wait("10 successes", |seen| seen.ended(ledger::Outcome::Ok) >= MESSAGES).await?;
    bench.stays("20 runs", WINDOW, |seen| seen.runs.len() == 2 * MESSAGES).await?;
    for n in 0..MESSAGES {
        let text = format!("m{n}");
        let (attempts, waited) = bench.ledger().read(|seen| {
            let all: Vec<_> = seen.of_body(&text).collect();
            let ordered = all[0].end.as_ref().map_or(all[0].at, |end| end.ordered);
            (seen.attempts(&text), all[1].at - ordered)
        });
        ensure!(attempts == [1, 2], "`{text}`: expected attempts 1 and 2, got {attempts:?}");
        ensure!(waited >= delay, "`{text}`: {delay:?} were ordered, it came after {waited:?}");
    }
    running.stop().await?;
    restarted.map(|_| ())
}

/// K1. The fault is proved by the server that was stopped: what is sent meanwhile is not confirmed.
async fn broker_restart(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 20;
    let (topic, group) = (bench.topic("outage"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    for n in 0..MESSAGES {
        sender.send(format!("before {n}")).await?;
    }
    bench.server(Act::Stop).await?;
    let meanwhile = tokio::time::timeout(LEASE * 2, sender.send("meanwhile")).await;
    bench.server(Act::Start).await?;
    let confirmed = matches!(meanwhile, Ok(Ok(_)));
    ensure!(!confirmed, "the server was stopped, and a publish confirmed: {meanwhile:?}");
    for n in 0..MESSAGES {
        // The first may meet the end of the old connection: its outcome says so, and it goes again.
        let text = format!("after {n}");
        let sent = tokio::time::timeout(crate::bench::PATIENCE, async {
            while sender.send(text.clone()).await.is_err() {
                tokio::time::sleep(STEP).await;
            }
        });
        ensure!(sent.await.is_ok(), "`{text}` could not be sent after the restart");
    }
    let every = |seen: &Records| {
        let ran = |text: String| seen.runs_of_body(&text).next().is_some();
        (0..MESSAGES).all(|n| ran(format!("before {n}")) && ran(format!("after {n}")))
    };
    bench.wait("all 40 messages", every).await?;
    running.stop().await?;
    Ok(())
}
