//! Giving tokens back (RFC 7009).

use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{
    Client, ClientId, GrantId, Voided,
    grant::{Presented, Revoked},
    ports::{Expect, Put},
    time::after,
    voided::VoidedId,
};
use tokenkeep_oauth::Secret;

use super::{Issuer, Refused, VerifiedToken};
use crate::{Error, bus::Event, error::STORE_RETRY, records::Loaded};

const ATTEMPTS: usize = 64;
/// A token without a grant that is revoked by a name alone is remembered for so long at least: how long it lives is
/// not known, and may have been longer than now.
const VOIDED_FOR: Duration = Duration::from_hours(7 * 24);

impl Issuer {
    /// Takes back a token of `client`'s: a refresh token with its whole family, an access token alone. What is not its
    /// own, or is no token, changes nothing, and that is no error (RFC 7009 2.2).
    pub async fn revoke(&self, client: &Client, token: &Secret) -> Result<(), Refused> {
        if let Some(presented) = Presented::parse(token) {
            return self.revoke_refresh_token(client, &presented).await;
        }
        if token.expose_secret().is_empty() {
            return Ok(());
        }
        match self.verify(token).await {
            Ok(verified) if verified.claims.client_id == client.id.as_str() => self.revoke_verified(&verified).await,
            Ok(_) | Err(Refused::Protocol(_)) => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    async fn revoke_refresh_token(&self, client: &Client, presented: &Presented) -> Result<(), Refused> {
        let Some(stored) = self.load_grant(&presented.grant).await? else { return Ok(()) };
        if stored.value.belongs(presented, &client.id) {
            self.end_grant(&presented.grant, Revoked::Asked).await?;
        }
        Ok(())
    }

    async fn revoke_verified(&self, token: &VerifiedToken) -> Result<(), Refused> {
        let jti = &token.claims.jti;
        match token.grant {
            Some(grant) => {
                self.revoke_one(&grant, jti).await?;
            }
            None => self.void(jti, token.claims.expires_at).await?,
        }
        Ok(())
    }

    /// Takes one access token from its grant; whether it counted before.
    pub(super) async fn revoke_one(&self, id: &GrantId, jti: &str) -> Result<bool, Error> {
        let _turn = self.turns.of(*id).await;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.load_grant(id).await? else { return Ok(false) };
            let Some(without) = stored.value.forget(jti) else {
                self.announce_grant(*id);
                return Ok(false);
            };
            if let Put::Committed(_) = self.shared.records.save(&without, (), Expect::Version(&stored.version)).await? {
                self.announce_grant(*id);
                tracing::info!(target: "audit", action = "token_revoked", grant = %id, jti);
                return Ok(true);
            }
        }
        Err(Error::Conflict { what: "grant" })
    }

    /// Notes that a token without a grant counts no more, for as long as it would.
    pub(super) async fn void(&self, jti: &str, expires_at: Timestamp) -> Result<(), Error> {
        let voided = Voided { id: VoidedId::access_token(jti), expires_at, issued_until: None };
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(&voided, (), Expect::Absent).await? {
                // Whoever else wrote it said the same.
                Put::Committed(_) | Put::Conflict => {
                    self.verified.doubt_token(jti, self.shared.now().boot);
                    self.shared.bus.send(Event::AccessTokenSpent(jti.to_owned()));
                    tracing::info!(target: "audit", action = "token_revoked", jti);
                    return Ok(());
                }
                Put::Unknown => {}
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    /// Notes that whatever `client` has without a grant counts no more: also not for another client of that name.
    pub(super) async fn void_tokens_of(&self, client: &ClientId) -> Result<(), Error> {
        let id = VoidedId::tokens_of(client);
        let now = self.shared.now().wall;
        for _ in 0..ATTEMPTS {
            let loaded = self.shared.records.load::<Voided>(&id).await.map_err(Error::reading("revocation"))?;
            let before = match loaded {
                Loaded::Live(stored) => Some(stored),
                Loaded::Absent | Loaded::Deleted(_) => None,
            };
            let until =
                before.as_ref().and_then(|before| before.value.issued_until).map_or(now, |until| until.max(now));
            let expires_at = after(until, self.voided_life());
            let voided = Voided { id: id.clone(), expires_at, issued_until: Some(until) };
            let expect = before.as_ref().map_or(Expect::Absent, |before| Expect::Version(&before.version));
            if let Put::Committed(_) = self.shared.records.save(&voided, (), expect).await? {
                self.announce_client(client);
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "client" })
    }

    /// How long a token without a grant is noted of which nothing is known but a name.
    pub(super) fn voided_life(&self) -> Duration {
        self.settings.access_token_ttl.max(VOIDED_FOR)
    }
}
