//! Several real `tokenkeep serve` processes on one store, against a provider that remembers every token it ever saw.
//!
//! - [`storm`]: everything expires at once.
//! - [`chaos`]: what breaks meanwhile.
//! - [`killed`]: an instance that never comes back, with replies that it could not commit.
//! - [`revocation`]: how long a deleted connection is served elsewhere.
//! - [`canary`]: whether any server ever sees a secret.
//! - [`backend`]: the stores, each with servers of its own that may be killed.
//! - [`fleet`]: the processes.
//! - [`steady`]: readers that must never be let down.
//! - [`journals`]: what a process had made durable.
//! - [`upstream`]: the provider, and what it knows.
//! - [`verify`]: what the store really holds afterwards.

pub mod backend;
pub mod canary;
pub mod chaos;
mod client;
pub mod fleet;
mod journals;
pub mod killed;
mod proxy;
mod reads;
pub mod revocation;
mod steady;
pub mod storm;
mod upstream;
mod verify;

use std::path::PathBuf;

/// What every command here takes.
#[derive(clap::Args, Clone)]
pub struct Common {
    /// The service's program; by default the one beside this.
    #[arg(long)]
    pub tokenkeep: Option<PathBuf>,
    /// How many processes.
    #[arg(long, default_value_t = 3)]
    instances: usize,
    /// Fewer connections: a look at whether all of it works, not a measurement.
    #[arg(long)]
    pub quick: bool,
    /// Leaves data directories and logs behind, and says where.
    #[arg(long)]
    pub keep: bool,
}
