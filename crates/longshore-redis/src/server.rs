//! What the server says of itself.

use std::collections::HashMap;

use longshore_core::{Error, ErrorKind, Finding, Result, Severity};
use redis::Value;

use crate::error::{self, BACKEND, error};
use crate::line::Line;
use crate::reply;
use crate::shared::{Purpose, Shared};

/// Reclaiming without a message's body, and INFO fields that are looked at.
const OLDEST: (u64, u64) = (7, 0);

/// The facts that matter here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// The version of Redis that it is like: Valkey has another of its own.
    like: String,
    pub(crate) eviction: String,
    pub(crate) appends: bool,
    pub(crate) cluster: bool,
    pub(crate) replicas: u64,
}

impl Server {
    /// # Errors
    /// What the question met; `Forbidden` where the user may not ask it.
    pub(crate) async fn ask(line: &Line) -> Result<Self> {
        let answer = line.query(redis::cmd("INFO")).await?;
        Self::read(&answer).ok_or_else(error::unreadable)
    }

    fn read(answer: &Value) -> Option<Self> {
        let info: HashMap<&str, &str> = reply::info(answer);
        let text = |name: &str| info.get(name).map_or("", |value| value).to_owned();
        let like = info.get("redis_version")?.to_string();
        let valkey = info.get("valkey_version").map(ToString::to_string);
        Some(Self {
            name: if valkey.is_some() { "valkey" } else { "redis" },
            version: valkey.unwrap_or_else(|| like.clone()),
            like,
            eviction: text("maxmemory_policy"),
            appends: text("aof_enabled") == "1",
            cluster: text("cluster_enabled") == "1",
            replicas: text("connected_slaves").parse().unwrap_or(0),
        })
    }

    /// # Errors
    /// `Unsupported` where it is older than 7.0; `Config` where it may evict a topic, and that is
    /// not allowed; `Config` where it is a node of a cluster, and the URL does not say so.
    pub(crate) fn check(&self, allow_eviction: bool, cluster: bool) -> Result<()> {
        let mut parts = self.like.split(['.', '-']).map(|part| part.parse::<u64>().ok());
        let found = (parts.next().flatten(), parts.next().flatten());
        if !matches!(found, (Some(major), Some(minor)) if (major, minor) >= OLDEST) {
            let text = "the server is older than 7.0";
            let why = error(ErrorKind::Unsupported, text);
            return Err(why.with_context("version", &self.version));
        }
        if self.cluster && !cluster {
            return Err(Error::config("the server is a node of a cluster: say `cluster=true`")
                .with_backend(BACKEND));
        }
        if self.evicts() && !allow_eviction {
            let text = "the server may evict a whole topic when its memory is full: set \
                        `maxmemory-policy noeviction`, or say `allow_eviction=true`";
            return Err(Error::config(text)
                .with_backend(BACKEND)
                .with_context("maxmemory-policy", &self.eviction));
        }
        Ok(())
    }

    /// Only keys that expire are evicted by the `volatile` policies, and ours do not.
    fn evicts(&self) -> bool {
        self.eviction.starts_with("allkeys")
    }
}

/// Whether the server, when it reads its append-only file, will take all that scripts wrote.
async fn replays(line: &Line) -> Result<bool> {
    let mut ask = redis::cmd("ACL");
    ask.arg("GETUSER").arg("default");
    let answer = reply::list(line.query(ask).await?)?;
    let of = |name: &str| {
        let mut pairs = answer.chunks_exact(2);
        pairs
            .find(|pair| reply::text(&pair[0]) == Some(name))
            .and_then(|pair| reply::text(&pair[1]))
    };
    let commands = of("commands").ok_or_else(error::unreadable)?;
    let keys = of("keys").ok_or_else(error::unreadable)?;
    Ok(commands.trim() == "+@all" && keys.split_whitespace().any(|key| key == "~*"))
}

pub(crate) async fn audit(shared: &Shared) -> Result<Vec<Finding>> {
    let server = Server::ask(&shared.line(Purpose::Control, None)).await?;
    let mut findings = Vec::new();
    let mut add = |severity, setting: &str, message: &str| {
        let (setting, message) = (setting.to_owned(), message.to_owned());
        findings.push(Finding { severity, setting, message });
    };
    if server.evicts() {
        add(
            Severity::Danger,
            "maxmemory-policy",
            "when its memory is full, the server evicts whole topics, read or not; set \
             `noeviction`, so that publishers wait instead",
        );
    }
    match replays(&shared.line(Purpose::Control, None)).await {
        Ok(true) => {}
        Ok(false) => add(
            Severity::Danger,
            "user default",
            "the default user has not all rights, and the server replays its append-only file as \
             that user: a restart drops what scripts wrote, retries and groups among it. Give it \
             all rights and switch it off: `user default off ~* &* +@all`",
        ),
        Err(error) => {
            tracing::debug!(%error, "the rights of the default user are not known");
            add(
                Severity::Info,
                "user default",
                "this user may not ask for the rights of the default user (`+acl|getuser`). They \
                 must be all, with the user switched off or not: a server replays its append-only \
                 file as that user, and a restart drops what it may not write",
            );
        }
    }
    match server.appends {
        false => add(
            Severity::Danger,
            "appendonly",
            "without the append-only file a restart of the server loses what came since its last \
             snapshot, or everything; set `appendonly yes`",
        ),
        true => add(
            Severity::Info,
            "appendfsync",
            "unless it is `always`, a power loss costs what was confirmed in the last second; a \
             client without the right to CONFIG cannot read the setting",
        ),
    }
    match server.replicas {
        0 => add(
            Severity::Info,
            "replicas",
            "the server has no replica: what it holds is lost with its machine",
        ),
        _ if shared.config.wait == 0 => add(
            Severity::Warning,
            "wait",
            "a failover loses what replicas did not have yet, confirmed or not; `wait=1` in the \
             URL and `min-replicas-to-write 1` make that rarer, and nothing rules it out",
        ),
        _ => {}
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(info: &str) -> Server {
        Server::read(&Value::BulkString(info.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn valkey_is_not_decided_by_the_version_that_it_is_like() {
        let valkey =
            server("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n");
        assert_eq!((valkey.name, &*valkey.version), ("valkey", "8.1.1"));
        assert!(valkey.check(false, false).is_ok());
        assert_eq!(server("redis_version:8.0.2\r\n").name, "redis");
    }

    #[test]
    fn servers_that_cannot_or_may_lose_are_refused() {
        for (info, kind) in [
            ("redis_version:6.2.14\r\n", ErrorKind::Unsupported),
            ("redis_version:latest\r\n", ErrorKind::Unsupported),
            ("redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\n", ErrorKind::Config),
            ("redis_version:7.0.15\r\ncluster_enabled:1\r\n", ErrorKind::Config),
        ] {
            assert_eq!(server(info).check(false, false).unwrap_err().kind(), kind, "{info}");
        }
        let evicts = server("redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert!(evicts.check(true, false).is_ok());
        let volatile = server("redis_version:7.0.15\r\nmaxmemory_policy:volatile-lru\r\n");
        assert!(volatile.check(false, false).is_ok());
    }
}
