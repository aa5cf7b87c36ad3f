//! The whole story on one page: publish, handle, fail, retry after durable delays, dead-letter,
//! look, redrive, done.
//!
//! ```text
//! cargo run --example quickstart [-- URL]
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore::{Context, Failure, Message, Policy};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    card: Card,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Card {
    Good,
    /// The bank answers only the third time.
    Slow,
    /// The bank does not know it, until somebody mends that.
    Unknown,
}

/// Whether somebody has mended the bank's table of cards.
static MENDED: AtomicBool = AtomicBool::new(false);

async fn bill(order: Order, context: Context) -> Result<(), Failure> {
    let Order { id, card } = order;
    let attempt = context.attempt();
    match card {
        Card::Slow if attempt < 3 => {
            println!("  order {id}, attempt {attempt}: the bank does not answer -> tried again");
            Err(anyhow::anyhow!("no answer from the bank").into())
        }
        Card::Unknown if !MENDED.load(Ordering::Relaxed) => {
            println!("  order {id}, attempt {attempt}: unknown card -> trying again cannot help");
            Err(Failure::permanent("unknown card"))
        }
        Card::Good | Card::Slow | Card::Unknown => {
            println!("  order {id}, attempt {attempt}: billed");
            Ok(())
        }
    }
}

#[tokio::main]
async fn main() -> longshore::Result<()> {
    let url = std::env::args().nth(1).unwrap_or("memory://".into());
    let client = longshore::connect(&url).await?;
    println!("connected to {}", client.info().server);

    // Three attempts: one gap in process, then one that waits in the broker.
    let policy = Policy::builder()
        .max_attempts(3)
        .fast_delays([Duration::from_millis(50)])
        .delayed([Duration::from_millis(500)])
        .build()?;
    let worker = client.worker("quickstart", "billing").policy(policy).json(bill).start().await?;

    println!("\n1. publish three orders, each confirmed, and a body that is no order");
    let begun = Instant::now();
    let sender = client.sender("quickstart").await?;
    for (id, card) in [(1, Card::Good), (2, Card::Slow), (3, Card::Unknown)] {
        let receipt = sender.send(Message::json(&Order { id, card })?).await?;
        println!("  order {id} is stored as message {}", receipt.id);
    }
    sender.send("not JSON").await?;

    println!("\n2. handle them");
    worker.idle().await;
    println!("  idle after {:.1} s: {}", begun.elapsed().as_secs_f64(), worker.tally());

    println!("\n3. look at the dead letters: nothing was lost");
    let letters = client.dead_letters("quickstart", "billing")?;
    for dead in letters.browse(10).await? {
        let Some(letter) = &dead.letter else { continue };
        println!("  {}: {} after {} attempt(s)", letter.id, letter.reason, letter.attempts);
        if let Some(cause) = &letter.cause {
            println!("    error    {} ({})", cause.message, cause.error_type);
        }
        println!("    from     {} / {}", letter.source, letter.source_group);
        println!("    handler  {}", letter.handler);
        println!("    body     {}", String::from_utf8_lossy(&dead.message.body));
    }

    println!("\n4. mend the cause, and send back what it killed");
    MENDED.store(true, Ordering::Relaxed);
    let redriven = letters
        .redrive()
        .filter(|dead| dead.letter.as_ref().is_some_and(|it| it.reason.as_str() == "permanent"))
        .await?;
    println!("  {} sent back, {} left alone", redriven.moved, redriven.filtered);
    worker.idle().await;

    println!("\n5. stop");
    let tally = worker.stop().await?;
    println!("  {tally}");
    println!("  still dead: {}", letters.count().await?);
    client.close().await
}
