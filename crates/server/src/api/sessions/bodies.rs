//! What is read and written under `/v1/sessions`.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{ConnectionId, IntegrationId, Subject, Tenant, time::between};
use tokenkeep_engine::{
    Given, PutTokens,
    sessions::{NewSession, SessionStats, SessionUpstream, SessionView},
};
use tokenkeep_oauth::Secret;
use utoipa::ToSchema;

use super::super::time;
use crate::problem::Problem;

/// A session to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IssueSession, example = json!({
    "subject": "alice", "email": "alice@example.com", "provider": "supabase-auth",
    "tokens": {"access_token": "eyJhbGciOi.EXAMPLE", "refresh_token": "v1-EXAMPLE", "expires_in": 3600},
}))]
pub(crate) struct IssueBody {
    /// Whose it is.
    subject: String,
    /// Where they can be reached; for the token's claims.
    email: Option<String>,
    /// `_default` if left out.
    tenant: Option<String>,
    /// Where the tokens behind it are from. Without `tokens`, the connection `{provider}/{tenant}/{subject}` is meant.
    provider: Option<String>,
    /// The connection behind it: `provider/tenant/subject`. Instead of `provider` and `tenant`.
    connection: Option<String>,
    /// The tokens behind it, as a sign-in brought them.
    tokens: Option<TokensBody>,
    /// Seconds its access tokens live.
    #[schema(minimum = 1, maximum = 604_800)]
    ttl: Option<u64>,
    /// Whether they follow the provider's; by default, unless there is a `ttl`. With a `ttl`: whether they never outlive
    /// tokens that cannot be renewed.
    coordinate_expiry: Option<bool>,
    /// Whether it gets a refresh token of ours, too.
    #[serde(default)]
    refresh_token: bool,
}

/// Tokens that a sign-in at the provider brought.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionTokens)]
pub(crate) struct TokensBody {
    #[schema(value_type = String)]
    access_token: Secret,
    /// Without one, nothing can be renewed.
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
    /// Seconds the access token lives from now on.
    expires_in: Option<u64>,
    /// When it dies, where `expires_in` does not say: RFC 3339, or seconds since 1970.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Moment>,
    /// Separated by spaces.
    scope: Option<String>,
    /// `Bearer` by default.
    token_type: Option<String>,
}

/// A time as providers and people write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Moment {
    Seconds(i64),
    Text(String),
}

impl IssueBody {
    pub(super) fn into_new(self, now: Timestamp) -> Result<NewSession, Problem> {
        let subject: Subject = self.subject.parse()?;
        let on = match (self.connection, self.provider) {
            (Some(connection), None) if self.tenant.is_none() && self.tokens.is_none() => {
                SessionUpstream::Connection(connection.parse()?)
            }
            (Some(_), _) => {
                return Err(Problem::invalid("`connection` names it all: leave out `provider`, `tenant`, `tokens`"));
            }
            (None, None) => return Err(Problem::invalid("say what stands behind it: `provider` or `connection`")),
            (None, Some(provider)) => {
                let integration: IntegrationId = provider.parse()?;
                let tenant = self.tenant.map_or_else(|| Ok(Tenant::default_tenant()), |tenant| tenant.parse())?;
                match self.tokens {
                    Some(tokens) => SessionUpstream::Tokens { integration, tenant, tokens: tokens.into_put(now)? },
                    None => SessionUpstream::Connection(ConnectionId { integration, tenant, subject: subject.clone() }),
                }
            }
        };
        Ok(NewSession {
            subject,
            email: self.email,
            on,
            coordinate_expiry: self.coordinate_expiry.unwrap_or(self.ttl.is_none()),
            ttl: self.ttl.map(Duration::from_secs),
            refresh_token: self.refresh_token,
        })
    }
}

impl TokensBody {
    fn into_put(self, now: Timestamp) -> Result<PutTokens, Problem> {
        // Some providers say both, and mean the same.
        let expires_at = match (self.expires_in, self.expires_at) {
            (Some(seconds), _) => Some(tokenkeep_core::time::after(now, Duration::from_secs(seconds))),
            (None, Some(moment)) => Some(moment.read()?),
            (None, None) => None,
        };
        Ok(PutTokens {
            access_token: Some(self.access_token),
            refresh_token: self.refresh_token.map_or(Given::Absent, Given::Value),
            expires_at,
            scope: self.scope,
            token_type: self.token_type,
            display_name: None,
        })
    }
}

impl Moment {
    fn read(self) -> Result<Timestamp, Problem> {
        let wrong = || Problem::invalid("`expires_at` must be an RFC 3339 time, or seconds since 1970");
        match self {
            Self::Seconds(seconds) => Timestamp::from_second(seconds).map_err(|_| wrong()),
            Self::Text(text) => text.parse().map_err(|_| wrong()),
        }
    }
}

/// What is sent to refresh, where there is no access token that counts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RefreshSession)]
pub(crate) struct RefreshSessionBody {
    /// The session's own refresh token, not the provider's. It is good once; the reply holds the next.
    #[schema(value_type = Option<String>)]
    pub(super) refresh_token: Option<Secret>,
}

