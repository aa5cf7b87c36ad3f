use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use longshore_core::{Drift, ErrorKind, Failure, Policy, Reason, Received, Start, Tenant};
use longshore_runtime::{ClientOptions, Context};
use tokio::sync::Notify;

use super::{Seen, broker, broker_as, client, ms, policy, setup, soon};

#[tokio::test(start_paused = true)]
async fn a_failing_message_is_tried_four_times_and_then_dead_lettered() {
    let client = client().await;
    let seen = Seen::default();
    let note = seen.clone();
    let handler = move |message: Received, context: Context| {
        note.note(&message);
        async move { Err(Failure::transient(format!("attempt {}", context.attempt()))) }
    };
    let worker = client.worker("t", "g").policy(policy()).handle(handler).start().await.unwrap();
    let begun = tokio::time::Instant::now();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    soon(worker.idle()).await;
    assert!(begun.elapsed() >= ms(2_100), "one fast gap and two delayed ones");
    assert_eq!(seen.all().len(), 4);
    let tally = worker.stop().await.unwrap();
    let counts = (tally.failed, tally.fast_retries, tally.retried, tally.dead_lettered);
    assert_eq!(counts, (4, 1, 2, 1));
    let letters = client.dead_letters("t", "g").unwrap().browse(10).await.unwrap();
    let letter = letters[0].letter.as_ref().unwrap();
    assert_eq!((letter.reason, letter.attempts), (Reason::AttemptsExhausted, 4));
    assert_eq!((letter.deliveries, letter.history.len()), (3, 4));
    assert_eq!(letter.cause.as_ref().unwrap().message, "attempt 4");
}

