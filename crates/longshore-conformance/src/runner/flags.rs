use std::ffi::OsString;
use std::path::PathBuf;

use crate::check::Check;
use crate::checks;

/// What the command line asks for.
#[derive(Debug)]
pub(super) struct Flags {
    pub(super) wish: Wish,
    pub(super) json: Option<PathBuf>,
    /// The checks that were asked for; all, where none was.
    pub(super) checks: Vec<&'static Check>,
    /// For the test harness; the first is the program's name.
    pub(super) rest: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    List,
}

impl Flags {
    /// Takes our own flags out of `arguments`, and leaves the rest as it is.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let (mut json, mut wanted, mut list) = (None, Vec::new(), false);
        let mut rest = vec![OsString::from("conformance")];
        while let Some(argument) = arguments.next() {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = |what: &str| {
                let value = value.clone().or_else(|| arguments.next());
                value.filter(|value| !value.is_empty()).ok_or(format!("{flag} needs {what}"))
            };
            match flag {
                "--json" => json = Some(PathBuf::from(value("a file")?)),
                "--check" => wanted.push(value("the id or the code of a check")?),
                "--list" => list = true,
                _ => rest.push(argument.into()),
            }
        }
        // Tools that list tests ask for a format; they get the test harness's own list.
        let for_a_tool = rest.iter().any(|flag| flag.to_string_lossy().starts_with("--format"));
        if list && for_a_tool {
            rest.push("--list".into());
        }
        let wish = if list && !for_a_tool { Wish::List } else { Wish::Run };
        Ok(Self { wish, json, checks: select(&wanted)?, rest })
    }
}

fn select(wanted: &[String]) -> Result<Vec<&'static Check>, String> {
    let named = |check: &Check, name: &String| check.id == name || check.code == name;
    for name in wanted {
        if !checks::all().any(|check| named(check, name)) {
            let known: Vec<_> =
                checks::all().map(|check| format!("{} ({})", check.id, check.code)).collect();
            return Err(format!("no check is called `{name}`; known: {}", known.join(", ")));
        }
    }
    let chosen = |check: &&Check| wanted.is_empty() || wanted.iter().any(|name| named(check, name));
    Ok(checks::all().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn our_own_flags_are_taken_and_the_rest_goes_on() {
        let flags = parse("--json out.json --check P6 retry --check=retry.never_early -q").unwrap();
        assert_eq!(flags.json, Some(PathBuf::from("out.json")));
        assert_eq!(flags.wish, Wish::Run);
        let codes: Vec<_> = flags.checks.iter().map(|check| check.code).collect();
        assert_eq!(codes, ["P6", "R4"]);
        assert_eq!(flags.rest, ["conformance", "retry", "-q"]);
        assert_eq!(parse("--json=x").unwrap().json, Some(PathBuf::from("x")));
    }

    #[test]
    fn without_a_filter_all_checks_are_meant() {
        assert_eq!(parse("").unwrap().checks.len(), checks::all().count());
    }

    #[test]
    fn what_is_missing_or_unknown_is_said() {
        assert!(parse("--json").unwrap_err().contains("needs a file"));
        assert!(parse("--check=").unwrap_err().contains("needs the id"));
        let wrong = parse("--check R99").unwrap_err();
        assert!(wrong.contains("R99") && wrong.contains("retry.never_early"), "{wrong}");
    }

    #[test]
    fn a_list_is_ours_unless_a_tool_asks() {
        assert_eq!(parse("--list").unwrap().wish, Wish::List);
        let flags = parse("--list --format terse").unwrap();
        assert_eq!(flags.wish, Wish::Run);
        assert!(flags.rest.iter().any(|flag| flag == "--list"));
    }
}
