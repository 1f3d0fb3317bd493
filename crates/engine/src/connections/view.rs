use std::time::Duration;

use jiff::Timestamp;
use tokenkeep_core::{Connection, ConnectionId, Generation, Health, LastError, Status, connection::RefreshPolicy};

/// What a connection's owner may know of it: no secrets.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Which.
    pub id: ConnectionId,
    /// How it stands.
    pub status: Status,
    /// Why it stands so, where that needs a word: the reason of `reauth_required`.
    pub reason: Option<String>,
    /// What the provider granted, separated by spaces.
    pub scope: Option<String>,
    /// When the access token dies; `None` = never, or there is none.
    pub expires_at: Option<Timestamp>,
    /// Whether anything can bring a new one.
    pub has_refresh_token: bool,
    /// Whether that is credentials.
    pub has_credentials: bool,
    /// The number of its TokenSet; 0 while it is pending.
    pub generation: Generation,
    /// For people.
    pub display_name: Option<String>,
    /// When this life of it began.
    pub created_at: Timestamp,
    /// When its record was last written.
    pub updated_at: Timestamp,
    /// When a provider's reply was last committed.
    pub last_refreshed_at: Option<Timestamp>,
    /// When the preloader will look at it.
    pub next_refresh_at: Option<Timestamp>,
    /// What went wrong last, until a refresh succeeds.
    pub last_error: Option<LastError>,
}

impl ConnectionView {
    pub(crate) fn new(connection: &Connection, policy: &RefreshPolicy, now: Timestamp) -> Self {
        let tokens = &connection.tokens;
        Self {
            id: connection.id.clone(),
            status: connection.status(now, policy.margin, policy.lease),
            reason: match &connection.health {
                Health::ReauthRequired { reason, .. } => Some(reason.clone()),
                _ => None,
            },
            scope: tokens.scope.clone(),
            expires_at: tokens.access.as_ref().and_then(|a| a.expires_at),
            has_refresh_token: tokens.renewal.is_some(),
            has_credentials: connection.login().is_some(),
            generation: connection.generation,
            display_name: connection.display_name.clone(),
            created_at: connection.created_at,
            updated_at: connection.updated_at,
            last_refreshed_at: connection.last_refreshed_at,
            next_refresh_at: connection.next_refresh_at(policy.margin, 0.0),
            last_error: connection.last_error.clone(),
        }
    }

    /// What is shown of a connection that only waits for its first confirmation.
    pub(crate) fn pending(id: ConnectionId, since: Timestamp) -> Self {
        Self {
            id,
            status: Status::Pending,
            reason: None,
            scope: None,
            expires_at: None,
            has_refresh_token: false,
            has_credentials: false,
            generation: Generation(0),
            display_name: None,
            created_at: since,
            updated_at: since,
            last_refreshed_at: None,
            next_refresh_at: None,
            last_error: None,
        }
    }
}

/// How long ago `from` was, or zero.
pub(crate) fn until(now: Timestamp, at: Timestamp) -> Duration {
    tokenkeep_core::time::between(now, at)
}
