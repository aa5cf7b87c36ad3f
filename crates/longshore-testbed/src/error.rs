//! What can go wrong, in words that say what to do about it.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::table::Container;

/// The result of a call to the testbed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a broker is not there, or does not do as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No row of the table has this name.
    #[error("no broker is named `{name}`; known: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// This machine lacks something that fetching a server needs.
    #[error("fetching {broker} needs {what}: {hint}")]
    Missing {
        /// The broker whose server was to be fetched.
        broker: String,
        /// The tool or file that is missing.
        what: &'static str,
        /// How to get it.
        hint: &'static str,
    },
    /// A tool ran and did not succeed.
    #[error("`{command}` failed: {output}")]
    Tool {
        /// What was run.
        command: String,
        /// What it said, or that it took too long.
        output: String,
    },
    /// The server of a row could not be had; the cause says why.
    #[error("{broker} cannot be fetched here; where a container engine runs, {container}")]
    Fetch {
        /// The broker.
        broker: String,
        /// What can be done instead.
        container: Container,
        /// What went wrong.
        source: Box<Error>,
    },
    /// What was fetched lacks a program that it should hold.
    #[error("{program} is not in what was fetched for {broker}")]
    NoProgram {
        /// The broker.
        broker: String,
        /// The path that was looked for.
        program: String,
    },
    /// The server ended by itself.
    #[error("{node} ended before it was ready; its last lines:\n{log}")]
    Died {
        /// Which process.
        node: String,
        /// The end of its log.
        log: String,
    },
    /// The server runs, and was not ready in time.
    #[error("{node} was not ready within {waited:?} ({last}); its last lines:\n{log}")]
    Late {
        /// Which process.
        node: String,
        /// The time it was given.
        waited: Duration,
        /// The answer to the last question.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// A signal did not have its effect.
    #[error("{node} did not {action} within {waited:?}")]
    Stuck {
        /// Which process.
        node: String,
        /// What it should have done.
        action: &'static str,
        /// The time it was given.
        waited: Duration,
    },
    /// The call needs a running server, and this one was stopped or killed.
    #[error("{node} is not running")]
    NotRunning {
        /// Which process.
        node: String,
    },
    /// This kind of broker has no such thing.
    #[error("{node} has no {what}")]
    Unsupported {
        /// Which process.
        node: String,
        /// What was asked of it.
        what: &'static str,
    },
    /// The broker's own tool answered, and not as it should in the end.
    #[error("{node} did not do `{order}` within {waited:?}; it answered: {answer}")]
    Disobeyed {
        /// Which process.
        node: String,
        /// What its tool was told.
        order: String,
        /// The time it was given.
        waited: Duration,
        /// The last answer.
        answer: String,
    },
    /// The server cannot run in a folder of this name.
    #[error("{broker} cannot run in {folder}: {why}")]
    Folder {
        /// The broker.
        broker: String,
        /// Where it was to run.
        folder: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The machine refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What it answered.
        source: io::Error,
    },
}

/// Says what was tried when the machine refuses.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T>;

    fn at(self, doing: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.tried(|| format!("{doing} {}", path.display()))
    }
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl<T> Tried<T> for Result<T, rustix::io::Errno> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(io::Error::from).tried(what)
    }
}

/// Runs what blocks (a lock, a start, a removal) where it holds up no other task.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::Io { what: what.to_owned(), source: io::Error::other(error) }),
    }
}

/// Removes a folder; one that is gone is as good.
///
/// It is renamed first, to a name that no folder gets again: a broker may be placed under the old
/// one while files are still being removed.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let gone = folder.with_file_name(format!("{GONE}{name}-{:x}", fastrand::u64(..)));
    match std::fs::rename(folder, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("removing", folder),
        Ok(()) => std::fs::remove_dir_all(&gone).at("removing", folder),
    }
}

/// How the names of folders begin that are being removed.
pub(crate) const GONE: &str = ".gone-";
