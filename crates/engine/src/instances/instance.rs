//! What a process says of itself, where every other one can read it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{InstanceId, time::after};

/// A record that nobody renews any more is garbage after this.
const RECORD_LIFE: Duration = Duration::from_hours(24);

/// A process that serves, or served, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Which process.
    pub id: InstanceId,
    /// Where and what it is.
    pub process: Process,
    /// The identity of its journal's directory, which stays with the disk: whoever has the same can adopt what it
    /// leaves there. `None` = it has no journal.
    pub journal: Option<String>,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// When it last said that it is there, by its own clock.
    pub last_seen_at: Timestamp,
    /// How far its life has come.
    pub phase: InstancePhase,
    /// How many replies it holds that the store does not have.
    pub uncommitted: u64,
}

impl Instance {
    /// When its record is garbage, should it not be renewed.
    pub(crate) fn expires_at(&self) -> Timestamp {
        after(self.last_seen_at, RECORD_LIFE)
    }
}

/// Where and what a process is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The name of its machine.
    pub host: String,
    /// The process id there.
    pub id: u32,
    /// The version of tokenkeep.
    pub version: String,
    /// Where it listens, as others reach it; `None` = nowhere.
    pub address: Option<String>,
}

impl Process {
    /// This process, on a machine called `host`.
    pub fn on(host: impl Into<String>) -> Self {
        Self { host: host.into(), id: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned(), address: None }
    }
}

/// How far an instance's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstancePhase {
    /// It serves.
    Serving,
    /// It ended in order, but replies lie in its journal that the store does not have: they wait for whoever adopts it.
    Ended,
}

/// Why an instance's record is gone. Each says the same of its attempts: nothing more comes of them, and no reply of
/// theirs lies where nobody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parting {
    /// It ended in order and left nothing.
    Ended,
    /// It died, its journal was adopted, and everything in it is settled.
    Adopted,
    /// An operator said that it never comes back with its disk.
    Forgotten,
}
