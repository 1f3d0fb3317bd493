//! Sessions of first-party backends: our token to the browser, the provider's behind it.
//!
//! A backend whose user signed in elsewhere hands over the provider's tokens, or names the connection that holds them,
//! and gets a token of ours for the user's browser. Whoever shows that token gets the provider's, fresh; has both
//! renewed; gets one more of ours; or ends it all. A session is a grant (`issuer`) bound to a connection
//! (`connections`), and nothing but that: what verifies, revokes and announces access tokens does it here, too.
//!
//! ```
//! # use std::time::Duration;
//! # use tokenkeep_engine::{Caller, Engine, Error, Given, PutTokens, sessions::{NewSession, SessionUpstream}};
//! # async fn handle(engine: &Engine) -> Result<(), Error> {
//! let sessions = engine.sessions().expect("`Settings::sessions` says that there are some");
//!
//! // The user signed in, and this is what that brought.
//! let tokens = PutTokens {
//!     access_token: Some("eyJ.theirs".into()),
//!     refresh_token: Given::Value("v1.theirs".into()),
//!     expires_at: None,
//!     scope: None,
//!     token_type: None,
//!     display_name: None,
//! };
//! let new = NewSession {
//!     subject: "alice".parse()?,
//!     email: Some("alice@example.com".to_owned()),
//!     on: SessionUpstream::Tokens { integration: "supabase".parse()?, tenant: "_default".parse()?, tokens },
//!     ttl: None,
//!     coordinate_expiry: true,
//!     refresh_token: false,
//! };
//! let session = sessions.issue(&Caller::Local, new).await?;
//!
//! // The browser shows our token, and the backend uses theirs.
//! let theirs = sessions.ensure(&session.access_token, Duration::from_secs(60)).await?;
//! let renewed = sessions.refresh(&session.access_token).await?;
//! sessions.logout(&renewed.access_token).await
//! # }
//! ```

mod settings;
mod view;

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret as _;
use tokenkeep_core::{
    Action, Connection, ConnectionId, GrantId, Health, IntegrationId, Subject, Tenant,
    grant::{Presented, Revoked},
    session::{Terms, UpstreamLife},
    time::between,
};
use tokenkeep_oauth::Secret;

pub use self::{
    settings::{MAX_TTL, SessionSettings},
    view::{IssuedSession, SessionStats, SessionView},
};
use crate::{
    Caller, ConnectionView, Error, PutMode, PutTokens,
    cache::Ready,
    connections::Connections,
    issuer::{Issuer, Opening, Reissue, VerifiedToken, WEBSOCKET, refused},
    shared::Shared,
};

/// A session that is to be made.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Whose.
    pub subject: Subject,
    /// Where they can be reached; for the token's claims.
    pub email: Option<String>,
    /// What stands behind it.
    pub on: SessionUpstream,
    /// How long its access tokens live; without it they follow the upstream, or live as long as is usual.
    pub ttl: Option<Duration>,
    /// Whether they follow the upstream's expiry. With a `ttl`: whether they never outlive an upstream that cannot be
    /// renewed.
    pub coordinate_expiry: bool,
    /// Whether it gets a refresh token of ours, where the installation gives them.
    pub refresh_token: bool,
}

/// What stands behind a session.
#[derive(Clone, Debug)]
pub enum SessionUpstream {
    /// Tokens that are held already.
    Connection(ConnectionId),
    /// Tokens that a sign-in brought: they are stored as the connection of the session's subject.
    Tokens {
        /// Where they are from.
        integration: IntegrationId,
        /// Whose they are.
        tenant: Tenant,
        /// The tokens.
        tokens: PutTokens,
    },
}

/// The use cases of sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    shared: Arc<Shared>,
    connections: Connections,
    issuer: Issuer,
    told: Arc<SessionSettings>,
}

/// The longest address, in bytes (RFC 5321 4.5.3.1: 64 before the @, 255 after it).
const MAX_EMAIL: usize = 320;

/// An access token of a session that counts, and what it leads to.
struct Shown {
    token: Arc<VerifiedToken>,
    id: GrantId,
    connection: ConnectionId,
}

