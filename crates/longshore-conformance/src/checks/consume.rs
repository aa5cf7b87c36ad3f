use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longshore_core::{HeaderName, Message, MessageId, Received};
use tokio::sync::Semaphore;

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Outcome, Tier, ensure};
use crate::ledger::{self, body};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "consume.everything_arrives_unchanged",
        code: "C1",
        tier: Tier::Core,
        summary: "100 messages equal in body, headers, id, key, type and content type",
        needs: &[],
        run: |bench| Box::pin(everything_arrives_unchanged(bench)),
    },
    Check {
        id: "consume.topics_do_not_mix",
        code: "C3",
        tier: Tier::Core,
        summary: "many topics, no cross-talk",
        needs: &[],
        run: |bench| Box::pin(topics_do_not_mix(bench)),
    },
    Check {
        id: "consume.concurrency_is_reached_and_kept",
        code: "C5",
        tier: Tier::Core,
        summary: "as many handlers run at a time as were asked for, and no more",
        needs: &[],
        run: |bench| Box::pin(concurrency_is_reached_and_kept(bench)),
    },
];

/// A message that has everything, in many shapes.
fn message(n: usize) -> Message {
    let mut message = Message::new(Bytes::from(
        (0..n * 7).map(|at| u8::try_from((at + n) % 256).unwrap_or_default()).collect::<Vec<_>>(),
    ));
    message.id = Some(MessageId::generate());
    if !n.is_multiple_of(3) {
        message.key = Some(Bytes::from(vec![u8::try_from(n).unwrap_or_default(), 0xff, 0, b'k']));
    }
    if !n.is_multiple_of(4) {
        message = message.message_type(format!("kind.{n}"));
    }
    if !n.is_multiple_of(5) {
        message = message.content_type("application/json; charset=utf-8");
    }
    for header in 0..n % 6 {
        // The order is not the alphabet's; every name but the first comes twice; not all is text.
        let name = HeaderName::new(format!("x-{}", 9 - header / 2)).expect("a valid name");
        let value = match header % 3 {
            0 => Bytes::from(format!("grüße {n}")),
            1 => Bytes::from(vec![0xc3, 0x28, 0xff, 0x80]),
            _ => Bytes::new(),
        };
        message.headers.append(name, value);
    }
    message
}

/// What of `sent` is different in `received`.
pub(super) fn difference(sent: &Message, received: &Received) -> Option<&'static str> {
    let headers: Vec<_> = received.headers.iter().collect();
    let wanted: Vec<_> = sent.headers.iter().collect();
    match received {
        _ if received.body != sent.body => Some("body"),
        _ if received.key != sent.key => Some("key"),
        _ if sent.id.is_some() && received.id != sent.id => Some("id"),
        _ if received.message_type != sent.message_type => Some("message type"),
        _ if received.content_type != sent.content_type => Some("content type"),
        _ if headers != wanted => Some("headers"),
        _ => None,
    }
}

/// C1.
async fn everything_arrives_unchanged(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("all-fields"), bench.group("all"));
    let member = bench.member().await?;
    let running =
        member.work(&topic, &group).handle(member.handler(|_, _| async { Ok(()) })).start().await?;
    let sent: Vec<_> = (0..100).map(message).collect();
    for outcome in member.sender(&topic).await?.send_all(sent.clone()).await {
        outcome?;
    }
    bench.wait("100 handler runs", |seen| seen.runs.len() >= sent.len()).await?;
    let arrived: Vec<_> =
        bench.ledger().read(|seen| seen.runs.iter().map(|run| run.received.clone()).collect());
    for (n, message) in sent.iter().enumerate() {
        let Some(received) = arrived.iter().find(|received| received.id == message.id) else {
            return Err(format!("message {n}, id {:?}, never arrived", message.id).into());
        };
        let wrong = difference(message, received);
        ensure!(
            wrong.is_none(),
            "message {n}: {} differs. Sent {message:?}, arrived {received:?} with {:?}",
            wrong.unwrap_or_default(),
            received.headers
        );
    }
    running.stop().await?;
    Ok(())
}

/// C3.
async fn topics_do_not_mix(bench: &Bench) -> Outcome {
    let member = bench.member().await?;
    let group = bench.group("all");
    let topics: Vec<_> = (0..20).map(|n| bench.topic(&format!("t{n}"))).collect();
    let mut running = Vec::new();
    for topic in &topics {
        let worker = member.work(topic, &group).handle(member.handler(|_, _| async { Ok(()) }));
        running.push(worker.start().await?);
    }
    for n in 0..5 {
        for topic in &topics {
            member.sender(topic).await?.send(format!("{topic}/{n}")).await?;
        }
    }
    bench.wait("100 handler runs", |seen| seen.runs.len() >= 100).await?;
    bench.stays("100 handler runs", WINDOW, |seen| seen.runs.len() == 100).await?;
    let stray = bench.ledger().read(|seen| {
        let stray = |run: &&ledger::Ran| {
            !body(&run.received).starts_with(&format!("{}/", run.source.topic()))
        };
        seen.runs
            .iter()
            .find(stray)
            .map(|run| format!("{} reached {}", body(&run.received), run.source.topic()))
    });
    ensure!(stray.is_none(), "expected each topic's own messages: {}", stray.unwrap_or_default());
    for running in running {
        running.stop().await?;
    }
    Ok(())
}

/// C5.
async fn concurrency_is_reached_and_kept(bench: &Bench) -> Outcome {
    const CONCURRENCY: usize = 8;
    let (topic, group) = (bench.topic("busy"), bench.group("all"));
    let member = bench.member().await?;
    let gate = Arc::new(Semaphore::new(0));
    let opens = gate.clone();
    let handler = member.handler(move |_, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await?.forget();
            Ok(())
        }
    });
    let worker = member.work(&topic, &group).concurrency(CONCURRENCY).prefetch(32).handle(handler);
    let running = worker.start().await?;
    let sender = member.sender(&topic).await?;
    for outcome in sender.send_all((0..24).map(|n| n.to_string())).await {
        outcome?;
    }
    bench.wait("8 handlers at a time", |seen| seen.running() == CONCURRENCY).await?;
    let kept = |seen: &ledger::Records| seen.running() <= CONCURRENCY;
    bench.stays("at most 8 handlers at a time", Duration::from_millis(300), kept).await?;
    opens.add_permits(24);
    let all = |seen: &ledger::Records| seen.ended(ledger::Outcome::Ok) >= 24;
    bench.wait("24 successful runs", all).await?;
    running.stop().await?;
    Ok(())
}
