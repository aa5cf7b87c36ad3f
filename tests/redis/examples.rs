//! The examples on Redis: what they print on the embedded broker, they print here.

use crate::program::{TRACE, dead_letters, quickstart, run, tells};
use crate::server;

#[tokio::test]
async fn quickstart_tells_the_whole_story() {
    let server = server().await;
    let text = run("redis", "quickstart", &[server.url()]);
    quickstart(&text, &format!("connected to redis {}", server.version()));
}

#[tokio::test]
async fn swap_gives_the_trace_of_the_embedded_broker() {
    let server = server().await;
    let text = run("redis", "swap", &["memory://", server.url()]);
    let wanted = [&format!("memory: {TRACE}"), &format!("redis: {TRACE}")];
    tells(&text, &[wanted[0], wanted[1], "2 broker(s), one trace"]);
}

#[tokio::test]
async fn dead_letters_are_browsed_rehearsed_and_redriven() {
    let server = server().await;
    let text = run("redis", "dead_letters", &[server.url()]);
    dead_letters(&text);
}
