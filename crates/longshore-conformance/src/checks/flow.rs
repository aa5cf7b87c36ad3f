//! When a worker does not run handlers although it could: the circuit breaker and the rate limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_core::policy::{Breaker, RateLimit};
use longshore_core::{Error, Failure};
use longshore_runtime::BreakerState;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::bench::{Bench, LEASE, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, How, Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];
/// Longer than any check takes.
const FOR_EVER: Duration = Duration::from_secs(600);
/// What the workers of these checks prefetch, and how many handlers they run.
const PREFETCH: usize = 16;
const CONCURRENCY: usize = 4;
/// The failures that open the breaker.
const MIN: usize = 4;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "flow.open_burns_no_attempt",
        code: "V1",
        tier: Tier::Certification,
        summary: "an open breaker fetches nothing, gives back what waits, and burns no attempt",
        needs: NEEDS,
        run: |bench| Box::pin(open_burns_no_attempt(bench)),
    },
    Check {
        id: "flow.half_open_lets_one_through",
        code: "V2",
        tier: Tier::Certification,
        summary: "a half-open breaker lets one message through, and a success closes it",
        needs: NEEDS,
        run: |bench| Box::pin(half_open_lets_one_through(bench)),
    },
    Check {
        id: "flow.permanent_failures_do_not_trip",
        code: "V3",
        tier: Tier::Certification,
        summary: "what cannot be helped by waiting never opens the breaker",
        needs: NEEDS,
        run: |bench| Box::pin(permanent_failures_do_not_trip(bench)),
    },
    Check {
        id: "flow.rate_is_kept",
        code: "V4",
        tier: Tier::Certification,
        summary: "handlers start no faster than the policy says, and what waits is not lost",
        needs: &[],
        run: |bench| Box::pin(rate_is_kept(bench)),
    },
];

fn breaker(open: Duration) -> Breaker {
    let min = u32::try_from(MIN).unwrap_or(u32::MAX);
    Breaker { window: FOR_EVER, min, ratio: 0.5, open, max_open: open * 4, probes: 1 }
}

/// How many hand-overs were ended, and the broker agreed.
fn ended(seen: &Records) -> usize {
    seen.settled(|_| true)
}

