//! The URL of this backend.

use std::time::Duration;

use longshore_core::{DEFAULT_MAX_BODY, Error, Result};
use longshore_driver::options::{self, Kind, OptionSpec};

use crate::error::BACKEND;

pub(crate) const SCHEMES: &[&str] = &["memory"];

const DEFAULT_CAPACITY: usize = 100_000;
const DEFAULT_DEDUP: Duration = Duration::from_secs(120);
const DEFAULT_PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of a `memory://` URL.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "capacity",
        Kind::Number { min: 1, max: u32::MAX as u64 },
        Some("100000"),
        "How many messages the broker keeps, dead letters included; publishers then wait.",
    ),
    OptionSpec::new("max_body", Kind::Bytes, Some("960KiB"), "The largest body that is published."),
    OptionSpec::new(
        "dedup",
        Kind::Duration,
        Some("2m"),
        "How long a topic knows an id again, at least its last `capacity` ids; `0s` is off.",
    ),
    OptionSpec::new(
        "publish_timeout",
        Kind::Duration,
        Some("5s"),
        "How long a publish waits for room.",
    ),
];

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The name of a shared broker.
    pub(crate) name: Option<String>,
    pub(crate) max_body: usize,
    pub(crate) publish_timeout: Duration,
    pub(crate) capacity: Setting<usize>,
    pub(crate) dedup: Setting<Duration>,
}

/// A setting of the broker itself, which clients of one name share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    /// Whether the URL has it: only then can it conflict with what another client made.
    given: bool,
}

impl<T: PartialEq> Setting<T> {
    pub(crate) fn conflicts_with(&self, made: &T) -> bool {
        self.given && self.value != *made
    }
}

impl Config {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        Self::read(url).map_err(|error| error.with_backend(BACKEND))
    }

    fn read(url: &str) -> Result<Self> {
        let target = options::parse(url, SCHEMES, OPTIONS)?;
        if target.user.is_some() || target.password.is_some() {
            return Err(Error::config("a broker in this process has no users"));
        }
        if target.path.is_some() || target.hosts.iter().any(|host| host.port.is_some()) {
            return Err(Error::config("a broker in this process has no port and no path"));
        }
        if target.hosts.len() > 1 {
            return Err(Error::config("a broker in this process has one name"));
        }
        let name = target.hosts.into_iter().next().map(|host| host.name);
        let values = &target.values;
        let size = |name, default: usize| {
            values.number(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
        };
        let duration = |name, default| values.duration(name).unwrap_or(default);
        Ok(Self {
            name,
            max_body: size("max_body", DEFAULT_MAX_BODY),
            publish_timeout: duration("publish_timeout", DEFAULT_PUBLISH_TIMEOUT),
            capacity: Setting {
                value: size("capacity", DEFAULT_CAPACITY),
                given: values.given("capacity"),
            },
            dedup: Setting {
                value: duration("dedup", DEFAULT_DEDUP),
                given: values.given("dedup"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::ErrorKind;

    #[test]
    fn the_table_and_the_code_agree_on_the_defaults() {
        let config = Config::parse("memory://").unwrap();
        assert_eq!(config.name, None);
        assert_eq!(config.max_body, DEFAULT_MAX_BODY);
        assert_eq!(config.publish_timeout, DEFAULT_PUBLISH_TIMEOUT);
        assert_eq!(config.capacity.value, DEFAULT_CAPACITY);
        assert_eq!(config.dedup.value, DEFAULT_DEDUP);
        assert_eq!(Config::parse("memory://shop?dedup=0s").unwrap().name.as_deref(), Some("shop"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for url in [
            "memory:",
            "redis://",
            "memory://me@x",
            "memory://me:pw@x",
            "memory://x:1",
            "memory://x/path",
            "memory:///path",
            "memory://a,b",
            "memory://?capacity=0",
            "memory://?colour=red",
        ] {
            let error = Config::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert_eq!(error.backend(), BACKEND);
        }
    }
}
