//! The scripts: each is one step on the server. What each does, and what sending it again answers,
//! stands at its head.

use std::sync::LazyLock;

use redis::{Cmd, Script, ToRedisArgs};

/// A script, and the name that the server knows it by.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: &'static str,
    script: LazyLock<Script>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(
            pub(crate) static $name: Source = {
                const TEXT: &str =
                    concat!(include_str!("scripts/prelude.lua"), include_str!($file));
                Source { text: TEXT, script: LazyLock::new(|| Script::new(TEXT)) }
            };
        )*
        /// All of them, to be loaded with a new connection.
        pub(crate) static ALL: &[&Source] = &[$(&$name),*];
    };
}

scripts! {
    ACK = "scripts/ack.lua",
    ACK_FENCED = "scripts/ack_fenced.lua",
    PARK = "scripts/park.lua",
    TAKE = "scripts/take.lua",
    REAP = "scripts/reap.lua",
    OWN = "scripts/own.lua",
    RETAKE = "scripts/retake.lua",
    EXTEND = "scripts/extend.lua",
    MOVE = "scripts/move.lua",
    REDRIVE = "scripts/redrive.lua",
    SUSPECT = "scripts/suspect.lua",
    LEAVE = "scripts/leave.lua",
    DECLARE = "scripts/declare.lua",
    TOPIC = "scripts/topic.lua",
    REPAIR = "scripts/repair.lua",
    EXPIRE = "scripts/expire.lua",
    SWEEP = "scripts/sweep.lua",
    BROWSE = "scripts/browse.lua",
    STATS = "scripts/stats.lua",
}

/// How many ids one call may have: the server does nothing else meanwhile, for about two
/// milliseconds.
pub(crate) const MOST: usize = 200;

/// A script to be run.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) source: &'static Source,
    pub(crate) command: Cmd,
}

impl Call {
    pub(crate) fn new(source: &'static Source, keys: &[&str]) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(source.script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        Self { source, command }
    }

    pub(crate) fn arg(mut self, value: impl ToRedisArgs) -> Self {
        self.command.arg(value);
        self
    }

    pub(crate) fn args<T: ToRedisArgs>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        for value in values {
            self.command.arg(value);
        }
        self
    }
}
