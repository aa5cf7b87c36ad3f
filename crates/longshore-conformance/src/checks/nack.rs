use longshore_core::Settlement;

use super::ack::next;
use crate::bench::{Bench, STEP, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{How, Records};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "settle.release_returns",
        code: "N1",
        tier: Tier::Core,
        summary: "what is released comes again, to another member too, as the same attempt",
        needs: &[],
        run: |bench| Box::pin(release_returns(bench)),
    },
    Check {
        id: "settle.retry_is_on_time",
        code: "N3",
        tier: Tier::Core,
        summary: "a delayed return: never early, late by no more than the bound",
        needs: &[Need::Delay],
        run: |bench| Box::pin(retry_is_on_time(bench)),
    },
];

/// N1.
async fn release_returns(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("released"), bench.group("all"));
    let member = bench.member().await?;
    let mut subscription = member.subscribe(&topic, &group).await?;
    let id = member.sender(&topic).await?.send("back").await?.id;
    for _ in 0..2 {
        let delivery = next(&mut subscription).await?;
        ensure!(delivery.id == Some(id.clone()), "`{id}` was released, {:?} came", delivery.id);
        let attempt = delivery.received().attempt();
        ensure!(attempt == 1, "a release is no failure: attempt 1 expected, got {attempt}");
        delivery.release().await?;
    }
    subscription.close().await?;

    let other = bench.member().await?;
    let consumer = other.consumer(bench.source(&topic, &group), 1).await?;
    let received = consumer.next().await?;
    ensure!(received.id == Some(id.clone()), "`{id}` was released, {:?} came", received.id);
    ensure!(received.attempt() == 1, "attempt 1 expected, got {}", received.attempt());
    consumer.settle(Settlement::Ack(received.token)).await?;
    let done = |seen: &Records| seen.settled(|how| how == How::Ack) == 1;
    bench.stays("1 ack, and nothing after it", WINDOW, done).await?;
    consumer.close().await?;
    Ok(())
}

/// N3.
async fn retry_is_on_time(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("delayed"), bench.group("all"));
    let member = bench.member().await?;
    let mut subscription = member.subscribe(&topic, &group).await?;
    member.sender(&topic).await?.send("later").await?;
    let delay = bench.delay(STEP);
    next(&mut subscription).await?.retry(delay).await?;
    let again = next(&mut subscription).await?;
    let attempt = again.received().attempt();
    ensure!(attempt == 2, "a retry is a failure: attempt 2 expected, got {attempt}");
    again.ack().await?;
    let (early, late) = bench.ledger().read(gaps);
    ensure!(early >= delay, "a retry after {delay:?} came {early:?} after it was ordered");
    let latest = bench.latest(delay);
    ensure!(late <= latest, "a retry after {delay:?} came after {late:?}, latest {latest:?}");
    subscription.close().await?;
    Ok(())
}

/// From the order, and from the answer, of the first settlement to the second delivery.
fn gaps(seen: &Records) -> (std::time::Duration, std::time::Duration) {
    let (first, second) = (&seen.deliveries[0], &seen.deliveries[1]);
    let end = first.end.as_ref();
    end.map(|end| (second.at - end.ordered, second.at - end.at)).unwrap_or_default()
}
