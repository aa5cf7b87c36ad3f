//! Headers, as awkward as programs make them.

use std::collections::BTreeMap;

use bytes::Bytes;
use longshore_core::{Error, ErrorKind, Failure, HeaderName, Headers, Message, Outcome as Known};

use crate::bench::Bench;
use crate::check::{Check, Need, Outcome, Stop, Tier, ensure};
use crate::ledger::{self, Records, body};

const NEEDS: &[Need] = &[Need::Delay, Need::DeadLetters];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "fidelity.awkward_headers",
        code: "H3",
        tier: Tier::Core,
        summary: "headers that are unicode, empty, long, many, binary: as they are, or refused",
        needs: NEEDS,
        run: |bench| Box::pin(awkward_headers(bench)),
    },
    Check {
        id: "fidelity.trace_parent_is_kept",
        code: "H7",
        tier: Tier::Core,
        summary: "the message's own `traceparent` is there in every attempt and in the dead letter",
        needs: NEEDS,
        run: |bench| Box::pin(trace_parent_is_kept(bench)),
    },
];

fn one(name: &'static str, value: impl Into<Bytes>) -> Headers {
    let mut headers = Headers::new();
    headers.append(HeaderName::from_static(name), value);
    headers
}

fn cases() -> BTreeMap<&'static str, Headers> {
    let many = (0..64).map(|n| {
        let name = HeaderName::new(format!("x-{n}")).expect("a valid name");
        (name, Bytes::from(n.to_string()))
    });
    let mut same = one("x-same", "1");
    same.append(HeaderName::from_static("x-same"), "2");
    BTreeMap::from([
        ("plain", one("x", "1")),
        ("unicode", one("x", "grüße \u{1f4e6} 漢字")),
        ("empty", one("x", "")),
        ("long", one("x", vec![b'v'; 8 * 1024])),
        ("many", many.collect()),
        ("binary", one("x", (0..=255).collect::<Vec<u8>>())),
        ("same", same),
        ("spaces", one("x", "  both sides  ")),
        ("name", one("X-!#$%&'*+^_`|~.Name", "1")),
    ])
}

/// H3. What must not be refused: text, and names of letters.
async fn awkward_headers(bench: &Bench) -> Outcome {
    let (topic, group) = (bench.topic("headers"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, context| async move {
        if context.attempt() == 1 { Err(Failure::transient("once")) } else { Ok(()) }
    });
    let running = member.work(&topic, &group).handle(handler).start().await?;
    let sender = member.sender(&topic).await?;
    let mut accepted = BTreeMap::new();
    for (case, headers) in cases() {
        let mut message = Message::new(case);
        message.headers = headers.clone();
        match sender.send(message).await {
            Ok(_) => {
                accepted.insert(case, headers);
            }
            Err(error) => {
                let typed = matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge);
                ensure!(typed, "`{case}`: a refusal is `InvalidMessage` or `TooLarge`: {error:?}");
                let known = matches!(error.outcome(), Some(Known::NotSent | Known::Refused));
                ensure!(known, "`{case}` was refused: {:?}", error.outcome());
                let usual = ["plain", "unicode", "empty", "long", "many", "spaces"];
                ensure!(!usual.contains(&case), "`{case}` is refused: {error:?}");
            }
        }
    }
    let count = accepted.len();
    let all = |seen: &Records| seen.ended(ledger::Outcome::Ok) >= count;
    bench.wait("a success of each", all).await?;
    let wrong = bench.ledger().read(|seen| {
        let wrong = seen.runs.iter().find(|run| {
            accepted.get(body(&run.received)).is_none_or(|sent| *sent != run.received.headers)
        });
        wrong.map(|run| (body(&run.received).to_owned(), run.attempt, run.received.headers.clone()))
    });
    ensure!(wrong.is_none(), "which headers, in which attempt, arrived as what: {wrong:?}");
    running.stop().await?;
    Ok(())
}

/// H7. As the ordinary header that it is; span links are no part of the runtime yet.
async fn trace_parent_is_kept(bench: &Bench) -> Outcome {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (topic, group) = (bench.topic("traced"), bench.group("all"));
    let member = bench.member().await?;
    let handler = member.handler(|_, _| async { Err(Failure::transient("never")) });
    let policy = bench.policy().build().map_err(Error::from)?;
    let running = member.work(&topic, &group).policy(policy).handle(handler).start().await?;
    let mut sent = Message::new("m");
    sent.headers.append(HeaderName::from_static("traceparent"), PARENT);
    sent.headers.append(HeaderName::from_static("tracestate"), "vendor=1");
    member.sender(&topic).await?.send(sent.clone()).await?;
    let letters = member.wait_for_letters(&topic, &group, 1).await?;
    let runs: Vec<_> =
        bench.ledger().read(|seen| seen.runs.iter().map(|run| run.received.clone()).collect());
    ensure!(runs.len() == 3, "expected 3 runs, the ledger has {}", runs.len());
    for received in runs.iter().chain(&letters) {
        if received.headers != sent.headers {
            let place = if received.letter.is_some() { "the dead letter" } else { "an attempt" };
            return Err(Stop::Failed(format!("in {place}: {:?}", received.headers)));
        }
    }
    running.stop().await?;
    Ok(())
}
