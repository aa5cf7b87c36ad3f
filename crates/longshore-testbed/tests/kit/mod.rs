//! What the tests of every broker need.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// For one thing that a server does; a busy machine takes seconds where a quiet one takes none.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// An empty folder of the test's own.
pub(crate) fn ground(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that holds a broker, and what it says of it.
pub(crate) fn hold(name: &str, run: &Path) -> (Child, Value) {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_hold"))
        .arg(name)
        .arg("--run")
        .arg(run)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (holder, serde_json::from_str(&line).unwrap())
}
