//! A canary in everything that is a user's secret: it must sing in no log line, metric, span or
//! alarm, at the finest level there is.
//!
//! Alone in its process: where another thread meets a log line first, `tracing` may take it for one
//! that nobody wants.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::{Failure, HeaderName, Message, Policy, Received, Setup};
use longshore_runtime::{Client, TokioClock};
use metrics::set_default_local_recorder;
use metrics_util::debugging::DebuggingRecorder;

const CANARY: &str = "canary-4f1d";

#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_payload_key_or_header_shows_anywhere() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _metrics = set_default_local_recorder(&recorder);
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let _logs = tracing::subscriber::set_default(subscriber);

    let setup = Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() };
    let memory = longshore_memory::connect("memory://", setup.clone()).await.unwrap();
    let client = Client::new(Arc::new(memory), setup);
    let mut alarms = client.alarms();
    let handler = |received: Received| async move {
        match received.headers.get("x-case").map(|case| case.to_vec()).as_deref() {
            Some(b"fine") => Ok(()),
            Some(b"panic") => panic!("a bug"),
            Some(b"undecodable") => Err(Failure::undecodable("not json")),
            _ => Err(Failure::transient("closed")),
        }
    };
    let second = Duration::from_secs(1);
    let policy = Policy::builder().max_attempts(3).fast_delays([second / 10]).delayed([second]);
    let policy = policy.build().unwrap();
    let worker = client.worker("orders", "billing").policy(policy).handle(handler);
    let worker = worker.start().await.unwrap();
    let sender = client.sender("orders").await.unwrap();
    for case in ["fine", "panic", "undecodable", "retry"] {
        let [name, secret] = ["x-case", "x-secret"].map(|name| HeaderName::new(name).unwrap());
        let message = Message::new(format!("body {CANARY}"))
            .key(format!("key {CANARY}"))
            .header(name, case)
            .header(secret, CANARY);
        sender.send(message).await.unwrap();
    }
    // One that is refused, too.
    let huge = Message::new(vec![b'x'; 2 << 20]).key(CANARY);
    sender.send(huge).await.unwrap_err();
    worker.idle().await;
    worker.stop().await.unwrap();

    let logs = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let metrics = format!("{:?}", snapshotter.snapshot().into_vec());
    drop((worker, sender, client));
    let mut told = String::new();
    while let Some(alarm) = alarms.next().await {
        told += &format!("{alarm} {alarm:?}\n");
    }
    // Each is there to be searched at all.
    assert!(logs.contains("process") && logs.contains("dead-lettered"), "{logs}");
    assert!(metrics.contains("longshore_handled_total") && told.contains("dead_lettered"));
    for (what, text) in [("logs", logs), ("metrics", metrics), ("alarms", told)] {
        assert!(!text.contains(CANARY), "the canary sings in the {what}:\n{text}");
    }
}
