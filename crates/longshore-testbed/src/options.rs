//! What a test asks of a broker beyond its row.

use std::path::PathBuf;
use std::time::Duration;

/// What differs from the row's plain broker; the default is nothing.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) config: String,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) server: Option<PathBuf>,
    pub(crate) patience: Duration,
    pub(crate) nodes: Option<usize>,
    pub(crate) sentinels: bool,
}

impl Default for Options {
    fn default() -> Self {
        // NATS takes a tenth of a second. Three nodes of `RabbitMQ`, the slowest, take 7 s, and have
        // been seen to take 19 s on a busy machine. One that ends is not waited for.
        let patience = Duration::from_secs(120);
        Self {
            config: String::new(),
            files: Vec::new(),
            server: None,
            patience,
            nodes: None,
            sentinels: false,
        }
    }
}

impl Options {
    /// Appends `snippet` to the configuration, in the broker's own syntax; a later key wins.
    ///
    /// `@DATA@`, `@FOLDER@` and `@PORT@` stand for the node's data folder, the folder that its
    /// configuration is in, and the port of its clients. In NATS, a second `jetstream` block
    /// replaces the first: name `store_dir: "@DATA@"` in it.
    #[must_use]
    pub fn config(mut self, snippet: impl AsRef<str>) -> Self {
        self.config.push_str(snippet.as_ref());
        self.config.push('\n');
        self
    }

    /// Writes a file beside the configuration: a certificate, a list of users. A file of the
    /// testbed's own with this name is replaced.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), contents.into()));
        self
    }

    /// Runs this program in place of the one that the row fetches.
    #[must_use]
    pub fn server(mut self, program: impl Into<PathBuf>) -> Self {
        self.server = Some(program.into());
        self
    }

    /// Runs so many servers as one cluster, in place of the row's number.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = Some(count);
        self
    }

    /// Runs one primary and two replicas, or as many servers as [`Self::nodes`] says, and a sentinel
    /// for each, which the URL names. Redis and Valkey have these; another broker is `Unsupported`.
    #[must_use]
    pub fn sentinels(mut self) -> Self {
        self.sentinels = true;
        self.nodes.get_or_insert(3);
        self
    }

    /// How long a start may take until the broker answers; two minutes by default.
    #[must_use]
    pub fn ready_within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}
