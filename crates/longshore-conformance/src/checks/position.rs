//! Where a group begins, and in which order it reads.

use std::collections::BTreeSet;

use longshore_core::{ErrorKind, Start};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Outcome, Stop, Tier, ensure};
use crate::ledger::{Records, body};
use crate::member::Member;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "consume.new_group_starts_where_asked",
        code: "C2",
        tier: Tier::Core,
        summary: "a new group starts at its declaration, or at the earliest where that is declared",
        needs: &[],
        run: |bench| Box::pin(new_group_starts_where_asked(bench)),
    },
    Check {
        id: "order.one_sender_one_handler",
        code: "O1",
        tier: Tier::Core,
        summary: "one sender, one handler at a time: first deliveries in the order of publishing",
        needs: &[],
        run: |bench| Box::pin(one_sender_one_handler(bench)),
    },
    Check {
        id: "group.waits_for_its_members",
        code: "G6",
        tier: Tier::Core,
        summary: "a declared group has what was published while no member ran, from its declaration",
        needs: &[],
        run: |bench| Box::pin(waits_for_its_members(bench)),
    },
    Check {
        id: "group.added_late_misses_nothing",
        code: "G8",
        tier: Tier::Core,
        summary: "a group that is added while another acknowledges gets all from then on",
        needs: &[],
        run: |bench| Box::pin(added_late_misses_nothing(bench)),
    },
];

fn bodies(seen: &Records, group: &longshore_core::GroupName) -> Vec<String> {
    seen.runs_of(group).map(|run| body(&run.received).to_owned()).collect()
}

/// Runs a group until it has handled `last`, then stops it.
async fn read_until(
    bench: &Bench,
    member: &Member,
    topic: &longshore_core::TopicName,
    (group, start): (&longshore_core::GroupName, Start),
    last: &str,
) -> Outcome<Vec<String>> {
    let handler = member.handler(|_, _| async { Ok(()) });
    let worker = member.work(topic, group).concurrency(1).start_at(start).handle(handler);
    let running = worker.start().await?;
    member.sender(topic).await?.send(last.to_owned()).await?;
    let done = |seen: &Records| bodies(seen, group).iter().any(|text| text == last);
    bench.wait("the last message", done).await?;
    running.stop().await?;
    Ok(bench.ledger().read(|seen| bodies(seen, group)))
}

/// C2. Another group keeps the earlier message in the topic, so that there is something earlier.
async fn new_group_starts_where_asked(bench: &Bench) -> Outcome {
    let topic = bench.topic("started");
    let (keeps, declared, earliest) =
        (bench.group("keeps"), bench.group("declared"), bench.group("earliest"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &keeps)).await?;
    member.sender(&topic).await?.send("earlier").await?;

    let got = read_until(bench, &member, &topic, (&declared, Start::Declared), "d").await?;
    ensure!(got == ["d"], "from its declaration on, expected [d], got {got:?}");
    if bench.info().capabilities.replay {
        let got = read_until(bench, &member, &topic, (&earliest, Start::Earliest), "e").await?;
        let wanted = ["earlier", "d", "e"];
        let first = got.first().map(String::as_str);
        ensure!(first == Some("earlier"), "from the earliest, expected {wanted:?}, got {got:?}");
        ensure!(got.last().map(String::as_str) == Some("e"), "out of order: {got:?}");
        return Ok(());
    }
    let handler = member.handler(|_, _| async { Ok(()) });
    let worker = member.work(&topic, &earliest).start_at(Start::Earliest).handle(handler);
    match worker.start().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        other => {
            Err(Stop::Failed(format!("without `replay`, expected `Unsupported`, got {other:?}")))
        }
    }
}

/// O1.
async fn one_sender_one_handler(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 200;
    let (topic, group) = (bench.topic("ordered"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let worker = member.work(&topic, &group).concurrency(1).handle(handler);
    let running = worker.start().await?;
    let sender = member.sender(&topic).await?;
    let wanted: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
    for outcome in sender.send_all(wanted.clone()).await {
        outcome?;
    }
    bench.wait("200 handler runs", |seen| seen.runs.len() >= MESSAGES).await?;
    // First deliveries: one that came back is no fault of order.
    let mut known = BTreeSet::new();
    let mut arrived = bench.ledger().read(|seen| bodies(seen, &group));
    arrived.retain(|text| known.insert(text.clone()));
    let first = wanted.iter().zip(&arrived).position(|(wanted, arrived)| wanted != arrived);
    ensure!(arrived == wanted, "first out of order, or missing: number {first:?} of {MESSAGES}");
    running.stop().await?;
    Ok(())
}

/// G6. A third group keeps everything in the topic, so that there is something earlier.
async fn waits_for_its_members(bench: &Bench) -> Outcome {
    let (topic, group, later) = (bench.topic("waiting"), bench.group("all"), bench.group("later"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.client.declare(&bench.topology(&topic, &bench.group("keeps"))).await?;
    let sender = member.sender(&topic).await?;
    sender.send("a").await?;
    sender.send("b").await?;
    let got = read_until(bench, &member, &topic, (&group, Start::Declared), "c").await?;
    ensure!(got == ["a", "b", "c"], "published while nobody read: expected a b c, got {got:?}");
    // Nobody reads again.
    sender.send("d").await?;
    let other = bench.member().await?;
    let got = read_until(bench, &other, &topic, (&group, Start::Declared), "e").await?;
    ensure!(got == ["a", "b", "c", "d", "e"], "expected d and e after a to c, got {got:?}");

    let got = read_until(bench, &other, &topic, (&later, Start::Declared), "f").await?;
    ensure!(got == ["f"], "a new group starts at its declaration: expected [f], got {got:?}");
    Ok(())
}

/// G8. The first group is done with each message before the other one reads it.
async fn added_late_misses_nothing(bench: &Bench) -> Outcome {
    const BEFORE: usize = 20;
    const AFTER: usize = 60;
    let (topic, group, late) = (bench.topic("growing"), bench.group("first"), bench.group("late"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    let mut pending = Vec::new();
    for n in 0..BEFORE {
        pending.push(sender.queue(format!("before {n}")).await);
    }
    // Declared while those are on their way and acknowledged.
    let other = bench.member().await?;
    other.client.declare(&bench.topology(&topic, &late)).await?;
    for n in 0..AFTER {
        pending.push(sender.queue(format!("after {n}")).await);
    }
    for receipt in pending {
        receipt.await?;
    }
    let acked = |seen: &Records| seen.settled(|_| true) >= BEFORE + AFTER;
    bench.wait("80 acks of the first group", acked).await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let reads = other.work(&topic, &late).handle(handler).start().await?;
    let after = |seen: &Records| {
        let bodies = bodies(seen, &late).into_iter();
        bodies.filter(|text| text.starts_with("after")).collect::<BTreeSet<_>>().len()
    };
    let all = bench.wait("60 messages in the late group", |seen| after(seen) == AFTER).await;
    let got = bench.ledger().read(after);
    ensure!(got == AFTER, "published after its declaration: {AFTER}, of which {got} came");
    all?;
    bench.stays("nothing more", WINDOW, |seen| after(seen) == AFTER).await?;
    reads.stop().await?;
    running.stop().await?;
    Ok(())
}
