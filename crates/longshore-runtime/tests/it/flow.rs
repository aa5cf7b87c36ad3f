//! The circuit breaker and the rate limit in a worker that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use longshore_core::policy::{Breaker, RateLimit};
use longshore_core::{Failure, Policy, Received};
use longshore_runtime::{BreakerState, ClientOptions, Running};
use tokio::time::Instant;

use super::{Seen, broker, client, ms, policy, soon};

fn breaks(open: u64) -> Policy {
    let rules = Breaker {
        window: ms(60_000),
        min: 4,
        ratio: 0.5,
        open: ms(open),
        max_open: ms(open * 4),
        probes: 1,
    };
    let policy = policy().to_builder().max_attempts(10).fast_delays([]).breaker(Some(rules));
    policy.build().unwrap()
}

/// A bounded poll: under virtual time, a millisecond costs nothing.
async fn becomes(worker: &Running, state: BreakerState) {
    soon(async {
        while worker.breaker() != state {
            tokio::time::sleep(ms(1)).await;
        }
    })
    .await;
}

/// Fails while it is broken; counts its runs.
fn switch(
    broken: &Arc<AtomicBool>,
    runs: &Arc<AtomicUsize>,
) -> impl Fn(Received) -> std::future::Ready<Result<(), Failure>> + Send + Sync + 'static + use<> {
    let (broken, runs) = (broken.clone(), runs.clone());
    move |_| {
        runs.fetch_add(1, Ordering::Relaxed);
        let fails = broken.load(Ordering::Relaxed);
        std::future::ready(if fails { Err(Failure::transient("broken")) } else { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn open_closes_by_itself_when_the_trouble_is_over() {
    let (broken, runs) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let client = client().await;
    let worker = client.worker("t", "g").policy(breaks(10_000)).concurrency(2).prefetch(8);
    let worker = worker.handle(switch(&broken, &runs)).start().await.unwrap();
    assert_eq!(worker.breaker(), BreakerState::Closed);
    let sender = client.sender("t").await.unwrap();
    for n in 0..20 {
        sender.send(format!("m{n}")).await.unwrap();
    }
    becomes(&worker, BreakerState::Open).await;
    let begun = Instant::now();
    tokio::time::sleep(ms(9_000)).await;
    let before = runs.load(Ordering::Relaxed);
    assert!((4..=5).contains(&before), "what ran already ended: {before}");
    let tally = worker.tally();
    assert_eq!(tally.failed, before as u64, "no attempt is burnt");
    let taken = tally.received;
    assert_eq!(taken, tally.retried + tally.released, "nothing is held: {tally}");

    // Still broken: one probe, and open for twice as long.
    tokio::time::sleep(ms(2_000)).await;
    assert_eq!(worker.breaker(), BreakerState::Open);
    assert_eq!(runs.load(Ordering::Relaxed), before + 1);
    assert_eq!(worker.tally().received, taken + 1, "one came");
    broken.store(false, Ordering::Relaxed);
    soon(worker.idle()).await;
    assert!(begun.elapsed() >= ms(30_000), "after {:?}", begun.elapsed());
    assert_eq!(worker.breaker(), BreakerState::Closed);
    assert_eq!(worker.stop().await.unwrap().succeeded, 20);
}

#[tokio::test(start_paused = true)]
async fn an_open_worker_stops_at_once_and_leaves_its_messages_to_others() {
    let (broken, runs) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (first, _) = broker("memory://open", ClientOptions::default()).await;
    let (second, _) = broker("memory://open", ClientOptions::default()).await;
    let worker = first.worker("t", "g").policy(breaks(3_600_000)).concurrency(4).prefetch(16);
    let worker = worker.handle(switch(&broken, &runs)).start().await.unwrap();
    let sender = second.sender("t").await.unwrap();
    for n in 0..20 {
        sender.send(format!("m{n}")).await.unwrap();
    }
    becomes(&worker, BreakerState::Open).await;
    let well = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let other = second.worker("t", "g").policy(breaks(1_000)).handle(switch(&well.0, &well.1));
    let other = other.start().await.unwrap();
    soon(other.idle()).await;
    assert_eq!(other.stop().await.unwrap().succeeded, 20);
    assert_eq!(worker.breaker(), BreakerState::Open);
    let begun = Instant::now();
    worker.stop().await.unwrap();
    assert!(begun.elapsed() < ms(100), "nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_and_the_prefetch_fits_it() {
    let client = client().await;
    let seen = Seen::default();
    let note = seen.clone();
    let limit = RateLimit { count: 2, per: ms(1_000) };
    let limited = policy().to_builder().rate_limit(Some(limit)).handler_timeout(ms(2_000));
    let limited = limited.build().unwrap();
    let worker = client.worker("t", "g").policy(limited).lease(ms(1_000)).handle(move |m| {
        note.note(&m);
        async { Ok(()) }
    });
    let worker = worker.start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let begun = Instant::now();
    for n in 0..21 {
        sender.send(format!("m{n}")).await.unwrap();
    }
    tokio::time::sleep(ms(1)).await;
    // Two in each second of a time-out of two, one more, and the one that has run already.
    assert_eq!(worker.tally().received, 6);
    soon(worker.idle()).await;
    let took = begun.elapsed();
    assert!(took >= ms(10_000) && took < ms(11_000), "21 at 2 a second took {took:?}");
    let tally = worker.stop().await.unwrap();
    assert_eq!((tally.succeeded, tally.redelivered, tally.lease_lost), (21, 0, 0));
    assert_eq!(seen.all().len(), 21);
}

#[tokio::test(start_paused = true)]
async fn without_either_nothing_waits() {
    let client = client().await;
    let free = policy().to_builder().breaker(None).rate_limit(None).build().unwrap();
    let worker = client.worker("t", "g").policy(free).handle(|_: Received| async { Ok(()) });
    let worker = worker.start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    let begun = Instant::now();
    for n in 0..1_000 {
        sender.send(format!("m{n}")).await.unwrap();
    }
    soon(worker.idle()).await;
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!(worker.breaker(), BreakerState::Closed);
    assert_eq!(worker.stop().await.unwrap().succeeded, 1_000);
}
