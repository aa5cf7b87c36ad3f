//! The NATS backend's side of the conformance suite.
//!
//! The server's URL comes from `LONGSHORE_NATS_URL`. Each client gets a way of its own to it, which
//! is cut where the suite plays the death of a process.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use async_nats::header::{HeaderName, HeaderValue};
use async_nats::{HeaderMap, jetstream::Context};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use longshore_conformance::{Foreign, Harness};
use longshore_core::{Broker, Error, ErrorKind, InstanceId, Result, Setup};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

fn main() -> ExitCode {
    longshore_conformance::main(NatsHarness::default())
}

#[derive(Debug, Default)]
struct NatsHarness {
    ways: Mutex<HashMap<InstanceId, Vec<JoinHandle<()>>>>,
}

fn server() -> Result<String> {
    let missing = "LONGSHORE_NATS_URL names no server, such as nats://127.0.0.1:4222";
    std::env::var("LONGSHORE_NATS_URL").map_err(|_| Error::config(missing))
}

fn io(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error)
}

/// Forwards to the server for as long as the task lives; both ends close with it.
async fn forward(listener: TcpListener, server: String) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let server = server.clone();
        open.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(server).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

#[async_trait::async_trait]
impl Harness for NatsHarness {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn connect(&self, _: &str, setup: Setup) -> Result<Arc<dyn Broker>> {
        let server = server()?.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        let way = tokio::spawn(forward(listener, server));
        self.ways.lock().unwrap().entry(setup.instance.clone()).or_default().push(way);
        let url = format!("nats://127.0.0.1:{port}");
        Ok(Arc::new(longshore_nats::connect(&url, setup).await?))
    }

    fn crash<'a>(
        &'a self,
        _: &'a dyn Broker,
        instance: &'a InstanceId,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let ways = self.ways.lock().unwrap().remove(instance).unwrap_or_default();
        ways.iter().for_each(JoinHandle::abort);
        Some(async { Ok(()) }.boxed())
    }

    fn inject<'a>(
        &'a self,
        broker: &'a dyn Broker,
        Foreign { topic, body, headers }: Foreign,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let sent = async move {
            let wrong = |what: &str| Error::new(ErrorKind::Unexpected, what.to_owned());
            let native: &Context =
                broker.native().downcast_ref().ok_or_else(|| wrong("the native type differs"))?;
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let text = std::str::from_utf8(&value).map_err(|_| wrong("not text"))?;
                let name: HeaderName = name.parse().map_err(|_| wrong("not a header name"))?;
                map.append(name, text.parse::<HeaderValue>().map_err(|_| wrong("not a value"))?);
            }
            let sent = native.publish_with_headers(topic.to_string(), map, body).await;
            let stored = sent.map_err(|error| wrong("not sent").with_source(error))?.await;
            stored.map(drop).map_err(|error| wrong("not stored").with_source(error))
        };
        Some(sent.boxed())
    }
}
