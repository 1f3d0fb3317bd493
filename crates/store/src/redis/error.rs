//! What Redis' errors mean to who uses it.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokenkeep_core::ports::StoreError;

/// Why there is no answer, and what became of the command.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// Surely nothing was done.
    NothingDone(String),
    /// It may have been done, or may still be.
    InDoubt(String),
    /// It was answered, with something that cannot be.
    Corrupt(String),
}

impl Failure {
    pub(super) fn reason(self) -> String {
        match self {
            Self::NothingDone(reason) | Self::InDoubt(reason) | Self::Corrupt(reason) => reason,
        }
    }
}

/// For whatever changes no record, so that a doubt does not matter.
impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NothingDone(reason) | Failure::InDoubt(reason) => Self::Unavailable { reason, retry_after: None },
            Failure::Corrupt(reason) => Self::Corrupt { reason },
        }
    }
}

/// The code of an error that the server answered with: it was reached, and refused.
pub(super) fn code(error: &RedisError) -> Option<&str> {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => error.code(),
        _ => None,
    }
}

/// Whether the server said that somebody else has the keys, or the right to write.
pub(super) fn is_moved(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
        )
    )
}

/// Whether the server said that the user may not do what was asked, or that a script may not do it for the user.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    let says = |text| error.detail().is_some_and(|detail| detail.contains(text));
    match code(error) {
        Some("NOPERM") => true,
        Some("ERR") => says("user executing the script can't") || says("ACL failure in script"),
        _ => false,
    }
}

/// In our own words where we have some. What a server says may repeat what it was sent, so of others only the code is
/// told.
pub(super) fn reason(error: &RedisError) -> String {
    match code(error) {
        Some("OOM") => "its memory is full".into(),
        Some("READONLY") => "the server is a read-only replica".into(),
        Some("LOADING") => "the server is still loading its data".into(),
        Some("MISCONF") => "the server cannot write to its disk, and so takes no writes".into(),
        Some("NOREPLICAS") => "the server has too few replicas, and so takes no writes".into(),
        _ if is_forbidden(error) => "the user may not do what the store needs".into(),
        Some("NOAUTH" | "WRONGPASS") => "the server does not accept the user and password".into(),
        Some("CLUSTERDOWN") => "the cluster is down, or does not serve all slots".into(),
        Some("MASTERDOWN") => "the primary is down".into(),
        Some("ASK" | "TRYAGAIN") => "the slot is being moved to another server".into(),
        Some("MOVED") => "the slot has moved to another server".into(),
        Some("BUSY") => "the server is busy with somebody's script".into(),
        Some("NORECORD") => "the value at a key of the store is no record".into(),
        Some(code) => format!("the server answers with the error {}", code.escape_debug()),
        None if error.kind() == ErrorKind::AuthenticationFailed => {
            "the server does not accept the user and password".into()
        }
        None if error.is_timeout() => "the server takes too long".into(),
        None if error.is_connection_refusal() => "the server refuses connections".into(),
        None if error.is_connection_dropped() => "the connection was lost".into(),
        // Made by the client or the system: it knows addresses, and nothing that was sent.
        None => format!("{}", error.to_string().escape_debug()),
    }
}

/// What a server's refusal means for a command that was to change something.
pub(super) fn refused(error: &RedisError) -> Failure {
    match code(error) {
        Some("NORECORD") => Failure::Corrupt(reason(error)),
        _ => Failure::NothingDone(reason(error)),
    }
}
