use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use longshore_core::policy::Reason;
use longshore_core::{
    Deliveries, Error, Failure, HeaderName, HistoryEntry, Letter, Message, MessageId, Received,
    SmolStr, Source, dead_letter_id,
};

use super::consume::difference;
use crate::bench::{Bench, PATIENCE, STEP, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "dead_letter.exhausted_leaves_the_group",
        code: "D1",
        tier: Tier::Core,
        summary: "attempts run out: the message is in the dead-letter queue and no longer in the group",
        needs: NEEDS,
        run: |bench| Box::pin(exhausted_leaves_the_group(bench)),
    },
    Check {
        id: "dead_letter.message_is_unchanged",
        code: "D2",
        tier: Tier::Core,
        summary: "body, key, id, type, content type and headers of a dead letter as published",
        needs: NEEDS,
        run: |bench| Box::pin(message_is_unchanged(bench)),
    },
    Check {
        id: "dead_letter.metadata_is_complete",
        code: "D3",
        tier: Tier::Core,
        summary: "every required header of a dead letter is present, typed and right",
        needs: NEEDS,
        run: |bench| Box::pin(metadata_is_complete(bench)),
    },
    Check {
        id: "dead_letter.undecodable_is_kept_raw",
        code: "D7",
        tier: Tier::Core,
        summary: "bytes that cannot be decoded: raw, at the first delivery, without a handler run",
        needs: NEEDS,
        run: |bench| Box::pin(undecodable_is_kept_raw(bench)),
    },
    Check {
        id: "dead_letter.stays_in_its_group",
        code: "D10",
        tier: Tier::Core,
        summary: "one group's failure never reaches another's dead-letter queue",
        needs: NEEDS,
        run: |bench| Box::pin(stays_in_its_group(bench)),
    },
];

/// D1.
async fn exhausted_leaves_the_group(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("exhausted"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let id = member.sender(&topic).await?.send("m").await?.id;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    bench.stays("2 runs", WINDOW, |seen| seen.runs.len() == 2).await?;
    ensure!(letters[0].id == Some(id.clone()), "`{id}` died, {:?} is dead", letters[0].id);
    let reason = letters[0].letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::AttemptsExhausted), "wrong reason: {reason:?}");
    running.stop().await?;

    let source = bench.source(&topic, &group);
    let left = tokio::time::timeout(PATIENCE, async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            let stats = member.client.broker().stats(&source).await?;
            if stats.ready + stats.in_flight + stats.waiting == 0 {
                return Ok::<_, Error>(());
            }
        }
    });
    match left.await {
        Ok(asked) => asked?,
        Err(_) => {
            let stats = member.client.broker().stats(&source).await?;
            return Err(format!("expected an empty group, its stats are {stats:?}").into());
        }
    }
    Ok(())
}

fn awkward() -> Message {
    let mut message = Message::new(Bytes::from((0..=255).collect::<Vec<u8>>()))
        .key(vec![0, 0xff, b'k'])
        .id(MessageId::generate())
        .message_type("order.placed")
        .content_type("application/octet-stream");
    for (name, value) in [("x-b", &b"\xff\xfe"[..]), ("x-a", b"1"), ("x-b", b"2"), ("x-0", b"")] {
        message.headers.append(HeaderName::from_static(name), Bytes::from_static(value));
    }
    message
}

/// D2.
async fn message_is_unchanged(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("dead"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sent = awkward();
    member.sender(&topic).await?.send(sent.clone()).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let wrong = difference(&sent, &letters[0]);
    ensure!(
        wrong.is_none(),
        "of the dead letter, {} differs. Sent {sent:?}, found {:?} with {:?}",
        wrong.unwrap_or_default(),
        letters[0],
        letters[0].headers
    );
    running.stop().await?;
    Ok(())
}

/// An error with a cause, as programs have them.
#[derive(Debug)]
struct Declined(std::io::Error);

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("card declined")
    }
}