/// How the next token is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReissueSession, example = json!({"ttl": 300}))]
pub(crate) struct ReissueBody {
    /// Seconds it lives; without it, as long as the session's tokens do.
    #[schema(minimum = 1, maximum = 604_800)]
    pub(super) ttl: Option<u64>,
}

/// An access token of a session.
#[derive(Serialize, ToSchema)]
#[schema(as = IssuedSession, example = json!({
    "access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiJ9.EXAMPLE", "token_type": "Bearer", "expires_in": 2700,
    "expires_at": "2026-11-20T11:45:00Z", "session_id": "01JD7ZC0000000000000000000",
    "upstream_expires_at": "2026-11-20T12:00:00Z",
}))]
pub(crate) struct IssuedBody {
    /// A JWT (RFC 9068) with `email`, `type` = `api` and `supa_exp`, beside.
    pub(super) access_token: String,
    pub(super) token_type: &'static str,
    /// Seconds from its issue.
    pub(super) expires_in: u64,
    #[schema(format = DateTime)]
    pub(super) expires_at: String,
    pub(super) session_id: String,
    /// When the provider's access token dies, as it is known now; `null` = never.
    #[schema(format = DateTime)]
    pub(super) upstream_expires_at: Option<String>,
    /// The session's own, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
}

/// How a session stands.
#[derive(Serialize, ToSchema)]
#[schema(as = CurrentSession, example = json!({
    "session_id": "01JD7ZC0000000000000000000", "subject": "alice", "email": "alice@example.com",
    "provider": "supabase-auth", "tenant": "_default", "connection": "supabase-auth/_default/alice",
    "created_at": "2026-11-20T11:00:00Z", "issued_at": "2026-11-20T11:00:00Z", "expires_at": "2026-11-20T11:45:00Z",
    "expires_in": 1500, "near_expiry": false, "refreshable": false, "websocket": false,
    "upstream": {"status": "active", "expires_at": "2026-11-20T12:00:00Z", "near_expiry": false,
        "has_refresh_token": true, "scope": null},
}))]
pub(crate) struct CurrentBody {
    session_id: String,
    subject: String,
    email: Option<String>,
    provider: String,
    tenant: String,
    /// `provider/tenant/subject`.
    connection: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// Of the token that was sent.
    #[schema(format = DateTime)]
    issued_at: String,
    /// When it is dead: sooner than it says itself, if it was refreshed.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Seconds from now.
    expires_in: u64,
    /// Whether ten minutes or less are left.
    near_expiry: bool,
    /// Whether the session has a refresh token of ours.
    refreshable: bool,
    /// Whether the token was made to open a WebSocket.
    websocket: bool,
    upstream: UpstreamBody,
}

/// What stands behind a session.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionUpstream)]
struct UpstreamBody {
    /// `active`, `expiring`, `expired`, `unresolved`, `reauth_required`.
    status: &'static str,
    /// When the provider's access token dies; `null` = never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Whether ten minutes or less are left.
    near_expiry: bool,
    has_refresh_token: bool,
    scope: Option<String>,
}

impl CurrentBody {
    pub(super) fn new(view: SessionView, now: Timestamp) -> Self {
        let connection = view.connection;
        Self {
            session_id: view.id.to_string(),
            subject: view.subject.into(),
            email: view.email,
            connection: connection.id.to_string(),
            provider: connection.id.integration.into(),
            tenant: connection.id.tenant.into(),
            created_at: time(view.created_at),
            issued_at: time(view.issued_at),
            expires_at: time(view.expires_at),
            expires_in: between(now, view.expires_at).as_secs(),
            near_expiry: view.near_expiry,
            refreshable: view.refreshable,
            websocket: view.for_websocket,
            upstream: UpstreamBody {
                status: connection.status.as_str(),
                expires_at: connection.expires_at.map(time),
                near_expiry: view.upstream_near_expiry,
                has_refresh_token: connection.has_refresh_token,
                scope: connection.scope,
            },
        }
    }
}

/// Counts of the access tokens of sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionStats, example = json!({
    "total_tokens": 12, "expired_tokens": 2, "active_tokens": 10, "active_sessions": 9, "storage_type": "postgres",
}))]
pub(crate) struct SessionStatsBody {
    /// All that are remembered.
    total_tokens: u64,
    /// Those of them that are dead.
    expired_tokens: u64,
    /// Those that count.
    active_tokens: u64,
    /// Sessions that something can come of.
    active_sessions: u64,
    /// `sqlite`, `postgres`, `redis`, `vault`, `memory`.
    storage_type: &'static str,
}

impl From<SessionStats> for SessionStatsBody {
    fn from(stats: SessionStats) -> Self {
        let SessionStats { total_tokens, expired_tokens, active_tokens, active_sessions, storage_type } = stats;
        Self { total_tokens, expired_tokens, active_tokens, active_sessions, storage_type }
    }
}

/// What a clean-up forgot.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CleanedSessions, example = json!({"removed": 2}))]
pub(crate) struct CleanedBody {
    /// Access tokens that were dead.
    pub(super) removed: u64,
}
