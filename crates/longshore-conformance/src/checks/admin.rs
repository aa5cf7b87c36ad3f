use bytes::Bytes;
use longshore_core::policy::{DeadLetters, Reason};
use longshore_core::{Error, Failure, GroupName, HeaderName, Message, MessageId};
use longshore_runtime::Redriven;

use super::consume::difference;
use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, Records};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "redrive.resets_attempts_and_loses_nothing",
        code: "M2",
        tier: Tier::Core,
        summary: "redriven at once: original bytes, attempts from 1, one redrive more, nothing lost",
        needs: NEEDS,
        run: |bench| Box::pin(resets_attempts_and_loses_nothing(bench)),
    },
    Check {
        id: "redrive.reaches_only_its_group",
        code: "M3",
        tier: Tier::Core,
        summary: "only the group that failed a message receives it again",
        needs: NEEDS,
        run: |bench| Box::pin(reaches_only_its_group(bench)),
    },
];

/// M2. At once, so within any window in which the broker knows the id again.
async fn resets_attempts_and_loses_nothing(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("redriven"), bench.group("all"));
    let member = bench.member().await?;
    // Fails until it was redriven twice.
    let handler = member.handler(|received, _| async move {
        let redrives = received.record.as_ref().map_or(0, |record| record.redrives);
        if redrives < 2 { Err(Failure::transient("not yet")) } else { Ok(()) }
    });
    let letters = DeadLetters { max_redrives: 5, ..DeadLetters::default() };
    let policy = bench.policy().max_attempts(2).dead_letter(letters).build();
    let worker = member.work(&topic, &group).policy(policy.map_err(Error::from)?).handle(handler);
    let running = worker.start().await?;
    let mut sent = Message::new(Bytes::from_static(b"\x00\xff redrive"))
        .key("k")
        .id(MessageId::generate())
        .content_type("text/plain");
    for value in ["1", "2"] {
        sent.headers.append(HeaderName::from_static("x-same"), value);
    }
    member.sender(&topic).await?.send(sent.clone()).await?;

    let mut before = None;
    for redrives in 0..2 {
        let dead = member.wait_for_letters(&topic, &group, 1).await?;
        ensure!(dead.len() == 1, "expected 1 dead letter, found {}", dead.len());
        let wrong = difference(&sent, &dead[0]);
        ensure!(wrong.is_none(), "dead letter, {}: {:?}", wrong.unwrap_or_default(), dead[0]);
        let Some(letter) = dead[0].letter.clone() else {
            return Err("the dead letter has no readable metadata".to_owned().into());
        };
        let (count, reason) = (letter.redrive_count, letter.reason);
        ensure!(count == redrives, "redrive-count: expected {redrives}, found {count}");
        ensure!(reason == Reason::AttemptsExhausted, "wrong reason: {reason:?}");
        ensure!(letter.attempts == 2, "attempts: expected 2, found {}", letter.attempts);
        let of = &letter.redrive_of;
        ensure!(*of == before, "redrive-of: expected {before:?}, found {of:?}");
        ensure!(before.as_ref() != Some(&letter.id), "a second death has the first one's id");
        before = Some(letter.id.clone());
        let redriven =
            member.client.dead_letters(&topic, &group)?.redrive().max_redrives(5).await?;
        let wanted = Redriven { examined: 1, moved: 1, ..Redriven::default() };
        ensure!(redriven == wanted, "expected {wanted:?}, got {redriven:?}");
    }
    bench.wait("a success after 2 redrives", |seen| seen.ended(ledger::Outcome::Ok) > 0).await?;
    let (attempts, wrong) = bench.ledger().read(|seen| {
        let attempts: Vec<_> = seen.runs.iter().map(|run| run.attempt).collect();
        (attempts, seen.runs.iter().find_map(|run| difference(&sent, &run.received)))
    });
    ensure!(attempts == [1, 2, 1, 2, 1], "expected attempts 1 2, 1 2, 1; got {attempts:?}");
    ensure!(wrong.is_none(), "in one of the runs, {} differed", wrong.unwrap_or_default());
    bench.stays("5 runs", WINDOW, |seen| seen.runs.len() == 5).await?;
    let left = member.letters(&topic, &group).await?.len();
    ensure!(left == 0, "expected an empty dead-letter queue, {left} letters are there");
    running.stop().await?;
    Ok(())
}

/// M3.
async fn reaches_only_its_group(bench: &Bench) -> Outcome {
    let topic = bench.topic("one-failed");
    let (failing, other) = (bench.group("failing"), bench.group("other"));
    let member = bench.member().await?;
    let policy = bench.policy().build().map_err(Error::from)?;
    let handler = member.handler(|received, _| async move {
        let redriven = received.record.as_ref().is_some_and(|record| record.redrives > 0);
        if redriven { Ok(()) } else { Err(Failure::permanent("not before the redrive")) }
    });
    let worker = member.work(&topic, &failing).policy(policy.clone()).handle(handler);
    let fails = worker.start().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let succeeds = member.work(&topic, &other).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send("m").await?;
    member.wait_for_letters(&topic, &failing, 1).await?;
    let handled = |seen: &Records, group: &GroupName| {
        let ok =
            |run: &ledger::Ran| run.end.as_ref().is_some_and(|end| end.how == ledger::Outcome::Ok);
        seen.runs_of(group).any(ok)
    };
    bench.wait("a success of the other group", |seen| handled(seen, &other)).await?;
    let redriven = member.client.dead_letters(&topic, &failing)?.redrive().await?;
    ensure!(redriven.moved == 1, "expected 1 letter to be moved, got {redriven:?}");
    bench.wait("a success of the group that failed", |seen| handled(seen, &failing)).await?;
    let counts = |seen: &Records| {
        (seen.to_group(&topic, &failing).count(), seen.to_group(&topic, &other).count()) == (2, 1)
    };
    bench.stays("2 deliveries to one group, 1 to the other", WINDOW, counts).await?;
    fails.stop().await?;
    succeeds.stop().await?;
    Ok(())
}
