//! How a connection is made: to a server, to the primary that sentinels name, or to the node of a
//! cluster that has a topic's slot.
//!
//! One topic stands in one slot, so one connection to one node does for it. A cluster's slot map is
//! not kept: the node that is asked says where the topic lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Config, Login, Route};
use crate::error::{self, error};
use crate::noting::Noting;
use crate::reply;
use crate::tls;

/// For one connection, with its encryption and login.
const ATTEMPT: Duration = Duration::from_secs(5);
/// For a sentinel, of which there are others.
const SENTINEL: Duration = Duration::from_secs(1);
/// Without a word for so long, the system asks the other side whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How often a cluster may point elsewhere; once is usual.
const REDIRECTIONS: usize = 5;

/// A connection, and whether it is gone: the other side may end it while nobody asks anything.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) connection: MultiplexedConnection,
    gone: Arc<AtomicBool>,
}

impl Opened {
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// One command, for as long as `patience`.
    ///
    /// # Errors
    /// The server's answer, where that is an error, too.
    pub(crate) async fn ask(&mut self, command: &Cmd, patience: Duration) -> Result<Value> {
        let asked = timeout(patience, self.connection.send_packed_command(command)).await;
        match asked.map_err(|_| error::timeout())?.map_err(error::native)? {
            Value::ServerError(refused) => Err(error::native(refused.into())),
            answer => Ok(answer),
        }
    }
}

