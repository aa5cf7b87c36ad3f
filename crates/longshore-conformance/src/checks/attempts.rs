use std::time::Duration;

use longshore_core::{Error, Failure};

use crate::bench::Bench;
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, body};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "attempt.counts_failures_only",
    code: "T1",
    tier: Tier::Core,
    summary: "from 1, one more for each failure in process or delayed, none for a redelivery",
    needs: &[Need::Delay, Need::DeadLetters],
    run: |bench| Box::pin(counts_failures_only(bench)),
}];

/// T1. The connection that gets the message first goes away with it in its hands.
async fn counts_failures_only(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("counted"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench
        .policy()
        .max_attempts(5)
        .fast_delays([Duration::from_millis(50)])
        .build()
        .map_err(Error::from)?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.sender(&topic).await?.send("m").await?;
    let gone = bench.member().await?;
    let consumer = gone.consumer(bench.source(&topic, &group), 1).await?;
    let first = consumer.next().await?;
    ensure!(first.attempt() == 1, "attempts count from 1, got {}", first.attempt());
    ensure!(first.deliveries == 1, "deliveries count from 1, got {}", first.deliveries);
    ensure!(body(&first) == "m", "expected `m`, got `{}`", body(&first));
    drop(consumer);
    gone.client.close().await?;

    let handler = member.handler(|_, context| async move {
        if context.attempt() <= 3 { Err(Failure::transient("not yet")) } else { Ok(()) }
    });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let (attempts, redelivered, handed_over) = bench.ledger().read(|seen| {
        let redelivered = seen.runs[0].received.deliveries;
        (seen.attempts("m"), redelivered, seen.of_body("m").count())
    });
    ensure!(
        attempts == [1, 2, 3, 4],
        "after one redelivery, expected attempts 1 to 4 (2 in process, 3 and 4 delayed), got \
         {attempts:?}"
    );
    // The worker's first delivery, two delayed retries, and the connection that went away.
    ensure!(handed_over == 4, "expected 4 deliveries, the ledger has {handed_over}");
    let counts = bench.info().capabilities.deliveries != longshore_core::Deliveries::Flag;
    ensure!(!counts || redelivered >= 2, "a redelivery counts as one, deliveries {redelivered}");
    running.stop().await?;
    Ok(())
}
