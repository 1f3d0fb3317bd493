//! Whether this instance can serve, and what it does without.

use serde::Serialize;

/// How this instance stands.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// The whole of it.
    pub status: HealthStatus,
    /// Whether the store answers, and takes what is written.
    pub store: Part,
    /// Whether other instances are heard of at once.
    pub bus: Part,
    /// The cache that instances share.
    pub cache: Part,
    /// Whether replies can be made durable on this machine.
    pub journal: Part,
}

/// The whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Everything works.
    Ready,
    /// Something does not, but cached tokens are served: this instance must not be taken away.
    Degraded,
    /// It is ending, or not begun.
    NotReady,
}

/// How one part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// It works.
    Ok,
    /// It does not, at present.
    Unavailable,
    /// There is none.
    None,
}
