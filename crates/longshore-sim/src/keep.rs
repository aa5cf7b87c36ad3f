//! Which parts of a seed's scenario are kept: the language of the line that repeats a failure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A part of a scenario. As text: `f0,f3,m1,n2,t100,calm`, where `f` names the faults that are kept,
/// `m` the messages, `n` the number of members, `t` what times of faults are rounded down to, in
/// milliseconds, and `calm` takes the chance out of latencies. `f-` and `m-` keep none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub(crate) faults: Option<BTreeSet<usize>>,
    pub(crate) messages: Option<BTreeSet<usize>>,
    pub(crate) members: Option<usize>,
    pub(crate) round: u64,
    pub(crate) calm: bool,
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (letter, kept) in [('f', &self.faults), ('m', &self.messages)] {
            match kept {
                Some(kept) if kept.is_empty() => parts.push(format!("{letter}-")),
                Some(kept) => parts.extend(kept.iter().map(|index| format!("{letter}{index}"))),
                None => {}
            }
        }
        parts.extend(self.members.map(|members| format!("n{members}")));
        if self.round > 0 {
            parts.push(format!("t{}", self.round));
        }
        if self.calm {
            parts.push("calm".to_owned());
        }
        f.write_str(&parts.join(","))
    }
}

/// A part that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKeep(String);

impl fmt::Display for InvalidKeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no part of a scenario; known: f0, m0, f-, m-, n1, t100, calm", self.0)
    }
}

impl std::error::Error for InvalidKeep {}

impl FromStr for Keep {
    type Err = InvalidKeep;

    fn from_str(text: &str) -> Result<Self, InvalidKeep> {
        let mut keep = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let invalid = || InvalidKeep(part.to_owned());
            match part {
                "calm" => keep.calm = true,
                "f-" => keep.faults = Some(BTreeSet::new()),
                "m-" => keep.messages = Some(BTreeSet::new()),
                _ => {
                    let (letter, number) = part.split_at_checked(1).ok_or_else(invalid)?;
                    let number: u32 = number.parse().map_err(|_| invalid())?;
                    match letter {
                        "f" => drop(keep.faults.get_or_insert_default().insert(number as usize)),
                        "m" => drop(keep.messages.get_or_insert_default().insert(number as usize)),
                        "n" => keep.members = Some(number as usize),
                        "t" => keep.round = number.into(),
                        _ => return Err(invalid()),
                    }
                }
            }
        }
        Ok(keep)
    }
}
