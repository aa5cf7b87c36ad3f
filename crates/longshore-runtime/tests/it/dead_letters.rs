use std::time::Duration;

use longshore_core::{ErrorKind, Failure, Policy, Received};
use longshore_runtime::{Client, Redriven};

use super::{Seen, client, ms, soon};

/// Makes `count` dead letters, numbered bodies.
async fn dead(client: &Client, count: usize) {
    let handler = |_: Received| async { Err(Failure::permanent("no")) };
    let worker = client.worker("t", "g").handle(handler).start().await.unwrap();
    let sender = client.sender("t").await.unwrap();
    for outcome in sender.send_all((0..count).map(|n| n.to_string())).await {
        outcome.unwrap();
    }
    soon(worker.idle()).await;
    worker.stop().await.unwrap();
}

async fn handle_all(client: &Client) -> Vec<String> {
    let seen = Seen::default();
    let note = seen.clone();
    let handler = move |message: Received| {
        note.note(&message);
        async { Ok(()) }
    };
    let worker = client.worker("t", "g").concurrency(1).handle(handler).start().await.unwrap();
    soon(worker.idle()).await;
    worker.stop().await.unwrap();
    seen.all()
}

#[tokio::test(start_paused = true)]
async fn browsing_settles_nothing_and_pages_do_not_overlap() {
    let client = client().await;
    dead(&client, 5).await;
    let letters = client.dead_letters("t", "g").unwrap();
    let mut bodies = Vec::new();
    let mut page = letters.browse(2).await.unwrap();
    while let Some(last) = page.last() {
        bodies.extend(page.iter().map(|dead| dead.message.body.clone()));
        let cursor = last.cursor().clone();
        page = letters.browse_after(&cursor, 2).await.unwrap();
    }
    bodies.sort();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
    assert_eq!(letters.count().await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_moves_what_the_filter_wants_up_to_its_limit() {
    let client = client().await;
    dead(&client, 6).await;
    let letters = client.dead_letters("t", "g").unwrap();
    let even = |dead: &longshore_runtime::DeadLetter| dead.message.body[0].is_multiple_of(2);
    let wanted = Redriven { examined: 6, moved: 3, filtered: 3, ..Redriven::default() };
    let rehearsed = soon(letters.redrive().filter(even).dry_run().into_future()).await.unwrap();
    assert_eq!((rehearsed, letters.count().await.unwrap()), (wanted, 6));
    let limited = soon(letters.redrive().filter(even).limit(1).into_future()).await.unwrap();
    assert_eq!((limited.moved, letters.count().await.unwrap()), (1, 5));
    let rest = soon(letters.redrive().filter(even).into_future()).await.unwrap();
    assert_eq!((rest.moved, rest.filtered), (2, 3));
    let mut bodies = handle_all(&client).await;
    bodies.sort();
    assert_eq!(bodies, ["0", "2", "4"]);
    assert_eq!(letters.count().await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let client = client().await;
    dead(&client, 11).await;
    let letters = client.dead_letters("t", "g").unwrap();
    let begun = tokio::time::Instant::now();
    let redriven = soon(letters.redrive().rate(2.0).into_future()).await.unwrap();
    assert_eq!(redriven.moved, 11);
    assert_eq!(begun.elapsed().as_millis(), 5_000, "ten gaps of half a second");

    dead(&client, 20).await;
    let few = |dead: &longshore_runtime::DeadLetter| dead.message.body.len() == 2;
    let begun = tokio::time::Instant::now();
    let redriven = soon(letters.redrive().filter(few).rate(1.0).into_future()).await.unwrap();
    assert!(redriven.moved > 0 && redriven.filtered > 0, "{redriven:?}");
    let gaps = u128::from(redriven.moved - 1) * 1_000;
    assert!(begun.elapsed().as_millis() <= gaps, "what stays costs no time");
    for nonsense in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = letters.redrive().rate(nonsense).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_was_redriven_often_enough_stays() {
    let client = client().await;
    dead(&client, 1).await;
    let letters = client.dead_letters("t", "g").unwrap();
    let once = Policy::builder().max_attempts(1).fast_delays([]).delayed([]).build().unwrap();
    let mut ids = Vec::new();
    for round in 1..=3 {
        let redriven = soon(letters.redrive().into_future()).await.unwrap();
        assert_eq!(redriven.moved, 1, "round {round}");
        let handler = |_: Received| async { Err(Failure::transient("still no")) };
        let worker = client.worker("t", "g").policy(once.clone()).handle(handler);
        let worker = worker.start().await.unwrap();
        soon(worker.idle()).await;
        worker.stop().await.unwrap();
        let dead = letters.browse(1).await.unwrap().remove(0);
        let letter = dead.letter.unwrap();
        assert_eq!((letter.redrive_count, letter.attempts), (round, 1), "attempts start anew");
        assert_eq!(letter.redrive_of.as_ref(), ids.last().or(letter.redrive_of.as_ref()));
        ids.push(letter.id.clone());
        if round == 3 {
            assert_eq!(letter.reason.as_str(), "redrive-exhausted");
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "each death has an id of its own");
    let redriven = soon(letters.redrive().into_future()).await.unwrap();
    assert_eq!((redriven.moved, redriven.exhausted), (0, 1));
    let redriven = soon(letters.redrive().max_redrives(4).into_future()).await.unwrap();
    assert_eq!(redriven.moved, 1, "unless the operator says so");
}

#[tokio::test(start_paused = true)]
async fn an_empty_queue_is_done_at_once_and_a_missing_group_is_told() {
    let client = client().await;
    dead(&client, 0).await;
    let begun = tokio::time::Instant::now();
    let letters = client.dead_letters("t", "g").unwrap();
    assert_eq!(letters.redrive().await.unwrap(), Redriven::default());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let error = client.dead_letters("t", "nobody").unwrap().browse(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(client.dead_letters("t", "no.body").is_err());
}

#[tokio::test(start_paused = true)]
async fn two_redrives_at_once_move_each_letter_once() {
    let client = client().await;
    dead(&client, 200).await;
    let letters = client.dead_letters("t", "g").unwrap();
    let (one, two) = soon(async {
        tokio::join!(letters.redrive().into_future(), letters.redrive().into_future())
    })
    .await;
    assert_eq!(one.unwrap().moved + two.unwrap().moved, 200);
    tokio::time::sleep(ms(1)).await;
    assert_eq!(handle_all(&client).await.len(), 200);
}
