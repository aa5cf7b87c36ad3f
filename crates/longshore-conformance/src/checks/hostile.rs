use bytes::Bytes;
use longshore_core::{Error, ErrorKind, RETRY_HEADER};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::harness::Foreign;
use crate::ledger::{self, Records, body};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "attempt.hostile_record_is_clamped",
    code: "T5",
    tier: Tier::Core,
    summary: "a record that somebody forged: clamped or absent, never a panic, never a loss",
    needs: &[Need::Delay, Need::DeadLetters],
    run: |bench| Box::pin(hostile_record_is_clamped(bench)),
}];

/// Forged records, and whether one can be read: what cannot counts as none.
fn forged() -> Vec<(&'static str, Vec<u8>, bool)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("negative", text(r#"{"v":1,"failures":-1}"#), false),
        ("words", text(r#"{"v":1,"failures":"many"}"#), false),
        ("fraction", text(r#"{"v":1,"failures":1.5}"#), false),
        ("beyond", text(r#"{"v":1,"failures":18446744073709551616}"#), false),
        ("largest", text(r#"{"v":1,"failures":4294967295}"#), true),
        ("version", text(r#"{"v":99,"failures":2}"#), false),
        ("no-json", text("attempt=3"), false),
        ("empty", Vec::new(), false),
        ("binary", vec![0xff, 0xfe, 0x00], false),
        ("nested", text(&"[".repeat(2000)), false),
        ("never", text(r#"{"v":1,"not_before":"9999-12-31T23:59:59.999Z"}"#), true),
        ("handed-over", text(r#"{"v":1,"deliveries":999999}"#), true),
        ("redriven", text(r#"{"v":1,"redrives":4294967295}"#), true),
        ("explained", text(r#"{"v":1,"explained":4294967295,"delayed":4294967295}"#), true),
        ("suspect", text(r#"{"v":1,"suspect":true,"origin":"x"}"#), true),
        ("long", vec![b'9'; 1024 * 1024], false),
    ]
}

/// T5. Each is a message; those that a broker refuses for their size, or that its client cannot even
/// write (`InvalidMessage`), are none.
async fn hostile_record_is_clamped(bench: &Bench) -> Outcome {
    const ATTEMPTS: u32 = 3;
    let (topic, group) = (bench.topic("forged"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let policy = bench.policy().max_attempts(ATTEMPTS).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let mut expected = Vec::new();
    for (name, value, readable) in forged() {
        let size = value.len();
        let headers = vec![(RETRY_HEADER.to_owned(), Bytes::from(value))];
        let foreign =
            Foreign { topic: topic.clone(), body: Bytes::from_static(name.as_bytes()), headers };
        let answer = bench.try_inject(&member, foreign).await?;
        let refused = match &answer {
            Ok(()) => false,
            Err(error) => size > 16 * 1024 || error.kind() == ErrorKind::InvalidMessage,
        };
        ensure!(answer.is_ok() || refused, "`{name}` could not be published: {answer:?}");
        if !refused {
            expected.push((name, readable));
        }
    }
    let count = expected.len();
    let all = |seen: &Records| seen.ended(ledger::Outcome::Ok) >= count;
    bench.wait("a success of each forged message", all).await?;
    bench.stays("one success each", WINDOW, |seen| seen.runs.len() == count).await?;
    // Also as the broker gave it, before the runtime has clamped anything.
    let raw = bench.ledger().read(|seen| {
        seen.deliveries.iter().map(|entry| entry.received.attempt()).collect::<Vec<_>>()
    });
    ensure!(raw.iter().all(|attempt| *attempt >= 1), "attempts begin at 1, not {raw:?}");
    for (name, readable) in expected {
        let attempts = bench.ledger().read(|seen| seen.attempts(name));
        let latest = if readable { ATTEMPTS + 1 } else { 1 };
        let right = attempts.len() == 1 && (1..=latest).contains(&attempts[0]);
        ensure!(right, "`{name}`: one run, as attempt 1 to {latest}; got {attempts:?}");
    }
    let seen_by_handlers = bench.ledger().read(|seen| {
        let ours =
            |run: &&ledger::Ran| run.received.headers.iter().any(|(name, _)| name.is_reserved());
        seen.runs.iter().find(ours).map(|run| body(&run.received).to_owned())
    });
    ensure!(seen_by_handlers.is_none(), "a handler saw a control header: {seen_by_handlers:?}");
    running.stop().await?;
    Ok(())
}
