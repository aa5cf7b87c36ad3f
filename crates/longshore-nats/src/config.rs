//! The URL of this backend.

use std::path::PathBuf;
use std::time::Duration;

use longshore_core::{DEFAULT_MAX_BODY, Error, Result};
use longshore_driver::Secret;
use longshore_driver::options::{self, Kind, OptionSpec};

use crate::error::BACKEND;

pub(crate) const SCHEMES: &[&str] = &["nats", "tls"];

const DEFAULT_PORT: u16 = 4222;

/// The options of a `nats://` URL.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("token", Kind::Text, None, "A token to log in with.").secret(),
    OptionSpec::new("nkey", Kind::Text, None, "An NKey seed to log in with.").secret(),
    OptionSpec::new("creds", Kind::Text, None, "A credentials file (JWT and seed) to log in with."),
    OptionSpec::new("tls_first", Kind::Flag, None, "TLS before the server's first word."),
    OptionSpec::new(
        "ca",
        Kind::Text,
        None,
        "A PEM file of the authorities to trust, and no others.",
    ),
    OptionSpec::new("cert", Kind::Text, None, "A PEM file with this client's certificate."),
    OptionSpec::new("key", Kind::Text, None, "A PEM file with the key of `cert`."),
    OptionSpec::new(
        "replicas",
        Kind::Number { min: 1, max: 5 },
        Some("1"),
        "Copies of each stream; 3 in a cluster.",
    ),
    OptionSpec::new("max_age", Kind::Duration, Some("7d"), "How long a topic keeps a message."),
    OptionSpec::new(
        "duplicate_window",
        Kind::Duration,
        Some("2m"),
        "How long a stream knows a message id again.",
    ),
    OptionSpec::new(
        "retention",
        Kind::Choice(&["limits", "interest"]),
        Some("limits"),
        "`interest` frees what every group has settled, and refuses messages of a topic without one.",
    ),
    OptionSpec::new("max_body", Kind::Bytes, Some("960KiB"), "The largest body that is published."),
    OptionSpec::new(
        "publish_timeout",
        Kind::Duration,
        Some("5s"),
        "How long a publish, a settlement or a question to the server may take.",
    ),
    OptionSpec::new(
        "connect_timeout",
        Kind::Duration,
        Some("10s"),
        "How long the first connect is tried again where no server answers.",
    ),
];

/// How to log in. The driver's `Secret` keeps each out of every output.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    None,
    User { user: String, password: Secret },
    Token(Secret),
    Nkey(Secret),
    Creds(PathBuf),
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) servers: Vec<String>,
    pub(crate) auth: Auth,
    pub(crate) require_tls: bool,
    pub(crate) tls_first: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<(PathBuf, PathBuf)>,
    pub(crate) replicas: usize,
    pub(crate) max_age: Duration,
    pub(crate) duplicate_window: Duration,
    pub(crate) interest: bool,
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
        if target.path.is_some() {
            return Err(Error::config("a NATS URL has no path; tenants are the client's setting"));
        }
        if target.hosts.is_empty() {
            return Err(Error::config("the URL names no server"));
        }
        let servers = target.hosts.iter().map(|host| {
            let port = host.port.unwrap_or(DEFAULT_PORT);
            match host.name.contains(':') {
                true => format!("{}://[{}]:{port}", target.scheme, host.name),
                false => format!("{}://{}:{port}", target.scheme, host.name),
            }
        });
        let servers = servers.collect();
        let values = &target.values;
        let path = |name| values.text(name).map(PathBuf::from);
        let cert = match (path("cert"), path("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::config("options `cert` and `key` come together")),
        };
        let mut logins = Vec::new();
        match (target.user.clone(), target.password.clone()) {
            (Some(user), Some(password)) => logins.push(Auth::User { user, password }),
            // NATS itself reads a lone user as a token; as a user it would be shown in logs.
            (Some(_), None) | (None, Some(_)) => {
                return Err(Error::config(
                    "a user and a password come together; a token goes into option `token`",
                ));
            }
            (None, None) => {}
        }
        logins.extend(values.secret("token").cloned().map(Auth::Token));
        logins.extend(values.secret("nkey").cloned().map(Auth::Nkey));
        logins.extend(path("creds").map(Auth::Creds));
        if logins.len() > 1 {
            return Err(Error::config("one way to log in, of user, `token`, `nkey` and `creds`"));
        }
        let duration = |name, default: u64| {
            let value = values.duration(name).unwrap_or(Duration::from_secs(default));
            if value.is_zero() {
                return Err(Error::config(format!("option `{name}` is zero")));
            }
            Ok(value)
        };
        let config = Self {
            servers,
            auth: logins.pop().unwrap_or(Auth::None),
            tls_first: values.flag("tls_first"),
            ca: path("ca"),
            require_tls: target.scheme == "tls"
                || values.flag("tls_first")
                || values.given("ca")
                || cert.is_some(),
            cert,
            replicas: values.number("replicas").and_then(|n| n.try_into().ok()).unwrap_or(1),
            max_age: duration("max_age", 7 * 86_400)?,
            duplicate_window: duration("duplicate_window", 120)?,
            interest: values.text("retention") == Some("interest"),
            max_body: values
                .number("max_body")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(DEFAULT_MAX_BODY),
            publish_timeout: duration("publish_timeout", 5)?,
            connect_timeout: duration("connect_timeout", 10)?,
        };
        if config.duplicate_window > config.max_age {
            return Err(Error::config("`duplicate_window` is longer than `max_age`"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::ErrorKind;

    #[test]
    fn the_table_and_the_code_agree_on_the_defaults() {
        let config = Config::parse("nats://a,[::1]:2").unwrap();
        assert_eq!(config.servers, ["nats://a:4222", "nats://[::1]:2"]);
        assert_eq!(config.max_body, DEFAULT_MAX_BODY);
        assert_eq!(config.max_age, Duration::from_secs(7 * 86_400));
        assert_eq!(config.duplicate_window, Duration::from_secs(120));
        assert_eq!(config.publish_timeout, Duration::from_secs(5));
        assert!(!config.interest && !config.require_tls);
        assert!(Config::parse("tls://a").unwrap().require_tls);
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_a_secret_in_the_error() {
        for url in [
            "redis://a",
            "nats://",
            "nats://a/path",
            "nats://hunter2@a",
            "nats://u:hunter2@a?token=hunter2",
            "nats://a?nkey=hunter2&token=hunter2",
            "nats://a?cert=x",
            "nats://a?max_age=0s",
            "nats://a?max_age=1m",
            "nats://a?replicas=0",
            "nats://a?retention=workqueue",
            "nats://u:hunter2@a?colour=red",
        ] {
            let error = Config::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let config = Config::parse("nats://u:hunter2@a").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
