//! The policy as text. Read leniently into plain values first, so that every fault is found at
//! once and none hides behind the first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};
use toml::Value;

use super::build::Faults;
use super::{
    Breaker, DeadLetters, InvalidPolicy, Ordering, Override, Policy, RateLimit, UnknownError,
    backoff,
};

const KEYS: &str = "max_attempts, fast_delays, delayed, jitter, max_retry_age, handler_timeout, \
    unknown_error, crash_suspect_after, ordering, drain, dead_letter, breaker, rate_limit, overrides";

impl Policy {
    /// Reads a policy from TOML; what is absent has its default.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with every fault: unknown settings, wrong types and broken rules.
    pub fn from_toml(text: &str) -> Result<Self, InvalidPolicy> {
        match toml::from_str(text) {
            Ok(table) => read_policy(table),
            Err(error) => {
                let mut faults = Faults::default();
                faults.add("toml", error.message());
                faults.none_or(Self::default())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_policy(BTreeMap::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

type Table = BTreeMap<String, Value>;

fn read_policy(table: Table) -> Result<Policy, InvalidPolicy> {
    let mut faults = Faults::default();
    let mut policy = Policy::default();
    for (key, value) in table {
        let mut at = At { faults: &mut faults, setting: key.clone() };
        match key.as_str() {
            "max_attempts" => at.number(&value, &mut policy.max_attempts),
            "fast_delays" => at.gaps(&value, &mut policy.fast_delays),
            "delayed" => at.gaps(&value, &mut policy.delayed),
            "jitter" => at.float(&value, &mut policy.jitter),
            "max_retry_age" => at.duration(&value, &mut policy.max_retry_age),
            "handler_timeout" => at.duration(&value, &mut policy.handler_timeout),
            "unknown_error" => at.choice(&value, &CLASSES, &mut policy.unknown_error),
            "crash_suspect_after" => at.number(&value, &mut policy.crash_suspect_after),
            "ordering" => at.choice(&value, &ORDERINGS, &mut policy.ordering),
            "drain" => at.duration(&value, &mut policy.drain),
            "dead_letter" => at.table(value, |at, table| {
                policy.dead_letter = read_dead_letters(at, table);
            }),
            "breaker" if is_none(&value) => policy.breaker = None,
            "breaker" => at.table(value, |at, table| {
                policy.breaker = Some(read_breaker(at, table));
            }),
            "rate_limit" if is_none(&value) => policy.rate_limit = None,
            "rate_limit" => policy.rate_limit = at.rate(&value),
            "overrides" => policy.overrides = at.list(value, read_override),
            _ => at.unknown(KEYS),
        }
    }
    faults.check(&policy);
    faults.none_or(policy)
}

const CLASSES: [(&str, UnknownError); 2] =
    [("transient", UnknownError::Transient), ("permanent", UnknownError::Permanent)];
const ORDERINGS: [(&str, Ordering); 3] = [
    ("unordered", Ordering::Unordered),
    ("block-key", Ordering::BlockKey),
    ("park-key", Ordering::ParkKey),
];

fn is_none(value: &Value) -> bool {
    value.as_str() == Some("none")
}

fn read_dead_letters(at: &mut At<'_>, table: Table) -> DeadLetters {
    let mut read = DeadLetters::default();
    for (key, value) in table {
        let mut at = at.inner(&key);
        match key.as_str() {
            "enabled" => at.flag(&value, &mut read.enabled),
            "retention" => at.duration(&value, &mut read.retention),
            "max_redrives" => at.number(&value, &mut read.max_redrives),
            _ => at.unknown("enabled, retention, max_redrives"),
        }
    }
    read
}

fn read_breaker(at: &mut At<'_>, table: Table) -> Breaker {
    let mut read = Breaker::default();
    for (key, value) in table {
        let mut at = at.inner(&key);
        match key.as_str() {
            "window" => at.duration(&value, &mut read.window),
            "min" => at.number(&value, &mut read.min),
            "ratio" => at.float(&value, &mut read.ratio),
            "open" => at.duration(&value, &mut read.open),
            "max_open" => at.duration(&value, &mut read.max_open),
            "probes" => at.number(&value, &mut read.probes),
            _ => at.unknown("window, min, ratio, open, max_open, probes"),
        }
    }
    read
}

fn read_override(at: &mut At<'_>, table: Table) -> Override {
    let mut read = Override::default();
    for (key, value) in table {
        let mut at = at.inner(&key);
        match key.as_str() {
            "error_type" => read.error_type = at.text(&value).map(Into::into),
            "code" => read.code = at.text(&value).map(Into::into),
            "class" => at.choice(&value, &CLASSES, read.class.get_or_insert_default()),
            "max_attempts" => at.number(&value, read.max_attempts.get_or_insert_default()),
            "fast_delays" => at.gaps(&value, read.fast_delays.get_or_insert_default()),
            "delayed" => at.gaps(&value, read.delayed.get_or_insert_default()),
            _ => at.unknown("error_type, code, class, max_attempts, fast_delays, delayed"),
        }
    }
    read
}

/// A place in the text, and where its faults go. A faulty value leaves the target as it was.
struct At<'a> {
    faults: &'a mut Faults,
    setting: String,
}

impl At<'_> {
    fn inner(&mut self, key: &str) -> At<'_> {
        At { setting: format!("{}.{key}", self.setting), faults: self.faults }
    }

    fn fault(&mut self, message: impl Into<String>) {
        self.faults.add(self.setting.clone(), message);
    }

    fn unknown(&mut self, known: &str) {
        self.fault(format!("unknown setting; known: {known}"));
    }

    fn number(&mut self, value: &Value, into: &mut u32) {
        match value.as_integer().and_then(|n| u32::try_from(n).ok()) {
            Some(number) => *into = number,
            None => self.fault(format!("{value} is not a number from 0 to {}", u32::MAX)),
        }
    }

    fn float(&mut self, value: &Value, into: &mut f64) {
        #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
        match value.as_float().or_else(|| value.as_integer().map(|n| n as f64)) {
            Some(number) => *into = number,
            None => self.fault(format!("{value} is not a number")),
        }
    }

    fn flag(&mut self, value: &Value, into: &mut bool) {
        match value.as_bool() {
            Some(flag) => *into = flag,
            None => self.fault(format!("{value} is neither true nor false")),
        }
    }

    fn text(&mut self, value: &Value) -> Option<String> {
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.fault(format!("{value} is not text"));
        }
        text
    }

    fn choice<T: Copy>(&mut self, value: &Value, choices: &[(&str, T)], into: &mut T) {
        match choices.iter().find(|(name, _)| value.as_str() == Some(name)) {
            Some((_, choice)) => *into = *choice,
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                self.fault(format!("{value} is none of {}", names.join(", ")));
            }
        }
    }

