//! Sessions: grants that a first-party backend makes for its own users. There is no code, and no client that could ask.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokenkeep_core::{
    Connection, Grant, GrantId, Subject,
    grant::{Family, GrantSeed, GrantStage, Presented, User},
    session::{Renewed, Session, SessionToken, Terms, UpstreamLife, session_client},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        access_token::{AccessTokenClaims, SessionClaims, build_access_token},
        scope::ScopeSet,
    },
};
use zeroize::Zeroizing;

use crate::{
    Error,
    issuer::{Issuer, Refused, VerifiedToken},
    sessions::{IssuedSession, SessionSettings},
};

/// The scope of a token that opens a WebSocket and does nothing else: it stands in a URL.
pub(crate) const WEBSOCKET: &str = "websocket";

/// For whom a session is made.
pub(crate) struct Opening {
    pub(crate) subject: Subject,
    pub(crate) email: Option<String>,
    pub(crate) terms: Terms,
    pub(crate) refresh_token: bool,
}

/// How the next access token of a session comes to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reissue {
    /// As the session's terms say.
    Usual(Option<Duration>),
    /// For opening a WebSocket.
    Websocket,
}

impl Issuer {
    /// Makes a session on `connection`, and its first access token.
    pub(crate) async fn open_session(
        &self,
        told: &SessionSettings,
        opening: Opening,
        connection: &Connection,
        upstream: UpstreamLife,
    ) -> Result<IssuedSession, Error> {
        let now = self.shared.now().wall;
        let id = GrantId(self.shared.ulid());
        let token = self.session_token(id, opening.terms, upstream, told.ttl, now);
        let refresh_life = told.refresh_token_ttl.filter(|_| opening.refresh_token);
        let grant = Grant {
            id,
            client: session_client(),
            subject: opening.subject,
            user: User { name: None, email: opening.email },
            scope: ScopeSet::default(),
            resource: told.resource.resource.clone(),
            connection: Some(connection.id.clone()),
            exchangers: told.resource.exchangers.clone(),
            seed: GrantSeed::new(*Zeroizing::new(self.shared.entropy.bytes32())),
            created_at: now,
            stage: GrantStage::Active(Family::begin(refresh_life, now)),
            live: vec![token.live()],
            session: Some(Session {
                terms: opening.terms,
                incarnation: connection.incarnation,
                successors: Vec::new(),
            }),
        };
        // What cannot be signed need not be kept, and what could not be kept is not handed out.
        let access_token = self.sign_session(told, &grant, &token, false).await?;
        self.make_grant(&Arc::new(grant.clone())).await?;
        self.shared.metrics.issued("session");
        let refresh_token = refresh_life.map(|_| grant.token(1));
        Ok(issued(id, access_token, &token, refresh_token))
    }

    /// What the access token was refreshed to a moment ago, if it was.
    pub(crate) async fn refreshed_session(
        &self,
        told: &SessionSettings,
        id: &GrantId,
        jti: &str,
    ) -> Result<Option<IssuedSession>, Error> {
        let Some(stored) = self.load_grant(id).await? else { return Ok(None) };
        let Some(token) = stored.value.successor_of(jti, self.shared.now().wall) else { return Ok(None) };
        let access_token = self.sign_session(told, &stored.value, &token, false).await?;
        Ok(Some(issued(*id, access_token, &token, None)))
    }

    /// Puts a new access token in the place of one that counted at `asked`, which lives on for the grace window.
    pub(crate) async fn renew_session(
        &self,
        told: &SessionSettings,
        presented: &VerifiedToken,
        id: GrantId,
        upstream: UpstreamLife,
        asked: Timestamp,
    ) -> Result<IssuedSession, Error> {
        let birth = self.birth(Some(id));
        let (now, jti) = (birth.issued_at, &presented.claims.jti);
        let step = |grant: Grant| {
            let token = named(&birth.jti, terms_of(&grant), upstream, told.ttl, now);
            let Renewed { grant, token, .. } = grant.renewed(jti, token, told.grace, asked)?;
            Ok((grant, token))
        };
        let (grant, token) = self.advance(&id, &birth.jti, step).await.map_err(refused)?;
        // What was presented dies sooner from now on: nobody goes by what they remember of it.
        self.announce_grant(id);
        self.shared.metrics.issued("session_refresh");
        let access_token = self.sign_session(told, &grant, &token, false).await?;
        Ok(issued(id, access_token, &token, None))
    }

    /// The session that a refresh token of ours belongs to, if it counts.
    pub(crate) async fn session_of(&self, presented: &Presented) -> Result<Grant, Error> {
        let stored = self.load_grant(&presented.grant).await?;
        let grant = stored.map(|stored| stored.value).filter(|grant| grant.belongs(presented, &session_client()));
        grant
            .filter(|grant| grant.is_live(self.shared.now().wall) && grant.session.is_some())
            .ok_or(Error::InvalidSession)
    }

