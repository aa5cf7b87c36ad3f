//! Moves into another lane, and every place where one can be torn.

use std::time::Duration;

use longshore_core::{Error, Failure, Received, Settlement};

use super::torn::{Remains, at_each_step};
use crate::bench::{Bench, LEASE, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, Records};
use crate::sabotage::{Deed, Sabotage};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "retry.torn_move_loses_nothing",
        code: "R8",
        tier: Tier::Core,
        summary: "a crash at each step of a retry: duplicates at most, loss never",
        needs: NEEDS,
        run: |bench| Box::pin(torn_move_loses_nothing(bench)),
    },
    Check {
        id: "dead_letter.failed_write_keeps_the_message",
        code: "D4",
        tier: Tier::Core,
        summary: "a dead letter that cannot be written: the message stays, back-off, alarm",
        needs: NEEDS,
        run: |bench| Box::pin(failed_write_keeps_the_message(bench)),
    },
    Check {
        id: "dead_letter.duplicate_has_its_id",
        code: "D6",
        tier: Tier::Core,
        summary: "a crash around the write of a dead letter: a copy has the same dead-letter id",
        needs: NEEDS,
        run: |bench| Box::pin(duplicate_has_its_id(bench)),
    },
];

fn retries(order: &Settlement) -> bool {
    matches!(order, Settlement::Retry { .. })
}

fn buries(order: &Settlement) -> bool {
    matches!(order, Settlement::DeadLetter { .. })
}

/// R8. Below the first crash nothing is durable, so the attempt is run again; behind the second all
/// is.
async fn torn_move_loses_nothing(bench: &Bench) -> Outcome {
    for (deed, wanted) in [(Deed::DieBefore, [1, 1, 2]), (Deed::DieAfter, [1, 2, 2])] {
        let (topic, group) = (bench.topic("torn"), bench.group("all"));
        let torn = Sabotage::new(deed, 1, retries);
        let dies = bench.sabotaged(&torn).await?;
        let policy = bench.policy().build().map_err(Error::from)?;
        let handler = dies.handler(|_, _| async { Err(Failure::transient("once")) });
        let worker = dies.work(&topic, &group).policy(policy.clone()).handle(handler);
        let running = worker.start().await?;
        let text = format!("{deed:?}");
        dies.sender(&topic).await?.send(text.clone()).await?;
        torn.done().await?;
        bench.crash(&dies).await?;
        drop(running);

        let member = bench.member().await?;
        let handler = member.handler(|_, context| async move {
            if context.attempt() == 1 { Err(Failure::transient("once")) } else { Ok(()) }
        });
        let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
        bench.wait("a success after the crash", |seen| succeeded(seen, &text)).await?;
        // A copy that the crash left behind may come on top; never more.
        let few = |seen: &Records| seen.runs_of_body(&text).count() <= wanted.len();
        bench.stays("no more than one duplicate", LEASE * 2, few).await?;
        let attempts = bench.ledger().read(|seen| seen.attempts(&text));
        let counted = wanted.starts_with(&attempts) || attempts == wanted;
        ensure!(counted, "{deed:?}: expected of {wanted:?} the first or all, got {attempts:?}");
        running.stop().await?;
    }
    at_each_step(bench, "R8", "retry.", |bench, left| Box::pin(retried(bench, left))).await
}

/// A message that was killed on its way into the retry lane.
async fn retried(bench: &Bench, Remains { topic, group, text }: &Remains) -> Outcome {
    let member = bench.member().await?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() == 1 { Err(Failure::transient("once")) } else { Ok(()) }
    });
    let running = member.work(topic, group).handle(handler).start().await?;
    bench.wait("a success after the kill", |seen| succeeded(seen, text)).await?;
    // What the step left and its copy, each with a count of its own.
    let few = |seen: &Records| seen.runs_of_body(text).count() <= 3;
    bench.stays("no more than one duplicate", LEASE * 2, few).await?;
    running.stop().await?;
    Ok(())
}

fn succeeded(seen: &Records, text: &str) -> bool {
    let ok = |run: &ledger::Ran| run.end.as_ref().is_some_and(|end| end.how == ledger::Outcome::Ok);
    seen.runs_of_body(text).any(ok)
}

