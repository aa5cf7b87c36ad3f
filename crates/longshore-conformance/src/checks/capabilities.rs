use std::time::Duration;

use longshore_core::{
    Deliveries, ErrorKind, LeaseKind, Message, MessageId, PublishDedup, Settlement, Support,
};
use tokio::time::Instant;

use crate::bench::{Bench, LEASE, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::Records;

pub(super) const CHECKS: &[Check] = &[Check {
    id: "swap.declared_is_observed",
    code: "W2",
    tier: Tier::Core,
    summary: "what the backend declares of itself is what can be seen of it",
    needs: &[],
    run: |bench| Box::pin(declared_is_observed(bench)),
}];

/// W2. What has a check of its own is not seen here again: replay (C2), no subscriber (P2), the
/// longest delay (N6), the largest message (L2), what needs a crash (T4, X3).
async fn declared_is_observed(bench: &Bench) -> Outcome {
    let info = bench.info();
    ensure!(!info.name.is_empty() && !info.server.is_empty(), "no name, no server: {info:?}");
    ensure!(!info.schemes.is_empty(), "no scheme of a URL leads here");
    let isolates = info.capabilities.suspect_lane != Support::Unsupported;
    let counts = info.capabilities.deliveries != Deliveries::Flag;
    ensure!(counts || !isolates, "a suspect lane needs deliveries that are counted");
    for need in [Need::Delay, Need::DeadLetters] {
        if !need.is_met(&info.capabilities) {
            bench.refuses(need).await?;
        }
    }
    repeated_id(bench).await?;
    release_and_stats(bench).await?;
    lease(bench).await
}

async fn repeated_id(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("repeated"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    let message = Message::new("same").id(MessageId::generate());
    let first = sender.send(message.clone()).await?;
    let second = sender.send(message).await?;
    ensure!(!first.duplicate, "a new id is said to be a duplicate");
    let declared = bench.info().capabilities.publish_dedup;
    let runs = match declared {
        PublishDedup::None => 2,
        PublishDedup::Window(_) | PublishDedup::Ids(_) => 1,
    };
    let told = second.duplicate == (runs == 1);
    ensure!(told, "{declared:?}: of a repeated id, the receipt says {:?}", second.duplicate);
    let count = move |seen: &Records| seen.runs_of_body("same").count();
    bench.wait("its runs", |seen| count(seen) >= runs).await?;
    bench.stays("as many runs as declared", WINDOW, |seen| count(seen) == runs).await?;
    running.stop().await?;
    Ok(())
}

async fn release_and_stats(bench: &Bench) -> Outcome {
    let capabilities = &bench.info().capabilities;
    let (topic, group) = (bench.topic("counted"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let source = bench.source(&topic, &group);
    let sender = member.sender(&topic).await?;
    sender.send("a").await?;
    sender.send("b").await?;
    let stats = async || member.client.broker().stats(&source).await;
    if capabilities.exact_stats {
        let found = stats().await?;
        let right = (found.ready, found.in_flight, found.waiting) == (2, 0, 0);
        ensure!(right && found.oldest_ready.is_some(), "2 are ready, the stats are {found:?}");
    }
    let consumer = member.consumer(source.clone(), 1).await?;
    let received = consumer.next().await?;
    if capabilities.exact_stats {
        let found = stats().await?;
        let right = (found.ready, found.in_flight) == (1, 1);
        ensure!(right, "1 is ready and 1 in flight, the stats are {found:?}");
    }
    let began = Instant::now();
    consumer.settle(Settlement::Release { token: received.token, record: None }).await?;
    let again = consumer.next().await?;
    let (took, latest) = (began.elapsed(), capabilities.release_latency + bench.bound());
    ensure!(took <= latest, "a release was visible after {took:?}, declared {latest:?}");
    if capabilities.deliveries != Deliveries::Flag && again.id == received.id {
        let wanted = if capabilities.release_uncounted { 1 } else { 2 };
        let count = again.deliveries;
        ensure!(count == wanted, "after a release, expected {wanted} deliveries, got {count}");
    }
    consumer.settle(Settlement::Ack(again.token)).await?;
    consumer.close().await?;
    Ok(())
}

/// A token whose lease is over settles nothing, whoever refuses it.
async fn lease(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("leased"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.sender(&topic).await?.send("held").await?;
    let consumer = member.consumer(bench.source(&topic, &group), 1).await?;
    let held = consumer.next().await?;
    match bench.info().capabilities.lease {
        LeaseKind::Connection => {
            ensure!(held.lease.is_none(), "the connection is the lease, and yet {:?}", held.lease);
        }
        LeaseKind::Session => {}
        LeaseKind::Timed => {
            // A backend may keep a margin: what it says is never longer than what the broker does.
            let said = held.lease.unwrap_or_default();
            let plausible = said <= LEASE && said >= LEASE / 2;
            ensure!(plausible, "a lease of {LEASE:?}, it says {:?}", held.lease);
            let other = bench.member().await?;
            let takes = other.consumer(bench.source(&topic, &group), 1).await?;
            let began = Instant::now();
            let taken = takes.next().await?;
            // Less what passed between the hand-over and our look at the clock.
            let (took, least) = (began.elapsed(), LEASE - Duration::from_millis(500));
            ensure!(took >= least, "a lease of {LEASE:?} was over after {took:?}");
            let late = consumer.settle(Settlement::Ack(held.token)).await;
            let kind = late.as_ref().err().map(longshore_core::Error::kind);
            ensure!(kind == Some(ErrorKind::LeaseLost), "a late ack: `LeaseLost`, got {late:?}");
            takes.settle(Settlement::Ack(taken.token)).await?;
            takes.close().await?;
        }
    }
    consumer.close().await?;
    Ok(())
}
