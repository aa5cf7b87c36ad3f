//! What no handler and no setting may do to the attempts that come after.

use std::time::Duration;

use bytes::Bytes;
use longshore_core::{Error, Failure, HeaderName, Message, MessageId};

use super::consume::difference;
use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, Records};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "retry.handler_changes_do_not_leak",
        code: "R10",
        tier: Tier::Core,
        summary: "what a handler does to its message never reaches the next attempt",
        needs: NEEDS,
        run: |bench| Box::pin(handler_changes_do_not_leak(bench)),
    },
    Check {
        id: "retry.zero_delay_is_bounded",
        code: "R17",
        tier: Tier::Core,
        summary: "a delay of zero is refused, and the shortest one cannot make a hot loop",
        needs: NEEDS,
        run: |bench| Box::pin(zero_delay_is_bounded(bench)),
    },
];

/// R10. In process, delayed, and into the dead letter.
async fn handler_changes_do_not_leak(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("changed"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|mut received, _| async move {
        received.body = Bytes::from_static(b"changed");
        received.key = None;
        received.id = None;
        received.content_type = None;
        received.headers.append(HeaderName::from_static("x-changed"), "1");
        received.headers.retain(|name| name.as_str() != "x-own");
        Err(Failure::transient(format!("changed into {received:?} of {:?}", received.content_type)))
    });
    let policy = bench.policy().fast_delays([Duration::from_millis(50)]).build();
    let policy = policy.map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let mut sent =
        Message::new("original").key("k").id(MessageId::generate()).content_type("text/plain");
    sent.headers.append(HeaderName::from_static("x-own"), "1");
    member.sender(&topic).await?.send(sent.clone()).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let runs: Vec<_> =
        bench.ledger().read(|seen| seen.runs.iter().map(|run| run.received.clone()).collect());
    ensure!(runs.len() == 3, "expected 3 runs, the ledger has {}", runs.len());
    for (n, received) in runs.iter().chain(&letters).enumerate() {
        let wrong = difference(&sent, received);
        ensure!(wrong.is_none(), "attempt {}: {} differs", n + 1, wrong.unwrap_or_default());
    }
    running.stop().await?;
    Ok(())
}

/// R17.
async fn zero_delay_is_bounded(bench: &Bench) -> Outcome {
    const ATTEMPTS: u32 = 20;
    let least = bench.delay(Duration::from_millis(1));
    for (what, policy) in [
        ("fast", bench.policy().fast_delays([Duration::ZERO])),
        ("delayed", bench.policy().delayed([Duration::ZERO])),
    ] {
        ensure!(policy.build().is_err(), "a {what} delay of zero was accepted");
    }
    let (topic, group) = (bench.topic("shortest"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, _| async move {
        Err(match &received.body[..] {
            // The handler's own word is no way around the policy's cap.
            b"asks" => Failure::retry_after(Duration::ZERO, "at once"),
            _ => Failure::transient("never"),
        })
    });
    let policy = bench.policy().max_attempts(ATTEMPTS).delayed([least]).build();
    let policy = policy.map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    sender.send("waits").await?;
    sender.send("asks").await?;
    member.wait_for_letters(&topic, &group, 2).await?;
    let total = 2 * ATTEMPTS as usize;
    bench.stays("40 runs", WINDOW, |seen: &Records| seen.runs.len() == total).await?;
    // What asks for nothing gets the policy's shortest gap all the same.
    for (text, least) in [("waits", least), ("asks", Duration::from_millis(1))] {
        let gaps: Vec<_> = bench.ledger().read(|seen| {
            let runs: Vec<&ledger::Ran> = seen.runs_of_body(text).collect();
            let ended = |run: &ledger::Ran| run.end.as_ref().map_or(run.at, |end| end.at);
            runs.windows(2).map(|pair| pair[1].at - ended(pair[0])).collect()
        });
        let short = gaps.iter().find(|gap| **gap < least);
        ensure!(short.is_none(), "`{text}`: between two runs at least {least:?}, once {short:?}");
    }
    running.stop().await?;
    Ok(())
}
