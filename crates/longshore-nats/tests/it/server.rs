//! A server of a test's own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use longshore_testbed::{Identity, Testbed};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Below the range from which the system takes the near ends of connections: a client that
/// reconnects to a dead port inside it can end up connected to itself.
static NEXT: AtomicU16 = AtomicU16::new(0);

pub(crate) struct Server {
    child: Option<Child>,
    folder: PathBuf,
    pub(crate) port: u16,
}

fn free_port() -> u16 {
    // Far from that of a process beside this one, whose number is the next.
    let start = u16::try_from(std::process::id() * 97 % 6000).unwrap();
    loop {
        let port = 26_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 6000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// One with JetStream and no users.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// One with JetStream and `more` in its configuration.
    pub(crate) async fn with(more: &str) -> Self {
        Self::configured(&with_jetstream(more)).await
    }

    /// One with JetStream, `more` in its configuration, and files beside it: `@DIR@/name` there.
    pub(crate) async fn with_files(more: &str, files: &[(&str, String)]) -> Self {
        let mut server = Self::place();
        for (name, text) in files {
            std::fs::write(server.file(name), text).unwrap();
        }
        server.write(&with_jetstream(more));
        server.run().await;
        server
    }

    pub(crate) async fn configured(text: &str) -> Self {
        let mut server = Self::place();
        server.write(text);
        server.run().await;
        server
    }

    fn place() -> Self {
        let port = free_port();
        let folder =
            std::env::temp_dir().join(format!("longshore-nats-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { child: None, folder, port }
    }

    /// The path of a file beside its configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Replaces the configuration; it holds after the next start.
    pub(crate) fn write(&self, text: &str) {
        let text = text.replace("@DIR@", &self.folder.display().to_string());
        let text = format!("listen: \"127.0.0.1:{}\"\n{text}\n", self.port);
        std::fs::write(self.file("server.conf"), text).unwrap();
    }

    pub(crate) async fn run(&mut self) {
        // `LONGSHORE_NATS` picks another row of the testbed.
        let row = std::env::var("LONGSHORE_NATS").unwrap_or("nats".into());
        let program = Testbed::workspace().programs(&row).await.unwrap().join("nats-server");
        let log = OpenOptions::new().create(true).append(true).open(self.file("log")).unwrap();
        let starts = self.logged("Server is ready");
        let child = Command::new(program)
            .arg("-c")
            .arg(self.file("server.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        // Its own word, which needs neither a password nor a handshake.
        self.logs("Server is ready", starts + 1).await;
    }

    /// How many lines of its log contain `text`.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until so many lines of its log contain `text`.
    pub(crate) async fn logs(&self, text: &str, count: usize) {
        let there = async {
            while self.logged(text) < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(Duration::from_secs(20), there).await.is_err() {
            let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
            panic!("the server does not log `{text}` {count} times:\n{log}");
        }
    }

    /// Stops its clock: connections stay open and nothing is answered. It still answers for a
    /// moment after the signal was sent.
    pub(crate) async fn pause(&self) {
        self.signal("STOP").await;
        let server = Identity::of(self.child.as_ref().and_then(Child::id).unwrap()).unwrap();
        let stopped = async {
            while !server.is_stopped() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(20), stopped).await.expect("the server does not stop");
    }

    pub(crate) async fn resume(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().and_then(Child::id).unwrap().to_string();
        let sent = Command::new("kill").args([format!("-{signal}"), pid]).status().await.unwrap();
        assert!(sent.success());
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

fn with_jetstream(more: &str) -> String {
    format!("jetstream {{ store_dir: \"@DIR@\" }}\n{more}")
}

/// What stands in a URL for a file.
pub(crate) fn path(file: &Path) -> String {
    file.display().to_string()
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
