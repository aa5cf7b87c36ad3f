//! The page as Markdown.

use std::fmt::Write as _;

use super::{Listed, Results, Server};
use crate::report::Status;

const HEAD: &str = "\
# Conformance

<!-- Written by `cargo xtask docs`. What is changed here by hand is lost. -->

What every backend promises, as checks that run on all of them, and what came of the last whole run.

- [Results](#results)
- [The checks](#the-checks)
";

const RESULTS: &str = "
## Results

From the last whole run of `cargo xtask conformance`, on servers that it starts. *Negative*: the backend
declares that it lacks the ability, and refuses it. *Not applicable*: the check has no meaning there, for
the reason below. What was not run is never counted as passed.
";

const CHECKS: &str = "
## The checks

A check belongs to a tier: without the *core* a backend is not a backend; *certification* is about faults,
clusters, ordering, large data and operator tooling. Each check has at least one mutant, a broker that is
broken on purpose, which it must fail. `cargo xtask conformance --check retry.never_early` runs one check,
`--check R4` the same by its code.
";

/// The whole page.
pub(super) fn page(checks: &[Listed], results: &Results) -> String {
    let mut page = HEAD.to_owned();
    page.push_str(RESULTS);
    page.push_str(&servers(checks, results));
    page.push_str(&others(checks, results));
    page.push_str(CHECKS);
    for tier in tiers(checks) {
        page.push_str(&table(tier, checks));
    }
    page
}

/// The tiers, as the checks name them.
fn tiers(checks: &[Listed]) -> Vec<&str> {
    let mut tiers = Vec::new();
    for check in checks {
        if !tiers.contains(&&*check.tier) {
            tiers.push(&*check.tier);
        }
    }
    tiers
}

fn servers(checks: &[Listed], results: &Results) -> String {
    let tiers = tiers(checks);
    let mut header = vec!["backend".to_owned(), "server".to_owned()];
    header.extend(tiers.iter().map(|tier| format!("{tier}, passed")));
    header.extend(ODD.iter().map(|status| status.as_str().to_owned()));
    let mut text = format!("\n{}", row(&header));
    text.push_str(&row(&vec!["---".to_owned(); header.len()]));
    for server in &results.servers {
        let mut cells = vec![server.backend.clone(), server.server.clone()];
        for tier in &tiers {
            let own: Vec<_> = checks.iter().filter(|check| check.tier == *tier).collect();
            let passed = own.iter().filter(|check| server.passed.contains(&check.code)).count();
            cells.push(format!("{passed} of {}", own.len()));
        }
        cells.extend(ODD.iter().map(|status| {
            server.others.iter().filter(|other| other.status == *status).count().to_string()
        }));
        text.push_str(&row(&cells));
    }
    let (caught, all) = (results.mutants.caught, results.mutants.all);
    let _ = write!(
        text,
        "\nMutants: {caught} of {all} caught, by every check that must. Those of checks that a \
         broker inside the\nprocess cannot run are tried on a server.\n"
    );
    text
}

/// What is not simply passed.
const ODD: [Status; 4] = [Status::Negative, Status::NotApplicable, Status::NotRun, Status::Failed];

fn others(checks: &[Listed], results: &Results) -> String {
    let mut rows = String::new();
    for server in &results.servers {
        for other in &server.others {
            let id = checks.iter().find(|check| check.code == other.code);
            let id = id.map_or("a check that is gone", |check| &check.id);
            let status = other.status.as_str().to_owned();
            rows.push_str(&row(&[
                server.server.clone(),
                format!("`{id}` ({})", other.code),
                status,
                other.reason.clone(),
            ]));
        }
    }
    let mut text = String::new();
    if !rows.is_empty() {
        let _ = write!(
            text,
            "\n| server | check | status | reason |\n| --- | --- | --- | --- |\n{rows}"
        );
    }
    let new = |server: &Server, check: &Listed| {
        let seen = server.passed.contains(&check.code);
        !seen && !server.others.iter().any(|other| other.code == check.code)
    };
    for server in &results.servers {
        let new: Vec<_> =
            checks.iter().filter(|it| new(server, it)).map(|check| &*check.code).collect();
        if !new.is_empty() {
            let _ =
                write!(text, "\nNewer than the run on {}: {}.\n", server.server, new.join(", "));
        }
    }
    text
}

fn table(tier: &str, checks: &[Listed]) -> String {
    let own: Vec<_> = checks.iter().filter(|check| check.tier == tier).collect();
    let mut text = format!("\n### Tier: {tier} ({} checks)\n\n", own.len());
    text.push_str("| code | check | what it asserts | its mutants |\n| --- | --- | --- | --- |\n");
    for check in own {
        text.push_str(&row(&[
            check.code.clone(),
            format!("`{}`", check.id),
            check.asserts.clone(),
            check.mutants.join("; "),
        ]));
    }
    text
}

fn row(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::listed;
    use super::super::{Mutants, Other};
    use super::*;

    fn results() -> Results {
        let others = vec![Other {
            code: "K1".to_owned(),
            status: Status::NotApplicable,
            reason: "no server".to_owned(),
        }];
        let server = Server {
            backend: "memory".to_owned(),
            server: "memory 1".to_owned(),
            passed: vec!["A1".to_owned()],
            others,
        };
        Results { servers: vec![server], mutants: Mutants { caught: 3, all: 4 } }
    }

    #[test]
    fn the_page_counts_each_tier_from_the_table() {
        let checks = [listed("A1", "core"), listed("K1", "core"), listed("V1", "certification")];
        let page = page(&checks, &results());
        assert!(page.contains("| memory | memory 1 | 1 of 2 | 0 of 1 | 0 | 1 | 0 | 0 |"), "{page}");
        assert!(page.contains("| memory 1 | `area.k1` (K1) | not applicable | no server |"));
        assert!(page.contains("Newer than the run on memory 1: V1."), "{page}");
        assert!(page.contains("Mutants: 3 of 4 caught"));
        assert!(page.contains("### Tier: certification (1 checks)"));
        let row = "| A1 | `area.a1` | A1 \\| holds | it is lost; it comes twice |";
        assert!(page.contains(row), "{page}");
    }

    #[test]
    fn another_table_is_another_page() {
        let one = page(&[listed("A1", "core")], &results());
        let mut changed = listed("A1", "core");
        changed.asserts = "something else".to_owned();
        assert_ne!(one, page(&[changed], &results()));
    }
}
