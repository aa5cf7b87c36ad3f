use std::sync::Arc;

use longshore_core::{Error, ErrorKind, Failure, Settlement};
use tokio::sync::Barrier;

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{How, Records};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "batch.one_bad_item_is_alone",
    code: "B3",
    tier: Tier::Core,
    summary: "one bad message among many settled together: only it is retried and dead-lettered",
    needs: &[Need::Delay, Need::DeadLetters],
    run: |bench| Box::pin(one_bad_item_is_alone(bench)),
}];

const BATCH: usize = 20;

/// B3. All runs end at the same time, so their settlements are one batch.
async fn one_bad_item_is_alone(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("batch"), bench.group("all"));
    let member = bench.member().await?;
    let together = Arc::new(Barrier::new(BATCH));
    let handler = member.handler(move |received, context| {
        let together = together.clone();
        async move {
            if context.attempt() == 1 {
                together.wait().await;
            }
            if received.body == "m7" {
                return Err(Failure::transient("bad"));
            }
            // A turn later: what follows the bad one in its batch is what it could take along.
            tokio::task::yield_now().await;
            Ok(())
        }
    });
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let worker = member.work(&topic, &group).concurrency(BATCH).prefetch(32).policy(policy);
    let running = worker.handle(handler).start().await?;
    for outcome in member.sender(&topic).await?.send_all((0..BATCH).map(|n| format!("m{n}"))).await
    {
        outcome?;
    }
    member.wait_for_letters(&topic, &group, 1).await?;
    let once = |seen: &Records| seen.runs.len() == BATCH + 1;
    bench.wait("21 runs", |seen| seen.runs.len() > BATCH).await?;
    bench.stays("21 runs", WINDOW, once).await?;
    let (bad, acks) =
        bench.ledger().read(|seen| (seen.attempts("m7"), seen.settled(|how| how == How::Ack)));
    ensure!(bad == [1, 2], "the bad one: expected attempts 1 and 2, got {bad:?}");
    ensure!(acks == BATCH - 1, "expected {} acks, the ledger has {acks}", BATCH - 1);
    let letters = member.letters(&topic, &group).await?;
    ensure!(letters.len() == 1, "expected 1 dead letter, found {}", letters.len());
    running.stop().await?;
    stale_among_valid(bench).await
}

/// One token in a batch is over: its own result says so, and the others'.
async fn stale_among_valid(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("settled"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let sender = member.sender(&topic).await?;
    for n in 0..3 {
        sender.send(format!("s{n}")).await?;
    }
    let consumer = member.consumer(bench.source(&topic, &group), 3).await?;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(consumer.next().await?.token);
    }
    consumer.settle(Settlement::Ack(tokens[1])).await?;
    let batch: Vec<_> = tokens.iter().copied().map(Settlement::Ack).collect();
    let results = consumer.settle_all(&batch).await;
    ensure!(results.len() == 3, "3 settlements, {} results", results.len());
    for (n, result) in results.iter().enumerate() {
        let kind = result.as_ref().err().map(Error::kind);
        let stale = n == 1 && kind == Some(ErrorKind::LeaseLost);
        ensure!(kind.is_none() || stale, "settlement {n} of the batch: {result:?}");
    }
    consumer.close().await?;
    Ok(())
}