/// V1. The messages that wait are there before the first handler ends, so that there is something
/// to give back.
async fn open_burns_no_attempt(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 20;
    let (topic, group) = (bench.topic("broken"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let texts = (0..MESSAGES).map(|n| format!("m{n}"));
    for outcome in member.sender(&topic).await?.send_all(texts).await {
        outcome?;
    }
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let handler = member.handler(move |_, _| {
        let gate = waits.clone();
        async move {
            gate.acquire().await?.forget();
            Err(Failure::transient("what it calls is down"))
        }
    });
    let policy = bench.policy().max_attempts(5).breaker(Some(breaker(FOR_EVER)));
    let policy = policy.build().map_err(Error::from)?;
    let worker = member.work(&topic, &group).policy(policy.clone()).handle(handler);
    let running = worker.start().await?;
    let full = |seen: &Records| seen.deliveries.len() == PREFETCH && seen.running() == CONCURRENCY;
    bench.wait("4 running handlers and 12 messages that wait", full).await?;
    gate.add_permits(Semaphore::MAX_PERMITS / 2);

    let given_back = |seen: &Records| {
        running.breaker() == BreakerState::Open && ended(seen) >= PREFETCH && seen.running() == 0
    };
    bench.wait("an open breaker, and nothing held", given_back).await?;
    let (runs, handed, released) = bench.ledger().read(|seen| {
        (seen.runs.len(), seen.deliveries.len(), seen.settled(|how| how == How::Release))
    });
    ensure!(handed == PREFETCH, "expected no hand-over after the first {PREFETCH}, got {handed}");
    // A run that began before the last of the four had failed ends as ever.
    let most = MIN + CONCURRENCY - 1;
    ensure!((MIN..=most).contains(&runs), "expected {MIN} to {most} runs, got {runs}");
    let waited = PREFETCH - runs;
    ensure!(released == waited, "expected {waited} releases of what waited, got {released}");
    // Longer than the delay of those that failed: they are due, and not fetched.
    let nothing = |seen: &Records| seen.deliveries.len() == handed && seen.runs.len() == runs;
    bench.stays("no hand-over and no run while it is open", WINDOW * 2, nothing).await?;

    let other = bench.member().await?;
    let handler = other.handler(|_, _| async { Ok(()) });
    let next = other.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let all = |seen: &Records| seen.ended(ledger::Outcome::Ok) == MESSAGES;
    bench.wait("success of all 20 in another member, while this one is open", all).await?;
    let wrong = bench.ledger().read(|seen| {
        let texts = seen.runs.iter().map(|run| body(&run.received).to_owned());
        let attempts = texts.map(|text| (seen.attempts(&text), text));
        attempts.into_iter().find(|(attempts, _)| *attempts != [1] && *attempts != [1, 2])
    });
    ensure!(wrong.is_none(), "an attempt was burnt: {wrong:?}");
    let (state, own) = (
        running.breaker(),
        bench.ledger().read(|seen| {
            seen.deliveries.iter().filter(|entry| entry.instance == member.instance).count()
        }),
    );
    ensure!(state == BreakerState::Open, "the breaker became {state:?} long before its time");
    ensure!(own == handed, "expected {handed} hand-overs to the open member, got {own}");
    running.stop().await?;
    next.stop().await?;
    Ok(())
}

/// V2.
async fn half_open_lets_one_through(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 12;
    let open = Duration::from_millis(500);
    let (topic, group) = (bench.topic("trying"), bench.group("all"));
    let member = bench.member().await?;
    member.client.declare(&bench.topology(&topic, &group)).await?;
    let texts = (0..MESSAGES).map(|n| format!("m{n}"));
    for outcome in member.sender(&topic).await?.send_all(texts).await {
        outcome?;
    }
    let (mended, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
    let (works, waits) = (mended.clone(), gate.clone());
    let handler = member.handler(move |_, _| {
        let (works, gate) = (works.clone(), waits.clone());
        async move {
            if !works.load(Ordering::Relaxed) {
                return Err(Failure::transient("what it calls is down"));
            }
            gate.acquire().await?.forget();
            Ok(())
        }
    });
    let policy = bench.policy().max_attempts(10).breaker(Some(breaker(open)));
    let policy = policy.build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;

    // The first runs; then one, which fails; then, after twice the time, one that waits.
    let failed = |seen: &Records| seen.ended(ledger::Outcome::Failed);
    bench.wait("4 failures", |seen| failed(seen) >= MIN).await?;
    let began = |seen: &Records| seen.runs.iter().map(|run| run.at).collect::<Vec<_>>();
    let ends = |seen: &Records| {
        let ends = seen.runs.iter().filter_map(|run| run.end.as_ref());
        let mut ends: Vec<_> = ends.map(|end| end.at).collect();
        ends.sort_unstable();
        ends
    };
    // It opened at the fourth end at the earliest; what begins `open` later was let through.
    let opened = bench.ledger().read(ends)[MIN - 1];
    let tried = |seen: &Records| seen.runs.iter().filter(|run| run.at >= opened + open).count();
    bench.wait("a first try", |seen| tried(seen) == 1 && seen.running() == 0).await?;
    mended.store(true, Ordering::Relaxed);
    bench.wait("a second try", |seen| tried(seen) == 2).await?;
    let alone = |seen: &Records| tried(seen) == 2 && seen.running() == 1;
    bench.stays("one message alone", WINDOW, alone).await?;
    ensure!(
        running.breaker() == BreakerState::HalfOpen,
        "expected a half-open breaker, it is {:?}",
        running.breaker()
    );
    let (starts, first_end, handed) = bench.ledger().read(|seen| {
        let late = seen.deliveries.iter().filter(|entry| entry.at >= opened + open);
        let first = seen.runs.iter().find(|run| run.at >= opened + open);
        (began(seen), first.and_then(|run| run.end.clone()), late.count())
    });
    ensure!(handed == 2, "expected one hand-over for each try, got {handed} for two");
    let second = starts[starts.len() - 1];
    let gap = first_end.map(|end| second - end.at).unwrap_or_default();
    ensure!(
        gap >= open * 2,
        "after a try that failed, {gap:?} to the next; at least {:?}",
        open * 2
    );

    gate.add_permits(MESSAGES);
    let all = |seen: &Records| seen.ended(ledger::Outcome::Ok) == MESSAGES;
    bench.wait("success of all 12", all).await?;
    ensure!(
        running.breaker() == BreakerState::Closed,
        "expected a closed breaker, it is {:?}",
        running.breaker()
    );
    running.stop().await?;
    Ok(())
}

/// V3.
async fn permanent_failures_do_not_trip(bench: &Bench) -> Outcome {
    const EACH: usize = 6;
    const KINDS: [&str; 4] = ["permanent", "rejected", "undecodable", "unwanted"];
    let (topic, group) = (bench.topic("hopeless"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, _| async move {
        Err(match body(&received) {
            "permanent" => Failure::permanent("never"),
            "rejected" => Failure::reject("no", "never"),
            "undecodable" => Failure::undecodable("never"),
            "unwanted" => Failure::discard("never"),
            "good" => return Ok(()),
            _ => Failure::transient("what is this?"),
        })
    });
    let policy = bench.policy().breaker(Some(breaker(FOR_EVER))).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    for kind in KINDS.iter().cycle().take(EACH * KINDS.len()) {
        sender.send(*kind).await?;
    }
    // All but the unwanted ones.
    member.wait_for_letters(&topic, &group, EACH * (KINDS.len() - 1)).await?;
    let all = |seen: &Records| seen.ended(ledger::Outcome::Failed) == EACH * KINDS.len();
    bench.wait("24 failures", all).await?;
    let state = running.breaker();
    ensure!(state == BreakerState::Closed, "expected a closed breaker, it is {state:?}");
    sender.send("good").await?;
    bench.wait("a success", |seen| seen.ended(ledger::Outcome::Ok) == 1).await?;
    let tally = running.stop().await?;
    ensure!(tally.released == 0, "nothing is given back, but: {tally}");
    Ok(())
}

/// V4. What waits does so for longer than its lease.
async fn rate_is_kept(bench: &Bench) -> Outcome {
    let limit = RateLimit { count: 5, per: Duration::from_secs(1) };
    let gap = limit.per / limit.count;
    let (topic, group) = (bench.topic("limited"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let policy = bench.policy().rate_limit(Some(limit)).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    let began = Instant::now();
    for n in 0..PREFETCH {
        sender.send(format!("m{n}")).await?;
    }
    let all = |seen: &Records| seen.ended(ledger::Outcome::Ok) == PREFETCH;
    bench.wait("success of all 16", all).await?;
    let once = |seen: &Records| seen.runs.len() == PREFETCH && seen.deliveries.len() == PREFETCH;
    bench.stays("each handed over once", LEASE, once).await?;
    // Of a run's start the ledger knows the latest bound: gaps are taken from before the first.
    let starts = bench.ledger().read(|seen| seen.runs.iter().map(|run| run.at).collect::<Vec<_>>());
    for (before, start) in (0u32..).zip(&starts) {
        let (after, least) = (*start - began, gap * before);
        ensure!(after >= least, "start {before} came after {after:?}, at least {least:?}");
    }
    ensure!(starts.len() == PREFETCH, "expected {PREFETCH} starts, got {}", starts.len());
    let tally = running.stop().await?;
    ensure!(tally.lease_lost == 0, "leases were lost: {tally}");
    Ok(())
}
