//! The examples on NATS: what they print on the embedded broker, they print here.

use crate::program::{run, tells};
use crate::server;

#[tokio::test]
async fn quickstart_tells_the_whole_story() {
    let server = server().await;
    let text = run("nats", "quickstart", &[server.url()]);
    tells(
        &text,
        &[
            &format!("connected to nats-server {}", server.version()),
            "1. publish three orders*",
            "  order 3 is stored as message *",
            "2. handle them",
            "  idle after *: 5 received, 1 redelivered, 2 succeeded, 4 failed, 1 retried in process, \
             1 retried after a delay, 2 dead-lettered",
            "3. look at the dead letters: nothing was lost",
            "4. mend the cause, and send back what it killed",
            "  1 sent back, 1 left alone",
            "5. stop",
            "  still dead: 1",
        ],
    );
    for line in [
        "  order 2, attempt 3: billed",
        "  order 3, attempt 1: billed",
        "  *: undecodable after 1 attempt(s)",
        "  *: permanent after 1 attempt(s)",
        "    from     quickstart / billing",
    ] {
        tells(&text, &[line]);
    }
    let waited = text.lines().find_map(|line| line.strip_prefix("  idle after ")).unwrap();
    let seconds: f64 = waited.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds >= 0.5, "the delayed retry came early: {waited}");
}

#[tokio::test]
async fn swap_gives_the_trace_of_the_embedded_broker() {
    let server = server().await;
    let trace = "bad 1, bad permanent, flaky 1, flaky 2, flaky attempts-exhausted, good 1";
    let text = run("nats", "swap", &["memory://", server.url()]);
    let wanted = [&format!("memory: {trace}"), &format!("nats: {trace}")];
    tells(&text, &[wanted[0], wanted[1], "2 broker(s), one trace"]);
}

#[tokio::test]
async fn dead_letters_are_browsed_rehearsed_and_redriven() {
    let server = server().await;
    let text = run("nats", "dead_letters", &[server.url()]);
    tells(
        &text,
        &[
            "5 received, 5 failed, 4 dead-lettered, 1 discarded",
            "4 dead letters, two a page:",
            "  --",
            "  --",
            "a dry run would send back 3 and leave 1",
            "3 sent back in *, 1 left",
            "the group failed them again: 3 received, 3 failed, 3 dead-lettered",
            "  redriven 1 time(s), same message *",
        ],
    );
    tells(&text, &["  rejected   not delivered there"]);
}
