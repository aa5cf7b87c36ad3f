//! A server process that dies with us unless it is told to stay.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result, Tried};
use crate::flavor::Unit;
use crate::node;
use crate::process::{Identity, Process};

const SCRIPT: &str = include_str!("supervisor.sh");

/// How long a killed process may take to be gone; the kernel needs a few milliseconds.
pub(crate) const KILL: Duration = Duration::from_secs(10);

/// A server and the shell that is its parent. Dropped, both are gone.
#[derive(Debug)]
pub(crate) struct Supervised {
    shell: Child,
    line: ChildStdin,
    process: Arc<Process>,
    left: bool,
}

impl Supervised {
    /// Starts `unit`. Blocks for the few milliseconds that two processes take.
    pub(crate) fn start(unit: &Unit) -> Result<Self> {
        let starting = || format!("starting {}", unit.name);
        let log = unit.log();
        let log_file = OpenOptions::new().create(true).append(true).open(&log);
        // Without its comments, which would fill the machine's list of processes.
        let script: Vec<_> = SCRIPT.lines().filter(|line| !line.starts_with('#')).collect();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", &script.join("\n"), "supervisor"])
            .arg(&log)
            .arg(&unit.program)
            .args(&unit.arguments)
            .envs(unit.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&unit.folder)
            // A Ctrl-C in the terminal is for us; the shell learns of our end by the pipe.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file.at("opening", &log)?)
            .spawn()
            .tried(starting)?;
        let (Some(line), Some(stdout)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(std::io::Error::other("no pipes")).tried(starting);
        };
        let mut pid = String::new();
        BufReader::new(stdout).read_line(&mut pid).tried(starting)?;
        // One that ended at once may be collected already; it has no identity then.
        let process = pid.trim().parse().ok().and_then(Identity::of).and_then(Process::open);
        match process {
            Some(process) => Ok(Self { shell, line, process: Arc::new(process), left: false }),
            None => {
                drop(line);
                shell.wait().tried(starting)?;
                Err(Error::Died { node: unit.name.clone(), log: node::tail(unit, node::LINES) })
            }
        }
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Lets the server run on after this process.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.line.write_all(b"leave\n").tried(|| "leaving a server running".to_owned())?;
        self.left = true;
        Ok(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Blocks for milliseconds, on purpose: whoever starts next must find the port free.
        let killed = self.process.signal(Signal::KILL).is_ok();
        if killed && self.process.ends_within(KILL) {
            // A shell that was killed cannot read it, and needs no word.
            let _ = self.line.write_all(b"gone\n");
            let _ = self.shell.wait();
        } else if let Some(group) = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw) {
            // The shell leads the group and is not collected yet, so the number is still its own.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with a helper process; its log is the helper's number.
    fn unit(name: &str) -> Unit {
        let folder = std::env::temp_dir().join(format!("supervisor-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Unit {
            name: name.to_owned(),
            helper: false,
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "sleep 600 & echo $!; wait".into()],
            environment: Vec::new(),
            folder,
            ports: Vec::new(),
            tool: None,
        }
    }

    fn helper(unit: &Unit) -> Process {
        let deadline = std::time::Instant::now() + KILL;
        loop {
            let log = std::fs::read_to_string(unit.log()).unwrap_or_default();
            if let Some(identity) = log.trim().parse().ok().and_then(Identity::of) {
                return Process::open(identity).unwrap();
            }
            assert!(std::time::Instant::now() < deadline, "no helper: {log}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_dropped_server_takes_its_helpers_with_it() {
        let unit = unit("dropped");
        let server = Supervised::start(&unit).unwrap();
        let (helper, process) = (helper(&unit), server.process().clone());
        drop(server);
        assert!(process.ends_within(Duration::ZERO));
        assert!(helper.ends_within(KILL));
        std::fs::remove_dir_all(&unit.folder).unwrap();
    }

    #[test]
    fn helpers_of_a_killed_server_go_when_it_is_given_up() {
        let unit = unit("killed");
        let server = Supervised::start(&unit).unwrap();
        let helper = helper(&unit);
        server.process().signal(Signal::KILL).unwrap();
        assert!(server.process().ends_within(KILL));
        assert!(!helper.ends_within(Duration::ZERO), "a crash leaves what a crash leaves");
        drop(server);
        assert!(helper.ends_within(KILL));
        std::fs::remove_dir_all(&unit.folder).unwrap();
    }

    #[test]
    fn one_that_is_left_outlives_the_pipe() {
        let unit = unit("left");
        let server = Supervised::start(&unit).unwrap();
        let (helper, process) = (helper(&unit), server.process().clone());
        server.leave().unwrap();
        // The pipe is closed: a shell that had not taken the word would kill at once.
        assert!(!process.ends_within(Duration::from_millis(300)));
        helper.signal(Signal::KILL).unwrap();
        process.signal(Signal::KILL).unwrap();
        assert!(process.ends_within(KILL) && helper.ends_within(KILL));
        std::fs::remove_dir_all(&unit.folder).unwrap();
    }
}
