//! Redis and Valkey: one server, a primary with replicas under sentinels, or a cluster.

use std::fmt::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::{Result, Tried};
use crate::flavor::{Facts, Flavor, NodeSite, Order, Site, Unit};
use crate::probe::{self, Said};

/// One of the two: they differ in what their programs are called.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) server: &'static str,
    pub(crate) tool: &'static str,
}

/// The places of these in a node's ports.
const TLS: usize = 1;
const BUS: usize = 2;
const SENTINEL: usize = 3;

/// Whom the testbed logs in as: a test may take every right from the default user.
const USER: &str = "testbed";
/// What the sentinels call the primary.
const SERVICE: &str = "longshore";
/// How many slots the keys of a cluster are spread over.
const SLOTS: usize = 16_384;

const TEMPLATE: &str = r#"bind 127.0.0.1
port @PORT@
dir "@DATA@"
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
enable-debug-command local
user testbed on >@NAME@ ~* &* +@all
"#;

// The first copy of a replica would else wait for five seconds, in case more come.
const REPLICAS: &str = "repl-diskless-sync-delay 0
masteruser testbed
masterauth @NAME@
";

// With a node away, the others go on with the slots that are theirs.
const CLUSTER: &str = "cluster-enabled yes
cluster-port @BUS@
cluster-node-timeout 3000
cluster-require-full-coverage no
cluster-config-file nodes.conf
";

const WATCH: &str = r#"bind 127.0.0.1
port @SENTINEL@
dir "@FOLDER@"
sentinel monitor longshore 127.0.0.1 @PRIMARY@ @QUORUM@
sentinel auth-user longshore testbed
sentinel auth-pass longshore @NAME@
sentinel down-after-milliseconds longshore 2000
sentinel failover-timeout longshore 10000
"#;

#[async_trait]
impl Flavor for Redis {
    fn ports(&self) -> &'static [&'static str] {
        // `tls` is nobody's until a test's configuration names it as `@TLS@`; `bus` only in a
        // cluster, `sentinel` only under sentinels.
        &["redis", "tls", "bus", "sentinel"]
    }

    fn units(&self, site: &Site<'_>) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for (index, node) in site.nodes.iter().enumerate() {
            let mut template = TEMPLATE.to_owned();
            if site.options.sentinels {
                template.push_str(REPLICAS);
                if index > 0 {
                    let _ = writeln!(template, "replicaof 127.0.0.1 {}", site.nodes[0].ports[0]);
                }
            } else if site.nodes.len() > 1 {
                template.push_str(CLUSTER);
            }
            let config = node.write("redis.conf", &template, &holes(site, node), site.options)?;
            units.push(self.unit(site, node, index, config));
        }
        if site.options.sentinels {
            for (index, node) in site.nodes.iter().enumerate() {
                units.push(self.sentinel(site, node, index)?);
            }
        } else if site.nodes.len() > 1 {
            write_cluster(site)?;
        }
        Ok(units)
    }

    fn url(&self, site: &Site<'_>) -> String {
        let (port, query) = match (site.options.sentinels, site.nodes.len()) {
            (true, _) => (SENTINEL, format!("?sentinel={SERVICE}")),
            (false, 1) => (0, String::new()),
            (false, _) => (0, "?cluster=true".to_owned()),
        };
        let nodes = site.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports[port]));
        format!("{}://{}{query}", site.scheme, nodes.collect::<Vec<_>>().join(","))
    }

    /// It takes our own password, has read its data, and is one with the others: a replica is known
    /// to its primary as online, a node of a cluster finds all slots served, a sentinel sees the
    /// primary, the replicas and the other sentinels.
    async fn probe(&self, unit: &Unit) -> Result<Facts, String> {
        let ours = unit.name.rsplit_once('-').map_or("", |(broker, _)| broker);
        if unit.helper {
            return watching(unit.ports[0]).await;
        }
        let info = ask(unit.ports[0], ours, "INFO").await?;
        // Valkey calls it by another name.
        match value(&info, "redis_mode").or_else(|| value(&info, "server_mode")) {
            Some("cluster") => {
                let state = ask(unit.ports[0], ours, "CLUSTER INFO").await?;
                if value(&state, "cluster_state") != Some("ok") {
                    return Err(format!("its cluster: {}", state.trim()));
                }
            }
            _ if value(&info, "role") == Some("slave") => replicates(unit, ours, &info).await?,
            _ => {}
        }
        Ok(Facts { version: version(&info) })
    }

    /// A probe tells it already.
    fn gathered(&self, _nodes: usize) -> Option<Order> {
        None
    }

    /// One byte, or no limit: writes are refused, as `noeviction` says, and the rest goes on.
    fn memory_alarm(&self, on: bool) -> Option<Order> {
        let limit = if on { "1" } else { "0" };
        let arguments = ["config", "set", "maxmemory", limit].map(str::to_owned).to_vec();
        Some(Order { arguments, done: |said| said == "OK" })
    }
}