/// What connections of one URL have in common.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) config: Arc<Config>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Connector {
    pub(crate) fn new(config: Arc<Config>) -> Result<Self> {
        let tls = config.tls.then(|| tls::client_config(&config)).transpose()?;
        Ok(Self { config, tls })
    }

    /// Connects to the server that has `key`; in a cluster to any, where there is none.
    pub(crate) async fn open(&self, key: Option<&str>) -> Result<Opened> {
        match &self.config.route {
            Route::Direct => self.first(key).await,
            Route::Cluster => self.first(key).await,
            Route::Sentinel(name) => self.primary(name).await,
        }
    }

    /// The first host that answers.
    async fn first(&self, key: Option<&str>) -> Result<Opened> {
        let mut last = None;
        for (host, port) in &self.config.hosts {
            let found = async {
                let found = self.connect(host, *port, &self.config.login, ATTEMPT).await?;
                match (&self.config.route, key) {
                    (Route::Cluster, Some(key)) => self.follow(found, host, key).await,
                    _ => Ok(found),
                }
            };
            match found.await {
                Ok(found) => return Ok(found),
                // Another node would say the same.
                Err(why) if why.retryability() == longshore_core::Retryability::Permanent => {
                    return Err(why);
                }
                Err(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or_else(error::down))
    }

    /// Asks for the key until the node that has it answers.
    async fn follow(&self, mut found: Opened, host: &str, key: &str) -> Result<Opened> {
        let mut host = host.to_owned();
        for _ in 0..REDIRECTIONS {
            let mut ask = redis::cmd("XLEN");
            let asked = timeout(ATTEMPT, found.connection.send_packed_command(ask.arg(key))).await;
            let Some(moved) = redirection(asked.map_err(|_| error::timeout())?)? else {
                return Ok(found);
            };
            // A node that does not know its own name leaves it out.
            let (name, port) = moved.rsplit_once(':').ok_or_else(error::unreadable)?;
            if !name.is_empty() && name != "?" {
                host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            }
            let port = port.parse().map_err(|_| error::unreadable())?;
            found = self.connect(&host, port, &self.config.login, ATTEMPT).await?;
        }
        Err(error(ErrorKind::Unavailable, "the cluster's nodes point at each other"))
    }

    /// The address that most sentinels name, if it is a primary by its own word, too: an old one
    /// comes back as a primary for some seconds.
    async fn primary(&self, name: &str) -> Result<Opened> {
        let asked = self.config.hosts.iter().map(|(host, port)| self.ask(host, *port, name));
        let answers = futures::future::join_all(asked).await;
        let mut named: HashMap<(String, u16), usize> = HashMap::new();
        let mut last = None;
        for answer in answers {
            match answer {
                Ok(Some(address)) => *named.entry(address).or_default() += 1,
                Ok(None) => {}
                Err(why) => last = Some(why),
            }
        }
        let Some(((host, port), _)) = named.into_iter().max_by_key(|(_, count)| *count) else {
            return Err(last.unwrap_or_else(|| {
                Error::config(format!("no sentinel knows a primary called `{name}`"))
            }));
        };
        let mut found = self.connect(&host, port, &self.config.login, ATTEMPT).await?;
        let mut role = redis::cmd("INFO");
        let info = found.ask(role.arg("replication"), ATTEMPT).await?;
        match reply::info(&info).get("role").copied() {
            Some("master") => Ok(found),
            _ => {
                Err(error(ErrorKind::Unavailable, "the sentinels name a server that is a replica"))
            }
        }
    }

    async fn ask(&self, host: &str, port: u16, name: &str) -> Result<Option<(String, u16)>> {
        let login = &self.config.sentinel_login;
        let mut sentinel = self.connect(host, port, login, SENTINEL).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(name);
        let answer = sentinel.ask(&ask, SENTINEL).await?;
        let Value::Array(parts) = answer else { return Ok(None) };
        let mut parts = parts.iter().filter_map(reply::text);
        match (parts.next(), parts.next().and_then(|port| port.parse().ok())) {
            (Some(host), Some(port)) => Ok(Some((host.to_owned(), port))),
            _ => Err(error::unreadable()),
        }
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        login: &Login,
        patience: Duration,
    ) -> Result<Opened> {
        let server = || format!("{host}:{port}");
        let found = timeout(patience, async {
            let tcp = TcpStream::connect((host, port)).await.map_err(unreachable)?;
            tcp.set_nodelay(true).map_err(unreachable)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
            SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(unreachable)?;
            let database = if self.is_sentinel(login) { 0 } else { self.config.database };
            match &self.tls {
                None => speak(tcp, login, database).await,
                Some(tls) => {
                    let name = ServerName::try_from(host.to_owned()).map_err(|native| {
                        Error::config("the server's name cannot stand in a certificate")
                            .with_source(native)
                    })?;
                    let connector = TlsConnector::from(tls.clone());
                    let tls = connector.connect(name, tcp).await.map_err(unreachable)?;
                    let distrust = Arc::default();
                    let noting = Noting { stream: tls, distrust: Arc::clone(&distrust) };
                    speak(noting, login, database).await.map_err(|why| match distrust.get() {
                        Some(text) => error(ErrorKind::Unauthenticated, *text).with_source(why),
                        None => why,
                    })
                }
            }
        });
        match found.await {
            Ok(found) => found.map_err(|error| error.with_context("server", server())),
            Err(_) => Err(error::timeout().with_context("server", server())),
        }
    }

    fn is_sentinel(&self, login: &Login) -> bool {
        std::ptr::eq(login, &raw const self.config.sentinel_login)
    }
}

async fn speak<S>(stream: S, login: &Login, database: i64) -> Result<Opened>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // What a user may not say of itself is not worth a refusal.
    let mut info = RedisConnectionInfo::default().set_db(database).set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.reveal());
    }
    // Each question has a deadline of its own: a blocking read's is longer than the others'.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = made.map_err(error::native)?;
    let gone = Arc::new(AtomicBool::new(false));
    let over = gone.clone();
    // It ends with the last handle of the connection, or with the connection.
    tokio::spawn(async move {
        driver.await;
        over.store(true, Ordering::Release);
    });
    let mut opened = Opened { connection, gone };
    // The first answer tells what the handshake and an absent login did not.
    opened.ask(&redis::cmd("PING"), ATTEMPT).await?;
    Ok(opened)
}

/// Where the node sends us, if it does.
fn redirection(answer: Result<Value, RedisError>) -> Result<Option<String>> {
    let native = match answer {
        Ok(Value::ServerError(native)) => RedisError::from(native),
        Err(native) => native,
        Ok(_) => return Ok(None),
    };
    match native.code() {
        Some("MOVED") => {
            let (address, _) = native.redirect_node().ok_or_else(error::unreadable)?;
            Ok(Some(address.to_owned()))
        }
        // It has the slot: the key is of another type, or the user may not ask.
        Some("WRONGTYPE" | "NOPERM") => Ok(None),
        _ => Err(error::native(native)),
    }
}

/// No connection, or a handshake that failed: one that a certificate ended will fail again.
fn unreachable(native: std::io::Error) -> Error {
    match error::distrust(&native) {
        Some(text) => error(ErrorKind::Unauthenticated, text).with_source(native),
        None => error(ErrorKind::Unavailable, "the server cannot be reached").with_source(native),
    }
}
