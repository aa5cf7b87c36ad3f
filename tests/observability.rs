//! The table of metrics against the page, the alert rules, the dashboard, and a scrape.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore::observe::{AlarmKind, METRICS, Metric, MetricKind};

const PAGE: &str = include_str!("../docs/observability.md");
const ALERTS: &str = include_str!("../docs/observability/alerts.yml");
const DASHBOARD: &str = include_str!("../docs/observability/grafana-dashboard.json");

#[test]
fn the_page_has_each_metric_and_each_alarm_as_the_code_has_it() {
    for Metric { name, kind, labels, help } in METRICS {
        let kind = format!("{kind:?}").to_lowercase();
        let row = format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "));
        assert!(PAGE.contains(&row), "docs/observability.md lacks this row:\n{row}");
    }
    for kind in AlarmKind::ALL {
        assert!(PAGE.contains(&format!("| `{kind}` | ")), "docs/observability.md lacks `{kind}`");
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| `longshore_")).count();
    assert_eq!(rows, METRICS.len(), "the page has a metric that the code has not");
}

/// Every `longshore_…` in a text, with the labels in the braces behind it.
fn used(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("longshore_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = inside.map_or_else(Vec::new, |(inside, _)| {
            let parts = inside.split(',').filter_map(|part| part.split_once('='));
            parts.map(|(label, _)| label.trim().to_owned()).collect()
        });
        found.push((name.to_owned(), labels));
    }
    found
}

fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| match metric.kind {
        // As Prometheus spells the parts of a histogram.
        MetricKind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|part| name.strip_suffix(part) == Some(metric.name)),
        MetricKind::Counter | MetricKind::Gauge => metric.name == name,
    })
}

fn check(what: &str, text: &str) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for (name, labels) in used(text) {
        let metric = find(&name).unwrap_or_else(|| panic!("{what} uses `{name}`: no such metric"));
        for label in labels {
            assert!(metric.labels.contains(&&*label), "{what}: `{name}` has no label `{label}`");
        }
        names.insert(metric.name);
    }
    names
}

#[test]
fn the_alert_rules_and_the_dashboard_use_what_there_is() {
    assert!(check("alerts.yml", ALERTS).len() >= 9);
    // JSON writes its quotes with a backslash.
    let dashboard = check("grafana-dashboard.json", &DASHBOARD.replace("\\\"", "\""));
    let all: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    let unseen: Vec<_> = all.difference(&dashboard).collect();
    assert!(unseen.is_empty(), "the dashboard does not show {unseen:?}");
    let _: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
}

/// The labels of `by (…)`, each of which the metrics of its line must have.
#[test]
fn what_is_summed_by_exists() {
    let dashboard = DASHBOARD.replace("\\\"", "\"");
    for line in ALERTS.lines().chain(dashboard.lines()) {
        for (at, _) in line.match_indices("by (") {
            let (labels, rest) = line[at + 4..].split_once(')').unwrap();
            let Some((name, _)) = used(rest).into_iter().next() else { continue };
            let metric = find(&name).unwrap();
            for label in labels.split(", ").filter(|label| *label != "le") {
                assert!(metric.labels.contains(&label), "`{name}` has no label `{label}`: {line}");
            }
        }
    }
}

#[test]
fn the_example_is_scraped() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut child = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "-p", "examples", "--example", "observability"])
        .args(["--", "memory://", &address])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.starts_with("alarm: dead_lettered")) {
        seen.push(lines.next().expect("the example ended").unwrap());
    }
    let begun = Instant::now();
    let mut page = scrape(&address);
    // What the broker is asked for comes with the first look.
    while !page.contains("\nlongshore_dead{") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{page}");
        std::thread::sleep(Duration::from_millis(100));
        page = scrape(&address);
    }
    let example = format!("/proc/{0}/task/{0}/children", child.id());
    let example = std::fs::read_to_string(example).unwrap_or_default();
    let pid = example.split_whitespace().next().map_or(child.id().to_string(), str::to_owned);
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());

    assert!(seen.iter().any(|line| line == "health: ready"), "{seen:?}");
    for name in [
        "longshore_published_total{backend=\"memory\",topic=\"observed\",outcome=\"confirmed\"}",
        "longshore_dead_lettered_total{backend=\"memory\",topic=\"observed\",group=\"billing\",\
         reason=\"permanent\"} 1",
        "longshore_handler_seconds_bucket{backend=\"memory\",topic=\"observed\",group=\"billing\"",
        "# HELP longshore_ready Messages ready in the broker.",
        "# TYPE longshore_publish_seconds histogram",
    ] {
        assert!(page.contains(name), "no `{name}` in:\n{page}");
    }
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(find(name).is_some(), "`{name}` is in no table");
    }
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}
