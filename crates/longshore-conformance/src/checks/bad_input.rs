use bytes::Bytes;
use longshore_core::{Error, Failure};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::harness::Foreign;
use crate::ledger;

pub(super) const CHECKS: &[Check] = &[Check {
    id: "bad_input.foreign_message",
    code: "Z1",
    tier: Tier::Core,
    summary: "a message of another program, without an id and our headers, is a normal message",
    needs: &[Need::Delay, Need::DeadLetters],
    run: |bench| Box::pin(foreign_message(bench)),
}];

/// Z1. It is retried and dead-lettered like any other, with what it carries.
async fn foreign_message(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("foreign"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sent = Bytes::from_static(b"\xff\x00 from elsewhere");
    let header = ("x-foreign".to_owned(), Bytes::from_static(b"kept"));
    let foreign = Foreign { topic: topic.clone(), body: sent.clone(), headers: vec![header] };
    bench.inject(&member, foreign).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    bench.stays("2 runs", WINDOW, |seen| seen.runs.len() == 2).await?;
    let runs: Vec<_> = bench.ledger().read(|seen| {
        let attempt = |run: &ledger::Ran| (run.attempt, run.received.clone());
        seen.runs.iter().map(attempt).collect()
    });
    let attempts: Vec<_> = runs.iter().map(|(attempt, _)| *attempt).collect();
    ensure!(attempts == [1, 2], "expected attempts 1 and 2, got {attempts:?}");
    for received in runs.iter().map(|(_, received)| received).chain(&letters) {
        ensure!(received.body == sent, "sent {sent:?}, got {:?}", received.body);
        let kept = received.headers.get("x-foreign").map(|value| &value[..]);
        ensure!(kept == Some(b"kept"), "its own header is not there: {:?}", received.headers);
    }
    let id = letters[0].letter.as_ref().map(|letter| letter.original_id.clone());
    ensure!(id.is_some_and(|id| !id.is_empty()), "a dead letter names its message, even this one");
    running.stop().await?;
    Ok(())
}
