//! One process of this machine, held so that its number cannot come to mean another.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::{Result, Tried};

/// Between two looks at a process that was told to end.
const LOOK: Duration = Duration::from_millis(5);

/// A process for as long as the machine is up: numbers are given again, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot.
    pub start: u64,
}

impl Identity {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let start = fields(&format!("/proc/{pid}/stat"))?.1;
        Some(Self { pid, start })
    }

    /// Whether it still runs; a process that ended and was not yet collected does not.
    pub fn is_alive(self) -> bool {
        Process::open(self).is_some_and(|process| !process.ends_within(Duration::ZERO))
    }

    /// Whether every thread is stopped: after a SIGSTOP was sent it still runs for a while, since
    /// the signal reaches them one after another.
    pub fn is_stopped(self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid));
        tasks.is_ok_and(|mut tasks| {
            tasks.all(|task| {
                task.is_ok_and(|task| {
                    let stat = task.path().join("stat");
                    // A thread that ended meanwhile runs no more either.
                    fields(&stat.to_string_lossy()).is_none_or(|(state, _)| state == 'T')
                })
            })
        })
    }
}

/// The state and the start time in a `stat` file. The name in it may hold blanks and parentheses,
/// so the fields are counted from its last one.
fn fields(path: &str) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(path).ok()?;
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?.chars().next()?;
    // The state is field 3 of proc(5), the start time field 22.
    Some((state, rest.nth(18)?.parse().ok()?))
}

/// A handle that stays with its process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) identity: Identity,
    fd: OwnedFd,
}

impl Process {
    /// Nothing where the process is gone, even if another has its number.
    pub(crate) fn open(identity: Identity) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(identity.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Compared after opening: from here on the handle means this process.
        (Identity::of(identity.pid)? == identity).then_some(Self { identity, fd })
    }

    /// Sends a signal; one that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Err(Errno::SRCH) => Ok(()),
            outcome => outcome.tried(|| format!("signalling process {}", self.identity.pid)),
        }
    }

    /// Blocks until it ended; false when it still runs after `patience`. Ended means all of its
    /// threads, and so its ports are free again.
    pub(crate) fn ends_within(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        loop {
            match poll(&mut fds, patience.as_ref()) {
                Err(Errno::INTR) => {}
                outcome => return outcome.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// As [`Self::ends_within`], without blocking. Looks every few milliseconds: tokio waits on a
    /// descriptor that is not its own only through unsafe code.
    pub(crate) async fn ended_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.ends_within(Duration::ZERO) {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn another_process_with_the_same_number_is_not_taken_for_it() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn one_that_ended_and_was_not_collected_is_not_alive() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read -r _"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::open(Identity::of(child.id()).unwrap()).unwrap();
        assert!(!process.ends_within(Duration::ZERO));
        drop(child.stdin.take());
        assert!(process.ends_within(Duration::from_secs(10)));
        assert!(!process.identity.is_alive(), "a zombie counts as gone");
        child.wait().unwrap();
        assert_eq!(Identity::of(child.id()), None);
        process.signal(Signal::KILL).unwrap();
    }
}
