//! Where messages wait for their next attempt.

use std::time::Duration;

use longshore_core::{Error, Failure};
use tokio::time::Instant;

use crate::bench::{Bench, STEP, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::ledger::{self, How, Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];
/// Longer than any bound on an idle machine, so that what waits for it shows.
const LONG: Duration = Duration::from_secs(8);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "retry.never_early",
        code: "R4",
        tier: Tier::Core,
        summary: "every gap of the schedule: never early, late by no more than the bound",
        needs: NEEDS,
        run: |bench| Box::pin(never_early(bench)),
    },
    Check {
        id: "retry.waiting_blocks_nobody",
        code: "R5",
        tier: Tier::Core,
        summary: "others flow while one waits",
        needs: NEEDS,
        run: |bench| Box::pin(waiting_blocks_nobody(bench)),
    },
    Check {
        id: "retry.short_delay_overtakes_long",
        code: "R6",
        tier: Tier::Core,
        summary: "a short delay behind a long one fires on time",
        needs: NEEDS,
        run: |bench| Box::pin(short_delay_overtakes_long(bench)),
    },
    Check {
        id: "retry.stays_in_its_group",
        code: "R9",
        tier: Tier::Core,
        summary: "other groups see a message once that one group retries",
        needs: NEEDS,
        run: |bench| Box::pin(stays_in_its_group(bench)),
    },
];

/// R4. Two floors: the policy's own gap counts from the end of the run, and what was ordered, jitter
/// included, counts from the order.
async fn never_early(bench: &Bench) -> Outcome {
    const MESSAGES: usize = 10;
    let jitter = 0.25;
    let schedule = [1, 2, 3].map(|steps| bench.delay(STEP * steps));
    let (topic, group) = (bench.topic("schedule"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() <= 3 { Err(Failure::transient("not yet")) } else { Ok(()) }
    });
    let policy = bench.policy().max_attempts(4).delayed(schedule).jitter(jitter);
    let policy = policy.build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    let texts: Vec<_> = (0..MESSAGES).map(|n| format!("m{n}")).collect();
    for text in &texts {
        sender.send(text.clone()).await?;
    }
    bench.wait("10 successes", |seen| seen.ended(ledger::Outcome::Ok) >= MESSAGES).await?;
    for text in &texts {
        let (runs, orders) = bench.ledger().read(|seen| (runs(seen, text), orders(seen, text)));
        ensure!(runs.len() == 4, "`{text}`: expected 4 runs, the ledger has {}", runs.len());
        ensure!(orders.len() == 3, "`{text}`: expected 3 retries, got {}", orders.len());
        for (n, gap) in schedule.into_iter().enumerate() {
            let (took, longest) = (runs[n + 1].0 - runs[n].1, gap.mul_f64(1.0 + jitter));
            ensure!(took >= gap, "`{text}`: gap {} of {gap:?} took {took:?}: early", n + 1);
            let latest = bench.latest(longest);
            ensure!(took <= latest, "`{text}`: gap {} took {took:?}, latest {latest:?}", n + 1);
            let (ordered, came) = orders[n];
            ensure!(ordered >= gap && ordered <= longest, "a gap of {gap:?} was made {ordered:?}");
            ensure!(came >= ordered, "`{text}`: {ordered:?} were ordered, it came after {came:?}");
        }
    }
    running.stop().await?;
    Ok(())
}

/// Beginnings and ends of the runs of a message.
fn runs(seen: &Records, text: &str) -> Vec<(Instant, Instant)> {
    let ended = |run: &ledger::Ran| Some((run.at, run.end.as_ref()?.at));
    seen.runs_of_body(text).filter_map(ended).collect()
}

/// The delays that were ordered for a message, and what came of each.
fn orders(seen: &Records, text: &str) -> Vec<(Duration, Duration)> {
    let deliveries: Vec<_> = seen.of_body(text).collect();
    let pairs = deliveries.windows(2);
    pairs
        .filter_map(|pair| {
            let end = pair[0].end.as_ref()?;
            let How::Retry(after) = end.how else { return None };
            Some((after, pair[1].at - end.ordered))
        })
        .collect()
}