/// Panics before its first await, after it, and when it is dropped.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_wherever_it_falls_and_the_worker_lives() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "dropped");
        }
    }
    let client = client().await;
    let good = Arc::new(AtomicUsize::new(0));
    let count = good.clone();
    let handler = move |message: Received| {
        assert_ne!(&message.body[..], b"at once", "at once");
        let count = count.clone();
        async move {
            tokio::task::yield_now().await;
            assert_ne!(&message.body[..], b"later", "later");
            if &message.body[..] == b"dropped" {
                let _bomb = Bomb;
                std::future::pending::<()>().await;
            }
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    };
    let once = Policy::builder().max_attempts(1).fast_delays([]).delayed([]);
    let once = once.handler_timeout(ms(1_000)).build().unwrap();
    let worker = client.worker("t", "g").policy(once).handle(handler).start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    for body in ["at once", "later", "dropped", "good"] {
        sender.send(body).await.unwrap();
    }
    soon(worker.idle()).await;
    assert_eq!(good.load(Ordering::Relaxed), 1);
    worker.stop().await.unwrap();
    let letters = client.dead_letters("t", "g").unwrap().browse(10).await.unwrap();
    let mut reasons: Vec<_> = letters.iter().map(|l| l.letter.as_ref().unwrap().reason).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [Reason::Panicked, Reason::Panicked, Reason::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_hears_that_it_is_cancelled() {
    let client = client().await;
    let heard = Arc::new(AtomicBool::new(false));
    let hears = heard.clone();
    let handler = move |_: Received, context: Context| {
        let hears = hears.clone();
        async move {
            assert!(!context.is_cancelled());
            context.cancelled().await;
            hears.store(context.is_cancelled(), Ordering::Relaxed);
            Ok(())
        }
    };
    let quick = policy().to_builder().handler_timeout(ms(1_000)).build().unwrap();
    let worker = client.worker("t", "g").policy(quick).handle(handler).start().await.unwrap();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    soon(worker.idle()).await;
    assert!(heard.load(Ordering::Relaxed));
    let tally = worker.stop().await.unwrap();
    assert_eq!((tally.succeeded, tally.failed), (1, 0), "it ended well in its last poll");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_instance_loses_its_leases_and_another_takes_over() {
    let (one, two) = (setup(), setup());
    let instance = one.instance.clone();
    let options = ClientOptions::default;
    let (first, memory) = broker_as(one, "memory://crash", options()).await;
    let (second, _) = broker_as(two, "memory://crash", options()).await;
    let running = Arc::new(Notify::new());
    let begins = running.clone();
    let hangs = move |_: Received| {
        begins.notify_one();
        std::future::pending()
    };
    let build = |client: &longshore_runtime::Client| {
        client.worker("t", "g").policy(policy()).lease(ms(2_000))
    };
    let dies = build(&first).handle(hangs).start().await.unwrap();
    second.sender("t").await.unwrap().send("a").await.unwrap();
    soon(running.notified()).await;

    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sees = seen.clone();
    let handler = move |_: Received, context: Context| {
        sees.lock().unwrap().push((context.attempt(), context.deliveries()));
        async { Ok(()) }
    };
    let lives = build(&second).handle(handler).start().await.unwrap();
    memory.crash(&instance);
    soon(lives.idle()).await;
    assert_eq!(*seen.lock().unwrap(), [(1, 2)], "deliveries rise, attempts do not");
    assert!(soon(dies.stop()).await.is_err(), "its consumer is gone");
    lives.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_what_runs_end_and_starts_nothing_more() {
    let client = client().await;
    let seen = Seen::default();
    let note = seen.clone();
    let handler = move |message: Received| {
        note.note(&message);
        async {
            tokio::time::sleep(ms(1_000)).await;
            Ok(())
        }
    };
    let worker = client.worker("t", "g").policy(policy()).concurrency(2);
    let worker = worker.handle(handler).start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    for outcome in sender.send_all((0..6).map(|n| n.to_string())).await {
        outcome.unwrap();
    }
    tokio::time::sleep(ms(500)).await;
    let tally = soon(worker.stop()).await.unwrap();
    assert_eq!((tally.succeeded, tally.failed, tally.released), (2, 0, 4));
    assert_eq!(worker.stop().await.unwrap(), tally, "idempotent");
    assert_eq!(seen.all(), ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn slow_handlers_stall_only_their_share() {
    let client = client().await;
    let seen = Seen::default();
    let note = seen.clone();
    let handler = move |message: Received| {
        let body = note.note(&message);
        async move {
            if body == "slow" {
                tokio::time::sleep(ms(30_000)).await;
            }
            Ok(())
        }
    };
    let worker = client.worker("t", "g").policy(policy()).concurrency(4).parallelism(2);
    let worker = worker.handle(handler).start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    sender.send("slow").await.unwrap();
    for n in 0..100 {
        sender.send(n.to_string()).await.unwrap();
    }
    let begun = tokio::time::Instant::now();
    while worker.tally().succeeded < 100 {
        tokio::time::sleep(ms(1)).await;
        assert!(begun.elapsed() < ms(10_000), "{}", worker.tally());
    }
    soon(worker.stop()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn state_reaches_the_handler_and_tenants_never_meet() {
    let tenant = |name| ClientOptions {
        tenant: Some(Tenant::new(name).unwrap()),
        ..ClientOptions::default()
    };
    let (a, _) = broker("memory://tenants", tenant("a")).await;
    let (b, _) = broker("memory://tenants", tenant("b")).await;
    let handler = |_: Received, context: Context| async move {
        assert_eq!(context.topic().as_str(), "t");
        match context.state::<&str>() {
            Some(&"a") => Ok(()),
            other => Err(Failure::permanent(format!("{other:?}"))),
        }
    };
    let start = |client: &longshore_runtime::Client, name: &'static str| {
        client.worker("t", "g").policy(policy()).state(name).handle(handler).start()
    };
    let worker_a = start(&a, "a").await.unwrap();
    let worker_b = start(&b, "b").await.unwrap();
    a.sender("t").await.unwrap().send("x").await.unwrap();
    soon(worker_a.idle()).await;
    soon(worker_b.idle()).await;
    assert_eq!(worker_a.stop().await.unwrap().succeeded, 1);
    assert_eq!(worker_b.stop().await.unwrap().received, 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_refused_at_start() {
    let client = client().await;
    let handler = |_: Received| async { Ok(()) };
    let base = || client.worker("t", "g");
    let with = |policy: Policy| base().policy(policy).handle(handler).start();
    for text in ["ordering = \"block-key\"", "ordering = \"park-key\""] {
        let error = with(Policy::from_toml(text).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
    }
    for refused in [
        base().concurrency(0).handle(handler).start().await,
        base().prefetch(0).handle(handler).start().await,
        base().lease(ms(1)).handle(handler).start().await,
        client.worker("t", "g.dlq").handle(handler).start().await,
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    }
    assert_eq!(client.sender("t").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn another_retention_is_drift_and_says_so() {
    let client = client().await;
    let handler = |_: Received| async { Ok(()) };
    let start = |text: &str| {
        let policy = Policy::from_toml(text).unwrap();
        client.worker("t", "g").policy(policy).handle(handler).start()
    };
    start("").await.unwrap().stop().await.unwrap();
    start("").await.unwrap().stop().await.unwrap();
    let error = start("dead_letter = { retention = \"1d\" }").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let drift = error.native::<Drift>().unwrap();
    assert_eq!(drift.entries[0].setting, "dead_letters");
}

#[tokio::test(start_paused = true)]
async fn a_new_group_can_start_with_what_is_stored() {
    let client = client().await;
    super::topic(&client, "t").await;
    client.sender("t").await.unwrap().send("before").await.unwrap();
    let seen = Seen::default();
    let start = |group: &str, start: Start| {
        let note = seen.clone();
        let handler = move |message: Received, context: Context| {
            note.note(&message);
            assert_eq!(context.topic().as_str(), "t");
            async { Ok(()) }
        };
        client.worker("t", group).start_at(start).handle(handler).start()
    };
    let declared = start("declared", Start::Declared).await.unwrap();
    let earliest = start("earliest", Start::Earliest).await.unwrap();
    soon(declared.idle()).await;
    soon(earliest.idle()).await;
    assert_eq!(seen.all(), ["before"]);
    assert_eq!(declared.stop().await.unwrap().received, 0);
    assert_eq!(earliest.stop().await.unwrap().received, 1);
}

#[tokio::test]
async fn handlers_that_never_wait_starve_nobody() {
    let client = client().await;
    let worker = client.worker("t", "g").policy(policy()).concurrency(8);
    let worker = worker.handle(|_: Received| async { Ok(()) }).start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    for outcome in sender.send_all((0..20_000).map(|n: u32| n.to_string())).await {
        outcome.unwrap();
    }
    soon(worker.idle()).await;
    assert_eq!(soon(worker.stop()).await.unwrap().succeeded, 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_member_shortened_is_kept_all_the_same() {
    let options = ClientOptions::default;
    let (one, _) = broker("memory://leases", options()).await;
    let (two, _) = broker("memory://leases", options()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let start = |client: &longshore_runtime::Client, lease: u64| {
        let count = runs.clone();
        let handler = move |_: Received| {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(ms(20_000)).await;
                Ok(())
            }
        };
        client.worker("t", "g").policy(policy()).lease(ms(lease)).handle(handler).start()
    };
    let long = start(&one, 30_000).await.unwrap();
    let short = start(&two, 2_000).await.unwrap();
    let sender = one.sender("t").await.unwrap();
    for n in 0..8 {
        sender.send(n.to_string()).await.unwrap();
    }
    soon(long.idle()).await;
    assert_eq!(runs.load(Ordering::Relaxed), 8, "each once");
    long.stop().await.unwrap();
    short.stop().await.unwrap();
}

/// Nothing else happens that would make the worker look at its timers.
#[tokio::test(start_paused = true)]
async fn a_fast_retry_comes_when_its_gap_is_over() {
    let client = client().await;
    let fast = Policy::builder().max_attempts(3).fast_delays([ms(20), ms(20)]).delayed([]);
    let fast = fast.jitter(0.0).build().unwrap();
    let runs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = runs.clone();
    let handler = move |_: Received| {
        note.lock().unwrap().push(tokio::time::Instant::now());
        async { Err(Failure::transient("again")) }
    };
    let worker = client.worker("t", "g").policy(fast).handle(handler).start().await.unwrap();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    soon(worker.idle()).await;
    worker.stop().await.unwrap();
    let runs = runs.lock().unwrap();
    let gaps: Vec<_> = runs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| (ms(20)..ms(25)).contains(gap)), "{gaps:?}");
}