impl Sessions {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connections: Connections,
        issuer: Issuer,
        told: Arc<SessionSettings>,
    ) -> Self {
        Self { shared, connections, issuer, told }
    }

    /// What it was told to be.
    pub fn settings(&self) -> &SessionSettings {
        &self.told
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Makes a session. What leads to a user's tokens takes the right to read them.
    pub async fn issue(&self, caller: &Caller, new: NewSession) -> Result<IssuedSession, Error> {
        let NewSession { subject, email, on, ttl, coordinate_expiry, refresh_token } = new;
        check_ttl(ttl)?;
        check_email(email.as_deref())?;
        if refresh_token && self.told.refresh_token_ttl.is_none() {
            return Err(Error::invalid(
                "this installation gives no refresh tokens: `[sessions] refresh_token_ttl` does",
            ));
        }
        let id = match &on {
            SessionUpstream::Connection(id) => id.clone(),
            SessionUpstream::Tokens { integration, tenant, .. } => {
                ConnectionId { integration: integration.clone(), tenant: tenant.clone(), subject: subject.clone() }
            }
        };
        caller.may_at(Action::UseSessions, &id.integration, &id.tenant)?;
        caller.may_at(Action::ReadToken, &id.integration, &id.tenant)?;
        if let SessionUpstream::Tokens { tokens, .. } = on {
            self.connections.put(caller, &id, tokens, PutMode::default()).await?;
        }
        let connection = self.alive(&id).await?;
        let upstream = self.life(&connection).await?;
        self.check_alive(&connection, upstream)?;
        let terms = Terms { ttl, coordinated: coordinate_expiry };
        let opening = Opening { subject, email, terms, refresh_token };
        let issued = self.issuer.open_session(&self.told, opening, &connection, upstream).await?;
        let by = caller.name();
        tracing::info!(target: "audit", action = "session_issued", %by, session = %issued.id, connection = %id);
        Ok(issued)
    }

    /// The hot path: the provider's access token behind `token`, if both were seen a moment ago and are fresh. Takes no
    /// lock, does no I/O; `None` says nothing.
    pub fn ensured(&self, token: &str, min_ttl: Duration) -> Option<Arc<Ready>> {
        let verified = self.issuer.verified(token)?;
        let id = verified.connection.as_ref().filter(|_| self.is_ours(&verified))?;
        let ready =
            self.connections.cached(id.integration.as_str(), id.tenant.as_str(), id.subject.as_str(), min_ttl)?;
        (verified.incarnation == Some(ready.incarnation)).then_some(ready)
    }

    /// The provider's access token behind `token`, fresh for `min_ttl`. One that is dead is never answered.
    ///
    /// # Errors
    /// [`Error::InvalidSession`]: the token does not count, or what it led to is gone. [`Error::ReauthRequired`]: the
    /// user must sign in again. An outage, theirs or ours, is neither.
    pub async fn ensure(&self, token: &Secret, min_ttl: Duration) -> Result<Arc<Ready>, Error> {
        if let Some(ready) = self.ensured(token.expose_secret(), min_ttl) {
            return Ok(ready);
        }
        let shown = self.shown(token).await?;
        let ready = self.connections.token(&Caller::Local, &shown.connection, min_ttl).await.map_err(lost)?;
        if shown.token.incarnation != Some(ready.incarnation) {
            return Err(Error::InvalidSession);
        }
        Ok(ready)
    }

    /// Renews both: the provider's tokens, where anything can, and ours. The old one lives on for the grace window, and
    /// whoever presents it meanwhile gets the same new one.
    pub async fn refresh(&self, token: &Secret) -> Result<IssuedSession, Error> {
        let asked = self.shared.now().wall;
        let shown = self.shown(token).await?;
        refuse_websocket(&shown.token)?;
        let connection = self.connection_of(&shown).await?;
        let jti = &shown.token.claims.jti;
        if let Some(issued) = self.issuer.refreshed_session(&self.told, &shown.id, jti).await? {
            return Ok(issued);
        }
        let upstream = self.renewed(&connection).await?;
        self.issuer.renew_session(&self.told, &shown.token, shown.id, upstream, asked).await
    }

    /// The same for who has nothing but a refresh token of ours: a laptop that slept.
    pub async fn refresh_with(&self, refresh_token: &Secret) -> Result<IssuedSession, Error> {
        let presented = Presented::parse(refresh_token).ok_or(Error::InvalidSession)?;
        let grant = self.issuer.session_of(&presented).await?;
        let (Some(id), Some(session)) = (&grant.connection, &grant.session) else { return Err(Error::InvalidSession) };
        let connection = self.connections.load(id).await?;
        let connection = connection.map(|stored| stored.value).filter(|c| c.incarnation == session.incarnation);
        let connection = connection.ok_or(Error::InvalidSession)?;
        let upstream = self.renewed(&connection).await?;
        self.issuer.renew_session_by(&self.told, &presented, upstream).await
    }

    /// One more access token on the same session; the one that is shown stays.
    pub async fn reissue(&self, token: &Secret, ttl: Option<Duration>) -> Result<IssuedSession, Error> {
        check_ttl(ttl)?;
        self.another(token, Reissue::Usual(ttl)).await
    }

    /// A short-lived one for opening a WebSocket: it may end up in a log, so it can be neither refreshed nor reissued.
    pub async fn for_websocket(&self, token: &Secret) -> Result<IssuedSession, Error> {
        self.another(token, Reissue::Websocket).await
    }

    async fn another(&self, token: &Secret, how: Reissue) -> Result<IssuedSession, Error> {
        let shown = self.shown(token).await?;
        refuse_websocket(&shown.token)?;
        let connection = self.connection_of(&shown).await?;
        let upstream = self.life(&connection).await?;
        self.check_alive(&connection, upstream)?;
        self.issuer.reissue_session(&self.told, &shown.token, shown.id, upstream, how).await
    }

    /// How the session stands.
    pub async fn current(&self, token: &Secret) -> Result<SessionView, Error> {
        let shown = self.shown(token).await?;
        let connection = self.connection_of(&shown).await?;
        let now = self.shared.now().wall;
        let policy = self.connections.policy(&connection.id.integration).await;
        let upstream = self.life(&connection).await?;
        let grant = self.issuer.grant_view(&Caller::Local, &shown.id).await.map_err(lost)?;
        let expires_at = shown.token.counts_until;
        let connection = ConnectionView::new(&connection, &policy, now);
        Ok(SessionView {
            id: shown.id,
            subject: grant.subject,
            email: grant.email,
            created_at: grant.created_at,
            issued_at: shown.token.claims.issued_at,
            expires_at,
            near_expiry: view::is_near(Some(expires_at), now),
            upstream_near_expiry: view::is_near(upstream.expires_at, now),
            for_websocket: is_for_websocket(&shown.token),
            refreshable: grant.refreshable,
            connection,
        })
    }

    /// Ends the session: everything that was issued for it, on every instance. The connection stays.
    pub async fn logout(&self, token: &Secret) -> Result<(), Error> {
        let shown = self.shown(token).await?;
        refuse_websocket(&shown.token)?;
        self.issuer.end_grant(&shown.id, Revoked::Asked).await?;
        tracing::info!(target: "audit", action = "session_ended", session = %shown.id, connection = %shown.connection);
        Ok(())
    }

    /// Counts the access tokens of the sessions that the caller may see. Reads every record: not for every second.
    pub async fn stats(&self, caller: &Caller) -> Result<SessionStats, Error> {
        caller.may(Action::UseSessions)?;
        let now = self.shared.now().wall;
        let storage_type = self.shared.records.store().describe().name;
        let mut stats =
            SessionStats { total_tokens: 0, expired_tokens: 0, active_tokens: 0, active_sessions: 0, storage_type };
        self.issuer
            .each_session(|grant| {
                let is_seen =
                    |id: &ConnectionId| caller.sees_tenant(&id.tenant) && caller.sees_integration(&id.integration);
                if !grant.connection.as_ref().is_some_and(is_seen) {
                    return;
                }
                let active = grant.live.iter().filter(|token| now < token.expires_at).count() as u64;
                stats.total_tokens += grant.live.len() as u64;
                stats.active_tokens += active;
                stats.active_sessions += u64::from(grant.is_live(now));
            })
            .await?;
        stats.expired_tokens = stats.total_tokens - stats.active_tokens;
        Ok(stats)
    }

    /// Forgets access tokens that are dead, of the sessions that the caller may see; answers how many.
    pub async fn cleanup(&self, caller: &Caller) -> Result<u64, Error> {
        caller.may(Action::UseSessions)?;
        let removed = self
            .issuer
            .drop_dead_session_tokens(|id| caller.sees_tenant(&id.tenant) && caller.sees_integration(&id.integration))
            .await?;
        tracing::info!(target: "audit", action = "sessions_cleaned", by = %caller.name(), removed);
        Ok(removed)
    }

    /// Whether `token` is an access token of a session.
    pub fn is_ours(&self, token: &VerifiedToken) -> bool {
        token.claims.audience == self.told.resource.resource && token.incarnation.is_some()
    }

    /// What a session's caller shows.
    async fn shown(&self, token: &Secret) -> Result<Shown, Error> {
        let verified = self.issuer.verify(token).await.map_err(refused)?;
        if !self.is_ours(&verified) {
            return Err(Error::InvalidSession);
        }
        match (verified.grant, verified.connection.clone()) {
            (Some(id), Some(connection)) => Ok(Shown { token: verified, id, connection }),
            _ => Err(Error::InvalidSession),
        }
    }

    async fn connection_of(&self, shown: &Shown) -> Result<Connection, Error> {
        let stored = self.connections.load(&shown.connection).await?;
        let connection = stored.map(|stored| stored.value);
        connection.filter(|it| Some(it.incarnation) == shown.token.incarnation).ok_or(Error::InvalidSession)
    }

    /// The connection, with an access token that is alive.
    async fn alive(&self, id: &ConnectionId) -> Result<Connection, Error> {
        let missing = || Error::not_found("connection", id);
        let connection = self.connections.load(id).await?.ok_or_else(missing)?.value;
        if connection.is_alive(self.shared.now().wall) {
            return Ok(connection);
        }
        self.connections.token(&Caller::Local, id, Duration::ZERO).await?;
        Ok(self.connections.load(id).await?.ok_or_else(missing)?.value)
    }

    /// Renews what stands behind the session, where anything can. What the provider ended is not renewed, however long
    /// its access token still lives.
    async fn renewed(&self, connection: &Connection) -> Result<UpstreamLife, Error> {
        if let Health::ReauthRequired { reason, .. } = &connection.health {
            return Err(Error::ReauthRequired { connection: connection.id.clone(), reason: reason.clone() });
        }
        let before = self.life(connection).await?;
        if !before.renewable {
            self.check_alive(connection, before)?;
            return Ok(before);
        }
        let ready = self.connections.renew(&connection.id).await.map_err(lost)?;
        if ready.incarnation != connection.incarnation {
            return Err(Error::InvalidSession);
        }
        Ok(UpstreamLife { expires_at: ready.expires_at, renewable: true })
    }

    async fn life(&self, connection: &Connection) -> Result<UpstreamLife, Error> {
        let can = connection.tokens.renewal.is_some() && !matches!(connection.health, Health::ReauthRequired { .. });
        let renewable = can && self.connections.party_of(&connection.id).await?.is_some();
        let expires_at = match &connection.tokens.access {
            Some(access) => access.expires_at,
            // It was dead, and was dropped: that is not a token that lives for ever.
            None => Some(connection.updated_at),
        };
        Ok(UpstreamLife { expires_at, renewable })
    }

    /// Nothing is issued on what is dead and cannot be renewed.
    fn check_alive(&self, connection: &Connection, upstream: UpstreamLife) -> Result<(), Error> {
        let now = self.shared.now().wall;
        let is_dead = |dies| between(now, dies) < Duration::from_secs(1);
        if upstream.renewable || !upstream.expires_at.is_some_and(is_dead) {
            return Ok(());
        }
        let reason = match &connection.health {
            Health::ReauthRequired { reason, .. } => reason.clone(),
            _ => "no_refresh_token".to_owned(),
        };
        Err(Error::ReauthRequired { connection: connection.id.clone(), reason })
    }
}

