//! What an installation says of its backend sessions.

use std::time::Duration;

use tokenkeep_oauth::issuer::metadata::Issuer as IssuerUrl;

use crate::issuer::ProtectedResource;

/// `[sessions]`.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Who issues them, where there is no authorization server here.
    pub issuer: IssuerUrl,
    /// What their access tokens are for, and what signs them. No client can ask for it.
    pub resource: ProtectedResource,
    /// How long an access token lives where neither the session nor the upstream says so.
    pub ttl: Duration,
    /// How long one that was refreshed lives on.
    pub grace: Duration,
    /// How long one for opening a WebSocket lives.
    pub websocket_ttl: Duration,
    /// How long a refresh token lives that nobody presents; `None` = none are given out.
    pub refresh_token_ttl: Option<Duration>,
    /// The origins whose pages may call (`https://app.example.com`).
    pub allowed_origins: Vec<String>,
}

/// The longest that an access token of a session lives, whatever is asked for: so long a signing key is kept.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
