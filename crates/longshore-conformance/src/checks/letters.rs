//! What an operator does with dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{Error, Failure, Message, Received};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "dead_letter.peek_settles_nothing",
        code: "M1",
        tier: Tier::Core,
        summary: "looking at dead letters and at messages takes nothing and counts nothing",
        needs: NEEDS,
        run: |bench| Box::pin(peek_settles_nothing(bench)),
    },
    Check {
        id: "redrive.filters_by_what_is_known",
        code: "M8",
        tier: Tier::Core,
        summary: "a redrive by reason, type or time moves those letters and leaves the others",
        needs: NEEDS,
        run: |bench| Box::pin(filters_by_what_is_known(bench)),
    },
];

fn bodies(all: &[Received]) -> BTreeSet<String> {
    all.iter().map(|received| body(received).to_owned()).collect()
}

/// M1.
async fn peek_settles_nothing(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("peeked"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    for n in 0..3 {
        sender.send(format!("m{n}")).await?;
    }
    let wanted = BTreeSet::from(["m0", "m1", "m2"].map(str::to_owned));
    member.wait_for_letters(&topic, &group, 3).await?;
    running.stop().await?;
    for look in 1..=3 {
        let letters = member.letters(&topic, &group).await?;
        let found = bodies(&letters);
        ensure!(found == wanted, "look {look}: expected {wanted:?}, found {found:?}");
    }
    // Page by page: each once, and none twice.
    let dead = member.client.dead_letters(&topic, &group)?;
    let first = dead.browse(2).await?;
    let Some(cursor) = first.last().map(longshore_runtime::DeadLetter::cursor) else {
        return Err("a page of 2 has no letter".to_owned().into());
    };
    let rest = dead.browse_after(cursor, 2).await?;
    let paged: Vec<_> = first.iter().chain(&rest).map(|letter| body(&letter.message)).collect();
    ensure!(paged.len() == 3, "pages of 2: expected 3 letters in all, got {paged:?}");

    // What is still to be handled is looked at, and handled as if nobody had.
    sender.send("fresh").await?;
    let page = longshore_core::Page { after: None, limit: 10 };
    for _ in 0..2 {
        let found = member.client.broker().browse(&bench.source(&topic, &group), &page).await?;
        ensure!(bodies(&found).contains("fresh"), "the group's own message is not shown");
    }
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    bench.wait("its run", |seen| seen.runs_of_body("fresh").next().is_some()).await?;
    let attempts = bench.ledger().read(|seen| seen.attempts("fresh"));
    ensure!(attempts == [1], "expected attempt 1 after the looks, got {attempts:?}");
    let redriven = dead.redrive().await?;
    ensure!(redriven.moved == 3, "after the looks, expected 3 letters to move: {redriven:?}");
    let back = |seen: &Records| seen.runs.len() == 7;
    bench.wait("3 redriven runs", back).await?;
    running.stop().await?;
    Ok(())
}

/// M8. Three redrives, each with another filter; in between, what it left must still be there.
async fn filters_by_what_is_known(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("filtered"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, _| async move {
        let redriven = received.record.as_ref().is_some_and(|record| record.redrives > 0);
        match body(&received) {
            _ if redriven => Ok(()),
            "rejected" => Err(Failure::reject("no", "rejected")),
            _ => Err(Failure::permanent("never")),
        }
    });
    let policy = bench.policy().build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    sender.send("rejected").await?;
    sender.send(Message::new("typed").message_type("order.placed")).await?;
    sender.send("early").await?;
    member.wait_for_letters(&topic, &group, 3).await?;
    // The wire has milliseconds.
    bench.stays("nothing else", Duration::from_millis(5), |seen| seen.runs.len() == 3).await?;
    let between = bench.clock().now();
    bench.stays("nothing else", Duration::from_millis(5), |seen| seen.runs.len() == 3).await?;
    sender.send("late").await?;
    member.wait_for_letters(&topic, &group, 4).await?;

    let dead = member.client.dead_letters(&topic, &group)?;
    let mut left = BTreeSet::from(["early", "late", "rejected", "typed"].map(str::to_owned));
    for what in ["rejected", "typed", "early"] {
        let redrive = dead.redrive();
        let redrive = match what {
            "rejected" => redrive.filter(|dead| {
                dead.letter.as_ref().is_some_and(|letter| letter.reason == Reason::Rejected)
            }),
            "typed" => {
                redrive.filter(|dead| dead.message.message_type.as_deref() == Some("order.placed"))
            }
            _ => redrive.filter(move |dead| {
                dead.letter.as_ref().is_some_and(|letter| letter.dead_lettered_at < between)
            }),
        };
        let redriven = redrive.await?;
        left.remove(what);
        let counts = (redriven.moved, redriven.filtered);
        ensure!(counts == (1, left.len() as u64), "by `{what}`, moved and left: {redriven:?}");
        let again = |seen: &Records| seen.runs_of_body(what).count() == 2;
        bench.wait("its run after the redrive", again).await?;
        let found = bodies(&member.letters(&topic, &group).await?);
        ensure!(found == left, "after `{what}`, expected {left:?} to stay, found {found:?}");
    }
    bench.stays("7 runs", WINDOW, |seen| seen.runs.len() == 7).await?;
    running.stop().await?;
    Ok(())
}
