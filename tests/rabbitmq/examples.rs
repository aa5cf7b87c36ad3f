//! The examples on RabbitMQ: what they print on the embedded broker, they print here.

use longshore_testbed::{Options, Testbed};

use crate::program::{dead_letters, quickstart, run, tells};
use crate::server;

#[test]
fn quickstart_tells_the_whole_story() {
    let text = run("rabbitmq", "quickstart", &[server().url()]);
    quickstart(&text, &format!("connected to RabbitMQ {}", server().version()));
}

#[tokio::test]
async fn swap_gives_one_trace_on_three_brokers() {
    let nats = Testbed::start("nats", Options::default()).await.unwrap();
    let trace = "bad 1, bad permanent, flaky 1, flaky 2, flaky attempts-exhausted, good 1";
    let text = run("nats,rabbitmq", "swap", &["memory://", nats.url(), server().url()]);
    let wanted = ["memory", "nats", "rabbitmq"].map(|name| format!("{name}: {trace}"));
    tells(&text, &[&wanted[0], &wanted[1], &wanted[2], "3 broker(s), one trace"]);
}

#[test]
fn dead_letters_are_browsed_rehearsed_and_redriven() {
    let text = run("rabbitmq", "dead_letters", &[server().url()]);
    dead_letters(&text);
}
