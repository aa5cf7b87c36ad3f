//! The URL of this backend.

use std::path::PathBuf;
use std::time::Duration;

use longshore_core::{DEFAULT_MAX_BODY, Error, Result};
use longshore_driver::Secret;
use longshore_driver::options::{self, Host, Kind, OptionSpec, Target};

use crate::error::BACKEND;

pub(crate) const SCHEMES: &[&str] = &["redis", "rediss", "valkey", "valkeys"];

const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The options of a `redis://` URL.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "cluster",
        Kind::Flag,
        None,
        "The hosts are nodes of a cluster; any of them leads to the others.",
    ),
    OptionSpec::new(
        "sentinel",
        Kind::Text,
        None,
        "The hosts are sentinels, and this is the name of the primary that they watch.",
    ),
    OptionSpec::new("sentinel_user", Kind::Text, None, "Whom to log in to the sentinels as."),
    OptionSpec::new("sentinel_password", Kind::Text, None, "With what.").secret(),
    OptionSpec::new(
        "ca",
        Kind::Text,
        None,
        "A PEM file of the authorities to trust, and no others.",
    ),
    OptionSpec::new("cert", Kind::Text, None, "A PEM file with this client's certificate."),
    OptionSpec::new("key", Kind::Text, None, "A PEM file with the key of `cert`."),
    OptionSpec::new(
        "plain",
        Kind::Flag,
        None,
        "Each header is a field of the entry, in place of one packed field for all.",
    ),
    OptionSpec::new(
        "wait",
        Kind::Number { min: 0, max: 16 },
        Some("0"),
        "How many replicas must have a message before it counts as confirmed.",
    ),
    OptionSpec::new(
        "allow_eviction",
        Kind::Flag,
        None,
        "Connects although the server may evict whole topics (`maxmemory-policy allkeys-…`).",
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

/// Which way leads to the server of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The first host that answers.
    Direct,
    /// The node that has the topic's slot.
    Cluster,
    /// The primary of this name.
    Sentinel(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) route: Route,
    pub(crate) login: Login,
    pub(crate) sentinel_login: Login,
    pub(crate) database: i64,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<(PathBuf, PathBuf)>,
    pub(crate) plain: bool,
    pub(crate) wait: u64,
    pub(crate) allow_eviction: bool,
    pub(crate) max_body: usize,
    pub(crate) publish_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let target = options::parse(url, SCHEMES, OPTIONS);
        target.and_then(|target| Self::read(&target)).map_err(|error| error.with_backend(BACKEND))
    }

    fn read(target: &Target) -> Result<Self> {
        let values = &target.values;
        if target.hosts.is_empty() {
            return Err(Error::config("the URL names no server"));
        }
        let sentinel = values.text("sentinel").map(str::to_owned);
        let route = match (values.flag("cluster"), sentinel) {
            (true, Some(_)) => {
                return Err(Error::config("options `cluster` and `sentinel` exclude each other"));
            }
            (true, None) => Route::Cluster,
            (false, Some(name)) => Route::Sentinel(name),
            (false, None) => Route::Direct,
        };
        let port = if matches!(route, Route::Sentinel(_)) { SENTINEL_PORT } else { DEFAULT_PORT };
        let hosts = target.hosts.iter();
        let hosts = hosts.map(|Host { name, port: own }| (name.clone(), own.unwrap_or(port)));
        let path = |name| values.text(name).map(PathBuf::from);
        let cert = match (path("cert"), path("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::config("options `cert` and `key` come together")),
        };
        let login = Login { user: target.user.clone(), password: target.password.clone() };
        if login.user.is_some() && login.password.is_none() {
            return Err(Error::config(
                "a user comes with a password; a password alone is `redis://:password@host`",
            ));
        }
        let duration = |name, default: u64| {
            let value = values.duration(name).unwrap_or(Duration::from_secs(default));
            if value.is_zero() {
                return Err(Error::config(format!("option `{name}` is zero")));
            }
            Ok(value)
        };
        let database = database(target, &route)?;
        Ok(Self {
            hosts: hosts.collect(),
            route,
            login,
            sentinel_login: Login {
                user: values.text("sentinel_user").map(str::to_owned),
                password: values.secret("sentinel_password").cloned(),
            },
            database,
            tls: target.scheme.ends_with("ss") || target.scheme == "valkeys",
            ca: path("ca"),
            cert,
            plain: values.flag("plain"),
            wait: values.number("wait").unwrap_or(0),
            allow_eviction: values.flag("allow_eviction"),
            max_body: values
                .number("max_body")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(DEFAULT_MAX_BODY),
            publish_timeout: duration("publish_timeout", 5)?,
            connect_timeout: duration("connect_timeout", 10)?,
        })
        .and_then(Self::check)
    }

    fn check(self) -> Result<Self> {
        if !self.tls && (self.ca.is_some() || self.cert.is_some()) {
            return Err(Error::config("`ca`, `cert` and `key` are for `rediss://`"));
        }
        Ok(self)
    }
}

/// The path is the number of a database; a cluster has one only.
fn database(target: &Target, route: &Route) -> Result<i64> {
    let Some(path) = &target.path else { return Ok(0) };
    let number = path.parse::<u16>().map_err(|_| {
        Error::config("the path of a Redis URL is a database's number; tenants are the client's")
    })?;
    if number > 0 && *route == Route::Cluster {
        return Err(Error::config("a cluster has database 0 only"));
    }
    Ok(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::ErrorKind;

    #[test]
    fn the_table_and_the_code_agree_on_the_defaults() {
        let config = Config::parse("redis://a,[::1]:2").unwrap();
        assert_eq!(config.hosts, [("a".to_owned(), 6379), ("::1".to_owned(), 2)]);
        assert_eq!((config.max_body, config.wait, config.database), (DEFAULT_MAX_BODY, 0, 0));
        assert_eq!(config.publish_timeout, Duration::from_secs(5));
        assert!(!config.tls && !config.plain && config.route == Route::Direct);
        assert!(Config::parse("rediss://a").unwrap().tls);
        assert!(Config::parse("valkeys://a").unwrap().tls);
        assert!(!Config::parse("valkey://a/3").unwrap().tls);
        let watched = Config::parse("redis://a?sentinel=main").unwrap();
        assert_eq!(watched.route, Route::Sentinel("main".to_owned()));
        assert_eq!(watched.hosts, [("a".to_owned(), 26379)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_a_secret_in_the_error() {
        for url in [
            "nats://a",
            "redis://",
            "redis://a/orders",
            "redis://hunter2@a",
            "redis://a?cert=x",
            "redis://a?ca=x",
            "redis://a?cluster=true&sentinel=main",
            "redis://a/1?cluster=true",
            "redis://a?publish_timeout=0s",
            "redis://a?wait=17",
            "redis://:hunter2@a?colour=red",
            "redis://a?sentinel_password=hunter2&colour=red",
        ] {
            let error = Config::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let config = Config::parse("redis://u:hunter2@a?sentinel_password=hunter2").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
