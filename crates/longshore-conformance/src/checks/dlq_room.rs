//! That there is always a place for a dead letter, and what it holds.

use std::time::Duration;

use longshore_core::policy::{DeadLetters, Reason};
use longshore_core::{
    DEFAULT_MAX_BODY, Error, ErrorKind, Failure, HeaderName, MAX_LETTER, Message,
};

use super::consume::difference;
use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "dead_letter.queue_is_there_at_start",
        code: "D5",
        tier: Tier::Core,
        summary: "a worker makes the dead-letter queue that it needs, or does not start",
        needs: NEEDS,
        run: |bench| Box::pin(queue_is_there_at_start(bench)),
    },
    Check {
        id: "dead_letter.fits_whatever_its_size",
        code: "D9",
        tier: Tier::Core,
        summary: "the largest body and an error text of 1 MB are a dead letter all the same",
        needs: NEEDS,
        run: |bench| Box::pin(fits_whatever_its_size(bench)),
    },
    Check {
        id: "dead_letter.does_not_grow",
        code: "D13",
        tier: Tier::Core,
        summary: "20 cycles of failing and redriving: as many header bytes as in the first",
        needs: NEEDS,
        run: |bench| Box::pin(does_not_grow(bench)),
    },
];

/// D5. A new group, and one that was declared without.
async fn queue_is_there_at_start(bench: &Bench) -> Outcome {
    let (fresh, bare, group) = (bench.topic("fresh"), bench.topic("bare"), bench.group("all"));
    let member = bench.member().await?;
    let mut without = bench.topology(&bare, &group);
    without.groups[0].dead_letters = None;
    member.client.declare(&without).await?;
    for topic in [fresh, bare] {
        let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
        let running = match member.work(&topic, &group).handle(handler).start().await {
            Ok(running) => running,
            // It says that the group has none; which is right of the second only.
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists && topic.as_str().ends_with("bare") =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Before anything died.
        let letters = member.letters(&topic, &group).await?;
        ensure!(letters.is_empty(), "a new dead-letter queue has {letters:?}");
        member.sender(&topic).await?.send("m").await?;
        member.wait_for_letters(&topic, &group, 1).await?;
        running.stop().await?;
    }
    Ok(())
}

/// D9.
async fn fits_whatever_its_size(bench: &Bench) -> Outcome {
    const TEXT: usize = 1024;
    let (topic, group) = (bench.topic("largest"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async {
        Err(Failure::permanent("x\u{1f4a5}".repeat(200_000)).with_code("c".repeat(100_000)))
    });
    let worker = member.work(&topic, &group).name("n".repeat(50_000)).handle(handler);
    let running = worker.start().await?;
    let limit = DEFAULT_MAX_BODY.min(bench.info().capabilities.max_message);
    let mut sent = Message::new(vec![b'x'; limit]).id(longshore_core::MessageId::generate());
    sent.headers.append(HeaderName::from_static("x-kept"), "1");
    member.sender(&topic).await?.send(sent.clone()).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let wrong = difference(&sent, &letters[0]);
    ensure!(wrong.is_none(), "of the dead letter, {} differs", wrong.unwrap_or_default());
    let Some(letter) = &letters[0].letter else {
        return Err("the dead letter has no readable metadata".to_owned().into());
    };
    ensure!(letter.reason == Reason::Permanent, "wrong reason: {:?}", letter.reason);
    let text = letter.cause.as_ref().map_or(0, |cause| cause.message.len());
    ensure!(text <= TEXT, "an error text has at most {TEXT} bytes, this one {text}");
    let size = letter.encode(MAX_LETTER).map(|headers| headers.size());
    ensure!(size.is_some(), "its metadata exceeds {MAX_LETTER} bytes");
    bench.stays("1 run", WINDOW, |seen| seen.runs.len() == 1).await?;
    running.stop().await?;
    Ok(())
}

/// D13. From the cycle on where every optional header is there; a count may get a digit.
async fn does_not_grow(bench: &Bench) -> Outcome {
    const CYCLES: u32 = 20;
    const DIGITS: usize = 8;
    let (topic, group) = (bench.topic("cycles"), bench.group("all"));
    let member = bench.member().await?;
    let letters = DeadLetters { max_redrives: CYCLES + 5, ..DeadLetters::default() };
    let step = bench.delay(Duration::from_millis(50));
    let policy = bench.policy().max_attempts(2).delayed([step]).dead_letter(letters).build();
    let policy = policy.map_err(Error::from)?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let mut sent = Message::new("m").key("k").id(longshore_core::MessageId::generate());
    sent.headers.append(HeaderName::from_static("x-own"), "1");
    member.sender(&topic).await?.send(sent.clone()).await?;
    let mut sizes = Vec::new();
    for cycle in 0..=CYCLES {
        let dead = member.wait_for_letters(&topic, &group, 1).await?;
        let wrong = difference(&sent, &dead[0]);
        ensure!(wrong.is_none(), "cycle {cycle}: {} differs", wrong.unwrap_or_default());
        let Some(letter) = &dead[0].letter else {
            return Err(format!("cycle {cycle}: no readable metadata").into());
        };
        ensure!(letter.redrive_count == cycle, "cycle {cycle} counts {}", letter.redrive_count);
        let metadata = letter.encode(MAX_LETTER).map_or(usize::MAX, |headers| headers.size());
        sizes.push(metadata.saturating_add(dead[0].headers.size()));
        if cycle < CYCLES {
            let redrive = member.client.dead_letters(&topic, &group)?.redrive();
            let redriven = redrive.max_redrives(CYCLES + 5).await?;
            ensure!(redriven.moved == 1, "cycle {cycle}: expected 1 to be moved: {redriven:?}");
        }
    }
    let (least, most) = (sizes[1..].iter().min(), sizes[1..].iter().max());
    let grown = most.zip(least).map_or(0, |(most, least)| most - least);
    ensure!(grown <= DIGITS, "header bytes, cycle by cycle: {sizes:?}");
    running.stop().await?;
    Ok(())
}
