//! Who may depend on whom, read from the dependency graph.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Our packages and which of ours each may use; development dependencies apart.
const ALLOWED: &[(&str, &[&str])] = &[
    ("longshore-core", &[]),
    ("longshore-driver", &["longshore-core"]),
    ("longshore-runtime", &["longshore-core"]),
    ("longshore-memory", &["longshore-core", "longshore-driver"]),
    ("longshore-nats", &["longshore-core", "longshore-driver"]),
    ("longshore-rabbitmq", &["longshore-core", "longshore-driver"]),
    ("longshore-redis", &["longshore-core", "longshore-driver"]),
    ("longshore-conformance", &["longshore-core", "longshore-runtime"]),
    (
        "longshore",
        &[
            "longshore-core",
            "longshore-runtime",
            "longshore-memory",
            "longshore-nats",
            "longshore-rabbitmq",
            "longshore-redis",
        ],
    ),
    ("longshore-testbed", &[]),
    ("longshore-sim", &["longshore-core"]),
    ("examples", &[]),
    ("tests", &["longshore"]),
    ("bench", &["longshore", "longshore-core", "longshore-testbed"]),
    ("xtask", &["longshore-testbed"]),
];

/// Which only the facade, and tests, may name.
const BACKENDS: &[&str] =
    &["longshore-memory", "longshore-nats", "longshore-rabbitmq", "longshore-redis"];

/// Crates that must never be in a layer's tree, and why.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("longshore-core", "tokio", "the contract knows no runtime"),
    ("longshore-core", "tracing", "the contract logs nothing"),
    ("longshore-sim", "tokio", "the engine, compiled there, knows no runtime"),
    ("longshore-sim", "tracing", "the engine, compiled there, logs nothing"),
    ("longshore-runtime", "lapin", "only a backend knows its client"),
    ("longshore-runtime", "rdkafka", "only a backend knows its client"),
    ("longshore-runtime", "redis", "only a backend knows its client"),
    ("longshore-runtime", "async-nats", "only a backend knows its client"),
];

fn metadata() -> cargo_metadata::Metadata {
    MetadataCommand::new().other_options(["--locked".to_owned()]).exec().unwrap()
}

#[test]
fn dependencies_point_down() {
    let metadata = metadata();
    let ours: BTreeSet<_> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for package in metadata.workspace_packages() {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            panic!("{} is in no layer: add it to ALLOWED", package.name)
        };
        for dependency in &package.dependencies {
            let uses = dependency.kind != DependencyKind::Development;
            if uses && ours.contains(&dependency.name) {
                let name = dependency.name.as_str();
                assert!(allowed.contains(&name), "{} must not use {name}", package.name);
            }
        }
    }
}

#[test]
fn no_layer_knows_what_it_must_not() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let name_of = |id| metadata[id].name.to_string();
    for (layer, crate_name, why) in FORBIDDEN {
        let root = metadata.workspace_packages();
        let root = root.iter().find(|package| package.name.as_str() == *layer).unwrap();
        let mut todo = vec![&root.id];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            assert_ne!(name_of(id), *crate_name, "{layer} reaches {crate_name}: {why}");
            let node = resolve.nodes.iter().find(|node| node.id == *id).unwrap();
            todo.extend(node.deps.iter().filter_map(|dependency| {
                let normal = dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind != DependencyKind::Development);
                normal.then_some(&dependency.pkg)
            }));
        }
    }
}

#[test]
fn the_conformance_suite_and_the_core_know_no_backend() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        if name == "longshore" || name == "tests" {
            continue;
        }
        for dependency in &package.dependencies {
            let backend = BACKENDS.contains(&dependency.name.as_str());
            let test_only = dependency.kind == DependencyKind::Development;
            assert!(!backend || test_only, "only the facade names a backend, not {name}");
        }
    }
}

#[test]
fn one_tls_provider_and_no_second_one_by_accident() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for banned in ["aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{banned}\"")), "{banned} is in the tree");
    }
}

#[test]
fn files_stay_readable() {
    let mut folders =
        ["bench", "crates", "examples", "tests", "xtask"].map(|name| root().join(name)).to_vec();
    let mut long = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let lines = std::fs::read_to_string(&path).unwrap().lines().count();
                if lines > 400 {
                    long.push(format!("{}: {lines}", path.display()));
                }
            }
        }
    }
    assert!(long.is_empty(), "split these: {long:#?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