/// What a session rested on is gone: to its caller it is over.
fn lost(error: Error) -> Error {
    match error {
        Error::NotFound { .. } => Error::InvalidSession,
        error => error,
    }
}

fn is_for_websocket(token: &VerifiedToken) -> bool {
    token.claims.scope.contains(WEBSOCKET)
}

fn refuse_websocket(token: &VerifiedToken) -> Result<(), Error> {
    if is_for_websocket(token) {
        return Err(Error::Forbidden("this token opens a WebSocket, and does nothing else".into()));
    }
    Ok(())
}

/// It goes into every token, so it is bounded; whether it is one, the backend knows.
fn check_email(email: Option<&str>) -> Result<(), Error> {
    match email {
        Some(email) if email.is_empty() || email.len() > MAX_EMAIL || email.chars().any(char::is_control) => {
            Err(Error::invalid(format!("`email` must be 1 to {MAX_EMAIL} bytes, without control characters")))
        }
        _ => Ok(()),
    }
}

fn check_ttl(ttl: Option<Duration>) -> Result<(), Error> {
    match ttl {
        Some(ttl) if ttl < Duration::from_secs(1) || ttl > MAX_TTL => {
            Err(Error::invalid(format!("`ttl` must be 1 to {} seconds", MAX_TTL.as_secs())))
        }
        _ => Ok(()),
    }
}
