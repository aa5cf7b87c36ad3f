//! A service that can be watched: metrics for Prometheus, alarms, health. It feeds itself orders, a
//! few of which fail, until Ctrl-C.
//!
//! ```text
//! cargo run --example observability [-- URL [ADDRESS]]
//! curl http://127.0.0.1:9464/metrics
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use longshore::{Client, Failure, Message, Policy};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde::{Deserialize, Serialize};

/// Upper bounds, in seconds: from a cached answer to a handler that hangs.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

async fn bill(order: Order) -> Result<(), Failure> {
    match order.id % 20 {
        13 => Err(Failure::permanent("unknown card")),
        7 => Err(Failure::transient("the bank does not answer")),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or("memory://".into());
    let address = arguments.next().unwrap_or("127.0.0.1:9464".into());
    let address: SocketAddr =
        address.parse().with_context(|| format!("{address} is no address"))?;

    // Before the client: what is opened before there is a recorder is never counted.
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .with_http_listener(address)
        .install()
        .with_context(|| format!("serving metrics at {address}"))?;

    let client = longshore::connect(&url).await?;
    let mut alarms = client.alarms();
    tokio::spawn(async move {
        while let Some(alarm) = alarms.next().await {
            println!("alarm: {alarm}");
        }
    });
    let soon = [Duration::from_millis(200), Duration::from_secs(1)];
    let policy = Policy::builder().max_attempts(3).fast_delays([]).delayed(soon).build()?;
    let worker = client.worker("observed", "billing").policy(policy).json(bill).start().await?;
    println!("metrics: http://{address}/metrics");
    println!("health: {}", client.health());
    println!("ready; Ctrl-C to stop");

    tokio::select! {
        signal = tokio::signal::ctrl_c() => signal.context("listening for Ctrl-C")?,
        outcome = feed(&client) => outcome?,
        () = worker.ended() => {}
    }
    println!("{}", worker.stop().await?);
    client.close().await?;
    Ok(())
}

/// A hundred orders a second.
async fn feed(client: &Client) -> anyhow::Result<()> {
    let sender = client.sender("observed").await?;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for id in 0.. {
        tick.tick().await;
        sender.send(Message::json(&Order { id })?).await?;
    }
    Ok(())
}
