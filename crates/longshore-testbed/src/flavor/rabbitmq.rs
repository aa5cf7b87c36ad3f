//! `RabbitMQ` with quorum queues and its management interface.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use async_trait::async_trait;

use crate::error::{Error, Result, Tried};
use crate::flavor::{Facts, Flavor, NodeSite, Order, Site, Unit};
use crate::probe;

#[derive(Debug)]
pub(crate) struct RabbitMq;

/// The places of these in a node's ports.
const HTTP: usize = 1;
const DIST: usize = 2;
const TOOL: usize = 3;
const TLS: usize = 4;
const EPMD: usize = 5;

// Debian's disk limit is the same; a machine whose disk is nearly full would block every test.
const TEMPLATE: &str = "listeners.tcp.1 = 127.0.0.1:@PORT@
management.tcp.ip = 127.0.0.1
management.tcp.port = @HTTP@
cluster_name = @NAME@
log.console = true
log.file = false
disk_free_limit.absolute = 50MB
";

// A node that finds itself in the smaller part of a cluster serves nobody.
const CLUSTER: &str = "cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
";

/// What both Erlang machines of a node get, so that nothing listens beyond loopback. Two
/// schedulers are what a test machine has; one for each core of a large one costs memory.
const ERL: &str = "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}";

#[async_trait]
impl Flavor for RabbitMq {
    fn ports(&self) -> &'static [&'static str] {
        // `tls` is nobody's until a test's configuration names it as `@TLS@`.
        &["amqp", "http", "dist", "rabbitmqctl", "tls", "epmd"]
    }

    fn units(&self, site: &Site<'_>) -> Result<Vec<Unit>> {
        let Some(home) = site.nodes.first().and_then(|node| node.folder.parent()) else {
            return Ok(Vec::new());
        };
        let rabbit = site.program("rabbitmq-server");
        for path in [home, &rabbit] {
            if path.to_string_lossy().contains(char::is_whitespace) {
                return Err(Error::Folder {
                    broker: site.name.to_owned(),
                    folder: path.display().to_string(),
                    why: "its own scripts split a path at a blank",
                });
            }
        }
        cookie(home)?;
        let mapper = mapper(site, home)?;
        let node = |(index, node): (usize, &NodeSite)| {
            let config = write(site, node)?;
            let mut environment = environment(site, home, node, index);
            environment.push(("RABBITMQ_CONFIG_FILE", config.display().to_string()));
            Ok(Unit {
                name: format!("{}-n{}", site.name, index + 1),
                helper: false,
                program: rabbit.clone(),
                arguments: Vec::new(),
                environment: environment.into_iter().map(|(key, it)| (key, it.into())).collect(),
                folder: node.folder.clone(),
                ports: node.ports.clone(),
                tool: Some((site.tool("rabbitmqctl"), vec!["-q".into()])),
            })
        };
        let nodes = site.nodes.iter().enumerate().map(node);
        std::iter::once(Ok(mapper)).chain(nodes).collect()
    }

    fn url(&self, site: &Site<'_>) -> String {
        let nodes = site.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports[0]));
        format!("{}://{}", site.scheme, nodes.collect::<Vec<_>>().join(","))
    }

    /// A node opens its port for clients last, and its greeting says which cluster it is of. The
    /// greeting precedes logins.
    async fn probe(&self, unit: &Unit) -> Result<Facts, String> {
        if unit.helper {
            probe::epmd(unit.ports[0]).await?;
            return Ok(Facts { version: String::new() });
        }
        let greeting = probe::amqp(unit.ports[0]).await?;
        let said = |key: &str| greeting.get(key).map_or("", |value| value);
        let ours = unit.name.rsplit_once('-').map_or("", |(broker, _)| broker);
        if said("cluster_name") != ours {
            let other = said("cluster_name");
            return Err(format!("another server, of `{other}`, answers at its port"));
        }
        Ok(Facts { version: said("version").to_owned() })
    }

    /// The tool itself waits.
    fn gathered(&self, nodes: usize) -> Option<Order> {
        let arguments = vec!["await_online_nodes".to_owned(), nodes.to_string()];
        Some(Order { arguments, done: |_| true })
    }

    /// The limit becomes one byte, or again what the configuration says.
    fn memory_alarm(&self, on: bool) -> Option<Order> {
        // 0.4 is what 3.10 has by default; 4.0 has it in its environment.
        let limit = match on {
            true => "{absolute, 1}",
            false => "application:get_env(rabbit, vm_memory_high_watermark, 0.4)",
        };
        // Of this node alone: another's alarm is that one's to clear.
        let code = format!(
            "vm_memory_monitor:set_vm_memory_high_watermark({limit}), \
             [memory || {{{{resource_limit, memory, N}}, _}} <- rabbit_alarm:get_alarms(), \
             N =:= node()]."
        );
        let done = if on { |said: &str| said == "[memory]" } else { |said: &str| said == "[]" };
        Some(Order { arguments: vec!["eval".to_owned(), code], done })
    }
}

