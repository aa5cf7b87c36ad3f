//! The backends that have a conformance test: one row each.

use anyhow::{Result, bail};

/// A backend, by the name that users give.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Of the URLs that lead to it.
    pub(crate) schemes: &'static [&'static str],
    /// The rows of the testbed that its server tests (`--test it`) run on, one after another, each
    /// named to them by `LONGSHORE_<NAME>`. None: it has no server.
    pub(crate) rows: &'static [&'static str],
    /// Rows that the suite runs on, and the server tests only when somebody asks: they take too long
    /// for every run.
    pub(crate) by_hand: &'static [&'static str],
}

impl Backend {
    /// Whether it is what a row of the testbed is for.
    pub(crate) fn has(&self, row: &str) -> bool {
        self.rows.iter().chain(self.by_hand).any(|own| *own == row)
    }
}

pub(crate) const ALL: &[Backend] = &[
    Backend {
        name: "memory",
        package: "longshore-memory",
        schemes: &["memory"],
        rows: &[],
        by_hand: &[],
    },
    Backend {
        name: "nats",
        package: "longshore-nats",
        schemes: &["nats", "tls"],
        rows: &["nats@2.15", "nats@2.10"],
        by_hand: &[],
    },
    Backend {
        name: "rabbitmq",
        package: "longshore-rabbitmq",
        schemes: &["amqp", "amqps"],
        rows: &["rabbitmq@4.0"],
        by_hand: &["rabbitmq@3.10"],
    },
    Backend {
        name: "redis",
        package: "longshore-redis",
        schemes: &["redis", "rediss", "valkey", "valkeys"],
        rows: &["redis@8.0", "redis@7.0", "valkey@8.1"],
        by_hand: &[],
    },
];

/// What the suite runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) backend: &'static Backend,
    /// The broker to take; where absent, those that the backend starts.
    pub(crate) url: Option<String>,
}

/// Those that were named; all where none was. A `url` goes to the one whose scheme it has, and
/// means that one alone where none was named.
pub(crate) fn select(names: &[String], url: Option<&str>) -> Result<Vec<Chosen>> {
    let named = names.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
    let given = url.map(owner).transpose()?;
    let backends = match (named.is_empty(), given) {
        (true, None) => ALL.iter().collect(),
        (true, Some(owner)) => vec![owner],
        (false, Some(owner)) if !named.contains(&owner) => bail!(
            "the URL is one of {}, which is not among the backends that were named: {}",
            owner.name,
            names.join(", ")
        ),
        (false, _) => named,
    };
    let chosen = |backend: &'static Backend| {
        let url = url.filter(|_| given == Some(backend)).map(str::to_owned);
        Chosen { backend, url }
    };
    Ok(backends.into_iter().map(chosen).collect())
}

fn find(name: &str) -> Result<&'static Backend> {
    let Some(backend) = ALL.iter().find(|backend| backend.name == name) else {
        let known: Vec<_> = ALL.iter().map(|backend| backend.name).collect();
        bail!("no backend is named `{name}`; known: {}", known.join(", "))
    };
    Ok(backend)
}

/// The backend of a URL. An error shows the scheme only: a URL may hold a password.
fn owner(url: &str) -> Result<&'static Backend> {
    let Some((scheme, _)) = url.split_once("://") else {
        bail!("a broker's URL begins with a scheme, as in `nats://host:4222`")
    };
    let Some(backend) = ALL.iter().find(|backend| backend.schemes.contains(&scheme)) else {
        let known: Vec<_> = ALL.iter().flat_map(|backend| backend.schemes).copied().collect();
        bail!("no backend takes `{scheme}://`; known schemes: {}", known.join(", "))
    };
    Ok(backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[Chosen]) -> Vec<&str> {
        chosen.iter().map(|it| it.backend.name).collect()
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        assert_eq!(select(&[], None).unwrap().len(), ALL.len());
        let error = select(&["mqtt".to_owned()], None).unwrap_err().to_string();
        assert_eq!(error, "no backend is named `mqtt`; known: memory, nats, rabbitmq, redis");
    }

    #[test]
    fn a_url_picks_its_backend_and_goes_to_no_other() {
        let alone = select(&[], Some("tls://host")).unwrap();
        assert_eq!(names(&alone), ["nats"]);
        assert_eq!(alone[0].url.as_deref(), Some("tls://host"));
        let both = ["memory".to_owned(), "nats".to_owned()];
        let both = select(&both, Some("nats://host")).unwrap();
        assert_eq!(names(&both), ["memory", "nats"]);
        assert_eq!((&both[0].url, both[1].url.as_deref()), (&None, Some("nats://host")));
    }

    #[test]
    fn a_url_that_is_nobodys_is_refused_without_its_password() {
        let wrong = |names: &[String], url| select(names, Some(url)).unwrap_err().to_string();
        let unknown = wrong(&[], "mqtt://user:secret@host");
        let known = "memory, nats, tls, amqp, amqps, redis, rediss, valkey, valkeys";
        assert_eq!(unknown, format!("no backend takes `mqtt://`; known schemes: {known}"));
        let other = wrong(&["memory".to_owned()], "nats://user:secret@host");
        assert!(other.contains("of nats") && !other.contains("secret"), "{other}");
        assert!(wrong(&[], "user:secret@host").contains("begins with a scheme"));
    }
}
