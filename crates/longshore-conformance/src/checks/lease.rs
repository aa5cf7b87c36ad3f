//! Who holds a delivery, and for how long.

use std::time::Duration;

use longshore_core::{Error, Failure, Settlement};

use crate::bench::{Bench, LEASE, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, How, Records, body};
use crate::sabotage::{Deed, Sabotage};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "settle.ack_spares_earlier_deliveries",
        code: "A3",
        tier: Tier::Core,
        summary: "acknowledging a later delivery and dying does not acknowledge the earlier ones",
        needs: &[],
        run: |bench| Box::pin(ack_spares_earlier_deliveries(bench)),
    },
    Check {
        id: "settle.lost_ack_is_no_failure",
        code: "A6",
        tier: Tier::Core,
        summary: "an ack that was lost: the same id comes again, as the same attempt",
        needs: &[],
        run: |bench| Box::pin(lost_ack_is_no_failure(bench)),
    },
    Check {
        id: "settle.long_handler_keeps_its_lease",
        code: "A8",
        tier: Tier::Core,
        summary: "a handler that runs longer than the lease keeps its delivery to itself",
        needs: &[],
        run: |bench| Box::pin(long_handler_keeps_its_lease(bench)),
    },
    Check {
        id: "retry.delay_may_exceed_the_lease",
        code: "R16",
        tier: Tier::Core,
        summary: "a delay longer than the lease, in process or durable: on time, and no duplicate",
        needs: NEEDS,
        run: |bench| Box::pin(delay_may_exceed_the_lease(bench)),
    },
];

/// A3.
async fn ack_spares_earlier_deliveries(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("earlier"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let sender = member.sender(&topic).await?;
    for n in 0..5 {
        sender.send(format!("m{n}")).await?;
    }
    let dies = bench.member().await?;
    let consumer = dies.consumer(bench.source(&topic, &group), 5).await?;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(consumer.next().await?);
    }
    let last = held.pop().map(|last| (last.token, body(&last).to_owned()));
    let Some((token, acked)) = last else { return Err("no delivery".to_owned().into()) };
    consumer.settle(Settlement::Ack(token)).await?;
    bench.crash(&dies).await?;

    let mut wanted: Vec<_> = held.iter().map(|received| body(received).to_owned()).collect();
    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let running = other.work(&topic, &group).handle(handler).start().await?;
    bench.wait("the 4 that were not acknowledged", |seen| seen.runs.len() >= 4).await?;
    bench.stays("4 runs", WINDOW, |seen| seen.runs.len() == 4).await?;
    let mut back: Vec<_> = bench
        .ledger()
        .read(|seen| seen.runs.iter().map(|run| body(&run.received).to_owned()).collect());
    back.sort_unstable();
    wanted.sort_unstable();
    ensure!(back == wanted, "`{acked}` was acknowledged, expected {wanted:?} back, got {back:?}");
    running.stop().await?;
    Ok(())
}

/// A6. The handler succeeded, its ack never arrived, its process died.
async fn lost_ack_is_no_failure(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("unheard"), bench.group("all"));
    let lost = Sabotage::new(Deed::Swallow, 1, |order| matches!(order, Settlement::Ack(_)));
    let dies = bench.sabotaged(&lost).await?;
    let handler = dies.handler(|_, _| async { Ok(()) });
    let running = dies.work(&topic, &group).handle(handler).start().await?;
    let id = dies.sender(&topic).await?.send("m").await?.id;
    lost.done().await?;
    bench.crash(&dies).await?;
    drop(running);

    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let running = other.work(&topic, &group).handle(handler).start().await?;
    bench.wait("it again", |seen| seen.ended(ledger::Outcome::Ok) >= 2).await?;
    bench.stays("2 runs", LEASE * 2, |seen| seen.runs.len() == 2).await?;
    let runs: Vec<_> = bench
        .ledger()
        .read(|seen| seen.runs.iter().map(|run| (run.received.id.clone(), run.attempt)).collect());
    let same = runs.iter().all(|(other, attempt)| *other == Some(id.clone()) && *attempt == 1);
    ensure!(same, "expected `{id}` as attempt 1 both times, got {runs:?}");
    running.stop().await?;
    Ok(())
}

/// A8. Another member is idle and would take it.
async fn long_handler_keeps_its_lease(bench: &Bench) -> Outcome {
    let took = LEASE * 3 + LEASE / 2;
    let (topic, group) = (bench.topic("long"), bench.group("all"));
    let mut running = Vec::new();
    for _ in 0..2 {
        let member = bench.member().await?;
        let handler = member.handler(move |_, _| async move {
            tokio::time::sleep(took).await;
            Ok(())
        });
        running.push(member.work(&topic, &group).handle(handler).start().await?);
    }
    let member = bench.member().await?;
    member.sender(&topic).await?.send("m").await?;
    bench.wait("the end of the run", |seen| seen.ended(ledger::Outcome::Ok) >= 1).await?;
    let once = |seen: &Records| seen.deliveries.len() == 1 && seen.runs.len() == 1;
    bench.stays("1 delivery", LEASE * 2, once).await?;
    let acks = bench.ledger().read(|seen| seen.settled(|how| how == How::Ack));
    ensure!(acks == 1, "expected its ack to take effect, the ledger has {acks}");
    for running in running {
        running.stop().await?;
    }
    Ok(())
}

/// R16. The first gap is spent in process with the delivery held, the second in the broker.
async fn delay_may_exceed_the_lease(bench: &Bench) -> Outcome {
    let gaps = [LEASE * 2, bench.delay(LEASE * 3)];
    let (topic, group) = (bench.topic("patient"), bench.group("all"));
    let policy = bench.policy().fast_delays([gaps[0]]).delayed([gaps[1]]);
    let policy = policy.build().map_err(Error::from)?;
    let mut running = Vec::new();
    for _ in 0..2 {
        let member = bench.member().await?;
        let handler = member.handler(|_, context| async move {
            if context.attempt() <= 2 { Err(Failure::transient("not yet")) } else { Ok(()) }
        });
        let worker = member.work(&topic, &group).policy(policy.clone()).handle(handler);
        running.push(worker.start().await?);
    }
    let member = bench.member().await?;
    member.sender(&topic).await?.send("m").await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) >= 1).await?;
    let both = |seen: &Records| seen.deliveries.len() == 2 && seen.runs.len() == 3;
    bench.stays("3 runs in 2 deliveries", LEASE * 2, both).await?;
    let (attempts, starts) = bench.ledger().read(|seen| {
        let starts: Vec<_> = seen.runs_of_body("m").map(|run| run.at).collect();
        (seen.attempts("m"), starts)
    });
    ensure!(attempts == [1, 2, 3], "expected attempts 1 to 3, got {attempts:?}");
    for (pair, gap) in starts.windows(2).zip(gaps) {
        let (came, latest): (Duration, _) = (pair[1] - pair[0], bench.latest(gap));
        ensure!(came >= gap, "a gap of {gap:?} took {came:?}: early");
        ensure!(came <= latest, "a gap of {gap:?} took {came:?}, latest {latest:?}");
    }
    for running in running {
        running.stop().await?;
    }
    Ok(())
}
