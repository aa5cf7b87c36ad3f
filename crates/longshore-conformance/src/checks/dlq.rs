use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use longshore_core::policy::Reason;
use longshore_core::{Error, Failure, HeaderName, Message, MessageId, Received, Source};

use super::consume::difference;
use crate::bench::{Bench, PATIENCE, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "dead_letter.exhausted_leaves_the_group",
        code: "D1",
        tier: Tier::Core,
        summary: "attempts run out: the message is in the dead-letter queue and no longer in the group",
        needs: NEEDS,
        run: |bench| Box::pin(exhausted_leaves_the_group(bench)),
    },
    Check {
        id: "dead_letter.message_is_unchanged",
        code: "D2",
        tier: Tier::Core,
        summary: "body, key, id, type, content type and headers of a dead letter as published",
        needs: NEEDS,
        run: |bench| Box::pin(message_is_unchanged(bench)),
    },
    Check {
        id: "dead_letter.undecodable_is_kept_raw",
        code: "D7",
        tier: Tier::Core,
        summary: "bytes that cannot be decoded: raw, at the first delivery, without a handler run",
        needs: NEEDS,
        run: |bench| Box::pin(undecodable_is_kept_raw(bench)),
    },
    Check {
        id: "dead_letter.stays_in_its_group",
        code: "D10",
        tier: Tier::Core,
        summary: "one group's failure never reaches another's dead-letter queue",
        needs: NEEDS,
        run: |bench| Box::pin(stays_in_its_group(bench)),
    },
];

/// D1.
async fn exhausted_leaves_the_group(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("exhausted"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let id = member.sender(&topic).await?.send("m").await?.id;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    bench.stays("2 runs", WINDOW, |seen| seen.runs.len() == 2).await?;
    ensure!(letters[0].id == Some(id.clone()), "`{id}` died, {:?} is dead", letters[0].id);
    let reason = letters[0].letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::AttemptsExhausted), "wrong reason: {reason:?}");
    running.stop().await?;

    let source = bench.source(&topic, &group);
    let left = tokio::time::timeout(PATIENCE, async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            let stats = member.client.broker().stats(&source).await?;
            if stats.ready + stats.in_flight + stats.waiting == 0 {
                return Ok::<_, Error>(());
            }
        }
    });
    match left.await {
        Ok(asked) => asked?,
        Err(_) => {
            let stats = member.client.broker().stats(&source).await?;
            return Err(format!("expected an empty group, its stats are {stats:?}").into());
        }
    }
    Ok(())
}

fn awkward() -> Message {
    let mut message = Message::new(Bytes::from((0..=255).collect::<Vec<u8>>()))
        .key(vec![0, 0xff, b'k'])
        .id(MessageId::generate())
        .message_type("order.placed")
        .content_type("application/octet-stream");
    for (name, value) in [("x-b", &b"\xff\xfe"[..]), ("x-a", b"1"), ("x-b", b"2"), ("x-0", b"")] {
        message.headers.append(HeaderName::from_static(name), Bytes::from_static(value));
    }
    message
}

/// D2.
async fn message_is_unchanged(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("dead"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sent = awkward();
    member.sender(&topic).await?.send(sent.clone()).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let wrong = difference(&sent, &letters[0]);
    ensure!(
        wrong.is_none(),
        "of the dead letter, {} differs. Sent {sent:?}, found {:?} with {:?}",
        wrong.unwrap_or_default(),
        letters[0],
        letters[0].headers
    );
    running.stop().await?;
    Ok(())
}

#[derive(serde::Deserialize)]
struct Order {
    number: u32,
}

/// D7.
async fn undecodable_is_kept_raw(bench: &Bench) -> Outcome {
    let raw = Bytes::from_static(b"{\"number\": \xff\x00\xfe}");
    let (topic, group) = (bench.topic("decoded"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().build().map_err(Error::from)?;
    let (runs, last) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (counted, stored) = (runs.clone(), last.clone());
    let worker =
        member.work(&topic, &group).concurrency(1).policy(policy).json(move |order: Order| {
            counted.fetch_add(1, Ordering::Relaxed);
            stored.store(order.number, Ordering::Relaxed);
            async { Ok(()) }
        });
    let running = worker.start().await?;
    let sender = member.sender(&topic).await?;
    sender.send(raw.clone()).await?;
    sender.send(r#"{"number": 7}"#).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let acked = |seen: &Records| seen.settled(|how| how == ledger::How::Ack) == 1;
    bench.wait("the message behind it acknowledged", acked).await?;
    let dead: &Received = &letters[0];
    ensure!(dead.body == raw, "expected the raw bytes {raw:?}, found {:?}", dead.body);
    let reason = dead.letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::Undecodable), "expected `undecodable`, got {reason:?}");
    let handed_over = bench
        .ledger()
        .read(|seen| seen.deliveries.iter().filter(|entry| entry.received.body == raw).count());
    ensure!(handed_over == 1, "expected its first delivery to be its last, got {handed_over}");
    let (runs, number) = (runs.load(Ordering::Relaxed), last.load(Ordering::Relaxed));
    ensure!((runs, number) == (1, 7), "expected 1 run, of order 7; got {runs}, of {number}");
    running.stop().await?;
    Ok(())
}

/// D10.
async fn stays_in_its_group(bench: &Bench) -> Outcome {
    let topic = bench.topic("groups");
    let groups = [bench.group("one"), bench.group("two"), bench.group("three")];
    let member = bench.member().await?;
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let mut running = Vec::new();
    for group in &groups {
        // Each group fails the message that has its name.
        let handler = member.handler(|received, context| async move {
            if body(&received) == context.group().as_str() {
                return Err(Failure::transient("mine"));
            }
            Ok(())
        });
        let worker = member.work(&topic, group).policy(policy.clone()).handle(handler);
        running.push(worker.start().await?);
    }
    let sender = member.sender(&topic).await?;
    sender.send("one").await?;
    sender.send("two").await?;
    for group in &groups[..2] {
        member.wait_for_letters(&topic, group, 1).await?;
    }
    let done = |seen: &Records| seen.ended(ledger::Outcome::Ok) >= 4;
    bench.wait("4 successes in the groups that did not fail", done).await?;
    for (group, wanted) in groups.iter().zip([vec!["one"], vec!["two"], vec![]]) {
        let letters = member.letters(&topic, group).await?;
        let found: Vec<_> = letters.iter().map(body).collect();
        let source = Source::DeadLetters { topic: topic.clone(), group: group.clone() };
        let stats = member.client.broker().stats(&source).await?;
        ensure!(found == wanted, "dead letters of {group}: expected {wanted:?}, found {found:?}");
        let exact = bench.info().capabilities.exact_stats;
        let counted = !exact || stats.ready == wanted.len() as u64;
        ensure!(counted, "{group} counts otherwise than it shows: {stats:?}, {found:?}");
    }
    for running in running {
        running.stop().await?;
    }
    Ok(())
}
