use std::collections::BTreeSet;
use std::time::Duration;

use longshore_core::{Message, MessageId};

use crate::bench::Bench;
use crate::check::{Check, Outcome, Tier, ensure};
use crate::ledger::body;

const SENDERS: usize = 16;
const EACH: usize = 1000;
/// Sixteen thousand messages through a broker on a slow disk.
const LONG: Duration = Duration::from_secs(60);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "publish.concurrent_senders_lose_nothing",
        code: "P6",
        tier: Tier::Core,
        summary: "16 senders x 1000 messages: what was confirmed is what arrives",
        needs: &[],
        run: |bench| Box::pin(concurrent_senders(bench)),
    },
    Check {
        id: "publish.one_key_keeps_its_order",
        code: "P7",
        tier: Tier::Core,
        summary: "messages of one sender with one key keep their order",
        needs: &[],
        run: |bench| Box::pin(one_key_keeps_its_order(bench)),
    },
    Check {
        id: "publish.every_message_has_an_id",
        code: "P8",
        tier: Tier::Core,
        summary: "an id is assigned where there is none, and kept where there is one",
        needs: &[],
        run: |bench| Box::pin(every_message_has_an_id(bench)),
    },
];

/// P6.
async fn concurrent_senders(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("many"), bench.group("all"));
    let reader = bench.member().await?;
    let handler = reader.handler(|_, _| async { Ok(()) });
    let worker = reader.work(&topic, &group).concurrency(64).prefetch(256).handle(handler);
    let running = worker.start().await?;

    let members = [bench.member().await?, bench.member().await?];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..SENDERS {
        let sender = members[number % members.len()].sender(&topic).await?;
        tasks.spawn(async move {
            let messages = (0..EACH).map(|n| format!("{number}/{n}"));
            (number, sender.send_all(messages).await)
        });
    }
    while let Some(sent) = tasks.join_next().await {
        let (number, outcomes) = sent.map_err(|error| format!("a sender ended: {error}"))?;
        ensure!(outcomes.len() == EACH, "expected {EACH} outcomes, got {}", outcomes.len());
        for (n, outcome) in outcomes.into_iter().enumerate() {
            ensure!(outcome.is_ok(), "message {number}/{n} was not confirmed: {outcome:?}");
        }
    }

    let total = SENDERS * EACH;
    let arrived = bench.ledger().wait("16000 handler runs", LONG, |seen| seen.runs.len() >= total);
    let arrived = arrived.await;
    let lost = bench.ledger().read(|seen| {
        let runs: BTreeSet<_> = seen.runs.iter().map(|run| body(&run.received)).collect();
        let sent = (0..SENDERS).flat_map(|number| (0..EACH).map(move |n| format!("{number}/{n}")));
        let lost: Vec<_> = sent.filter(|text| !runs.contains(text.as_str())).collect();
        (lost.len(), lost.into_iter().next(), runs.len())
    });
    let (count, first, distinct) = lost;
    ensure!(count == 0, "{count} confirmed messages never arrived, {first:?} for one");
    ensure!(distinct == total, "expected {total} distinct messages, {distinct} arrived");
    arrived?;
    running.stop().await?;
    Ok(())
}

/// P7.
async fn one_key_keeps_its_order(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("keyed"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let worker = member.work(&topic, &group).concurrency(1).handle(handler);
    let running = worker.start().await?;

    let sender = member.sender(&topic).await?;
    let (keys, each) = (["a", "b"], 100);
    let mut pending = Vec::new();
    for n in 0..each {
        for key in keys {
            // Queued, not awaited: pipelining must not cost the order.
            pending.push(sender.queue(Message::new(format!("{key}/{n}")).key(key)).await);
        }
    }
    for receipt in pending {
        receipt.await?;
    }
    bench.wait("200 handler runs", |seen| seen.runs.len() >= keys.len() * each).await?;
    for key in keys {
        let wanted: Vec<_> = (0..each).map(|n| format!("{key}/{n}")).collect();
        let arrived: Vec<_> = bench.ledger().read(|seen| {
            let of_key = seen.runs.iter().filter(|run| body(&run.received).starts_with(key));
            of_key.map(|run| body(&run.received).to_owned()).collect()
        });
        let first = wanted.iter().zip(&arrived).position(|(wanted, arrived)| wanted != arrived);
        ensure!(
            arrived == wanted,
            "messages with key `{key}` arrived out of order, or not once each: {} for {}, first \
             difference at {first:?}: {:?}",
            arrived.len(),
            wanted.len(),
            first.map(|at| &arrived[at])
        );
    }
    running.stop().await?;
    Ok(())
}

/// P8.
async fn every_message_has_an_id(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("ids"), bench.group("all"));
    let member = bench.member().await?;
    let running =
        member.work(&topic, &group).handle(member.handler(|_, _| async { Ok(()) })).start().await?;
    let sender = member.sender(&topic).await?;
    let uuid = MessageId::generate();
    let text = MessageId::new("order 42/\"x\"")?;
    let sent = [("none", None), ("again", None), ("uuid", Some(uuid)), ("text", Some(text))];
    let mut ids = BTreeSet::new();
    for (name, id) in sent {
        let mut message = Message::new(name);
        message.id.clone_from(&id);
        let receipt = sender.send(message).await?;
        if let Some(id) = id {
            ensure!(receipt.id == id, "id `{id}` was given, the receipt says `{}`", receipt.id);
        }
        ensure!(ids.insert(receipt.id.clone()), "id `{}` was assigned twice", receipt.id);
        bench.wait(name, |seen| seen.runs_of_body(name).next().is_some()).await?;
        let arrived = bench.ledger().read(|seen| {
            seen.runs_of_body(name).map(|run| run.received.id.clone()).collect::<Vec<_>>()
        });
        ensure!(
            arrived.iter().all(|id| id.as_ref() == Some(&receipt.id)),
            "message `{name}` was confirmed as `{}` and arrived as {arrived:?}",
            receipt.id
        );
    }
    running.stop().await?;
    Ok(())
}
