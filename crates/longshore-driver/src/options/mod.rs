//! Connection URLs: `scheme://user:password@host:port,host:port/path?option=value`.
//!
//! A backend declares its options once, in a static table. The table parses the URL, writes the
//! error messages, and renders itself for the documentation.

mod target;
mod value;

use std::fmt::Write as _;

use longshore_core::{Error, Result};

pub use target::{Host, Target};
pub use value::Values;

/// What an option's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A size: `65536`, `64KiB`, `1MiB`, `1GiB`; `kB`, `MB` and `GB` are powers of ten.
    Bytes,
    /// A whole number between two others, both allowed.
    Number {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A duration: `250ms`, `5s`, `14d`, `1h 30m`.
    Duration,
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// One row of a backend's table of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name, as in the URL.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The value where none is given, spelled as in a URL; `None`: it is then absent.
    pub default: Option<&'static str>,
    /// Whether the value is never shown.
    pub secret: bool,
    /// What it does, in one line.
    pub doc: &'static str,
}

impl OptionSpec {
    /// A row of the table.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: Option<&'static str>,
        doc: &'static str,
    ) -> Self {
        Self { name, kind, default, secret: false, doc }
    }

    /// Marks the value as one that is never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// Reads `url` by a backend's table.
///
/// # Errors
/// A `Config` error where the URL cannot be read, its scheme is none of `schemes`, an option is
/// unknown (it lists the known ones), repeated, or its value is not what its kind expects. No error
/// shows a password or the value of a secret option.
pub fn parse(url: &str, schemes: &[&'static str], table: &'static [OptionSpec]) -> Result<Target> {
    let (url, hosts) = target::read(url)?;
    if !schemes.contains(&url.scheme()) {
        return Err(Error::config(format!(
            "scheme `{}` is not one of: {}",
            url.scheme(),
            schemes.join(", ")
        )));
    }
    let values = Values::read(url.query_pairs(), table)?;
    Target::new(&url, hosts, values)
}

/// The table as Markdown, for the backend's page.
#[must_use]
pub fn markdown(table: &[OptionSpec]) -> String {
    let mut out =
        String::from("| option | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for option in table {
        let default = match option.default {
            Some(default) => format!("`{default}`"),
            None => "–".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} |",
            option.name,
            option.kind.expected(),
            option.doc
        );
    }
    out
}

#[cfg(test)]
mod tests;
