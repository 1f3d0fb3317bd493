//! What is shown of a session.

use jiff::Timestamp;
use tokenkeep_core::{GrantId, Subject, time::between};
use tokenkeep_oauth::Secret;

use crate::ConnectionView;

/// A session's access token, and what goes with it.
#[derive(Clone, Debug)]
pub struct IssuedSession {
    /// The session.
    pub id: GrantId,
    /// What the user's browser gets.
    pub access_token: Secret,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it is dead.
    pub expires_at: Timestamp,
    /// When the provider's access token dies that stands behind it, as it is known now; `None` = never.
    pub upstream_expires_at: Option<Timestamp>,
    /// What brings the next one after this one's death, where the session has that.
    pub refresh_token: Option<Secret>,
}

/// How a session stands. No secrets.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub struct SessionView {
    /// Which.
    pub id: GrantId,
    /// Whose.
    pub subject: Subject,
    /// Where the backend says they can be reached.
    pub email: Option<String>,
    /// The provider's tokens behind it.
    pub connection: ConnectionView,
    /// When the session began.
    pub created_at: Timestamp,
    /// When the token that was shown was issued.
    pub issued_at: Timestamp,
    /// When it is dead: sooner than it says itself, if it was refreshed.
    pub expires_at: Timestamp,
    /// Whether it is to be refreshed now.
    pub near_expiry: bool,
    /// Whether the provider's is about to die.
    pub upstream_near_expiry: bool,
    /// Whether it was made to open a WebSocket, and so can be neither refreshed nor reissued.
    pub for_websocket: bool,
    /// Whether the session has a refresh token that counts.
    pub refreshable: bool,
}

/// Counts of the access tokens of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStats {
    /// All that are remembered.
    pub total_tokens: u64,
    /// Those of them that are dead.
    pub expired_tokens: u64,
    /// Those that count.
    pub active_tokens: u64,
    /// Sessions that have one of them, or can bring one.
    pub active_sessions: u64,
    /// Where they are kept: `sqlite`, `postgres`, `redis`, `vault`, `memory`.
    pub storage_type: &'static str,
}

/// Whether `dies` is so near that a caller should not wait.
pub(super) fn is_near(dies: Option<Timestamp>, now: Timestamp) -> bool {
    dies.is_some_and(|dies| between(now, dies) <= tokenkeep_core::session::NEAR_EXPIRY)
}
