//! What stands beside a dead letter.

use std::fmt;
use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{
    Deliveries, Error, Failure, HistoryEntry, Letter, Message, SmolStr, dead_letter_id,
};

use crate::bench::{Bench, STEP};
use crate::check::{Check, Need, Outcome, Tier, ensure};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "dead_letter.metadata_is_complete",
    code: "D3",
    tier: Tier::Core,
    summary: "every required header of a dead letter is present, typed and right",
    needs: &[Need::Delay, Need::DeadLetters],
    run: |bench| Box::pin(metadata_is_complete(bench)),
}];

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
