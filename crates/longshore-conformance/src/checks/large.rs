use longshore_core::{
    DEFAULT_MAX_BODY, ErrorKind, Message, MessageId, Outcome as Known, Publisher,
};

use crate::bench::Bench;
use crate::check::{Check, Outcome, Stop, Tier, ensure};
use crate::ledger::Records;

/// A broker whose own limit is above this is not tried with a body of that size.
const TRIED: usize = 64 * 1024 * 1024;

pub(super) const CHECKS: &[Check] = &[Check {
    id: "large.over_the_limit_is_refused",
    code: "L2",
    tier: Tier::Core,
    summary: "a body over the limit is `TooLarge`, its neighbours are sent, the connection lives",
    needs: &[],
    run: |bench| Box::pin(over_the_limit_is_refused(bench)),
}];

/// L2. Twice: over the client's limit, and over the broker's own, which no client stands before.
async fn over_the_limit_is_refused(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("large"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Ok(()) });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    let limit = DEFAULT_MAX_BODY.min(bench.info().capabilities.max_message);
    let sent = vec![Message::new("a"), Message::new(vec![b'x'; limit + 1]), Message::new("b")];
    outcomes(&sender.send_all(sent).await)?;

    let mut wanted = vec!["a", "b"];
    let max = bench.info().capabilities.max_message;
    if max <= TRIED {
        let publisher = member.client.broker().publisher(&topic).await?;
        publish(&*publisher, max).await?;
        wanted.extend(["c", "d", "e"]);
    }
    let count = wanted.len();
    bench.wait("the others", |seen| seen.runs.len() >= count).await?;
    let stray = |seen: &Records| {
        seen.runs.len() == count && seen.runs.iter().all(|run| run.received.body.len() == 1)
    };
    bench.stays("nothing of the refused bodies", crate::bench::WINDOW, stray).await?;
    running.stop().await?;
    Ok(())
}

async fn publish(publisher: &dyn Publisher, max: usize) -> Outcome {
    let message = |body: Vec<u8>| Message::new(body).id(MessageId::generate());
    let mut batch = vec![message(vec![b'c']), message(vec![b'x'; max + 1]), message(vec![b'd'])];
    outcomes(&publisher.publish(&mut batch).await?.await)?;
    // The same publisher goes on.
    let after = publisher.publish(&mut vec![message(vec![b'e'])]).await?.await;
    ensure!(after.iter().all(Result::is_ok), "after a refusal, a publish gave {after:?}");
    publisher.close().await?;
    Ok(())
}

fn outcomes(got: &[longshore_core::Result<longshore_core::Receipt>]) -> Outcome {
    match got {
        [Ok(_), Err(error), Ok(_)] => {
            let (kind, outcome) = (error.kind(), error.outcome());
            ensure!(kind == ErrorKind::TooLarge, "expected `TooLarge`, got {error:?}");
            let known = matches!(outcome, Some(Known::NotSent | Known::Refused));
            ensure!(known, "a refused message is known not to be stored, got {outcome:?}");
            Ok(())
        }
        other => Err(Stop::Failed(format!("expected [Ok, TooLarge, Ok], got {other:?}"))),
    }
}
