//! Every example, run as a newcomer runs it, and what it prints.

mod program;

use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

use crate::program::{
    PATIENCE, TRACE, dead_letters, example, interrupt, matches, quickstart, run, tells,
};

#[test]
fn the_matcher_can_fail() {
    assert!(matches("a is b", "a*b") && matches("a is b", "*is b") && matches("ab", "ab"));
    assert!(!matches("a is b", "a") && !matches("a is b", "is*") && !matches("ab", "a*c"));
}

#[test]
fn quickstart_tells_the_whole_story() {
    let text = run("", "quickstart", &[]);
    quickstart(&text, "connected to memory *");
}

#[test]
fn swap_gives_one_trace() {
    let text = run("", "swap", &["memory://one", "memory://two", "memory://"]);
    let line = format!("memory: {TRACE}");
    tells(&text, &[&line, &line, &line, "3 broker(s), one trace"]);
}

#[test]
fn dead_letters_are_browsed_rehearsed_and_redriven() {
    let text = run("", "dead_letters", &["memory://"]);
    dead_letters(&text);
}

#[test]
fn worker_serves_until_ctrl_c_and_drains() {
    let mut child = example("", "worker", &["memory://"])
        .env("WORKER_CONCURRENCY", "2")
        .env("WORKER_MAX_ATTEMPTS", "3")
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let begun = Instant::now();
    while text.matches("billed order").count() < 10 || !text.contains("ready;") {
        assert!(begun.elapsed() < PATIENCE, "{text}");
        let read = stdout.read_line(&mut text).unwrap();
        if read == 0 {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("the worker ended: {text}\n{errors}");
        }
    }
    interrupt(child.id());
    stdout.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    tells(&text, &["policy: 3 attempts, fast [50ms], delayed [200ms 400ms 800ms 1s]"]);
    tells(&text, &["ready; Ctrl-C to stop"]);
    tells(&text, &["billed order 5 in EUR, attempt 2"]);
    tells(
        &text,
        &[
            "draining",
            "11 received, 1 redelivered, 10 succeeded, 1 failed, 1 retried after a delay",
        ],
    );
}

#[test]
fn a_wrong_url_or_policy_is_told_and_the_exit_code_says_so() {
    for (name, arguments, wanted) in [
        ("quickstart", vec!["gopher://"], "scheme `gopher` is unknown; built in: memory"),
        ("swap", vec!["memory://?colour=red"], "colour"),
        ("worker", vec!["memory://", "no-such.toml"], "reading no-such.toml"),
    ] {
        let output = example("", name, &arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(wanted), "{name}: {errors}");
    }
}
