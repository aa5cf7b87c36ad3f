use bytes::Bytes;
use longshore_core::{Error, Failure};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "fidelity.every_byte_value",
        code: "H1",
        tier: Tier::Core,
        summary: "a body of all 256 byte values arrives as it is, in every attempt",
        needs: &[Need::Delay, Need::DeadLetters],
        run: |bench| Box::pin(arrives_in_every_attempt(bench, (0..=255).collect())),
    },
    Check {
        id: "fidelity.empty_body",
        code: "H2",
        tier: Tier::Core,
        summary: "an empty body is a message",
        needs: &[Need::Delay, Need::DeadLetters],
        run: |bench| Box::pin(arrives_in_every_attempt(bench, Bytes::new())),
    },
];

/// H1 and H2.
async fn arrives_in_every_attempt(bench: &Bench, sent: Bytes) -> Outcome {
    let (topic, group) = (bench.topic("bytes"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() == 1 { Err(Failure::transient("once")) } else { Ok(()) }
    });
    let policy = bench.policy().build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send(sent.clone()).await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    bench.stays("2 runs", WINDOW, |seen| seen.runs.len() == 2).await?;
    let wrong = bench.ledger().read(|seen| {
        let wrong = seen.runs.iter().find(|run| run.received.body != sent);
        wrong.map(|run| (run.attempt, run.received.body.clone()))
    });
    ensure!(wrong.is_none(), "sent {sent:?}; in which attempt what arrived: {wrong:?}");
    running.stop().await?;
    Ok(())
}