/// R5. One slot, one delivery at a time: what waits holds neither.
async fn waiting_blocks_nobody(bench: &Bench) -> Outcome {
    const OTHERS: usize = 20;
    let (topic, group) = (bench.topic("waiting"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, context| async move {
        if received.body == "waits" && context.attempt() == 1 {
            return Err(Failure::transient("later"));
        }
        Ok(())
    });
    let policy = bench.policy().delayed([LONG]).build().map_err(Error::from)?;
    let worker = member.work(&topic, &group).concurrency(1).prefetch(1).policy(policy);
    let running = worker.handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    sender.send("waits").await?;
    let waiting = |seen: &Records| seen.settled(|how| matches!(how, How::Retry(_))) == 1;
    bench.wait("the first message in the retry lane", waiting).await?;
    let began = Instant::now();
    for outcome in sender.send_all((0..OTHERS).map(|n| format!("m{n}"))).await {
        outcome?;
    }
    bench.wait("20 successes", |seen| seen.ended(ledger::Outcome::Ok) >= OTHERS).await?;
    let (took, bound) = (began.elapsed(), bench.bound());
    let overtook = bench.ledger().read(|seen| seen.attempts("waits").len() == 1);
    ensure!(overtook, "the others waited for the message in the retry lane");
    ensure!(took <= bound, "20 messages beside one that waits took {took:?}, bound {bound:?}");
    bench.wait("the waiting one", |seen| seen.attempts("waits") == [1, 2]).await?;
    running.stop().await?;
    Ok(())
}

/// R6.
async fn short_delay_overtakes_long(bench: &Bench) -> Outcome {
    let short = bench.delay(STEP);
    let (topic, group) = (bench.topic("lane"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(move |received, context| async move {
        match (context.attempt(), body(&received)) {
            (1, "long") => Err(Failure::retry_after(LONG, "long")),
            (1, _) => Err(Failure::retry_after(short, "short")),
            _ => Ok(()),
        }
    });
    let policy = bench.policy().delayed([LONG]).build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    for (count, text) in ["long", "short"].into_iter().enumerate() {
        sender.send(text).await?;
        let waiting = |seen: &Records| seen.settled(|how| matches!(how, How::Retry(_))) > count;
        bench.wait("it in the retry lane", waiting).await?;
    }
    bench.wait("2 successes", |seen| seen.ended(ledger::Outcome::Ok) >= 2).await?;
    for (text, delay) in [("short", short), ("long", LONG)] {
        let came = bench.ledger().read(|seen| orders(seen, text));
        let Some((_, came)) = came.first().copied() else {
            return Err(format!("`{text}` was not retried").into());
        };
        let latest = bench.latest(delay);
        ensure!(came >= delay, "`{text}`: {delay:?} were ordered, it came after {came:?}");
        ensure!(came <= latest, "`{text}`: came after {came:?}, latest {latest:?}");
    }
    running.stop().await?;
    Ok(())
}

/// R9.
async fn stays_in_its_group(bench: &Bench) -> Outcome {
    let (topic, failing, other) =
        (bench.topic("shared"), bench.group("failing"), bench.group("other"));
    let member = bench.member().await?;
    let policy = bench.policy().build().map_err(Error::from)?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() <= 2 { Err(Failure::transient("not yet")) } else { Ok(()) }
    });
    let worker = member.work(&topic, &failing).policy(policy.clone()).handle(handler);
    let fails = worker.start().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let succeeds = member.work(&topic, &other).policy(policy).handle(handler).start().await?;
    member.sender(&topic).await?.send("m").await?;
    let both = |seen: &Records| seen.ended(ledger::Outcome::Ok) >= 2;
    bench.wait("a success of each group", both).await?;
    let once = |seen: &Records| seen.to_group(&topic, &other).count() == 1;
    bench.stays("1 delivery to the other group", WINDOW, once).await?;
    let attempts: Vec<_> =
        bench.ledger().read(|seen| seen.runs_of(&failing).map(|run| run.attempt).collect());
    ensure!(attempts == [1, 2, 3], "expected attempts 1 to 3 of its own, got {attempts:?}");
    fails.stop().await?;
    succeeds.stop().await?;
    Ok(())
}
