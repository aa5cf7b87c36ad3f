//! Swap brokers by changing a URL and no code: one function, any number of URLs, the same trace.
//!
//! ```text
//! cargo run --example swap [-- URL ...]
//! ```

use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore::{Context, Failure, Policy, Received};

/// Everything that differs between two brokers is in `url`.
async fn run(url: &str) -> longshore::Result<Vec<String>> {
    let client = longshore::connect(url).await?;
    let policy = Policy::builder()
        .max_attempts(2)
        .fast_delays([])
        .delayed([Duration::from_millis(200)])
        .build()?;

    let trace = Arc::new(Mutex::new(Vec::new()));
    let seen = trace.clone();
    let handler = move |message: Received, context: Context| {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        seen.lock().expect("no run panics").push(format!("{body} {}", context.attempt()));
        async move {
            match body.as_str() {
                "good" => Ok(()),
                "bad" => Err(Failure::permanent("bad")),
                _ => Err(Failure::transient("flaky")),
            }
        }
    };

    let worker = client.worker("swap", "trace").policy(policy).handle(handler).start().await?;
    let sender = client.sender("swap").await?;
    for outcome in sender.send_all(["good", "flaky", "bad"]).await {
        outcome?;
    }
    worker.idle().await;
    worker.stop().await?;

    let letters = client.dead_letters("swap", "trace")?;
    for dead in letters.browse(10).await? {
        let reason = dead.letter.map(|letter| letter.reason.as_str()).unwrap_or_default();
        let body = String::from_utf8_lossy(&dead.message.body).into_owned();
        trace.lock().expect("no run panics").push(format!("{body} {reason}"));
    }
    client.close().await?;

    let mut trace = std::mem::take(&mut *trace.lock().expect("no run panics"));
    trace.sort();
    Ok(trace)
}

#[tokio::main]
async fn main() -> longshore::Result<()> {
    let mut urls: Vec<_> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        urls = vec!["memory://".into(), "memory://another".into()];
    }
    let mut traces = Vec::new();
    for url in &urls {
        let trace = run(url).await?;
        // A URL may hold a password: only the scheme is shown.
        println!("{}: {}", url.split("://").next().unwrap_or_default(), trace.join(", "));
        traces.push(trace);
    }
    let same = traces.windows(2).all(|pair| pair[0] == pair[1]);
    println!("{} broker(s), {}", traces.len(), if same { "one trace" } else { "DIFFERENT traces" });
    std::process::exit(i32::from(!same));
}
