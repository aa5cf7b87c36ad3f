//! The test kit: one story on the embedded broker and on a real server, and each switch.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use longshore::testing::{self, TestKit, What};
use longshore::{ErrorKind, Failure, Message, MessageId, Outcome, Policy, Reason};
use longshore_testbed::{Options, Testbed};
use tokio::sync::Semaphore;

const ORDERS: &str = "orders";
const BILLING: &str = "billing";

/// Three attempts: at once, and after each of two delays.
fn policy(delays: [Duration; 2]) -> Policy {
    let policy = Policy::builder().max_attempts(3).fast_delays([]).delayed(delays).jitter(0.0);
    policy.max_retry_age(Duration::from_secs(14 * 86_400)).build().unwrap()
}

/// `7` is fine, `13` fails for good, `99` fails every time.
async fn bill(order: u64) -> Result<(), Failure> {
    match order {
        13 => Err(Failure::permanent("the card is stolen")),
        99 => Err(Failure::transient("the bank is closed")),
        _ => Ok(()),
    }
}

async fn send(kit: &TestKit, order: u64) {
    let sender = kit.client().sender(ORDERS).await.unwrap();
    sender.send(Message::json(&order).unwrap()).await.unwrap();
}

/// The same on every broker.
async fn story(kit: TestKit, delays: [Duration; 2]) {
    let worker = kit.client().worker(ORDERS, BILLING).policy(policy(delays)).json(bill);
    let worker = worker.start().await.unwrap();
    for order in [7, 13, 99] {
        send(&kit, order).await;
    }
    kit.idle().await;
    kit.assert_published(ORDERS, 3);
    kit.assert_handled(ORDERS, BILLING, 1);
    kit.assert_retried(ORDERS, BILLING, 2);
    kit.assert_dead_lettered(ORDERS, BILLING, 2);
    let letters = kit.dead_letters(ORDERS, BILLING).await.unwrap();
    let reasons: Vec<_> =
        letters.iter().map(|letter| letter.letter.as_ref().unwrap().reason).collect();
    assert_eq!(reasons, [Reason::Permanent, Reason::AttemptsExhausted]);
    assert_eq!(letters[1].letter.as_ref().unwrap().attempts, 3);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_day_of_retries_takes_a_moment_on_memory() {
    let kit = testing::connect("memory://").await.unwrap();
    assert!(kit.virtual_time());
    let began = Instant::now();
    story(kit, [Duration::from_secs(3_600), Duration::from_secs(86_400)]).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_already_is_no_trouble() {
    let kit = testing::connect("memory://").await.unwrap();
    assert!(kit.virtual_time());
    story(kit, [Duration::from_secs(60); 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_many_threads_the_embedded_broker_runs_in_real_time() {
    let kit = testing::connect("memory://").await.unwrap();
    assert!(!kit.virtual_time());
    story(kit, [Duration::from_millis(20); 2]).await;
}

/// Paused when it comes: the kit must let time go on, or every answer is late.
#[tokio::test(start_paused = true)]
async fn the_same_story_on_a_real_server() {
    tokio::time::resume();
    let broker = Testbed::start("nats@2.15", Options::default()).await.unwrap();
    tokio::time::pause();
    let url = broker.url().to_owned();
    let kit = TestKit::new(async |setup| {
        let nats = longshore_nats::connect(&url, setup).await?;
        Ok(Arc::new(nats) as Arc<dyn longshore::Broker>)
    });
    let kit = kit.await.unwrap();
    assert!(!kit.virtual_time());
    story(kit, [Duration::from_millis(200); 2]).await;
}

#[tokio::test]
async fn time_goes_step_by_step() {
    let kit = testing::connect("memory://").await.unwrap();
    let delays = [Duration::from_secs(60), Duration::from_secs(600)];
    let worker = kit.client().worker(ORDERS, BILLING).policy(policy(delays)).json(bill);
    let worker = worker.start().await.unwrap();
    send(&kit, 99).await;
    kit.advance(Duration::from_secs(59)).await;
    kit.assert_retried(ORDERS, BILLING, 1);
    kit.advance(Duration::from_secs(2)).await;
    kit.assert_retried(ORDERS, BILLING, 2);
    kit.advance(Duration::from_secs(598)).await;
    kit.assert_dead_lettered(ORDERS, BILLING, 0);
    kit.advance(Duration::from_secs(2)).await;
    kit.assert_dead_lettered(ORDERS, BILLING, 1);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_publish_is_not_stored_and_a_lost_confirmation_is() {
    let kit = testing::connect("memory://").await.unwrap();
    let worker = kit.client().worker(ORDERS, BILLING).json(bill).start().await.unwrap();
    let sender = kit.client().sender(ORDERS).await.unwrap();

    kit.refuse_publishes(1);
    let error = sender.send(Message::json(&7).unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Some(Outcome::Refused)));
    kit.idle().await;
    kit.assert_handled(ORDERS, BILLING, 0);

    kit.lose_confirms(1);
    let id = MessageId::generate();
    let message = Message::json(&7).unwrap().id(id.clone());
    let error = sender.send(message.clone()).await.unwrap_err();
    assert_eq!(error.outcome(), Some(Outcome::Unknown));
    // Sent again with the same id: stored once.
    assert!(sender.send(message).await.unwrap().duplicate);
    kit.idle().await;
    kit.assert_handled(ORDERS, BILLING, 1);
    assert_eq!(kit.handled(ORDERS, BILLING)[0].id, Some(id));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_part_of_a_batch_is_refused_in_its_place() {
    let kit = testing::connect("memory://").await.unwrap();
    let worker = kit.client().worker(ORDERS, BILLING).json(bill).start().await.unwrap();
    let sender = kit.client().sender(ORDERS).await.unwrap();
    kit.refuse_publishes(2);
    let messages = (0..5).map(|order| Message::json(&order).unwrap());
    let outcomes = sender.send_all(messages).await;
    let stored: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [false, false, true, true, true]);
    kit.idle().await;
    kit.assert_handled(ORDERS, BILLING, 3);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_settlement_is_tried_again_and_the_handler_is_not() {
    let kit = testing::connect("memory://").await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    let handler = move |_: u64| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<(), Failure>(()) }
    };
    let worker = kit.client().worker(ORDERS, BILLING).json(handler).start().await.unwrap();
    kit.refuse_settlements(3);
    send(&kit, 7).await;
    kit.idle().await;
    kit.assert_handled(ORDERS, BILLING, 1);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let refused = |what: &What| matches!(what, What::NotSettled(_));
    assert_eq!(kit.journal().iter().filter(|entry| refused(&entry.what)).count(), 3);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_dead_worker_held_comes_to_the_next() {
    let kit = testing::connect("memory://").await.unwrap();
    let (begun, first) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(true)));
    let (signal, hangs) = (begun.clone(), first.clone());
    let handler = move |_: u64| {
        let (signal, hangs) = (signal.clone(), hangs.swap(false, Ordering::AcqRel));
        async move {
            signal.add_permits(1);
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<(), Failure>(())
        }
    };
    let start = || kit.client().worker(ORDERS, BILLING).json(handler.clone()).start();
    let worker = start().await.unwrap();
    send(&kit, 7).await;
    begun.acquire().await.unwrap().forget();
    kit.crash();
    worker.ended().await;
    let error = worker.stop().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);

    let worker = start().await.unwrap();
    kit.idle().await;
    kit.assert_handled(ORDERS, BILLING, 1);
    let delivered = kit.journal().into_iter().filter_map(|entry| match entry.what {
        What::Delivered { attempt, deliveries } => Some((attempt, deliveries)),
        _ => None,
    });
    // A crash is a delivery, and no attempt.
    assert_eq!(delivered.collect::<Vec<_>>(), [(1, 1), (1, 2)]);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_lease_cancels_the_handler_and_the_message_comes_again() {
    let kit = testing::connect("memory://").await.unwrap();
    let (begun, first) = (Arc::new(Semaphore::new(0)), AtomicBool::new(true));
    let first = Arc::new(first);
    let signal = begun.clone();
    let handler = move |_: u64| {
        let (signal, hangs) = (signal.clone(), first.swap(false, Ordering::AcqRel));
        async move {
            signal.add_permits(1);
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<(), Failure>(())
        }
    };
    let worker = kit.client().worker(ORDERS, BILLING).json(handler).start().await.unwrap();
    send(&kit, 7).await;
    begun.acquire().await.unwrap().forget();
    assert_eq!(kit.lose_leases().await, 1);
    kit.idle().await;
    kit.assert_handled(ORDERS, BILLING, 1);
    let tally = worker.stop().await.unwrap();
    assert_eq!((tally.lease_lost, tally.succeeded), (1, 1));
}

#[tokio::test]
async fn two_kits_on_one_broker_never_meet() {
    let [one, two] = ["memory://kits", "memory://kits"].map(testing::connect);
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let mut workers = Vec::new();
    for kit in [&one, &two] {
        let worker = kit.client().worker(ORDERS, BILLING).json(bill);
        workers.push(worker.start().await.unwrap());
    }
    send(&one, 7).await;
    one.idle().await;
    two.idle().await;
    one.assert_handled(ORDERS, BILLING, 1);
    two.assert_handled(ORDERS, BILLING, 0);
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_assertion_tells_the_story() {
    let kit = testing::connect("memory://").await.unwrap();
    let worker = kit.client().worker(ORDERS, BILLING).json(bill).start().await.unwrap();
    send(&kit, 13).await;
    kit.idle().await;
    let assertion = AssertUnwindSafe(|| kit.assert_handled(ORDERS, BILLING, 1));
    let panic = catch_unwind(assertion).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    let head = "orders/billing: 0 handled, 1 expected. What happened:\n";
    assert!(text.starts_with(head), "{text}");
    for line in ["published", "delivered, attempt 1, delivery 1", "dead-lettered: permanent"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_worker_there_is_nothing_to_wait_for() {
    let kit = testing::connect("memory://").await.unwrap();
    kit.idle().await;
    assert!(kit.journal().is_empty());
    let error = testing::connect("gopher://").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