/// D4. Alarms are log events; the tally counts the same events.
async fn failed_write_keeps_the_message(bench: &Bench) -> Outcome {
    const REFUSED: usize = 4;
    let (topic, group) = (bench.topic("unwritable"), bench.group("all"));
    let refused = Sabotage::new(Deed::Refuse, REFUSED, buries);
    let member = bench.sabotaged(&refused).await?;
    let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    // Idle, and would take what is given up.
    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Err(Failure::permanent("never")) });
    let idle = other.work(&topic, &group).handle(handler);
    member.sender(&topic).await?.send("m").await?;
    bench.wait("a run", |seen| !seen.runs.is_empty()).await?;
    let idle = idle.start().await?;
    refused.done().await?;
    let alarms = running.tally().settle_failures;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    bench.stays("1 run", LEASE * 2, |seen| seen.runs.len() == 1).await?;
    ensure!(letters.len() == 1, "expected 1 dead letter, found {}", letters.len());
    ensure!(alarms >= REFUSED as u64 - 1, "{REFUSED} writes were refused, {alarms} alarms raised");
    let at: Vec<_> = refused.orders().into_iter().map(|(at, _)| at).collect();
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let backs_off = gaps.is_sorted() && gaps.first() > Some(&Duration::from_millis(20));
    ensure!(backs_off, "expected longer and longer waits between the tries, got {gaps:?}");
    running.stop().await?;
    idle.stop().await?;

    // It was never settled: a process that dies meanwhile loses nothing either.
    let (topic, refused) = (bench.topic("then-killed"), Sabotage::new(Deed::Refuse, 2, buries));
    let dies = bench.sabotaged(&refused).await?;
    let handler = dies.handler(|_, _| async { Err(Failure::permanent("never")) });
    let running = dies.work(&topic, &group).handle(handler).start().await?;
    dies.sender(&topic).await?.send("k").await?;
    refused.done().await?;
    bench.crash(&dies).await?;
    drop(running);
    let handler = other.handler(|_, _| async { Err(Failure::permanent("never")) });
    let running = other.work(&topic, &group).handle(handler).start().await?;
    other.wait_for_letters(&topic, &group, 1).await?;
    bench.stays("2 runs", WINDOW, |seen| seen.runs_of_body("k").count() == 2).await?;
    running.stop().await?;
    Ok(())
}

/// D6. Whoever writes it, and however often.
async fn duplicate_has_its_id(bench: &Bench) -> Outcome {
    for deed in [Deed::DieBefore, Deed::DieAfter] {
        let (topic, group) = (bench.topic("buried"), bench.group("all"));
        let (torn, whole) = (Sabotage::new(deed, 1, buries), Sabotage::new(deed, 0, buries));
        let dies = bench.sabotaged(&torn).await?;
        let handler = dies.handler(|_, _| async { Err(Failure::permanent("never")) });
        let running = dies.work(&topic, &group).handle(handler).start().await?;
        let text = format!("{deed:?}");
        dies.sender(&topic).await?.send(text.clone()).await?;
        torn.done().await?;
        bench.crash(&dies).await?;
        drop(running);
        let member = bench.sabotaged(&whole).await?;
        let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
        let running = member.work(&topic, &group).handle(handler).start().await?;
        if deed == Deed::DieBefore {
            // Until another wrote it, there must be none.
            let twice = |seen: &Records| seen.runs_of_body(&text).count() >= 2;
            bench.wait("a second run", twice).await?;
        }
        member.wait_for_letters(&topic, &group, 1).await?;
        // A copy of the crash would come within its lease.
        bench
            .stays("two runs at most", LEASE * 2, |seen| seen.runs_of_body(&text).count() <= 2)
            .await?;
        let letters = member.letters(&topic, &group).await?;
        let mut ids: Vec<_> = torn
            .orders()
            .into_iter()
            .chain(whole.orders())
            .filter_map(|(_, order)| match order {
                Settlement::DeadLetter { letter, .. } => Some(Some(letter.id.clone())),
                _ => None,
            })
            .collect();
        ids.extend(letters.iter().map(|dead| dead.letter.as_ref().map(|letter| letter.id.clone())));
        let same = ids.first().is_some_and(Option::is_some) && ids.iter().all(|id| *id == ids[0]);
        ensure!(same, "{deed:?}: written and found, expected one id, got {ids:?}");
        ensure!(letters.len() <= 2, "{deed:?}: expected a duplicate at most, found {letters:?}");
        running.stop().await?;
    }
    at_each_step(bench, "D6", "dead_letter.", |bench, left| Box::pin(buried(bench, left))).await
}

/// A message that was killed on its way into the dead-letter queue.
async fn buried(bench: &Bench, Remains { topic, group, text }: &Remains) -> Outcome {
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
    let running = member.work(topic, group).handle(handler).start().await?;
    member.wait_for_letters(topic, group, 1).await?;
    // Past its lease: the original, where the child had not settled it.
    let few = |seen: &Records| seen.runs_of_body(text).count() <= 1;
    bench.stays("no more than one further run", LEASE * 2, few).await?;
    let letters = member.letters(topic, group).await?;
    let id = |dead: &Received| dead.letter.as_ref().map(|letter| letter.id.clone());
    let same = id(&letters[0]).is_some() && letters.iter().all(|dead| id(dead) == id(&letters[0]));
    ensure!(same && letters.len() <= 2, "expected one id, twice at most: {letters:?}");
    running.stop().await?;
    Ok(())
}