impl Redis {
    fn unit(&self, site: &Site<'_>, node: &NodeSite, index: usize, config: PathBuf) -> Unit {
        let port = node.ports[0].to_string();
        // `-e`: an error that the server answers is an error of the tool.
        let login = ["-e", "-p", &port, "--user", USER, "--pass", site.name, "--no-auth-warning"];
        Unit {
            name: format!("{}-n{}", site.name, index + 1),
            helper: false,
            program: site.program(self.server),
            arguments: vec![config.into()],
            environment: Vec::new(),
            folder: node.folder.clone(),
            ports: node.ports.clone(),
            tool: Some((site.tool(self.tool), login.map(Into::into).to_vec())),
        }
    }

    /// The servers must be there first: a sentinel that starts before the replicas are online
    /// learns of them ten seconds later.
    fn sentinel(&self, site: &Site<'_>, node: &NodeSite, index: usize) -> Result<Unit> {
        let folder = node.folder.with_file_name(format!("s{}", index + 1));
        std::fs::create_dir_all(&folder).at("making", &folder)?;
        let quorum = site.nodes.len() / 2 + 1;
        let text = WATCH
            .replace("@SENTINEL@", &node.ports[SENTINEL].to_string())
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@PRIMARY@", &site.nodes[0].ports[0].to_string())
            .replace("@QUORUM@", &quorum.to_string())
            .replace("@NAME@", site.name);
        // It rewrites this file.
        let config = folder.join("sentinel.conf");
        std::fs::write(&config, text).at("writing", &config)?;
        Ok(Unit {
            name: format!("{}-s{}", site.name, index + 1),
            helper: true,
            program: site.program(self.server),
            arguments: vec![config.into(), "--sentinel".into()],
            environment: Vec::new(),
            folder,
            ports: vec![node.ports[SENTINEL]],
            tool: None,
        })
    }
}

fn holes(site: &Site<'_>, node: &NodeSite) -> [(&'static str, String); 3] {
    [
        ("@NAME@", site.name.to_owned()),
        ("@TLS@", node.ports[TLS].to_string()),
        ("@BUS@", node.ports[BUS].to_string()),
    ]
}

/// What each node would have written of a cluster that had been made: so none has to be.
fn write_cluster(site: &Site<'_>) -> Result<()> {
    let count = site.nodes.len();
    // Never those of another cluster on this machine: its nodes would join.
    let ids: Vec<_> = (0..count).map(|_| id()).collect();
    for (me, node) in site.nodes.iter().enumerate() {
        let mut text = String::new();
        for (index, (id, other)) in ids.iter().zip(&site.nodes).enumerate() {
            let myself = if index == me { "myself," } else { "" };
            let (first, next) = (SLOTS * index / count, SLOTS * (index + 1) / count);
            let _ = writeln!(
                text,
                "{id} 127.0.0.1:{}@{} {myself}master - 0 0 {} connected {first}-{}",
                other.ports[0],
                other.ports[BUS],
                index + 1,
                next - 1
            );
        }
        let _ = writeln!(text, "vars currentEpoch {count} lastVoteEpoch 0");
        let file = node.data().join("nodes.conf");
        std::fs::write(&file, text).at("writing", &file)?;
    }
    Ok(())
}

/// Forty hexadecimal digits.
fn id() -> String {
    format!("{:032x}{:08x}", fastrand::u128(..), fastrand::u32(..))
}

