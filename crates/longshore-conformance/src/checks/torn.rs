//! The steps inside a move, where only a process of its own can be killed.

use futures::future::BoxFuture;
use longshore_core::{GroupName, Record, Settlement, Source, Stats, TopicName};

use crate::bench::{Bench, PATIENCE};
use crate::check::{Outcome, Stop};
use crate::child::End;
use crate::member::Member;

/// What a killed process leaves: one message, somewhere on its way.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) topic: TopicName,
    pub(super) group: GroupName,
    pub(super) text: String,
}

/// Kills a process at each step whose name begins with `kind`, and then asks `survives` of what it
/// left. An atomic move has no steps.
///
/// # Errors
/// [`Stop::NotRun`] where a step is declared that no such move reaches: it is never green.
pub(super) async fn at_each_step(
    bench: &Bench,
    code: &str,
    kind: &str,
    survives: for<'a> fn(&'a Bench, &'a Remains) -> BoxFuture<'a, Outcome>,
) -> Outcome {
    let mut unreached = Vec::new();
    for step in bench.info().steps.iter().filter(|step| step.starts_with(kind)) {
        // Some steps are those of a move out of the suspect lane only.
        let mut reached = false;
        for suspect in [false, true] {
            let (topic, group) = (bench.topic("step"), bench.group("all"));
            let member = bench.member().await?;
            member.client.declare(&bench.topology(&topic, &group)).await?;
            let text = format!("{step} {suspect}");
            member.sender(&topic).await?.send(text.clone()).await?;
            if suspect {
                accuse(bench, &member, &topic, &group).await?;
            }
            match bench.child(code, step, &topic, &group).await? {
                End::Killed(runs) if runs > 0 => {
                    reached = true;
                    survives(bench, &Remains { topic, group, text }).await?;
                }
                End::Unreached => {}
                other => return Err(Stop::Failed(format!("at {step}, a child ended: {other:?}"))),
            }
        }
        if !reached {
            unreached.push(*step);
        }
    }
    match unreached[..] {
        [] => Ok(()),
        _ => Err(Stop::NotRun(format!(
            "all else holds, but no move of this check reaches the steps {}",
            unreached.join(", ")
        ))),
    }
}

/// Moves the group's one message into its suspect lane.
async fn accuse(bench: &Bench, member: &Member, topic: &TopicName, group: &GroupName) -> Outcome {
    let consumer = member.consumer(bench.source(topic, group), 1).await?;
    let received = consumer.next().await?;
    let record = Box::new(Record {
        deliveries: received.deliveries,
        explained: received.deliveries,
        suspect: true,
        ..Record::default()
    });
    consumer.settle(Settlement::Suspect { token: received.token, record }).await?;
    consumer.close().await?;
    let source = Source::Suspects { topic: topic.clone(), group: group.clone() };
    let there = tokio::time::timeout(PATIENCE, async {
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            pace.tick().await;
            let Stats { ready, in_flight, .. } = member.client.broker().stats(&source).await?;
            if ready + in_flight > 0 {
                return Ok::<_, longshore_core::Error>(());
            }
        }
    });
    there.await.map_err(|_| "the suspect lane did not get its message".to_owned())??;
    Ok(())
}