    /// Brings a new access token, and a new refresh token, for one of the session's refresh tokens.
    pub(crate) async fn renew_session_by(
        &self,
        told: &SessionSettings,
        presented: &Presented,
        upstream: UpstreamLife,
    ) -> Result<IssuedSession, Error> {
        let id = presented.grant;
        let birth = self.birth(Some(id));
        let life = told.refresh_token_ttl.unwrap_or_default();
        let step = |grant: Grant| {
            let now = self.shared.now().wall;
            let token = named(&birth.jti, terms_of(&grant), upstream, told.ttl, birth.issued_at);
            let Renewed { grant, token, number } = grant.renewed_by(presented, life, token, told.grace, now)?;
            Ok((grant, (token, number)))
        };
        let (grant, (token, number)) = self.advance(&id, &birth.jti, step).await.map_err(refused)?;
        self.shared.metrics.issued("session_refresh");
        let access_token = self.sign_session(told, &grant, &token, false).await?;
        Ok(issued(id, access_token, &token, number.map(|number| grant.token(number))))
    }

    /// One more access token of a session; the one that is presented stays.
    pub(crate) async fn reissue_session(
        &self,
        told: &SessionSettings,
        presented: &VerifiedToken,
        id: GrantId,
        upstream: UpstreamLife,
        how: Reissue,
    ) -> Result<IssuedSession, Error> {
        let birth = self.birth(Some(id));
        let now = birth.issued_at;
        let ttl = match how {
            Reissue::Usual(ttl) => ttl,
            Reissue::Websocket => Some(told.websocket_ttl),
        };
        let step = |grant: Grant| {
            let terms = terms_of(&grant);
            let token = named(&birth.jti, Terms { ttl: ttl.or(terms.ttl), ..terms }, upstream, told.ttl, now);
            let grant = grant.reissued(&presented.claims.jti, &token, now)?;
            Ok((grant, token))
        };
        let (grant, token) = self.advance(&id, &birth.jti, step).await.map_err(refused)?;
        self.shared.metrics.issued("session_reissue");
        let access_token = self.sign_session(told, &grant, &token, matches!(how, Reissue::Websocket)).await?;
        Ok(issued(id, access_token, &token, None))
    }

    fn session_token(
        &self,
        grant: GrantId,
        terms: Terms,
        upstream: UpstreamLife,
        usual: Duration,
        now: Timestamp,
    ) -> SessionToken {
        named(&self.birth(Some(grant)).jti, terms, upstream, usual, now)
    }

    async fn sign_session(
        &self,
        told: &SessionSettings,
        grant: &Grant,
        token: &SessionToken,
        websocket: bool,
    ) -> Result<Secret, Error> {
        let session = SessionClaims { email: grant.user.email.clone(), upstream_expires_at: token.upstream_expires_at };
        let scope = if websocket { ScopeSet::parse(WEBSOCKET) } else { Ok(ScopeSet::default()) };
        let claims = AccessTokenClaims {
            subject: grant.subject.to_string(),
            audience: grant.resource.clone(),
            client_id: grant.client.to_string(),
            scope: scope.map_err(|_| Error::Conflict { what: "scope" })?,
            jti: token.jti.clone(),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            username: None,
            session: Some(session),
        };
        let issuer = self.settings.url.as_str();
        let signed = self.with_signer(&told.resource, |key| build_access_token(key, issuer, &claims)).await;
        signed.map_err(refused)?.map_err(|_| Error::Conflict { what: "signing key" })
    }
}

fn named(jti: &str, terms: Terms, upstream: UpstreamLife, usual: Duration, now: Timestamp) -> SessionToken {
    let issued_at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    SessionToken {
        jti: jti.to_owned(),
        issued_at,
        expires_at: terms.expires_at(upstream, usual, now),
        upstream_expires_at: upstream.expires_at,
    }
}

fn terms_of(grant: &Grant) -> Terms {
    grant.session.as_ref().map_or(Terms { ttl: None, coordinated: true }, |session| session.terms)
}

fn issued(id: GrantId, access_token: Secret, token: &SessionToken, refresh_token: Option<Secret>) -> IssuedSession {
    IssuedSession {
        id,
        access_token,
        issued_at: token.issued_at,
        expires_at: token.expires_at,
        upstream_expires_at: token.upstream_expires_at,
        refresh_token,
    }
}

/// To a session's caller all that is wrong with a token is the same.
pub(crate) fn refused(refused: Refused) -> Error {
    match refused {
        refused @ (Refused::Protocol(_) | Refused::InteractionRequired { .. }) => {
            tracing::debug!(error = %refused, "a session's token does not count");
            Error::InvalidSession
        }
        Refused::Failed(error) => error,
    }
}
