//! Messages that kill their process, and the many that only stood beside one.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{Deliveries, Support};
use tokio::sync::Notify;

use crate::bench::{Bench, PATIENCE};
use crate::check::{Check, Need, Outcome, Stop, Tier, ensure};
use crate::ledger::{self, Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];
/// Deliveries that a member holds beside the one that kills it.
const PREFETCH: u16 = 50;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "crash.culprit_is_named",
        code: "X3",
        tier: Tier::Core,
        summary: "what kills its process is named within 4 crashes, and none of its neighbours",
        needs: NEEDS,
        run: |bench| Box::pin(culprit_is_named(bench)),
    },
    Check {
        id: "crash.deployments_cost_nothing",
        code: "X6",
        tier: Tier::Core,
        summary: "ten deployments over a backlog, graceful and killed: nothing is dead-lettered",
        needs: NEEDS,
        run: |bench| Box::pin(deployments_cost_nothing(bench)),
    },
];

/// How many messages were handled with success.
fn handled(seen: &Records) -> BTreeSet<String> {
    let ok =
        |run: &&ledger::Ran| run.end.as_ref().is_some_and(|end| end.how == ledger::Outcome::Ok);
    seen.runs.iter().filter(ok).map(|run| body(&run.received).to_owned()).collect()
}

/// X3. A process is started anew each time that one is killed, as a supervisor would.
async fn culprit_is_named(bench: &Bench) -> Outcome {
    const NEIGHBOURS: usize = 60;
    const CRASHES: usize = 4;
    let capabilities = &bench.info().capabilities;
    let isolates = capabilities.suspect_lane != Support::Unsupported
        && capabilities.deliveries != Deliveries::Flag;
    if !isolates {
        let why = "the backend declares that it cannot isolate crashes";
        return Err(Stop::NotApplicable(why.to_owned()));
    }
    let (topic, group) = (bench.topic("killer"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let sender = member.sender(&topic).await?;
    // In the middle of what is handed over together.
    let texts = (0..NEIGHBOURS).map(|n| format!("m{n}"));
    let mut texts: Vec<_> = texts.collect();
    texts.insert(20, "kills".to_owned());
    for outcome in sender.send_all(texts).await {
        outcome?;
    }

    let mut crashes = 0;
    let last = loop {
        let process = bench.member().await?;
        let killed = Arc::new(Notify::new());
        let kills = killed.clone();
        let handler = process.handler(move |received, _| {
            let kills = kills.clone();
            async move {
                if received.body == "kills" {
                    kills.notify_one();
                    return pending().await;
                }
                // Long enough that some are still running when it kills, and some have not begun.
                tokio::time::sleep(Duration::from_millis(30)).await;
                Ok(())
            }
        });
        let worker = process.work(&topic, &group).prefetch(PREFETCH).concurrency(8);
        let running = worker.handle(handler).start().await?;
        let named = member.wait_for_letters(&topic, &group, 1);
        tokio::select! {
            () = killed.notified() => {
                crashes += 1;
                ensure!(crashes <= CRASHES, "after {CRASHES} crashes, it killed once more");
                bench.crash(&process).await?;
                drop(running);
            }
            found = named => { found?; break running }
        }
    };
    let all = |seen: &Records| handled(seen).len() == NEIGHBOURS;
    bench.wait("success of all 60 neighbours", all).await?;
    let letters = member.letters(&topic, &group).await?;
    let dead: Vec<_> = letters.iter().map(body).collect();
    ensure!(dead == ["kills"], "expected the culprit alone to be dead, found {dead:?}");
    let reason = letters[0].letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::CrashSuspect), "expected `crash-suspect`, got {reason:?}");
    // In a lane of one at a time, it may be named sooner; it was never named for nothing.
    ensure!(crashes >= 2, "dead-lettered after {crashes} crashes: nobody could know");
    last.stop().await?;
    Ok(())
}

/// X6.
async fn deployments_cost_nothing(bench: &Bench) -> Outcome {
    const DEPLOYMENTS: usize = 10;
    const MESSAGES: usize = 150;
    /// Three of ten: two kills beside its neighbours and two alone would name any message.
    const KILLED: usize = 4;
    let (topic, group) = (bench.topic("backlog"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let texts = (0..MESSAGES).map(|n| format!("m{n}"));
    for outcome in member.sender(&topic).await?.send_all(texts).await {
        outcome?;
    }
    let policy = bench.policy().drain(Duration::from_millis(100)).build();
    let policy = policy.map_err(longshore_core::Error::from)?;
    for deployment in 0..=DEPLOYMENTS {
        let process = bench.member().await?;
        let last = deployment == DEPLOYMENTS;
        // Slow: each deployment ends with handlers that run and messages that have not begun.
        let took = Duration::from_millis(if last { 1 } else { 400 });
        let handler = process.handler(move |_, _| async move {
            tokio::time::sleep(took).await;
            Ok(())
        });
        let before = bench.ledger().read(|seen| handled(seen).len());
        let worker = process.work(&topic, &group).prefetch(PREFETCH).policy(policy.clone());
        let running = worker.handle(handler).start().await?;
        if last {
            let all = |seen: &Records| handled(seen).len() == MESSAGES;
            bench.wait("success of all 150 messages", all).await?;
            running.stop().await?;
            break;
        }
        let goes_on = |seen: &Records| handled(seen).len() >= (before + 4).min(MESSAGES);
        bench.ledger().wait("4 successes", PATIENCE, goes_on).await?;
        if deployment % KILLED == 0 {
            bench.crash(&process).await?;
            drop(running);
        } else {
            running.stop().await?;
        }
    }
    let returned = bench.ledger().read(|seen| seen.deliveries.len() > MESSAGES);
    ensure!(returned, "no deployment took a message from its process: nothing was proved");
    let letters = member.letters(&topic, &group).await?;
    let dead: Vec<_> = letters.iter().map(body).collect();
    ensure!(dead.is_empty(), "deployments dead-lettered {dead:?}");
    Ok(())
}
