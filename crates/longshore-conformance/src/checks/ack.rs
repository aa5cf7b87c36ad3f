use longshore_core::{ErrorKind, Settlement};

use crate::bench::{Bench, LEASE, PATIENCE, WINDOW};
use crate::check::{Check, Outcome, Stop, Tier, ensure};
use crate::ledger::{How, body};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "settle.ack_is_durable",
        code: "A1",
        tier: Tier::Core,
        summary: "what was acknowledged never returns: past its lease, and on a new connection",
        needs: &[],
        run: |bench| Box::pin(ack_is_durable(bench)),
    },
    Check {
        id: "settle.dropped_unsettled_returns",
        code: "A2",
        tier: Tier::Core,
        summary: "a delivery that is dropped unsettled comes again, as the same attempt",
        needs: &[],
        run: |bench| Box::pin(dropped_unsettled_returns(bench)),
    },
    Check {
        id: "settle.token_settles_once",
        code: "A4",
        tier: Tier::Core,
        summary: "settling twice cannot touch another message",
        needs: &[],
        run: |bench| Box::pin(token_settles_once(bench)),
    },
];

/// A1.
async fn ack_is_durable(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("acked"), bench.group("all"));
    let member = bench.member().await?;
    let mut subscription = member.subscribe(&topic, &group).await?;
    let sender = member.sender(&topic).await?;
    for n in 0..5 {
        sender.send(format!("m{n}")).await?;
    }
    for _ in 0..5 {
        next(&mut subscription).await?.ack().await?;
    }
    // Read on, so that what came back would be seen.
    let again = tokio::time::timeout(LEASE * 3, subscription.next()).await;
    ensure!(again.is_err(), "after 5 acks there came a delivery: {again:?}");
    subscription.close().await?;
    member.client.close().await?;

    let other = bench.member().await?;
    let mut subscription = other.subscribe(&topic, &group).await?;
    let again = tokio::time::timeout(LEASE * 3, subscription.next()).await;
    ensure!(again.is_err(), "on a new connection, acknowledged: {again:?}");
    // The new subscription does read.
    other.sender(&topic).await?.send("last").await?;
    let last = next(&mut subscription).await?;
    ensure!(body(&last) == "last", "expected `last`, got `{}`", body(&last));
    last.ack().await?;
    subscription.close().await?;
    Ok(())
}

/// A2.
async fn dropped_unsettled_returns(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("dropped"), bench.group("all"));
    let member = bench.member().await?;
    let mut subscription = member.subscribe(&topic, &group).await?;
    let id = member.sender(&topic).await?.send("held").await?.id;
    let first = next(&mut subscription).await?;
    drop(first);
    let again = next(&mut subscription).await?;
    ensure!(again.id == Some(id.clone()), "`{id}` was dropped, {:?} came", again.id);
    let attempt = again.received().attempt();
    ensure!(attempt == 1, "a release is no failure: attempt 1 expected, got {attempt}");
    again.ack().await?;
    let twice = |seen: &crate::ledger::Records| seen.deliveries.len() == 2;
    bench.stays("2 deliveries in all", WINDOW, twice).await?;
    subscription.close().await?;
    Ok(())
}

/// A4. An earlier delivery is held all the time, and one that took the settled one's place: neither
/// an ack nor its repeat may touch them.
async fn token_settles_once(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("twice"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let sender = member.sender(&topic).await?;
    for text in ["earlier", "acked", "later"] {
        sender.send(text).await?;
    }
    // No more than two at a time: the third can only come where the second was.
    let consumer = member.consumer(bench.source(&topic, &group), 2).await?;
    let (one, two) = (consumer.next().await?, consumer.next().await?);
    consumer.settle(Settlement::Ack(two.token)).await?;
    let three = consumer.next().await?;
    let (acked, mut held) =
        (body(&two).to_owned(), [body(&one).to_owned(), body(&three).to_owned()]);
    match consumer.settle(Settlement::Ack(two.token)).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::LeaseLost => {}
        Err(error) => {
            let wanted = "expected `Ok` or `LeaseLost` of a second ack";
            return Err(Stop::Failed(format!("{wanted}, got {error:?}")));
        }
    }
    consumer.close().await?;

    let consumer = member.consumer(bench.source(&topic, &group), 10).await?;
    let mut back = Vec::new();
    for _ in 0..2 {
        let received = consumer.next().await.map_err(|_| {
            let shown = bench.ledger().read(ToString::to_string);
            Stop::Failed(format!("expected {held:?} back, got {back:?}. The ledger: {shown}"))
        })?;
        back.push(body(&received).to_owned());
        consumer.settle(Settlement::Ack(received.token)).await?;
    }
    back.sort_unstable();
    held.sort_unstable();
    ensure!(back == held, "`{acked}` was acknowledged, expected {held:?} back, got {back:?}");
    consumer.close().await?;
    let acks = bench.ledger().read(|seen| seen.settled(|how| how == How::Ack));
    ensure!(acks == 3, "expected 3 acks that took effect, the ledger has {acks}");
    Ok(())
}

/// The next delivery of a subscription.
pub(super) async fn next(
    subscription: &mut longshore_runtime::Subscription,
) -> Outcome<longshore_runtime::Delivery> {
    match tokio::time::timeout(PATIENCE, subscription.next()).await {
        Ok(Some(delivery)) => Ok(delivery?),
        Ok(None) => Err(Stop::Failed("expected a delivery, the subscription ended".to_owned())),
        Err(_) => Err(Stop::Failed(format!("expected a delivery within {PATIENCE:?}, none came"))),
    }
}
