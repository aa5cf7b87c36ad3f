//! The examples on RabbitMQ: what they print on the embedded broker, they print here.

use crate::program::{TRACE, dead_letters, quickstart, run, tells};
use crate::server;

#[test]
fn quickstart_tells_the_whole_story() {
    let text = run("rabbitmq", "quickstart", &[server().url()]);
    quickstart(&text, &format!("connected to RabbitMQ {}", server().version()));
}

#[test]
fn swap_gives_the_trace_of_the_embedded_broker() {
    let text = run("rabbitmq", "swap", &["memory://", server().url()]);
    let wanted = [format!("memory: {TRACE}"), format!("amqp: {TRACE}")];
    tells(&text, &[&wanted[0], &wanted[1], "2 broker(s), one trace"]);
}

#[test]
fn dead_letters_are_browsed_rehearsed_and_redriven() {
    let text = run("rabbitmq", "dead_letters", &[server().url()]);
    dead_letters(&text);
}
