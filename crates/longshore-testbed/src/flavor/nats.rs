//! NATS with JetStream.

use async_trait::async_trait;
use serde::Deserialize;

use crate::error::Result;
use crate::flavor::{Facts, Flavor, NodeSite, Order, Site, Unit};
use crate::probe;

#[derive(Debug)]
pub(crate) struct Nats;

// The limits keep a runaway test from filling the machine.
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
    fn ports(&self) -> &'static [&'static str] {
        &["nats", "http", "routes"]
    }

    fn units(&self, site: &Site<'_>) -> Result<Vec<Unit>> {
        let unit = |(index, node): (usize, &NodeSite)| {
            let name = format!("{}-n{}", site.name, index + 1);
            let holes = [("@NAME@", name.clone()), ("@HTTP@", node.ports[1].to_string())];
            let template = format!("{TEMPLATE}{}", cluster(site, node));
            let config = node.write("nats.conf", &template, &holes, site.options)?;
            Ok(Unit {
                name,
                helper: false,
                program: site.program("nats-server"),
                arguments: vec!["-c".into(), config.into()],
                environment: Vec::new(),
                folder: node.folder.clone(),
                ports: node.ports.clone(),
                tool: None,
            })
        };
        site.nodes.iter().enumerate().map(unit).collect()
    }

    fn url(&self, site: &Site<'_>) -> String {
        let nodes = site.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports[0]));
        format!("{}://{}", site.scheme, nodes.collect::<Vec<_>>().join(","))
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

    /// Healthy includes that.
    fn gathered(&self, _nodes: usize) -> Option<Order> {
        None
    }

    fn memory_alarm(&self, _on: bool) -> Option<Order> {
        None
    }
}

/// What makes one of several nodes find the others; nothing for a single one.
fn cluster(site: &Site<'_>, node: &NodeSite) -> String {
    if site.nodes.len() == 1 {
        return String::new();
    }
    let routes = site.nodes.iter().map(|node| format!("\"nats://127.0.0.1:{}\"", node.ports[2]));
    format!(
        "cluster {{ name: \"{}\", listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}\n",
        site.name,
        node.ports[2],
        routes.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tests::serve;

    async fn probe(greeting: &'static str) -> Result<Facts, String> {
        let ports = vec![serve(greeting).await, serve("HTTP/1.0 200 OK\r\n\r\n").await];
        let unit = Unit {
            name: "ours".to_owned(),
            helper: false,
            program: "unused".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: "unused".into(),
            ports,
            tool: None,
        };
        Nats.probe(&unit).await
    }

    #[tokio::test]
    async fn only_our_own_server_counts_as_ready() {
        let ours = "INFO {\"server_name\":\"ours\",\"version\":\"2.15.1\"}\r\n";
        assert_eq!(probe(ours).await.unwrap().version, "2.15.1");
        let other = "INFO {\"server_name\":\"theirs\",\"version\":\"2.15.1\"}\r\n";
        let why = probe(other).await.unwrap_err();
        assert_eq!(why, "another server, `theirs`, answers at its port");
        assert_eq!(probe("220 mail\r\n").await.unwrap_err(), "greeted by `220 mail`");
        assert!(probe("INFO {}\r\n").await.unwrap_err().starts_with("greeting: "));
    }
}
