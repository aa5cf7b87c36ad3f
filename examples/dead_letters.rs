//! Looking after dead letters: count, browse page by page, rehearse, redrive some at a rate.
//!
//! ```text
//! cargo run --example dead_letters [-- URL]
//! ```

use std::time::Instant;

use longshore::{DeadLetter, Failure, Policy, Reason, Received};

/// Fails every message in a way that its body names.
async fn fail(message: Received) -> Result<(), Failure> {
    match &message.body[..] {
        b"reject" => Err(Failure::reject("blocked-country", "not delivered there")),
        b"discard" => Err(Failure::discard("a duplicate of yesterday's")),
        _ => Err(Failure::permanent("no such customer")),
    }
}

fn died_of(dead: &DeadLetter, reason: Reason) -> bool {
    dead.letter.as_ref().is_some_and(|letter| letter.reason == reason)
}

#[tokio::main]
async fn main() -> longshore::Result<()> {
    let url = std::env::args().nth(1).unwrap_or("memory://".into());
    let client = longshore::connect(&url).await?;
    let start = || client.worker("dead", "letters").policy(Policy::default()).handle(fail).start();

    let worker = start().await?;
    let sender = client.sender("dead").await?;
    let bodies = ["reject", "customer", "discard", "customer", "customer"];
    for outcome in sender.send_all(bodies).await {
        outcome?;
    }
    worker.idle().await;
    println!("{}", worker.stop().await?);

    let letters = client.dead_letters("dead", "letters")?;
    println!("\n{} dead letters, two a page:", letters.count().await?);
    let mut page = letters.browse(2).await?;
    while let Some(last) = page.last() {
        for dead in &page {
            let Some(letter) = &dead.letter else { continue };
            let detail = letter.cause.as_ref().map(|cause| cause.message.as_str());
            println!("  {:<10} {}", letter.reason, detail.unwrap_or_default());
        }
        let cursor = last.cursor().clone();
        page = letters.browse_after(&cursor, 2).await?;
        println!("  --");
    }

    let rehearsal =
        letters.redrive().filter(|dead| died_of(dead, Reason::Permanent)).dry_run().await?;
    println!("\na dry run would send back {} and leave {}", rehearsal.moved, rehearsal.filtered);

    // Nobody handles them now: what is sent back waits for the group.
    let begun = Instant::now();
    let redriven =
        letters.redrive().filter(|dead| died_of(dead, Reason::Permanent)).rate(20.0).await?;
    let spent = begun.elapsed().as_secs_f64();
    println!("{} sent back in {spent:.1} s, {} left", redriven.moved, letters.count().await?);

    let worker = start().await?;
    worker.idle().await;
    println!("\nthe group failed them again: {}", worker.stop().await?);
    for dead in letters.browse(10).await?.iter().filter(|dead| died_of(dead, Reason::Permanent)) {
        let Some(letter) = &dead.letter else { continue };
        println!(
            "  redriven {} time(s), same message {}",
            letter.redrive_count, letter.original_id
        );
    }
    client.close().await
}
