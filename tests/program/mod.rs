//! Running an example as its user does, and reading what it prints.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than any example needs, building it included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

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

/// Ctrl-C for the example itself: cargo, which started it, passes no signal on.
pub(crate) fn interrupt(cargo: u32) {
    let children = format!("/proc/{cargo}/task/{cargo}/children");
    let example = std::fs::read_to_string(children).unwrap_or_default();
    // Where cargo has replaced itself by the example, it has no child.
    let pid = example.split_whitespace().next().map_or(cargo.to_string(), str::to_owned);
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}
