//! One connection, made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_rs::traits::Reactor;
use async_rs::{Tokio, TokioRuntime};
use lapin::tcp::{AMQPUriTcpExt as _, AsyncTcpStream, RustlsConnector};
use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};
use lapin::{Connection, ConnectionProperties};
use longshore_core::{ErrorKind, Result};
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, Server};
use crate::error::{self, error};
use crate::greeting::{self, Greeting};

/// At-least-once dead-lettering and message times of quorum queues, which the delay levels stand on.
const OLDEST: (u32, u32) = (3, 10);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How to reach the servers, as what.
#[derive(Clone)]
pub(crate) struct Dial {
    config: Arc<Config>,
    tls: Option<RustlsConnector>,
    /// Shown by the server's tools.
    name: String,
    /// The server that is tried next.
    next: usize,
}

impl Dial {
    pub(crate) fn new(config: Arc<Config>, tls: Option<RustlsConnector>, name: String) -> Self {
        // So that the clients of a cluster do not all meet at its first node.
        let next = fastrand::usize(..config.servers.len());
        Self { config, tls, name, next }
    }

    /// Tries one server, the next time the next.
    ///
    /// # Errors
    /// `Unauthenticated`, `Forbidden` and `Unsupported` for good; else `Unavailable` or `Timeout`.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed as soon as the server has answered.
    pub(crate) async fn connect(&mut self) -> Result<(Connection, Greeting)> {
        let server = &self.config.servers[self.next % self.config.servers.len()];
        self.next = self.next.wrapping_add(1);
        let made = timeout_at(Instant::now() + ATTEMPT, self.attempt(server)).await;
        made.unwrap_or_else(|_| Err(error(ErrorKind::Timeout, "the server did not answer in time")))
            .map_err(|why| why.with_context("server", format!("{}:{}", server.host, server.port)))
    }

    async fn attempt(&self, server: &Server) -> Result<(Connection, Greeting)> {
        let uri = self.uri(server);
        let runtime = lapin::runtime::default_runtime().map_err(error::native)?;
        let greet = async { greeting::ask(stream(&uri, self.tls.as_ref(), &runtime).await?).await };
        let greeting = greet.await;
        let greeting = greeting.map_err(|native| error::connect(native.into()))?;
        check(&greeting)?;
        let tls = self.tls.clone();
        let connect = async move |uri: AMQPUri, runtime: TokioRuntime| {
            Ok(stream(&uri, tls.as_ref(), &runtime).await?)
        };
        let connection = Connection::connector(uri, runtime, connect, self.properties()).await;
        Ok((connection.map_err(error::connect)?, greeting))
    }

    fn properties(&self) -> ConnectionProperties {
        ConnectionProperties::default().with_connection_name(self.name.as_str().into())
    }

    /// Its `Debug` shows the password: it goes to the client library and nowhere else.
    fn uri(&self, server: &Server) -> AMQPUri {
        let config = &self.config;
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: config.user.clone(),
                    password: config.password.reveal().to_owned(),
                },
                host: server.host.clone(),
                port: server.port,
            },
            vhost: config.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(config.heartbeat),
                auth_mechanism: config.external.then_some(SASLMechanism::External),
                ..AMQPQueryString::default()
            },
        }
    }
}

type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

async fn stream(
    uri: &AMQPUri,
    tls: Option<&RustlsConnector>,
    runtime: &TokioRuntime,
) -> io::Result<Socket> {
    // The scheme of these URIs is the plain one: the TLS settings are ours.
    let plain = uri.connect_async(runtime).await?;
    match tls {
        Some(tls) => plain.into_rustls(tls, &uri.authority.host).await,
        None => Ok(plain),
    }
}

/// Refuses what lacks the primitives of the contract.
fn check(greeting: &Greeting) -> Result<()> {
    let refuse = |text: &'static str| {
        Err(error(ErrorKind::Unsupported, text)
            .with_context("product", greeting.product.clone())
            .with_context("version", greeting.version.clone()))
    };
    if greeting.product != "RabbitMQ" {
        return refuse("the server is no RabbitMQ, whose queue types a group needs");
    }
    match greeting.release() {
        Some(release) if release >= OLDEST => Ok(()),
        _ => refuse("the server is older than 3.10 and would lose messages that wait for a retry"),
    }
}
