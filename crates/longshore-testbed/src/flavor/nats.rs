//! NATS with JetStream.

use async_trait::async_trait;
use serde::Deserialize;

use crate::error::Result;
use crate::flavor::{Facts, Flavor, Site, Unit};
use crate::probe;

#[derive(Debug)]
pub(crate) struct Nats;

// `no_advertise`-like settings are not needed: one node, and all of it on loopback. The limits keep
// a runaway test from filling the machine.
const TEMPLATE: &str = r#"listen: "127.0.0.1:@PORT@"
http: "127.0.0.1:@HTTP@"
server_name: "@NAME@"
jetstream { store_dir: "@DATA@", max_mem: 256M, max_file: 2G }
"#;

/// The part of the server's first line that is read.
#[derive(Debug, Deserialize)]
struct Info {
    server_name: String,
    version: String,
}

#[async_trait]
impl Flavor for Nats {
    /// Clients, and the monitoring port.
    fn ports(&self) -> usize {
        2
    }

    fn units(&self, site: &Site<'_>) -> Result<Vec<Unit>> {
        let unit = |(index, node): (usize, &crate::flavor::NodeSite)| {
            let name = format!("{}-n{}", site.name, index + 1);
            let holes = [("@NAME@", name.clone()), ("@HTTP@", node.ports[1].to_string())];
            let config = node.write("nats.conf", TEMPLATE, &holes, site.options)?;
            Ok(Unit {
                name,
                program: site.program("nats-server"),
                arguments: vec!["-c".into(), config.into()],
                environment: Vec::new(),
                folder: node.folder.clone(),
                ports: node.ports.clone(),
            })
        };
        site.nodes.iter().enumerate().map(unit).collect()
    }

    fn url(&self, site: &Site<'_>) -> String {
        format!("{}://127.0.0.1:{}", site.scheme, site.nodes[0].ports[0])
    }

    /// Healthy by its own word (JetStream has recovered its streams), and greeting clients. The
    /// greeting precedes TLS and passwords, so it tells the same of every configuration but
    /// `handshake_first`.
    async fn probe(&self, unit: &Unit) -> Result<Facts, String> {
        probe::http_ok(unit.ports[1], "/healthz").await?;
        let line = probe::first_line(unit.ports[0]).await?;
        let info = line.strip_prefix("INFO ").ok_or_else(|| format!("greeted by `{line}`"))?;
        let info: Info =
            serde_json::from_str(info).map_err(|error| format!("greeting: {error}"))?;
        if info.server_name != unit.name {
            return Err(format!("another server, `{}`, answers at its port", info.server_name));
        }
        Ok(Facts { version: info.version })
    }
}
