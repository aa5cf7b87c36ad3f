use std::borrow::Cow;
use std::time::Duration;

use longshore_core::{Error, Result};

use super::{Kind, OptionSpec};
use crate::Secret;

/// The typed values of a URL's options.
#[derive(Clone, Debug)]
pub struct Values(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    spec: &'static OptionSpec,
    given: bool,
    value: Option<Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Duration(Duration),
    Flag(bool),
    // Every text is held hidden: which of them are secret is a matter of the table, and Debug of
    // the whole must be safe without asking it.
    Text(Secret),
}

impl Values {
    pub(super) fn read<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
        table: &'static [OptionSpec],
    ) -> Result<Self> {
        let mut values =
            Self(table.iter().map(|spec| Entry { spec, given: false, value: None }).collect());
        for (name, text) in pairs {
            let Some(entry) = values.0.iter_mut().find(|entry| entry.spec.name == name) else {
                return Err(unknown(&name, table));
            };
            if entry.given {
                return Err(Error::config(format!("option `{name}` is given twice")));
            }
            entry.given = true;
            entry.value = Some(entry.spec.value(&text)?);
        }
        for entry in values.0.iter_mut().filter(|entry| !entry.given) {
            entry.value = entry.spec.default.map(|text| entry.spec.value(text)).transpose()?;
        }
        Ok(values)
    }

    /// Whether the URL itself has the option, rather than its default.
    #[must_use]
    pub fn given(&self, name: &str) -> bool {
        self.0.iter().any(|entry| entry.spec.name == name && entry.given)
    }

    /// A number or a size.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A duration.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.get(name)? {
            Value::Duration(duration) => Some(*duration),
            _ => None,
        }
    }

    /// Whether a flag is set; one that is absent is not.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Flag(true)))
    }

    /// A text or a choice.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.secret(name).map(Secret::reveal)
    }

    /// A text that stays hidden.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_secret(&self, name: &str) -> bool {
        self.0.iter().any(|entry| entry.spec.name == name && entry.spec.secret)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|entry| entry.spec.name == name)?.value.as_ref()
    }
}

fn unknown(name: &str, table: &[OptionSpec]) -> Error {
    let known: Vec<_> = table.iter().map(|option| option.name).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    // A name is cut, so that a value in the wrong place does not fill the log.
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Error::config(format!("unknown option `{name}`; known options: {known}"))
}

impl OptionSpec {
    fn value(&self, text: &str) -> Result<Value> {
        let value = match self.kind {
            Kind::Bytes => bytes(text).map(Value::Number),
            Kind::Number { min, max } => {
                text.parse().ok().filter(|n| (min..=max).contains(n)).map(Value::Number)
            }
            Kind::Duration => humantime::parse_duration(text).ok().map(Value::Duration),
            Kind::Flag => text.parse().ok().map(Value::Flag),
            Kind::Text => Some(Value::Text(Secret::new(text))),
            Kind::Choice(choices) => {
                choices.contains(&text).then(|| Value::Text(Secret::new(text)))
            }
        };
        value.ok_or_else(|| {
            let shown: String = if self.secret {
                "***".to_owned()
            } else {
                text.chars().filter(|c| !c.is_control()).take(64).collect()
            };
            let (name, expected) = (self.name, self.kind.expected());
            Error::config(format!("option `{name}` is `{shown}`, expected {expected}"))
        })
    }
}

impl Kind {
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Bytes => "a size such as `65536`, `64KiB` or `1MB`".to_owned(),
            Self::Number { min: 0, max: u64::MAX } => "a whole number".to_owned(),
            Self::Number { min, max: u64::MAX } => format!("a whole number of at least {min}"),
            Self::Number { min, max } => format!("a whole number from {min} to {max}"),
            Self::Duration => "a duration such as `250ms`, `5s` or `14d`".to_owned(),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Choice(choices) => format!("one of `{}`", choices.join("`, `")),
        }
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
