use std::ffi::OsString;
use std::path::PathBuf;

use crate::check::Check;
use crate::checks;
use crate::harness::{Mutants, Target};

/// How many checks are proposed for a name that none has.
const PROPOSED: usize = 5;
/// From how much alike a name is proposed: one or two letters wrong of a check's words.
const ALIKE: f64 = 0.85;

/// What the command line asks for.
#[derive(Debug)]
pub(super) struct Flags {
    pub(super) wish: Wish,
    pub(super) json: Option<PathBuf>,
    pub(super) target: Target,
    /// Where not as the harness says.
    pub(super) mutants: Option<Mutants>,
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
        let (mut target, mut mutants) = (Target::Own, None);
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
                "--url" => target = Target::Given(value("the URL of a broker")?),
                "--mutants" => mutants = Some(which(&value("`all`, `server` or `none`")?)?),
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
        Ok(Self { wish, json, target, mutants, checks: select(&wanted)?, rest })
    }
}

fn which(mutants: &str) -> Result<Mutants, String> {
    match mutants {
        "all" => Ok(Mutants::All),
        "server" => Ok(Mutants::Server),
        "none" => Ok(Mutants::None),
        _ => Err(format!("--mutants takes `all`, `server` or `none`, not `{mutants}`")),
    }
}

fn select(wanted: &[String]) -> Result<Vec<&'static Check>, String> {
    let named = |check: &Check, name: &String| check.id == name || check.code == name;
    for name in wanted {
        if !checks::all().any(|check| named(check, name)) {
            return Err(match near(name) {
                near if near.is_empty() => {
                    format!("no check is called `{name}`, nor alike; `--list` shows them all")
                }
                near => format!("no check is called `{name}`; near it: {}", near.join(", ")),
            });
        }
    }
    let chosen = |check: &&Check| wanted.is_empty() || wanted.iter().any(|name| named(check, name));
    Ok(checks::all().filter(chosen).collect())
}

/// The checks whose id or code is most like `name`, the nearest first.
fn near(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let alike = |check: &Check| {
        let what = check.id.split_once('.').map_or(check.id, |(_, what)| what);
        let words = [check.id, what].into_iter().chain(check.id.split(['.', '_']));
        let alike = words.map(|word| strsim::jaro_winkler(&name, word)).fold(0.0, f64::max);
        // A code is too short to be compared letter by letter: it is meant, or its letter is.
        let code = check.code.to_lowercase();
        let letter = |text: &str| text.trim_end_matches(|it: char| it.is_ascii_digit()).to_owned();
        match () {
            () if code == name => 2.0,
            () if letter(&code) == letter(&name) && letter(&name) != name => 1.0,
            () => alike,
        }
    };
    let mut near: Vec<_> = checks::all().map(|check| (alike(check), check)).collect();
    near.retain(|(alike, _)| *alike >= ALIKE);
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let shown = |(_, check): (f64, &Check)| format!("{} ({})", check.id, check.code);
    near.into_iter().take(PROPOSED).map(shown).collect()
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
        assert!(parse("--mutants some").unwrap_err().contains("not `some`"));
        assert!(parse("--url").unwrap_err().contains("needs the URL"));
    }

    #[test]
    fn a_name_that_no_check_has_brings_the_nearest() {
        for (name, first) in [
            ("retry.never_erly", "retry.never_early (R4)"),
            ("never_early", "retry.never_early (R4)"),
            ("r4", "retry.never_early (R4)"),
            ("ack_is_durabel", "settle.ack_is_durable (A1)"),
        ] {
            let wrong = parse(&format!("--check {name}")).unwrap_err();
            assert!(wrong.ends_with(first) || wrong.contains(&format!("near it: {first}, ")));
            assert!(wrong.contains(name), "{wrong}");
        }
        let letter = parse("--check K99").unwrap_err();
        assert!(letter.contains("(K1)") && letter.contains("(K6)"), "{letter}");
        assert!(parse("--check xyzzy").unwrap_err().contains("--list"));
    }

    #[test]
    fn the_broker_and_the_mutants_can_be_named() {
        let flags = parse("--url nats://host --mutants none").unwrap();
        assert_eq!(flags.target, Target::Given("nats://host".to_owned()));
        assert_eq!(flags.mutants, Some(Mutants::None));
        assert_eq!((parse("").unwrap().target, parse("").unwrap().mutants), (Target::Own, None));
    }

    #[test]
    fn a_list_is_ours_unless_a_tool_asks() {
        assert_eq!(parse("--list").unwrap().wish, Wish::List);
        let flags = parse("--list --format terse").unwrap();
        assert_eq!(flags.wish, Wish::Run);
        assert!(flags.rest.iter().any(|flag| flag == "--list"));
    }
}
