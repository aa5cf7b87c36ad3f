//! A server of a test's own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use longshore_testbed::Testbed;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
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
    let start = u16::try_from(std::process::id() % 4000).unwrap();
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
        Self::configured(&format!("jetstream {{ store_dir: \"@DIR@\" }}\n{more}")).await
    }

    pub(crate) async fn configured(text: &str) -> Self {
        let port = free_port();
        let folder =
            std::env::temp_dir().join(format!("longshore-nats-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut server = Self { child: None, folder, port };
        server.write(text);
        server.run().await;
        server
    }

    /// Replaces the configuration; it holds after the next start.
    pub(crate) fn write(&self, text: &str) {
        let text = text.replace("@DIR@", &self.folder.display().to_string());
        let text = format!("listen: \"127.0.0.1:{}\"\n{text}\n", self.port);
        std::fs::write(self.folder.join("server.conf"), text).unwrap();
    }

    pub(crate) async fn run(&mut self) {
        // `LONGSHORE_NATS` picks another row of the testbed.
        let row = std::env::var("LONGSHORE_NATS").unwrap_or("nats".into());
        let program = Testbed::workspace().programs(&row).await.unwrap().join("nats-server");
        let child = Command::new(program)
            .arg("-c")
            .arg(self.folder.join("server.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let ready = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await {
                    let mut word = [0; 4];
                    if stream.read_exact(&mut word).await.is_ok() && &word == b"INFO" {
                        return;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), ready).await.expect("the server does not come up");
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

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
