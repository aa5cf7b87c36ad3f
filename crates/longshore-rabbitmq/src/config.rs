//! The URL of this backend.

use std::path::PathBuf;
use std::time::Duration;

use longshore_core::{DEFAULT_MAX_BODY, Error, Result};
use longshore_driver::Secret;
use longshore_driver::options::{self, Host, Kind, OptionSpec, Target};

use crate::error::BACKEND;

pub(crate) const SCHEMES: &[&str] = &["amqp", "amqps"];

const DEFAULT_PORT: u16 = 5672;
const DEFAULT_TLS_PORT: u16 = 5671;
/// Below it, a busy server or network is taken for a dead one.
const LEAST_HEARTBEAT: Duration = Duration::from_secs(5);

/// The options of an `amqp://` URL.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "ca",
        Kind::Text,
        None,
        "A PEM file of the authorities to trust, and no others.",
    ),
    OptionSpec::new("cert", Kind::Text, None, "A PEM file with this client's certificate."),
    OptionSpec::new("key", Kind::Text, None, "A PEM file with the key of `cert`."),
    OptionSpec::new(
        "auth",
        Kind::Choice(&["plain", "external"]),
        Some("plain"),
        "How to log in; `external` is by the certificate of `cert`.",
    ),
    OptionSpec::new(
        "heartbeat",
        Kind::Duration,
        Some("10s"),
        "A server that is silent for twice as long is taken for dead; at least 5s.",
    ),
    OptionSpec::new(
        "queue_type",
        Kind::Choice(&["quorum", "classic"]),
        Some("quorum"),
        "`classic` has no replicas, counts no deliveries and has no suspect lane.",
    ),
    OptionSpec::new(
        "replicas",
        Kind::Number { min: 1, max: 9 },
        None,
        "Nodes that a new quorum queue starts on; without it, what the server is set to.",
    ),
    OptionSpec::new(
        "delivery_limit",
        Kind::Number { min: 1_000, max: 2_147_483_648 },
        Some("1000000"),
        "After so many returns the broker itself dead-letters a message of a quorum queue.",
    ),
    OptionSpec::new("max_body", Kind::Bytes, Some("960KiB"), "The largest body that is published."),
    OptionSpec::new(
        "publish_timeout",
        Kind::Duration,
        Some("10s"),
        "How long a publish, a settlement or a question to the server may take.",
    ),
    OptionSpec::new(
        "connect_timeout",
        Kind::Duration,
        Some("10s"),
        "How long the first connect is tried again where no server answers.",
    ),
];

/// What the queues of groups are made as. Delay levels are quorum queues always: all groups of a
/// virtual host share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueType {
    Quorum,
    Classic,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) servers: Vec<Server>,
    pub(crate) vhost: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// By the certificate, in place of user and password.
    pub(crate) external: bool,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<(PathBuf, PathBuf)>,
    /// In seconds, as the protocol has it.
    pub(crate) heartbeat: u16,
    pub(crate) queue_type: QueueType,
    pub(crate) replicas: Option<u8>,
    pub(crate) delivery_limit: i64,
    pub(crate) max_body: usize,
    pub(crate) publish_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        Self::read(url).map_err(|error| error.with_backend(BACKEND))
    }

    fn read(url: &str) -> Result<Self> {
        let target = options::parse(url, SCHEMES, OPTIONS)?;
        if target.hosts.is_empty() {
            return Err(Error::config("the URL names no server"));
        }
        let tls = target.scheme == "amqps";
        let values = &target.values;
        let path = |name| values.text(name).map(PathBuf::from);
        let cert = match (path("cert"), path("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::config("options `cert` and `key` come together")),
        };
        if !tls && (values.given("ca") || cert.is_some()) {
            return Err(Error::config("options `ca` and `cert` need the scheme `amqps`"));
        }
        let external = values.text("auth") == Some("external");
        if external && cert.is_none() {
            return Err(Error::config("`auth=external` logs in by the certificate of `cert`"));
        }
        let (user, password) = login(&target, external)?;
        let (vhost, heartbeat) = (vhost(&target)?, heartbeat(&target)?);
        let positive = |name, default: u64| {
            let value = values.duration(name).unwrap_or(Duration::from_secs(default));
            if value.is_zero() {
                return Err(Error::config(format!("option `{name}` is zero")));
            }
            Ok(value)
        };
        let number = |name| values.number(name);
        Ok(Self {
            servers: target.hosts.iter().map(|host| server(host, tls)).collect(),
            vhost,
            user,
            password,
            external,
            tls,
            ca: path("ca"),
            cert,
            heartbeat,
            queue_type: match values.text("queue_type") {
                Some("classic") => QueueType::Classic,
                _ => QueueType::Quorum,
            },
            replicas: number("replicas").and_then(|n| n.try_into().ok()),
            delivery_limit: number("delivery_limit")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(1_000_000),
            max_body: number("max_body")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(DEFAULT_MAX_BODY),
            publish_timeout: positive("publish_timeout", 10)?,
            connect_timeout: positive("connect_timeout", 10)?,
        })
    }
}

