use std::time::Duration;

use longshore_core::{Drift, ErrorKind, Mode, Settlement, Start, Topology};

use crate::bench::{Bench, LEASE};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::body;

pub(super) const CHECKS: &[Check] = &[Check {
    id: "topology.redeclare_is_idempotent",
    code: "I4",
    tier: Tier::Core,
    summary: "declaring again changes nothing; other settings are a typed difference",
    needs: &[Need::DeadLetters],
    run: |bench| Box::pin(redeclare_is_idempotent(bench)),
}];

/// I4.
async fn redeclare_is_idempotent(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("declared"), bench.group("all"));
    let member = bench.member().await?;
    let broker = member.client.broker();
    let topology = bench.topology(&topic, &group);
    let verify = Topology { mode: Mode::Verify, ..topology.clone() };
    let missing = broker.declare(&verify).await;
    let kind = missing.as_ref().err().map(longshore_core::Error::kind);
    ensure!(kind == Some(ErrorKind::NotFound), "verifying what is missing gave {missing:?}");

    broker.declare(&topology).await?;
    member.sender(&topic).await?.send("before").await?;
    broker.declare(&topology).await?;
    broker.declare(&verify).await?;
    // Neither of these is a difference: one acts on a new group only, of the other the last holds.
    for mode in [Mode::Declare, Mode::Verify] {
        let mut moved = Topology { mode, ..topology.clone() };
        moved.groups[0].start =
            if bench.info().capabilities.replay { Start::Earliest } else { Start::Declared };
        moved.groups[0].lease = LEASE * 2;
        broker.declare(&moved).await?;
    }

    let wanted = Duration::from_secs(3600);
    for mode in [Mode::Declare, Mode::Verify] {
        let mut drifted = Topology { mode, ..topology.clone() };
        drifted.groups[0].dead_letters = Some(wanted);
        let result = broker.declare(&drifted).await;
        let Err(error) = result else {
            return Err(format!("{mode:?} accepted other settings of a group").into());
        };
        let kind = error.kind();
        ensure!(kind == ErrorKind::AlreadyExists, "{mode:?}: expected `AlreadyExists`: {error:?}");
        let Some(drift) = error.native::<Drift>() else {
            return Err(format!("{mode:?}: the error has no `Drift`: {error:?}").into());
        };
        let told = drift.entries.iter().any(|entry| entry.setting == "dead_letters");
        ensure!(told, "{mode:?}: the difference is not told: {drift:?}");
    }
    // Nothing was changed by the refused ones, and nothing was lost by the others.
    broker.declare(&verify).await?;
    let consumer = member.consumer(bench.source(&topic, &group), 1).await?;
    let received = consumer.next().await?;
    ensure!(body(&received) == "before", "expected `before`, got `{}`", body(&received));
    consumer.settle(Settlement::Ack(received.token)).await?;
    consumer.close().await?;
    Ok(())
}
