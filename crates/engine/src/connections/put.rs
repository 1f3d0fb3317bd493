//! Storing tokens that were obtained elsewhere.

use jiff::Timestamp;
use tokenkeep_core::{
    AccessToken, Action, Connection, ConnectionId, Incarnation, TokenSet,
    change::{self, NewRenewal, NewTokens},
    ports::{Expect, Put},
    refresh::Seen,
    time::after,
};
use tokenkeep_oauth::Secret;

use super::{ATTEMPTS, ConnectionView, Connections, exchange, record};
use crate::{Caller, Error, error::STORE_RETRY};

/// A member that may be left out, be `null`, or have a value: three different wishes.
#[derive(Clone, Debug, Default)]
pub enum Given<T> {
    /// Left out: what is stored stays.
    #[default]
    Absent,
    /// `null`: what is stored goes.
    Null,
    /// This.
    Value(T),
}

/// Tokens to be stored.
#[derive(Clone, Debug)]
pub struct PutTokens {
    /// The access token; it may be left out where a refresh token is given, and is fetched then.
    pub access_token: Option<Secret>,
    /// The refresh token.
    pub refresh_token: Given<Secret>,
    /// When the access token dies; without it, the provider's default life counts from now.
    pub expires_at: Option<Timestamp>,
    /// What was granted, separated by spaces.
    pub scope: Option<String>,
    /// `Bearer` if left out.
    pub token_type: Option<String>,
    /// For people.
    pub display_name: Option<String>,
}

/// How tokens are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutMode {
    /// Store even a refresh token that is known to be spent.
    pub force: bool,
    /// Store only where there is nothing.
    pub only_if_absent: bool,
}

impl Connections {
    /// Stores tokens. Answers whether the connection is new. Any provider of the catalogue may be named before it has
    /// an integration: what is stored is served until it expires.
    pub async fn put(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        tokens: PutTokens,
        mode: PutMode,
    ) -> Result<(bool, ConnectionView), Error> {
        caller.may_at(Action::PutConnection, &id.integration, &id.tenant)?;
        let party = self.party(&id.integration).await?;
        let provider = self.integrations.provider_named_like(&id.integration);
        if party.is_none() && provider.is_none() {
            return Err(Error::not_found("provider", &id.integration));
        }
        if let Some(party) = &party
            && !party.integration.serves(&id.tenant)
        {
            return Err(Error::Forbidden("this integration belongs to another tenant".into()));
        }
        let life = match &party {
            Some(party) => party.provider.default_lifetime,
            None => provider.and_then(|p| p.default_lifetime),
        };
        let now = self.shared.now().wall;
        let access = tokens.access_token.map(|token| AccessToken {
            token,
            token_type: tokens.token_type.unwrap_or_else(|| "Bearer".to_owned()),
            issued_at: now,
            expires_at: tokens.expires_at.or_else(|| life.map(|life| after(now, life))),
        });
        if access.is_none() && !matches!(tokens.refresh_token, Given::Value(_)) {
            return Err(Error::invalid("`access_token` is missing"));
        }
        let renewal = match tokens.refresh_token {
            Given::Absent => NewRenewal::Keep,
            Given::Null => NewRenewal::Remove,
            Given::Value(token) => NewRenewal::Replace(exchange::refresh_token(&self.shared, token)),
        };
        let new = NewTokens { access, renewal, scope: tokens.scope, display_name: tokens.display_name };
        let (created, connection) = self.store(id, new, mode).await?;
        tracing::info!(target: "audit", action = "stored", by = %caller.name(), connection = %id, created, forced = mode.force);
        let policy = self.policy(&id.integration).await;
        Ok((created, ConnectionView::new(&connection, &policy, self.shared.now().wall)))
    }

    /// Stores what a consent, or the integration's own credentials, brought. `force` = what was just issued counts,
    /// whatever was there before; without it, what was stored and spent before is not stored again.
    pub(crate) async fn consented(
        &self,
        id: &ConnectionId,
        tokens: TokenSet,
        display_name: Option<String>,
        force: bool,
    ) -> Result<Connection, Error> {
        let renewal = tokens.renewal.map_or(NewRenewal::Keep, NewRenewal::Replace);
        let new = NewTokens { access: tokens.access, renewal, scope: tokens.scope, display_name };
        let mode = PutMode { force, only_if_absent: false };
        let (_, connection) = self.store(id, new, mode).await?;
        Ok(connection)
    }

    pub(super) async fn store(
        &self,
        id: &ConnectionId,
        new: NewTokens,
        mode: PutMode,
    ) -> Result<(bool, Connection), Error> {
        let unavailable = || Error::StoreUnavailable { retry_after: STORE_RETRY, source: None };
        let policy = self.policy(&id.integration).await;
        let mut unknown = None;
        for _ in 0..ATTEMPTS {
            let asked = self.flights.cache.asking(self.shared.now());
            let seen = record::read(&self.shared.records, id).await.map_err(|()| unavailable())?;
            // The answer to our last write was lost: what it would have made may be there.
            if let (Some((created, written)), Some(present)) = (unknown.take(), seen.live())
                && same(&written, present)
            {
                self.shared.announce(&written);
                return Ok((created, written));
            }
            if mode.only_if_absent && seen.live().is_some() {
                return Err(Error::AlreadyThere { what: "connection" });
            }
            let now = self.shared.now().wall;
            let fresh = Incarnation(self.shared.ulid());
            let connection = change::replace(id, &seen, new.clone(), fresh, mode.force, now)?;
            let created = seen.live().is_none();
            let expect = match &seen {
                Seen::Live(_, version) => Expect::Version(version),
                Seen::Absent | Seen::Deleted(..) => Expect::Absent,
            };
            match self.shared.records.save(&connection, policy.margin, expect).await? {
                Put::Committed(_) => {
                    if matches!(new.renewal, NewRenewal::Replace(_) | NewRenewal::Remove) {
                        // Replies to what was held before must not heal the record back to it.
                        self.flights.forget_replies(id, seen.live(), connection.generation);
                    }
                    self.flights.publish(&connection, &policy, asked);
                    if connection.tokens.access.is_none() {
                        self.flights.cache.remove(id, connection.incarnation, connection.generation);
                    }
                    self.shared.announce(&connection);
                    return Ok((created, connection));
                }
                Put::Conflict => {}
                Put::Unknown => unknown = Some((created, connection)),
            }
        }
        Err(Error::Conflict { what: "connection" })
    }
}

fn same(written: &Connection, present: &Connection) -> bool {
    written.incarnation == present.incarnation
        && written.generation == present.generation
        && written.fingerprint() == present.fingerprint()
        && written.updated_at == present.updated_at
}
