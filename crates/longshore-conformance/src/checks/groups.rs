use std::collections::{BTreeMap, BTreeSet};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Outcome, Tier, ensure};
use crate::ledger::{Records, body};

const MESSAGES: usize = 60;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "group.each_gets_everything",
        code: "G1",
        tier: Tier::Core,
        summary: "two groups of a topic each get every message",
        needs: &[],
        run: |bench| Box::pin(each_gets_everything(bench)),
    },
    Check {
        id: "group.members_share",
        code: "G2",
        tier: Tier::Core,
        summary: "members of a group compete: disjoint, and complete together",
        needs: &[],
        run: |bench| Box::pin(members_share(bench)),
    },
];

fn texts() -> BTreeSet<String> {
    (0..MESSAGES).map(|n| format!("m{n}")).collect()
}

/// G1.
async fn each_gets_everything(bench: &Bench) -> Outcome {
    let topic = bench.topic("fan-out");
    let groups = [bench.group("one"), bench.group("two")];
    let mut running = Vec::new();
    for group in &groups {
        let member = bench.member().await?;
        let handler = member.handler(|_, _| async { Ok(()) });
        running.push(member.work(&topic, group).handle(handler).start().await?);
    }
    let member = bench.member().await?;
    for outcome in member.sender(&topic).await?.send_all(texts()).await {
        outcome?;
    }
    let all = |seen: &Records| seen.runs.len() >= 2 * MESSAGES;
    let arrived = bench.wait("120 handler runs", all).await;
    for group in &groups {
        let got: BTreeSet<_> = bench
            .ledger()
            .read(|seen| seen.runs_of(group).map(|run| body(&run.received).to_owned()).collect());
        ensure!(got == texts(), "group {group} got {} of {MESSAGES} messages", got.len());
    }
    arrived?;
    let exact = |seen: &Records| seen.runs.len() == 2 * MESSAGES;
    bench.stays("120 handler runs", WINDOW, exact).await?;
    for running in running {
        running.stop().await?;
    }
    Ok(())
}

/// G2.
async fn members_share(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("competing"), bench.group("all"));
    let mut running = Vec::new();
    for _ in 0..3 {
        let member = bench.member().await?;
        let handler = member.handler(|_, _| async { Ok(()) });
        let worker = member.work(&topic, &group).concurrency(1).prefetch(4).handle(handler);
        running.push(worker.start().await?);
    }
    let member = bench.member().await?;
    for outcome in member.sender(&topic).await?.send_all(texts()).await {
        outcome?;
    }
    bench.wait("60 handler runs", |seen| seen.runs.len() >= MESSAGES).await?;
    let exact = |seen: &Records| seen.runs.len() == MESSAGES;
    let stayed = bench.stays("60 handler runs", WINDOW, exact).await;
    let who = bench.ledger().read(|seen| {
        let mut who: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for run in &seen.runs {
            let members = who.entry(body(&run.received).to_owned()).or_default();
            members.push(run.instance.to_string());
        }
        who
    });
    let twice = who.iter().find(|(_, members)| members.len() > 1);
    ensure!(twice.is_none(), "expected one member each: {twice:?}");
    let got: BTreeSet<_> = who.into_keys().collect();
    ensure!(got == texts(), "together they got {} of {MESSAGES} messages", got.len());
    stayed?;
    for running in running {
        running.stop().await?;
    }
    Ok(())
}