fn server(host: &Host, tls: bool) -> Server {
    let default = if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
    Server { host: host.name.clone(), port: host.port.unwrap_or(default) }
}

/// Without a user it is `guest`, whom a server lets in from its own machine only.
fn login(target: &Target, external: bool) -> Result<(String, Secret)> {
    match (target.user.clone(), target.password.clone()) {
        (Some(_), _) | (_, Some(_)) if external => {
            Err(Error::config("one way to log in, of user and `auth=external`"))
        }
        (Some(user), Some(password)) => Ok((user, password)),
        (None, None) => Ok(("guest".to_owned(), Secret::new("guest"))),
        (Some(_), None) | (None, Some(_)) => {
            Err(Error::config("a user and a password come together"))
        }
    }
}

fn vhost(target: &Target) -> Result<String> {
    if target.path.as_ref().is_some_and(|path| path.contains('/')) {
        return Err(Error::config("a `/` in the name of a virtual host is written `%2F`"));
    }
    let vhost = target.decoded_path()?.unwrap_or_else(|| "/".to_owned());
    match vhost.len() {
        // It travels as a short text of the protocol.
        0..=255 => Ok(vhost),
        _ => Err(Error::config("the name of the virtual host exceeds 255 bytes")),
    }
}

fn heartbeat(target: &Target) -> Result<u16> {
    let asked = target.values.duration("heartbeat").unwrap_or(Duration::from_secs(10));
    let whole = u16::try_from(asked.as_secs() + u64::from(asked.subsec_nanos() > 0));
    match whole {
        Ok(seconds) if asked >= LEAST_HEARTBEAT => Ok(seconds),
        _ => Err(Error::config("option `heartbeat` is from 5s to 65535s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::ErrorKind;

    #[test]
    fn the_table_and_the_code_agree_on_the_defaults() {
        let config = Config::parse("amqp://a,[::1]:2").unwrap();
        let servers = config.servers.iter().map(|it| (it.host.as_str(), it.port));
        assert_eq!(servers.collect::<Vec<_>>(), [("a", 5672), ("::1", 2)]);
        assert_eq!((config.vhost.as_str(), config.user.as_str()), ("/", "guest"));
        assert_eq!(config.max_body, DEFAULT_MAX_BODY);
        assert_eq!(config.queue_type, QueueType::Quorum);
        assert_eq!((config.heartbeat, config.delivery_limit), (10, 1_000_000));
        assert_eq!((config.replicas, config.external, config.tls), (None, false, false));
        assert_eq!(config.publish_timeout, Duration::from_secs(10));
        assert_eq!(config.connect_timeout, Duration::from_secs(10));
        let config = Config::parse("amqps://u:p@a/a%2Fb?heartbeat=5100ms&replicas=3").unwrap();
        assert_eq!((config.servers[0].port, config.vhost.as_str()), (5671, "a/b"));
        assert_eq!((config.heartbeat, config.replicas), (6, Some(3)));
        assert_eq!(Config::parse("amqp://a/").unwrap().vhost, "/");
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_a_secret_in_the_error() {
        let long = format!("amqp://u:hunter2@a/{}", "x".repeat(256));
        for url in [
            "redis://a",
            "amqp://",
            "amqp://u@a",
            "amqp://u:hunter2@a/a/b",
            "amqp://u:hunter2@a/%ff",
            &long,
            "amqp://u:hunter2@a?cert=x",
            "amqp://u:hunter2@a?ca=x",
            "amqps://a?cert=x",
            "amqps://a?auth=external",
            "amqps://u:hunter2@a?auth=external&cert=x&key=y",
            "amqp://a?heartbeat=4s",
            "amqp://a?heartbeat=20h",
            "amqp://a?publish_timeout=0s",
            "amqp://a?delivery_limit=3",
            "amqp://a?replicas=0",
            "amqp://a?queue_type=stream",
            "amqp://u:hunter2@a?colour=red",
        ] {
            let error = Config::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let config = Config::parse("amqp://u:hunter2@a").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