    fn duration(&mut self, value: &Value, into: &mut Duration) {
        match value.as_str().map(humantime::parse_duration) {
            Some(Ok(duration)) => *into = duration,
            Some(Err(error)) => self.fault(format!("{value}: {error}")),
            None => self.fault(format!("{value} is not a duration such as \"250ms\" or \"14d\"")),
        }
    }

    /// A list of durations, or a shape: `{ fixed = .. }`, `{ linear = { first, step, max } }`,
    /// `{ exponential = { first, factor, max } }`.
    fn gaps(&mut self, value: &Value, into: &mut Vec<Duration>) {
        if let Some(list) = value.as_array() {
            *into = list
                .iter()
                .map(|item| {
                    let mut gap = Duration::from_secs(1);
                    self.duration(item, &mut gap);
                    gap
                })
                .collect();
            return;
        }
        let shape = value.as_table().filter(|table| table.len() == 1);
        match shape.and_then(|table| table.iter().next()) {
            Some((name, gap)) if name == "fixed" => {
                let mut fixed = Duration::from_secs(1);
                self.inner("fixed").duration(gap, &mut fixed);
                *into = backoff::fixed(fixed);
            }
            Some((name, shape)) if name == "linear" || name == "exponential" => {
                let mut at = self.inner(name);
                let one = Duration::from_secs(1);
                let (mut first, mut step, mut max, mut factor) = (one, one, one, 2.0);
                at.field(shape, "first", |at, value| at.duration(value, &mut first));
                at.field(shape, "max", |at, value| at.duration(value, &mut max));
                if name == "linear" {
                    at.field(shape, "step", |at, value| at.duration(value, &mut step));
                    *into = backoff::linear(first, step, max);
                } else {
                    at.field(shape, "factor", |at, value| at.float(value, &mut factor));
                    *into = backoff::exponential(first, factor, max);
                }
            }
            _ => self.fault("is neither a list of durations nor one of fixed, linear, exponential"),
        }
    }

    fn field(&mut self, shape: &Value, name: &str, read: impl FnOnce(&mut At<'_>, &Value)) {
        let mut at = self.inner(name);
        match shape.get(name) {
            Some(value) => read(&mut at, value),
            None => at.fault("is missing"),
        }
    }

    /// `"100/1s"`: so many in so long.
    fn rate(&mut self, value: &Value) -> Option<RateLimit> {
        let parts = value.as_str().and_then(|text| text.split_once('/'));
        let read = parts.and_then(|(count, per)| {
            Some(RateLimit {
                count: count.trim().parse().ok()?,
                per: humantime::parse_duration(per.trim()).ok()?,
            })
        });
        if read.is_none() {
            self.fault(format!("{value} is neither \"none\" nor a rate such as \"100/1s\""));
        }
        read
    }

    fn table(&mut self, value: Value, read: impl FnOnce(&mut At<'_>, Table)) {
        match value {
            Value::Table(table) => read(self, table.into_iter().collect()),
            other => self.fault(format!("{other} is not a table")),
        }
    }

    fn list<T>(&mut self, value: Value, read: impl Fn(&mut At<'_>, Table) -> T) -> Vec<T> {
        let Value::Array(list) = value else {
            self.fault(format!("{value} is not a list of tables"));
            return Vec::new();
        };
        let mut items = Vec::new();
        for (index, item) in list.into_iter().enumerate() {
            let setting = format!("{}[{index}]", self.setting);
            let mut at = At { faults: self.faults, setting };
            at.table(item, |at, table| items.push(read(at, table)));
        }
        items
    }
}

pub(super) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

pub(super) fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(*value))
}

pub(super) fn durations<S: Serializer>(
    list: &[Duration],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    list.iter().map(|gap| duration_text(*gap)).collect::<Vec<_>>().serialize(serializer)
}

pub(super) fn maybe_durations<S: Serializer>(
    list: &Option<Vec<Duration>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match list {
        Some(list) => durations(list, serializer),
        None => serializer.serialize_none(),
    }
}

/// The word `"none"` where there is none, as it is read.
pub(super) fn or_none<T: Serialize, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_str("none"),
    }
}

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.count, duration_text(self.per)))
    }
}
