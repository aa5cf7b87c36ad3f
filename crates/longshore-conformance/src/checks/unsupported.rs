use longshore_core::policy::{Builder, Ordering};
use longshore_core::{Error, ErrorKind, Failure, Record, Retryability, Settlement, Source};

use crate::bench::{Bench, STEP, WINDOW};
use crate::check::{Check, Need, Outcome, Stop, Tier, ensure};
use crate::ledger::{self, Records};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "settle.discard_is_gone_and_counted",
        code: "N2",
        tier: Tier::Core,
        summary: "what a handler discards is gone for good, and counted",
        needs: NEEDS,
        run: |bench| Box::pin(discard_is_gone_and_counted(bench)),
    },
    Check {
        id: "settle.unsupported_is_typed",
        code: "N6",
        tier: Tier::Core,
        summary: "what cannot be done is `Unsupported`, the same everywhere, and changes nothing",
        needs: NEEDS,
        run: |bench| Box::pin(unsupported_is_typed(bench)),
    },
];

/// N2.
async fn discard_is_gone_and_counted(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("discarded"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, _| async move {
        if received.body == "unwanted" { Err(Failure::discard("unwanted")) } else { Ok(()) }
    });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    sender.send("unwanted").await?;
    sender.send("wanted").await?;
    bench.wait("2 settled runs", |seen| seen.settled(|_| true) >= 2).await?;
    // Past its lease, where what was not settled would come again.
    let once = |seen: &Records| seen.runs.len() == 2;
    bench.stays("2 runs", crate::bench::LEASE * 2, once).await?;
    let tally = running.stop().await?;
    let counts = (tally.discarded, tally.succeeded, tally.dead_lettered);
    ensure!(counts == (1, 1, 0), "expected 1 discarded, 1 succeeded, 0 dead, got {counts:?}");
    let letters = member.letters(&topic, &group).await?;
    ensure!(letters.is_empty(), "a discarded message left {} dead letters", letters.len());
    Ok(())
}

type Ask = fn(Builder) -> Builder;

/// What no backend does yet; a backend that learns one of them takes it out of here.
const POLICIES: &[(&str, Ask)] = &[
    ("block-key", |policy| policy.ordering(Ordering::BlockKey)),
    ("park-key", |policy| policy.ordering(Ordering::ParkKey)),
];

fn unsupported<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) -> Outcome {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let lasting = error.retryability() == Retryability::Permanent;
            ensure!(lasting, "{what}: trying again cannot help, but it says {error:?}");
            Ok(())
        }
        other => Err(Stop::Failed(format!("{what}: expected `Unsupported`, got {other:?}"))),
    }
}

/// N6.
async fn unsupported_is_typed(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("asked"), bench.group("all"));
    let member = bench.member().await?;
    for (what, ask) in POLICIES {
        let policy = ask(bench.policy()).build().map_err(Error::from)?;
        let handler = member.handler(|_, _| async { Ok(()) });
        let worker = member.work(&topic, &group).policy(policy).handle(handler);
        unsupported(what, worker.start().await)?;
    }
    if let Some(max) = bench.info().capabilities.delay_max {
        let policy = bench.policy().delayed([max + STEP]).build().map_err(Error::from)?;
        let handler = member.handler(|_, _| async { Ok(()) });
        let worker = member.work(&topic, &group).policy(policy).handle(handler);
        unsupported("a delay beyond the declared one", worker.start().await)?;
    }

    // Orders that make no sense where they are given.
    member.client.declare(&bench.topology(&topic, &group)).await?;
    member.sender(&topic).await?.send("m").await?;
    let consumer = member.consumer(bench.source(&topic, &group), 1).await?;
    let token = consumer.next().await?.token;
    let record = Record::default;
    let redrive = Settlement::Redrive { token, record: Box::new(record()) };
    unsupported("a redrive of what is no dead letter", consumer.settle(redrive).await)?;
    consumer.settle(Settlement::Ack(token)).await?;
    consumer.close().await?;

    let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    member.sender(&topic).await?.send("dies").await?;
    member.wait_for_letters(&topic, &group, 1).await?;
    running.stop().await?;
    let letters = Source::DeadLetters { topic: topic.clone(), group: group.clone() };
    let consumer = member.consumer(letters, 1).await?;
    let token = consumer.next().await?.token;
    let retry = Settlement::Retry { token, after: STEP, record: Box::new(record()) };
    unsupported("a retry of a dead letter", consumer.settle(retry).await)?;
    let suspect = Settlement::Suspect { token, record: Box::new(record()) };
    unsupported("a dead letter as a suspect", consumer.settle(suspect).await)?;
    consumer.settle(Settlement::Release { token, record: None }).await?;
    consumer.close().await?;
    let runs = |seen: &Records| seen.runs.len() == 1 && seen.ended(ledger::Outcome::Ok) == 0;
    bench.stays("the refused orders changed nothing", WINDOW, runs).await?;
    let left = member.letters(&topic, &group).await?.len();
    ensure!(left == 1, "the refused orders changed nothing: expected 1 letter, found {left}");
    Ok(())
}
