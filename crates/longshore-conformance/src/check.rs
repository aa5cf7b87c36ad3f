//! What a check is, and how one ends.

use std::fmt;

use futures::future::BoxFuture;
use longshore_core::{Capabilities, Error, Support};
use longshore_runtime::Unsettled;

use crate::bench::Bench;

/// One promise of the contract, tried out on a backend.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Explains itself and never changes: `retry.never_early`.
    pub id: &'static str,
    /// Its letter and number in the catalogue of checks.
    pub code: &'static str,
    /// How far a backend must have come to need it.
    pub tier: Tier,
    /// What it asserts, in a line.
    pub summary: &'static str,
    /// The abilities that it uses. Where the backend declares that it lacks one, the check becomes
    /// its negative: asking for it must be `Unsupported`.
    pub needs: &'static [Need],
    /// Does it.
    pub run: for<'a> fn(&'a Bench) -> BoxFuture<'a, Outcome>,
}

/// The codes of the checks that stop the server, which no other check would survive.
const ALONE: [&str; 4] = ["P1", "R7", "T3", "K1"];
/// The code of the check that needs a user, so as to get its password wrong.
const CREDENTIALS: &str = "K6";
/// The codes of the checks that have no meaning without a server process that has users.
const SERVER: [&str; 2] = ["K1", CREDENTIALS];

impl Check {
    /// Whether no other check may run beside it on the same server.
    #[must_use]
    pub fn runs_alone(&self) -> bool {
        ALONE.contains(&self.code)
    }

    /// Whether a broker inside the process cannot run it: it has no server to restart, and no user.
    #[must_use]
    pub fn needs_server(&self) -> bool {
        SERVER.contains(&self.code)
    }

    /// Why it is not run on a server that somebody else started; `None`: it is.
    pub(crate) fn spares_given(&self) -> Option<&'static str> {
        if self.runs_alone() {
            return Some("it stops the server, and a server that was given by URL is not stopped");
        }
        let users = "it needs a password that is wrong for certain, and a server that was given by \
                     URL may let anybody in";
        (self.code == CREDENTIALS).then_some(users)
    }
}

/// How far a backend must have come to need a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// A backend without it is not a backend.
    Core,
    /// Faults, clusters, ordering modes, large data, operator tooling.
    Certification,
}

impl Tier {
    /// As the report spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Certification => "certification",
        }
    }
}

/// An ability that a backend may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Durable delays.
    Delay,
    /// Dead-letter queues.
    DeadLetters,
}

impl Need {
    /// Whether the backend declares it.
    #[must_use]
    pub fn is_met(self, capabilities: &Capabilities) -> bool {
        let support = match self {
            Self::Delay => capabilities.delay,
            Self::DeadLetters => capabilities.dead_letters,
        };
        support != Support::Unsupported
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Delay => "durable delays",
            Self::DeadLetters => "dead-letter queues",
        })
    }
}

/// `Ok` where the promise was seen to hold.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a check did not come to its good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The promise is broken: what was expected, and what was seen.
    Failed(String),
    /// The harness lacks a hook. Never green.
    NotRun(String),
    /// It has no meaning here, and why.
    NotApplicable(String),
}

impl From<String> for Stop {
    fn from(seen: String) -> Self {
        Self::Failed(seen)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(format!("an error that is not expected here: {error:?}"))
    }
}

impl From<Unsettled> for Stop {
    fn from(unsettled: Unsettled) -> Self {
        Error::from(unsettled).into()
    }
}

/// Fails the check unless the condition holds; the rest says what was expected and what was seen.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err($crate::check::Stop::Failed(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
