//! Running an example as its user does, and reading what it prints.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than any example needs, building it included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What `swap` prints behind the name of any broker.
pub(crate) const TRACE: &str =
    "bad 1, bad permanent, flaky 1, flaky 2, flaky attempts-exhausted, good 1";

/// The example with these features of its own, besides the default ones.
pub(crate) fn example(features: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--locked", "-p", "examples", "--features", features]);
    command.args(["--example", name, "--"]);
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(features: &str, name: &str, arguments: &[&str]) -> String {
    let output = example(features, name, arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed\n{text}\n{errors}");
    text
}

/// Every one of `wanted`, in this order; `*` stands for anything inside a line.
#[track_caller]
pub(crate) fn tells(text: &str, wanted: &[&str]) {
    let mut lines = text.lines();
    for pattern in wanted {
        assert!(lines.any(|line| matches(line, pattern)), "no `{pattern}` (in order) in:\n{text}");
    }
}

pub(crate) fn matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('*').enumerate().all(|(index, part)| match rest.find(part) {
        Some(at) if index > 0 || at == 0 => {
            rest = &rest[at + part.len()..];
            true
        }
        _ => false,
    }) && (pattern.ends_with('*') || rest.is_empty())
}

/// What `quickstart` prints on every broker.
#[track_caller]
pub(crate) fn quickstart(text: &str, connected: &str) {
    tells(
        text,
        &[
            connected,
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
    // Handlers run side by side: their lines have no fixed order among themselves.
    for line in [
        "  order 1, attempt 1: billed",
        "  order 2, attempt 2: the bank does not answer -> tried again",
        "  order 2, attempt 3: billed",
        "  order 3, attempt 1: billed",
        "  order 3, attempt 1: unknown card -> trying again cannot help",
        "  *: undecodable after 1 attempt(s)",
        "    body     not JSON",
        "  *: permanent after 1 attempt(s)",
        "    error    unknown card (&str)",
        "    from     quickstart / billing",
        "    handler  quickstart::bill",
    ] {
        tells(text, &[line]);
    }
    let waited = text.lines().find_map(|line| line.strip_prefix("  idle after ")).unwrap();
    let seconds: f64 = waited.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds >= 0.5, "the delayed retry came early: {waited}");
}

/// What `dead_letters` prints on every broker.
#[track_caller]
pub(crate) fn dead_letters(text: &str) {
    tells(
        text,
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
    tells(text, &["  rejected   not delivered there"]);
}

/// Ctrl-C for the example itself: cargo, which started it, passes no signal on.
pub(crate) fn interrupt(cargo: u32) {
    let children = format!("/proc/{cargo}/task/{cargo}/children");
    let example = std::fs::read_to_string(children).unwrap_or_default();
    // Where cargo has replaced itself by the example, it has no child.
    let pid = example.split_whitespace().next().map_or(cargo.to_string(), str::to_owned);
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}
