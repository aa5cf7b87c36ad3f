//! What an `Ok` of a publish means, and what becomes of a message that nobody can have.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_core::{
    Error, ErrorKind, Group, Message, Mode, NoSubscriber, Outcome as Known, Start, Topology,
};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Stop, Tier, ensure};
use crate::harness::Act;
use crate::ledger::body;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "publish.confirmed_is_stored",
        code: "P1",
        tier: Tier::Core,
        summary: "a publish resolves once it is stored: nothing is lost with its client or server",
        needs: &[],
        run: |bench| Box::pin(confirmed_is_stored(bench)),
    },
    Check {
        id: "publish.without_a_group",
        code: "P2",
        tier: Tier::Core,
        summary: "a message that no group has: retained, parked and counted, or a typed error",
        needs: &[],
        run: |bench| Box::pin(without_a_group(bench)),
    },
    Check {
        id: "publish.missing_topic_is_not_found",
        code: "P3",
        tier: Tier::Core,
        summary: "what is missing is made or `NotFound`, as asked; nothing is made by half",
        needs: &[Need::DeadLetters],
        run: |bench| Box::pin(missing_topic_is_not_found(bench)),
    },
    Check {
        id: "publish.closed_is_an_error",
        code: "P4",
        tier: Tier::Core,
        summary: "a publish after the close is `Closed`, and nothing of it is stored",
        needs: &[],
        run: |bench| Box::pin(closed_is_an_error(bench)),
    },
];

/// P1. The client that published is gone at once: what it had confirmed must not need it. Then the
/// server is stopped, unless the harness declares that there is none.
async fn confirmed_is_stored(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 20;
    let (topic, group) = (bench.topic("stored"), bench.group("all"));
    let reader = bench.member().await?;
    reader.client.declare(&bench.topology(&topic, &group)).await?;
    let publishes = bench.member().await?;
    let sender = publishes.sender(&topic).await?;
    let mut wanted: BTreeSet<_> = (0..MESSAGES).map(|n| format!("m{n}")).collect();
    for text in &wanted {
        sender.send(text.clone()).await?;
    }
    publishes.client.close().await?;
    drop((sender, publishes));

    let witness = bench.member().await?;
    let sender = witness.sender(&topic).await?;
    let stopped = bench.server(Act::Stop).await;
    if matches!(stopped, Ok(true)) {
        let outcome = tokio::time::timeout(Duration::from_secs(60), sender.send("unheard")).await;
        bench.server(Act::Start).await?;
        match outcome {
            Ok(Err(error)) => ensure!(error.outcome().is_some(), "no outcome is told: {error:?}"),
            Ok(Ok(receipt)) => {
                return Err(format!("no server, and yet it confirmed {receipt:?}").into());
            }
            Err(_) => return Err("without a server, a publish waited a minute".to_owned().into()),
        }
        // Its outcome may be unknown: it may have been stored after the restart, not twice.
        wanted.insert("unheard".to_owned());
    }
    let handler = reader.handler(|_, _| async { Ok(()) });
    let running = reader.work(&topic, &group).handle(handler).start().await?;
    bench.wait("the 20 messages", |seen| seen.runs.len() >= MESSAGES).await?;
    bench.stays("no message twice", WINDOW, |seen| seen.runs.len() <= wanted.len()).await?;
    let got: BTreeSet<_> = bench
        .ledger()
        .read(|seen| seen.runs.iter().map(|run| body(&run.received).to_owned()).collect());
    wanted.remove("unheard");
    let lost: Vec<_> = wanted.difference(&got).collect();
    ensure!(lost.is_empty(), "confirmed and lost: {lost:?}");
    running.stop().await?;
    // Without the hook, all else is seen to hold and the check is not run.
    stopped.map(|_| ())
}