/// What nodes and tools show each other. Made before the nodes start: each would make its own.
fn cookie(home: &Path) -> Result<()> {
    let file = home.join(".erlang.cookie");
    let mut options = OpenOptions::new();
    // Erlang refuses one that others may read.
    let made = match options.write(true).create_new(true).mode(0o400).open(&file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made,
    };
    let mut made = made.at("making", &file)?;
    let mut secret = [0; 16];
    let random = Path::new("/dev/urandom");
    let source = std::fs::File::open(random);
    source.and_then(|mut source| source.read_exact(&mut secret)).at("reading", random)?;
    write!(made, "{:032x}", u128::from_be_bytes(secret)).at("writing", &file)
}

/// Erlang's port mapper. Left alone, the first node would start one that outlives it.
fn mapper(site: &Site<'_>, home: &Path) -> Result<Unit> {
    let folder = home.join("epmd");
    std::fs::create_dir_all(&folder).at("making", &folder)?;
    let port = site.nodes[0].ports[EPMD];
    Ok(Unit {
        name: format!("{}-epmd", site.name),
        helper: true,
        program: site.tool("epmd"),
        arguments: vec!["-port".into(), port.to_string().into()],
        environment: vec![("ERL_EPMD_ADDRESS", "127.0.0.1".into())],
        folder,
        ports: vec![port],
        tool: None,
    })
}

/// The node's files; its configuration.
fn write(site: &Site<'_>, node: &NodeSite) -> Result<std::path::PathBuf> {
    let mut template = TEMPLATE.to_owned();
    if site.nodes.len() > 1 {
        template.push_str(CLUSTER);
        for index in 0..site.nodes.len() {
            let (number, name) = (index + 1, name(index));
            let line = format!("cluster_formation.classic_config.nodes.{number} = {name}\n");
            template.push_str(&line);
        }
    }
    let holes = [
        ("@NAME@", site.name.to_owned()),
        ("@HTTP@", node.ports[HTTP].to_string()),
        ("@TLS@", node.ports[TLS].to_string()),
    ];
    let plugins = node.folder.join("enabled_plugins");
    std::fs::create_dir_all(&node.folder).at("making", &node.folder)?;
    std::fs::write(&plugins, "[rabbitmq_management].\n").at("writing", &plugins)?;
    node.write("rabbitmq.conf", &template, &holes, site.options)
}

/// Unique within the broker only, whose port mapper no other broker asks.
fn name(index: usize) -> String {
    format!("n{}@localhost", index + 1)
}

/// What the scripts read in place of the machine's configuration.
fn environment(
    site: &Site<'_>,
    home: &Path,
    node: &NodeSite,
    index: usize,
) -> Vec<(&'static str, String)> {
    let at = |name: &str| node.folder.join(name).display().to_string();
    let port = |place: usize| node.ports[place].to_string();
    vec![
        ("HOME", home.display().to_string()),
        ("LANG", "C.UTF-8".to_owned()),
        ("RABBITMQ_NODENAME", name(index)),
        // Files that do not exist: those of a RabbitMQ of the machine's own must not be read.
        ("RABBITMQ_CONF_ENV_FILE", at("no-env.conf")),
        // One that a test writes is read.
        ("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", node.data().display().to_string()),
        ("RABBITMQ_LOG_BASE", node.folder.display().to_string()),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("ERL_CRASH_DUMP", at("erl_crash.dump")),
        ("ERL_EPMD_PORT", site.nodes[0].ports[EPMD].to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        // A developer's own flags for Erlang.
        ("ERL_AFLAGS", String::new()),
        ("ERL_FLAGS", String::new()),
        ("ERL_ZFLAGS", String::new()),
        ("RABBITMQ_DIST_PORT", port(DIST)),
        ("RABBITMQ_CTL_DIST_PORT_MIN", port(TOOL)),
        ("RABBITMQ_CTL_DIST_PORT_MAX", port(TOOL)),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERL.to_owned()),
        ("RABBITMQ_CTL_ERL_ARGS", ERL.to_owned()),
        // The script then becomes the server, and does not wait for one: signals reach it.
        ("RUNNING_UNDER_SYSTEMD", "1".to_owned()),
    ]
}