impl std::error::Error for Declined {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// D3. Three runs, the second in process: attempts, deliveries and delayed retries all differ.
async fn metadata_is_complete(bench: &Bench) -> Outcome {
    let fast = Duration::from_millis(50);
    let (topic, group) = (bench.topic("metadata"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().fast_delays([fast]).build().map_err(Error::from)?;
    let handler = member.handler(|_, _| async {
        let cause = std::io::Error::other("bank closed");
        Err(Failure::transient(Declined(cause)).with_code("declined"))
    });
    let worker = member.work(&topic, &group).policy(policy.clone()).name("charge");
    let running = worker.handle(handler).start().await?;
    let began = bench.clock().now();
    let id = member.sender(&topic).await?.send(Message::new("m").message_type("order")).await?.id;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let ended = bench.clock().now();
    let Some(letter) = letters[0].letter.clone() else {
        return Err("the dead letter has no readable metadata".to_owned().into());
    };
    let origin = bench.ledger().read(|seen| seen.deliveries[0].received.position.to_text());

    let mut wrong = Wrong::default();
    let wanted = dead_letter_id(&topic, &group, &origin, Some(&id), 0);
    wrong.unless_equal("id", &letter.id, &wanted);
    wrong.unless_equal("reason", letter.reason, Reason::AttemptsExhausted);
    wrong.unless_equal("source", letter.source.as_str(), topic.as_str());
    wrong.unless_equal("source-backend", letter.source_backend.as_str(), bench.info().name);
    wrong.unless_equal("source-group", letter.source_group.as_str(), group.as_str());
    wrong.unless_equal("original-id", letter.original_id.as_str(), id.to_string().as_str());
    wrong.unless_equal("attempts", letter.attempts, 3);
    if bench.info().capabilities.deliveries == Deliveries::Exact {
        wrong.unless_equal("deliveries", letter.deliveries, 2);
    }
    wrong.unless_equal("delayed-retries", letter.delayed_retries, 1);
    wrong.unless_equal("redrive-count", letter.redrive_count, 0);
    wrong.unless_equal("redrive-of", &letter.redrive_of, &None);
    wrong.unless_equal("handler", letter.handler.as_str(), "charge");
    wrong.unless_equal("message-type", letter.message_type.as_deref(), Some("order"));
    wrong.unless_equal("policy", &letter.policy, &policy.fingerprint());
    wrong.unless_equal("payload-sha256", &letter.payload_sha256, &Letter::payload_sha256(b"m"));
    wrong.unless("lib-version", !letter.lib_version.is_empty(), &letter.lib_version);
    wrong.unless_equal("instance", letter.instance.as_str(), member.instance.as_str());
    cause(&letter, &mut wrong);
    history(&letter, &member.instance.as_str().into(), fast, bench.delay(STEP), &mut wrong);

    // Times on the wire have milliseconds, so the last digits of ours are cut off.
    let began = began - Duration::from_millis(1);
    let times =
        [began, letter.first_failed_at, letter.last_failed_at, letter.dead_lettered_at, ended];
    wrong.unless("first-failed-at, last-failed-at, dead-lettered-at", times.is_sorted(), &times);
    let apart = letter.last_failed_at.duration_since(letter.first_failed_at).unwrap_or_default();
    let least = fast + bench.delay(STEP) - Duration::from_millis(1);
    wrong.unless("first-failed-at before last-failed-at", apart >= least, &apart);
    running.stop().await?;
    wrong.none()
}

fn cause(letter: &Letter, wrong: &mut Wrong) {
    let Some(cause) = &letter.cause else {
        return wrong.unless("error-type", false, &"no error at all");
    };
    wrong.unless("error-type", cause.error_type.ends_with("Declined"), &cause.error_type);
    wrong.unless_equal("error-message", cause.message.as_str(), "card declined");
    wrong.unless_equal("error-code", cause.code.as_deref(), Some("declined"));
    wrong.unless_equal("error-class transient", cause.transient, true);
    wrong.unless_equal("error-chain", &cause.chain[..], &["bank closed".to_owned()]);
}

fn history(letter: &Letter, instance: &SmolStr, fast: Duration, step: Duration, wrong: &mut Wrong) {
    let list = &letter.history;
    let numbers: Vec<_> = list.iter().map(|entry| entry.n).collect();
    wrong.unless_equal("history, n", numbers, [1, 2, 3]);
    let millis = |gap: Duration| u64::try_from(gap.as_millis()).ok();
    let delays: Vec<_> = list.iter().map(|entry| entry.delay_ms).collect();
    wrong.unless_equal("history, delay_ms", delays, [millis(fast), millis(step), None]);
    let told = |entry: &HistoryEntry| {
        entry.error_type.ends_with("Declined") && entry.instance == *instance
    };
    wrong.unless("history, error_type and instance", list.iter().all(told), list);
    let at: Vec<_> = list.iter().map(|entry| entry.at).collect();
    wrong.unless("history, at", at.is_sorted() && at.iter().all(Option::is_some), &at);
    wrong.unless_equal(
        "last of history",
        at.last().copied().flatten(),
        Some(letter.last_failed_at),
    );
}

/// Collects what is wrong with a letter, so that one run tells all of it.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, header: &str, right: bool, found: &dyn fmt::Debug) {
        if !right {
            self.0.push(format!("{header}: {found:?}"));
        }
    }

    fn unless_equal<T: PartialEq<U> + fmt::Debug, U: fmt::Debug>(
        &mut self,
        header: &str,
        found: T,
        wanted: U,
    ) {
        if found != wanted {
            self.0.push(format!("{header}: {found:?}, expected {wanted:?}"));
        }
    }

    fn none(self) -> Outcome {
        ensure!(self.0.is_empty(), "wrong metadata: {}", self.0.join("; "));
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Order {
    number: u32,
}

/// D7.
async fn undecodable_is_kept_raw(bench: &Bench) -> Outcome {
    let raw = Bytes::from_static(b"{\"number\": \xff\x00\xfe}");
    let (topic, group) = (bench.topic("decoded"), bench.group("all"));
    let member = bench.member().await?;
    let policy = bench.policy().build().map_err(Error::from)?;
    let (runs, last) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (counted, stored) = (runs.clone(), last.clone());
    let worker =
        member.work(&topic, &group).concurrency(1).policy(policy).json(move |order: Order| {
            counted.fetch_add(1, Ordering::Relaxed);
            stored.store(order.number, Ordering::Relaxed);
            async { Ok(()) }
        });
    let running = worker.start().await?;
    let sender = member.sender(&topic).await?;
    sender.send(raw.clone()).await?;
    sender.send(r#"{"number": 7}"#).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let acked = |seen: &Records| seen.settled(|how| how == ledger::How::Ack) == 1;
    bench.wait("the message behind it acknowledged", acked).await?;
    let dead: &Received = &letters[0];
    ensure!(dead.body == raw, "expected the raw bytes {raw:?}, found {:?}", dead.body);
    let reason = dead.letter.as_ref().map(|letter| letter.reason);
    ensure!(reason == Some(Reason::Undecodable), "expected `undecodable`, got {reason:?}");
    let handed_over = bench
        .ledger()
        .read(|seen| seen.deliveries.iter().filter(|entry| entry.received.body == raw).count());
    ensure!(handed_over == 1, "expected its first delivery to be its last, got {handed_over}");
    let (runs, number) = (runs.load(Ordering::Relaxed), last.load(Ordering::Relaxed));
    ensure!((runs, number) == (1, 7), "expected 1 run, of order 7; got {runs}, of {number}");
    running.stop().await?;
    Ok(())
}

/// D10.
async fn stays_in_its_group(bench: &Bench) -> Outcome {
    let topic = bench.topic("groups");
    let groups = [bench.group("one"), bench.group("two"), bench.group("three")];
    let member = bench.member().await?;
    let policy = bench.policy().max_attempts(2).build().map_err(Error::from)?;
    let mut running = Vec::new();
    for group in &groups {
        // Each group fails the message that has its name.
        let handler = member.handler(|received, context| async move {
            if body(&received) == context.group().as_str() {
                return Err(Failure::transient("mine"));
            }
            Ok(())
        });
        let worker = member.work(&topic, group).policy(policy.clone()).handle(handler);
        running.push(worker.start().await?);
    }
    let sender = member.sender(&topic).await?;
    sender.send("one").await?;
    sender.send("two").await?;
    for group in &groups[..2] {
        member.wait_for_letters(&topic, group, 1).await?;
    }
    let done = |seen: &Records| seen.ended(ledger::Outcome::Ok) >= 4;
    bench.wait("4 successes in the groups that did not fail", done).await?;
    for (group, wanted) in groups.iter().zip([vec!["one"], vec!["two"], vec![]]) {
        let letters = member.letters(&topic, group).await?;
        let found: Vec<_> = letters.iter().map(body).collect();
        let source = Source::DeadLetters { topic: topic.clone(), group: group.clone() };
        let stats = member.client.broker().stats(&source).await?;
        ensure!(found == wanted, "dead letters of {group}: expected {wanted:?}, found {found:?}");
        let exact = bench.info().capabilities.exact_stats;
        let counted = !exact || stats.ready == wanted.len() as u64;
        ensure!(counted, "{group} counts otherwise than it shows: {stats:?}, {found:?}");
    }
    for running in running {
        running.stop().await?;
    }
    Ok(())
}
