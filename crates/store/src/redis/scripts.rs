//! What runs on the server, in one piece each.

use std::sync::LazyLock;

use redis::Cmd;

use super::link::Call;

/// A Lua script, known to the server by its hash once it has run there.
pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let source = parts.concat();
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }

    /// The command that runs it: by its hash, or with all its text.
    pub(super) fn command(&self, call: &Call, by_hash: bool) -> Cmd {
        let mut command = if by_hash { redis::cmd("EVALSHA") } else { redis::cmd("EVAL") };
        command.arg(if by_hash { &self.hash } else { &self.source }).arg(call.keys.len());
        for part in call.keys.iter().chain(&call.arguments) {
            command.arg(&part[..]);
        }
        command
    }
}

const RECORD: &str = include_str!("scripts/record.lua");

pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(&[RECORD, include_str!("scripts/put.lua")]));
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(&[RECORD, include_str!("scripts/claim.lua")]));
pub(super) static SWEEP: LazyLock<Script> = LazyLock::new(|| Script::new(&[RECORD, include_str!("scripts/sweep.lua")]));
pub(super) static PROBE: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("scripts/probe.lua")]));
pub(super) static CACHE_PUT: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("scripts/cache_put.lua")]));
pub(super) static CACHE_RAISE: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("scripts/cache_raise.lua")]));
pub(super) static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("scripts/give_back.lua")]));
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("scripts/take.lua")]));
