//! The Redis backend's side of the conformance suite, on every server that is promised.
//!
//! Each client gets a way of its own to the server, which is cut where the suite plays the death of
//! a process.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod servers;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longshore_conformance::{Access, Act, Foreign, Harness, Target};
use longshore_core::{Broker, Error, ErrorKind, InstanceId, Result, Setup};
use longshore_redis::Native;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::servers::Servers;

/// Where a URL names none.
const PORT: u16 = 6379;

fn main() -> ExitCode {
    longshore_conformance::main(RedisHarness::on)
}

#[derive(Debug)]
struct RedisHarness {
    servers: Servers,
    ways: Mutex<HashMap<InstanceId, Vec<JoinHandle<()>>>>,
}

impl RedisHarness {
    fn on(target: Target) -> Result<Self> {
        Ok(Self { servers: Servers::open(target)?, ways: Mutex::default() })
    }
}

fn io(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error)
}

/// A URL without encryption, taken apart at the address of its first server. One that leads on to
/// other servers has no way that could be cut.
#[derive(Debug, PartialEq, Eq)]
struct Way<'a> {
    before: &'a str,
    address: String,
    after: &'a str,
}

impl<'a> Way<'a> {
    fn to(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("valkey://"))?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if tail.contains("cluster=true") || tail.contains("sentinel=") {
            return None;
        }
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        let (scheme_and_user, after) = (url.len() - rest.len() + authority.len(), authority.len());
        let before = &url[..scheme_and_user - hosts.len()];
        let first = hosts.split(',').next().unwrap_or(hosts);
        // A colon inside brackets belongs to an address of version 6.
        let port = first.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let address = if port { first.to_owned() } else { format!("{first}:{PORT}") };
        Some(Self { before, address, after: &rest[after..] })
    }
}

/// Forwards to the server for as long as the task lives; both ends close with it.
async fn forward(listener: TcpListener, server: String) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let server = server.clone();
        open.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(server).await {
                // As the client itself would have it.
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

#[async_trait::async_trait]
impl Harness for RedisHarness {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn servers(&self) -> Vec<String> {
        self.servers.names()
    }

    async fn connect(&self, server: &str, setup: Setup) -> Result<Arc<dyn Broker>> {
        let missing = || Error::config(format!("no server is named {server}"));
        let url = self.servers.url(server, Access::Full).ok_or_else(missing)?;
        // What is wrong with a URL is the backend's to say.
        let Some(Way { before, address, after }) = Way::to(&url) else {
            return Ok(Arc::new(longshore_redis::connect(&url, setup).await?));
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        let way = tokio::spawn(forward(listener, address));
        self.ways.lock().unwrap().entry(setup.instance.clone()).or_default().push(way);
        let url = format!("{before}127.0.0.1:{port}{after}");
        Ok(Arc::new(longshore_redis::connect(&url, setup).await?))
    }

    fn url(&self, server: &str, access: Access) -> Option<String> {
        self.servers.url(server, access)
    }

    fn open(
        &self,
        url: String,
        setup: Setup,
    ) -> Option<BoxFuture<'static, Result<Arc<dyn Broker>>>> {
        let opened = async move { longshore_redis::connect(&url, setup).await };
        Some(opened.map(|redis| Ok(Arc::new(redis?) as Arc<dyn Broker>)).boxed())
    }

    fn server<'a>(&'a self, server: &'a str, act: Act) -> Option<BoxFuture<'a, Result<()>>> {
        matches!(self.servers, Servers::Own { .. }).then(|| {
            let done = self.servers.act(server, act);
            done.map(|done| done.unwrap_or_else(|| Err(Error::config("no such server")))).boxed()
        })
    }

    fn crash<'a>(
        &'a self,
        _: &'a dyn Broker,
        instance: &'a InstanceId,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        // Nothing is cut where nothing stands between.
        let ways = self.ways.lock().unwrap().remove(instance)?;
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
            let native: &Native =
                broker.native().downcast_ref().ok_or_else(|| wrong("the native type differs"))?;
            let mut connection = native.connection(&topic).await?;
            let mut add = redis::cmd("XADD");
            add.arg(topic.as_str()).arg("*").arg("body").arg(&body[..]);
            for (name, value) in headers {
                add.arg(name).arg(&value[..]);
            }
            let added = connection.send_packed_command(&add).await;
            added.map(drop).map_err(|error| wrong("not stored").with_source(error))
        };
        Some(sent.boxed())
    }
}