/// P2.
async fn without_a_group(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("unheard"), bench.group("late"));
    let member = bench.member().await?;
    member.client.declare(&Topology::topic(topic.clone())).await?;
    let outcome = member.sender(&topic).await?.send("first").await;
    match (bench.info().capabilities.no_subscriber, outcome) {
        (NoSubscriber::Reject, Err(error)) => {
            let (kind, known) = (error.kind(), error.outcome());
            ensure!(kind == ErrorKind::Unroutable, "expected `Unroutable`, got {error:?}");
            let refused = matches!(known, Some(Known::Refused | Known::NotSent));
            ensure!(refused, "an unroutable message is known not to be stored, got {known:?}");
        }
        (NoSubscriber::Park, Ok(_)) => {
            let parked = bench.parked(&member, &topic).await?;
            ensure!(parked == 1, "expected 1 message to be parked and counted, found {parked}");
        }
        (NoSubscriber::Retain, Ok(_)) => {
            let replay = bench.info().capabilities.replay;
            ensure!(replay, "`Retain` without `replay`: nobody can have what is retained");
            let handler = member.handler(|_, _| async { Ok(()) });
            let worker = member.work(&topic, &group).start_at(Start::Earliest).handle(handler);
            let running = worker.start().await?;
            let arrived = |seen: &crate::ledger::Records| seen.attempts("first") == [1];
            bench.wait("the retained message in a group that came later", arrived).await?;
            running.stop().await?;
        }
        (declared, outcome) => {
            return Err(Stop::Failed(format!("{declared:?} is declared, a publish {outcome:?}")));
        }
    }
    Ok(())
}

/// P3.
async fn missing_topic_is_not_found(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("missing"), bench.group("all"));
    let member = bench.member().await?;
    let broker = member.client.broker();
    let alone = Topology::topic(topic.clone());
    let verify = Topology { mode: Mode::Verify, ..alone.clone() };
    // Twice: asking must not have made it.
    for _ in 0..2 {
        not_found("verifying a topic", broker.declare(&verify).await)?;
        not_found("a sender", member.sender(&topic).await)?;
        not_found("a consumer", member.consumer(bench.source(&topic, &group), 1).await)?;
    }
    broker.declare(&alone).await?;
    broker.declare(&verify).await?;
    member.sender(&topic).await?;
    let with_group = bench.topology(&topic, &group);
    let verify = Topology { mode: Mode::Verify, ..with_group.clone() };
    not_found("verifying a group", broker.declare(&verify).await)?;
    broker.declare(&with_group).await?;

    // One that is new and one that exists with other settings: the first is not made either.
    let fresh = bench.topic("fresh");
    let mut half = bench.topology(&fresh, &group);
    let other = Some(Duration::from_secs(3600));
    half.groups.push(Group { dead_letters: other, ..with_group.groups[0].clone() });
    let refused = broker.declare(&half).await;
    let kind = refused.as_ref().err().map(Error::kind);
    ensure!(kind == Some(ErrorKind::AlreadyExists), "expected a difference, got {refused:?}");
    let verify = Topology { mode: Mode::Verify, ..bench.topology(&fresh, &group) };
    not_found("verifying what a refused declaration had", broker.declare(&verify).await)
}

fn not_found<T: std::fmt::Debug>(what: &str, result: longshore_core::Result<T>) -> Outcome {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Err(Stop::Failed(format!("{what}: expected `NotFound`, got {other:?}"))),
    }
}

/// P4.
async fn closed_is_an_error(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("closed"), bench.group("all"));
    let reader = bench.member().await?;
    let handler = reader.handler(|_, _| async { Ok(()) });
    let running = reader.work(&topic, &group).handle(handler).start().await?;
    let member = bench.member().await?;
    let (sender, other) = (member.sender(&topic).await?, member.sender(&topic).await?);
    sender.send("before").await?;
    sender.close().await?;
    sender.close().await?;
    closed("a closed sender", sender.send("after").await)?;
    other.send("beside").await?;
    member.client.close().await?;
    closed("a sender of a closed client", other.send("after").await)?;
    for outcome in other.send_all([Message::new("after"), Message::new("after")]).await {
        closed("a batch of a closed client", outcome)?;
    }
    bench.wait("2 runs", |seen| seen.runs.len() >= 2).await?;
    let none = |seen: &crate::ledger::Records| seen.runs_of_body("after").next().is_none();
    bench.stays("nothing that was sent after the close", WINDOW, none).await?;
    running.stop().await?;
    Ok(())
}

fn closed(who: &str, outcome: longshore_core::Result<longshore_core::Receipt>) -> Outcome {
    match outcome {
        Err(error) if error.kind() == ErrorKind::Closed => {
            let known = error.outcome();
            ensure!(known == Some(Known::NotSent), "{who}: not sent, but it says {known:?}");
            Ok(())
        }
        other => Err(Stop::Failed(format!("{who}: expected `Closed`, got {other:?}"))),
    }
}
