//! Names and tenants: nobody meets what is another's.

use longshore_core::{ErrorKind, Failure, GroupName, Tenant, TopicName};
use longshore_runtime::Running;

use crate::bench::{Bench, WINDOW};
use crate::check::{Check, Need, Outcome, Stop, Tier, ensure};
use crate::ledger::{Records, body};
use crate::member::Member;

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "names.tenants_are_apart",
        code: "I1",
        tier: Tier::Core,
        summary: "a tenant's topics, groups, retries and dead letters are its own",
        needs: NEEDS,
        run: |bench| Box::pin(tenants_are_apart(bench)),
    },
    Check {
        id: "names.grammar_is_one",
        code: "I2",
        tier: Tier::Core,
        summary: "names outside the grammar are refused; no two groups share a place",
        needs: NEEDS,
        run: |bench| Box::pin(grammar_is_one(bench)),
    },
];

async fn fails_until_redriven(
    member: &Member,
    topic: &TopicName,
    group: &GroupName,
) -> longshore_core::Result<Running> {
    let handler = member.handler(|received, context| async move {
        let redriven = received.record.as_ref().is_some_and(|record| record.redrives > 0);
        match context.attempt() {
            _ if redriven => Ok(()),
            1 => Err(Failure::transient("once")),
            _ => Err(Failure::permanent("then never")),
        }
    });
    member.work(topic, group).handle(handler).start().await
}

/// I1. Both have a topic and a group of the same names.
async fn tenants_are_apart(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("same"), bench.group("same"));
    let blue = bench.tenant(Tenant::new("blue")?).await?;
    let green = bench.tenant(Tenant::new("green")?).await?;
    let running = [
        fails_until_redriven(&blue, &topic, &group).await?,
        fails_until_redriven(&green, &topic, &group).await?,
    ];
    blue.sender(&topic).await?.send("for blue").await?;
    let full = Tenant::new("blue")?.topic(&topic);
    // Below the client, names are whole.
    blue.wait_for_letters(&full, &group, 1).await?;
    let strays = green.client.dead_letters(&topic, &group)?.browse(10).await?;
    ensure!(strays.is_empty(), "green has {} of blue's dead letters", strays.len());
    let none = green.client.dead_letters(&topic, &group)?.redrive().await?;
    ensure!(none.moved == 0, "green redrove {} of blue's letters", none.moved);
    let redriven = blue.client.dead_letters(&topic, &group)?.redrive().await?;
    ensure!(redriven.moved == 1, "blue redrove {} of its 1 letter", redriven.moved);
    bench.wait("blue's 3 runs", |seen| seen.runs.len() >= 3).await?;
    let own = |seen: &Records| {
        seen.runs.len() == 3 && seen.runs.iter().all(|run| run.instance == blue.instance)
    };
    bench.stays("3 runs, all of blue", WINDOW, own).await?;
    let topics: Vec<_> = bench
        .ledger()
        .read(|seen| seen.runs.iter().map(|run| run.received.topic.clone()).collect());
    ensure!(topics.iter().all(|of| *of == full), "expected `{full}`, got {topics:?}");
    for running in running {
        running.stop().await?;
    }
    Ok(())
}

/// Refused by every backend, though each broker would take some of them.
const REFUSED: &[&str] = &[
    "",
    ".",
    "a..b",
    ".a",
    "a.",
    "a b",
    "a*",
    "a>",
    "a/b",
    "{a}",
    "a:b",
    "ä",
    "a\n",
    "__a",
    "amq.a",
    "longshore.a",
    "a.dlq",
    "a.retry.b",
    "suspect",
    "redrive.a",
];

/// I2.
async fn grammar_is_one(bench: &Bench) -> Outcome {
    let member = bench.member().await?;
    for name in REFUSED {
        let sender = member.client.sender(*name).await.map(|_| ());
        let worker = member.client.worker("fine", *name).handle(|_| async { Ok(()) });
        let letters = member.client.dead_letters(*name, "fine").map(|_| ());
        for (what, result) in
            [("topic", sender), ("group", worker.start().await.map(|_| ())), ("letters", letters)]
        {
            let kind = result.as_ref().err().map(longshore_core::Error::kind);
            ensure!(
                kind == Some(ErrorKind::Config),
                "{what} {name:?}: expected `Config`: {result:?}"
            );
        }
    }

    // As close as the grammar allows.
    let base = bench.topic("base");
    let near = |suffix: &str| TopicName::new(format!("{base}{suffix}"));
    let pairs = [
        (base.clone(), "x"),
        (base.clone(), "x_y"),
        (base.clone(), "x-y"),
        (near(".x")?, "y"),
        (near("-x")?, "y"),
        (near("_x")?, "y"),
        (near(".X")?, "y"),
    ];
    let mut running = Vec::new();
    let mut topics = Vec::new();
    for (topic, group) in &pairs {
        let group = bench.group(group);
        let handler = member.handler(|_, _| async { Err(Failure::permanent("never")) });
        match member.work(topic, &group).handle(handler).start().await {
            Ok(worker) => {
                running.push(worker);
                topics.push((topic.clone(), group));
            }
            // A broker may know two names for one place (Kafka's `.` and `_`), and says so.
            Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(running.len() >= 5, "of 7 pairs of names, {} were accepted", running.len());
    let mut sent: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
    sent.dedup();
    for topic in &sent {
        member.sender(topic).await?.send(topic.to_string()).await?;
    }
    for (topic, group) in &topics {
        let letters = member.wait_for_letters(topic, group, 1).await?;
        let found: Vec<_> = letters.iter().map(body).collect();
        if found != [topic.as_str()] {
            let text = format!("dead letters of {topic}, {group}: expected its own, {found:?}");
            return Err(Stop::Failed(text));
        }
    }
    let each = |seen: &Records| seen.runs.len() == topics.len();
    bench.stays("one run for each pair of names", WINDOW, each).await?;
    for running in running {
        running.stop().await?;
    }
    Ok(())
}
