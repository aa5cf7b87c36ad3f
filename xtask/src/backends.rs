//! The backends that have a conformance test: one row each.

use anyhow::{Result, bail};

/// A backend, by the name that users give.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Why `cargo xtask test` leaves it out unless it is named.
    pub(crate) pending: Option<&'static str>,
}

pub(crate) const ALL: &[Backend] = &[
    Backend { name: "memory", package: "longshore-memory", pending: None },
    Backend {
        name: "nats",
        package: "longshore-nats",
        pending: Some(
            "a preview; `cargo xtask conformance --backend nats` runs it, in six minutes",
        ),
    },
];

/// Those that `cargo xtask test` runs: the named ones, or all that are finished.
pub(crate) fn for_tests(names: &[String]) -> Result<Vec<&'static Backend>> {
    let chosen = select(names)?;
    let finished = |backend: &&Backend| !names.is_empty() || backend.pending.is_none();
    Ok(chosen.into_iter().filter(finished).collect())
}

/// Those that were named; all where none was.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Backend>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    names
        .iter()
        .map(|name| match ALL.iter().find(|backend| backend.name == name) {
            Some(backend) => Ok(backend),
            None => {
                let known: Vec<_> = ALL.iter().map(|backend| backend.name).collect();
                bail!("no backend is named `{name}`; known: {}", known.join(", "))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known() {
        assert_eq!(select(&[]).unwrap().len(), ALL.len());
        let error = select(&["mqtt".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no backend is named `mqtt`; known: memory, nats");
    }
}
