//! The compose file of the project against the table of rows: whoever cannot have a row's server
//! natively gets the same from a container engine.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use longshore_testbed::{Testbed, rows};
use serde::Deserialize;

/// No outgoing connection gets a port below this one.
const EPHEMERAL: u16 = 32_768;

#[derive(Debug, Deserialize)]
struct File {
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    image: String,
    ports: Vec<String>,
    /// What `--wait` waits for.
    healthcheck: Healthcheck,
}

#[derive(Debug, Deserialize)]
struct Healthcheck {
    test: Vec<String>,
}

fn file() -> File {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker/compose.yml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn each_row_has_its_service_and_no_service_is_without_a_row() {
    let file = file();
    let known: BTreeSet<_> = rows().iter().map(|row| row.container().service).collect();
    assert_eq!(file.services.keys().cloned().collect::<BTreeSet<_>>(), known);
    for row in rows() {
        let container = row.container();
        let service = &file.services[&container.service];
        // Pinned to a patch of the row's version.
        let (image, tag) = service.image.split_once(':').unwrap();
        let patch = tag.strip_prefix(row.version()).and_then(|rest| rest.strip_prefix('.'));
        let patch = patch.and_then(|patch| patch.split('-').next()).unwrap_or_default();
        assert!(patch.parse::<u32>().is_ok(), "{} has {}", row.name(), service.image);
        assert_eq!(image.rsplit('/').next(), Some(row.broker()));
        assert!(!service.healthcheck.test.is_empty());
        // The first port is the one that clients are told.
        let (scheme, address) = container.url.split_once("://").unwrap();
        assert!(!scheme.is_empty());
        let first = service.ports.first().unwrap();
        assert!(first.starts_with(&format!("{address}:")), "{first} is not {address}");
    }
}

#[test]
fn ports_are_on_loopback_and_nobody_elses() {
    let mut seen = BTreeSet::new();
    for (name, service) in file().services {
        for mapping in &service.ports {
            let parts: Vec<_> = mapping.split(':').collect();
            let [address, outside, _] = parts[..] else { panic!("{name}: {mapping}") };
            assert_eq!(address, "127.0.0.1", "{name} would be reached from elsewhere");
            let port: u16 = outside.parse().unwrap();
            assert!(port < EPHEMERAL, "{name}: {port}");
            assert!(seen.insert(port), "{name}: {port} is another's");
        }
    }
}

#[tokio::test]
async fn who_cannot_fetch_a_server_is_told_of_the_file() {
    // A file stands where the folder of programs would be made.
    let taken = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compose-taken");
    std::fs::write(&taken, "").unwrap();
    let error = Testbed::at(&taken).programs("rabbitmq@3.10").await.unwrap_err();
    let wanted = "rabbitmq@3.10 cannot be fetched here; where a container engine runs, `docker \
                  compose -f docker/compose.yml up --wait rabbitmq-3.10` gives \
                  amqp://127.0.0.1:5673";
    assert_eq!(error.to_string(), wanted);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(!cause.contains("docker"), "{cause}");
}
