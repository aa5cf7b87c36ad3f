//! A service: policy from a TOML file, settings from environment variables of its own, graceful
//! drain on Ctrl-C. It feeds itself ten orders, so that there is something to see.
//!
//! ```text
//! cargo run --example worker [-- URL [POLICY.toml]]
//! ```
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `WORKER_CONCURRENCY` | handler runs at a time | 8 |
//! | `WORKER_MAX_ATTEMPTS` | replaces the file's `max_attempts` | the file's |
//! | `WORKER_LOG` | what to log, in the manner of `warn,longshore_runtime=debug` | `warn` |

use std::env;
use std::str::FromStr;

use anyhow::Context as _;
use longshore::{Context, Failure, Message, Policy};
use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

/// Reached by every run through its context.
struct Prices {
    currency: &'static str,
}

async fn bill(order: Order, context: Context) -> Result<(), Failure> {
    let Some(prices) = context.state::<Prices>() else {
        return Err(Failure::permanent("the service was started without prices"));
    };
    if order.id == 5 && context.attempt() == 1 {
        return Err(Failure::transient("slow down").with_code("rate-limited"));
    }
    println!("billed order {} in {}, attempt {}", order.id, prices.currency, context.attempt());
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log: Targets = variable("WORKER_LOG")?.unwrap_or(Targets::new().with_default(Level::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(log)).init();

    let mut arguments = env::args().skip(1);
    let url = arguments.next().unwrap_or("memory://".into());
    let file =
        arguments.next().unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/worker.toml").into());
    let policy = policy(&file)?;
    println!("policy: {}", policy.summary());

    let client = longshore::connect(&url).await?;
    let worker = client
        .worker("worker", "billing")
        .policy(policy)
        .concurrency(variable("WORKER_CONCURRENCY")?.unwrap_or(8))
        .state(Prices { currency: "EUR" })
        .json(bill)
        .start()
        .await?;

    let sender = client.sender("worker").await?;
    for id in 1..=10 {
        sender.send(Message::json(&Order { id })?).await?;
    }
    println!("ready; Ctrl-C to stop");
    tokio::select! {
        signal = tokio::signal::ctrl_c() => signal.context("listening for Ctrl-C")?,
        // An error that no reconnect can mend: `stop` returns it.
        () = worker.ended() => {}
    }
    println!("draining");
    println!("{}", worker.stop().await?);
    client.close().await?;
    Ok(())
}

/// The file's policy, with what the environment replaces.
fn policy(file: &str) -> anyhow::Result<Policy> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let read = Policy::from_toml(&text).with_context(|| format!("in {file}"))?;
    Ok(match variable("WORKER_MAX_ATTEMPTS")? {
        Some(attempts) => read.to_builder().max_attempts(attempts).build()?,
        None => read,
    })
}

fn variable<T: FromStr>(name: &str) -> anyhow::Result<Option<T>> {
    match env::var(name) {
        Ok(text) => {
            let value =
                text.parse().ok().with_context(|| format!("{name}={text} makes no sense"))?;
            Ok(Some(value))
        }
        Err(_) => Ok(None),
    }
}