/// What the server at `port`, if it is ours, says to `question`.
async fn ask(port: u16, ours: &str, question: &str) -> Result<String, String> {
    let lines = [format!("AUTH {USER} {ours}"), "PING".to_owned(), question.to_owned()];
    let mut said = probe::resp(port, &lines).await?.into_iter();
    match said.next() {
        Some(Said::Text(_)) => {}
        other => return Err(format!("another server answers at its port: {other:?}")),
    }
    // It says here that it still reads its data.
    match said.next() {
        Some(Said::Text(pong)) if pong == "PONG" => {}
        other => return Err(format!("not ready: {other:?}")),
    }
    match said.next() {
        Some(Said::Text(answer)) => Ok(answer),
        other => Err(format!("{question}: {other:?}")),
    }
}

/// Whether the replica's primary counts it as online.
async fn replicates(unit: &Unit, ours: &str, info: &str) -> Result<(), String> {
    let primary = value(info, "master_port").and_then(|port| port.parse().ok());
    let primary = ask(primary.ok_or("a replica of nobody")?, ours, "INFO replication").await?;
    let line = format!("port={},state=online,", unit.ports[0]);
    let online = primary.contains(&line);
    online.then_some(()).ok_or_else(|| format!("its primary does not have it: {}", primary.trim()))
}

/// As many sentinels as servers, and all servers but the primary as its replicas.
async fn watching(port: u16) -> Result<Facts, String> {
    let lines = ["INFO".to_owned()];
    let Some(Said::Text(info)) = probe::resp(port, &lines).await?.into_iter().next() else {
        return Err("no sentinel answers at its port".to_owned());
    };
    let seen = value(&info, "master0").unwrap_or_default();
    let field = |name: &str| seen.split(',').find_map(|part| part.strip_prefix(name));
    let number = |name: &str| field(name).and_then(|text| text.parse::<u32>().ok());
    let (replicas, sentinels) = (number("slaves="), number("sentinels="));
    let all = replicas.filter(|count| *count > 0).map(|count| count + 1);
    let named = field("name=") == Some(SERVICE) && field("status=") == Some("ok");
    if named && all.is_some() && all == sentinels {
        return Ok(Facts { version: version(&info) });
    }
    Err(format!("it sees `{seen}`"))
}

/// Valkey also says which Redis it is like.
fn version(info: &str) -> String {
    let own = value(info, "valkey_version").or_else(|| value(info, "redis_version"));
    own.unwrap_or_default().to_owned()
}

fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tests::serve;

    const REDIS: Redis = Redis { server: "redis-server", tool: "redis-cli" };

    async fn probe(helper: bool, answer: &'static str) -> Result<Facts, String> {
        let unit = Unit {
            name: "ours-n1".to_owned(),
            helper,
            program: "unused".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: "unused".into(),
            ports: vec![serve(answer).await],
            tool: None,
        };
        REDIS.probe(&unit).await
    }

    #[tokio::test]
    async fn only_our_own_server_that_has_read_its_data_counts_as_ready() {
        let info = "+OK\r\n+PONG\r\n$33\r\nredis_version:7.2.4\r\nrole:master\r\n\r\n";
        assert_eq!(probe(false, info).await.unwrap().version, "7.2.4");
        let other = probe(false, "-WRONGPASS invalid\r\n+PONG\r\n+x\r\n").await.unwrap_err();
        assert!(other.starts_with("another server answers at its port"), "{other}");
        let loading = probe(false, "+OK\r\n-LOADING the data\r\n-LOADING\r\n").await.unwrap_err();
        assert!(loading.starts_with("not ready"), "{loading}");
        assert!(probe(false, "").await.is_err());
    }

    #[tokio::test]
    async fn a_sentinel_is_ready_when_it_knows_all() {
        let seen = "$76\r\nmaster0:name=longshore,status=ok,address=127.0.0.1:1,slaves=2,sentinels=3\r\n\r\n\r\n";
        assert!(probe(true, seen).await.is_ok());
        let early = "$76\r\nmaster0:name=longshore,status=ok,address=127.0.0.1:1,slaves=0,sentinels=1\r\n\r\n\r\n";
        assert!(probe(true, early).await.is_err());
    }

    #[test]
    fn valkey_is_not_taken_for_the_redis_that_it_is_like() {
        let info = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n";
        assert_eq!(version(info), "8.1.1");
    }
}
