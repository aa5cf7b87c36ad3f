//! One program, any broker: the same outcome, and nothing declared that is not so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_core::policy::Reason;
use longshore_core::{ErrorKind, Failure, Message, Policy, Result, Retryability};
use longshore_runtime::{Client, Context, Tally};

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Tier, ensure};
use crate::harness::Access;
use crate::ledger::body;
use crate::trace::Trace;

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "reconnect.wrong_password_is_fatal",
        code: "K6",
        tier: Tier::Core,
        summary: "wrong credentials: a typed, fatal error at once, and no storm of tries",
        needs: &[],
        run: |bench| Box::pin(wrong_password_is_fatal(bench)),
    },
    Check {
        id: "swap.one_program_by_url",
        code: "W1",
        tier: Tier::Core,
        summary: "a program that knows no backend runs on this one by its URL alone",
        needs: NEEDS,
        run: |bench| Box::pin(one_program_by_url(bench)),
    },
    Check {
        id: "swap.same_outcome_everywhere",
        code: "W3",
        tier: Tier::Core,
        summary: "a scripted scenario has the outcome trace that it has on every other backend",
        needs: NEEDS,
        run: |bench| Box::pin(same_outcome_everywhere(bench)),
    },
];

/// K6.
async fn wrong_password_is_fatal(bench: &Bench) -> Outcome {
    let began = tokio::time::Instant::now();
    let answer = bench.connect(Access::WrongPassword).await?;
    // Tried again and again, it would take longer than this.
    let (took, latest) = (began.elapsed(), bench.bound() * 2);
    let Err(error) = answer else {
        return Err("a wrong password was accepted".to_owned().into());
    };
    let typed = matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::Forbidden);
    ensure!(typed, "expected `Unauthenticated`, got {error:?}");
    let fatal = error.retryability() == Retryability::Permanent;
    ensure!(fatal, "trying again cannot help, but it says {:?}", error.retryability());
    ensure!(took <= latest, "the refusal took {took:?}, latest {latest:?}");
    Ok(())
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    id: u64,
}

/// What the program keeps.
#[derive(Clone, Default)]
struct Billed(Arc<AtomicU64>);

async fn bill(order: Order, context: Context) -> std::result::Result<(), Failure> {
    match order.id {
        1 if context.attempt() == 1 => Err(std::io::Error::other("the bank is closed"))?,
        2 => return Err(Failure::permanent("no such account")),
        id => {
            let billed = context.state::<Billed>().ok_or("a worker without its state")?;
            billed.0.fetch_add(id, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The program: nothing in it names a backend.
async fn program(client: &Client, topic: &str, policy: Policy, billed: &Billed) -> Result<Tally> {
    let worker = client.worker(topic, "billing").policy(policy).state(billed.clone());
    let worker = worker.json(bill).start().await?;
    let sender = client.sender(topic).await?;
    for id in [1, 2, 3, 4] {
        sender.send(Message::json(&Order { id })?).await?;
    }
    worker.idle().await;
    worker.stop().await
}

/// W1.
async fn one_program_by_url(bench: &Bench) -> Outcome {
    let member = bench.connect(Access::Full).await??;
    let (topic, billed) = (bench.topic("orders"), Billed::default());
    let policy = bench.policy().build().map_err(longshore_core::Error::from)?;
    let tally = program(&member.client, topic.as_str(), policy, &billed).await?;
    let counts = (tally.succeeded, tally.failed, tally.retried, tally.dead_lettered);
    ensure!(counts == (3, 2, 1, 1), "3 ok, 2 failed, 1 retried, 1 dead; got {tally}");
    let sum = billed.0.load(Ordering::Relaxed);
    ensure!(sum == 8, "orders 1, 3 and 4 are billed once each: the sum is {sum}");
    let letters = member.client.dead_letters(&topic, "billing")?.browse(10).await?;
    let dead: Vec<_> = letters.iter().map(|letter| body(&letter.message)).collect();
    ensure!(dead == [r#"{"id":2}"#], "expected order 2 to be dead, found {dead:?}");
    let redriven = member.client.dead_letters(&topic, "billing")?.redrive().dry_run().await?;
    ensure!(redriven.moved == 1, "a dry run over 1 letter: {redriven:?}");
    Ok(())
}

/// What comes of the scenario on every backend; memory's own, with its virtual clock, is the model.
const EXPECTED: &[&str] = &[
    "discarded: 1 failed",
    "exhausted: 1 failed, 2 failed, 3 failed; dead: attempts-exhausted, 3 attempts, 0 redrives",
    "fine: 1 ok",
    "once: 1 failed, 2 ok",
    "panics: 1 panicked, 2 ok",
    "permanent: 1 failed; dead: permanent, 1 attempts, 0 redrives",
    "redriven: 1 failed, 1 ok",
    "rejected: 1 failed; dead: rejected, 1 attempts, 0 redrives",
    "twice: 1 failed, 1 failed; dead: permanent, 1 attempts, 1 redrives",
];

/// W3. Each message's name says what the handler does to it.
async fn same_outcome_everywhere(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("scripted"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|received, context| async move {
        let redriven = received.record.as_ref().is_some_and(|record| record.redrives > 0);
        let first = context.attempt() == 1;
        match body(&received) {
            "exhausted" => Err(Failure::transient("never")),
            "once" if first => Err(Failure::transient("once")),
            "panics" if first => std::panic::resume_unwind(Box::new("this handler panics")),
            "permanent" | "twice" => Err(Failure::permanent("never")),
            "redriven" if !redriven => Err(Failure::permanent("not yet")),
            "rejected" => Err(Failure::reject("no", "rejected")),
            "discarded" => Err(Failure::discard("unwanted")),
            _ => Ok(()),
        }
    });
    let policy = bench.policy().build().map_err(longshore_core::Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    for line in EXPECTED {
        let (name, _) = line.split_once(':').unwrap_or((line, ""));
        sender.send(name).await?;
    }
    member.wait_for_letters(&topic, &group, 5).await?;
    let redrive = member.client.dead_letters(&topic, &group)?.redrive().filter(|dead| {
        let permanent =
            dead.letter.as_ref().is_some_and(|letter| letter.reason == Reason::Permanent);
        permanent && matches!(body(&dead.message), "redriven" | "twice")
    });
    redrive.await?;
    // Thirteen runs before the redrive, two after it.
    bench.wait("15 runs", |seen| seen.runs.len() >= 15).await?;
    member.wait_for_letters(&topic, &group, 4).await?;
    bench.stays("15 runs", WINDOW, |seen| seen.runs.len() == 15).await?;
    running.stop().await?;
    let letters = member.letters(&topic, &group).await?;
    let trace = bench.ledger().read(|seen| Trace::of(seen, &letters));
    let lines = trace.lines();
    ensure!(lines == EXPECTED, "expected {EXPECTED:#?}, got {lines:#?}");
    Ok(())
}
