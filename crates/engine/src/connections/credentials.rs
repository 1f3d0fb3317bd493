//! Credentials of providers that know no OAuth: stored beside a connection, tried, logged in with.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokenkeep_core::{
    AccessToken, Action, ConnectionId, Credentials, IntegrationId, LoginGrant, ProviderId, Subject, Tenant,
    change::{self, NewRenewal, NewTokens},
    credentials::CredentialKind,
    ports::{Expect, Put},
};
use tokenkeep_oauth::{Secret, login::LoginFailure};

use super::{ATTEMPTS, ConnectionView, Connections, PROVIDER_RETRY, PutMode, exchange};
use crate::{
    Caller, Error,
    integrations::Party,
    metrics::{LoginOutcome, UpstreamCall},
};

/// Credentials to be stored.
#[derive(Clone, Debug)]
pub struct GivenCredentials {
    /// What is logged in with.
    pub credentials: Credentials,
    /// How long a token lives, where the reply to a login does not say less; `None` = as was said with the credentials
    /// before, else as the provider's entry says.
    pub ttl: Option<Duration>,
    /// For people.
    pub display_name: Option<String>,
}

/// What a login brought.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The token.
    pub access_token: Secret,
    /// `Bearer`, mostly.
    pub token_type: String,
    /// When it dies; `None` = never, or nobody knows.
    pub expires_at: Option<Timestamp>,
}

/// The shortest and the longest life that can be said of a token.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(366 * 24);

impl Connections {
    /// Stores credentials, sealed beside the connection, in place of what brought its tokens before. With `login_first`
    /// only if a login succeeds, whose token is stored with them; without it, the first reader logs in. A provider whose
    /// API takes the credentials themselves has nothing to log in to: nothing is tried. Answers whether the connection is
    /// new.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] and [`Error::ProviderUnavailable`], with `login_first`: nothing is changed then.
    pub async fn put_credentials(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        given: GivenCredentials,
        mode: PutMode,
        login_first: bool,
    ) -> Result<(bool, ConnectionView), Error> {
        caller.may_at(Action::PutConnection, &id.integration, &id.tenant)?;
        if given.ttl.is_some_and(|ttl| !TTL.contains(&ttl)) {
            return Err(Error::invalid("`ttl` must be from 60 seconds to 366 days"));
        }
        let party = self.party_for(&id.integration, &id.tenant, &given.credentials).await?;
        let before = self.load(id).await?;
        if mode.only_if_absent && before.is_some() {
            return Err(Error::AlreadyThere { what: "connection" });
        }
        let kept = before.and_then(|stored| stored.value.login().and_then(|login| login.ttl));
        let grant = LoginGrant { credentials: given.credentials, ttl: given.ttl.or(kept) };
        let access = if login_first || party.provider.kind.is_static() {
            Some(self.log_in(&party, id, &grant).await?)
        } else {
            None
        };
        let renewal = NewRenewal::Replace(exchange::login(&self.shared, grant));
        let new = NewTokens { access, renewal, scope: None, display_name: given.display_name };
        let (created, connection) = self.store(id, new, mode).await?;
        tracing::info!(target: "audit", action = "credentials_stored", by = %caller.name(), connection = %id, created, tried = login_first);
        let policy = self.policy(&id.integration).await;
        Ok((created, ConnectionView::new(&connection, &policy, self.shared.now().wall)))
    }

    /// Whether the provider takes these credentials. Stores nothing. One whose API takes the credentials themselves is
    /// not asked: it has no place to ask at.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if it does not.
    pub async fn test_credentials(
        &self,
        caller: &Caller,
        integration: &IntegrationId,
        tenant: &Tenant,
        credentials: Credentials,
    ) -> Result<(), Error> {
        caller.may_at(Action::PutConnection, integration, tenant)?;
        self.try_out(integration, tenant, credentials).await?;
        tracing::info!(target: "audit", action = "credentials_tested", by = %caller.name(), %integration, %tenant);
        Ok(())
    }

    /// Logs in and hands the token out. Stores nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the provider does not take them.
    pub async fn login(
        &self,
        caller: &Caller,
        integration: &IntegrationId,
        tenant: &Tenant,
        credentials: Credentials,
    ) -> Result<LoggedIn, Error> {
        caller.may_at(Action::PutConnection, integration, tenant)?;
        caller.may_at(Action::ReadToken, integration, tenant)?;
        let access = self.try_out(integration, tenant, credentials).await?;
        tracing::info!(target: "audit", action = "logged_in", by = %caller.name(), %integration, %tenant);
        Ok(LoggedIn { access_token: access.token, token_type: access.token_type, expires_at: access.expires_at })
    }

    /// Drops the access token and keeps what brings the next one: the next reader logs in, or refreshes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no connection.
    pub async fn drop_token(&self, caller: &Caller, id: &ConnectionId) -> Result<(), Error> {
        caller.may_at(Action::DeleteConnection, &id.integration, &id.tenant)?;
        let margin = self.policy(&id.integration).await.margin;
        for _ in 0..ATTEMPTS {
            let stored = self.load(id).await?.ok_or_else(|| Error::not_found("connection", id))?;
            let Some(next) = change::drop_access(&stored.value, self.shared.now().wall) else { return Ok(()) };
            match self.shared.records.save(&next, margin, Expect::Version(&stored.version)).await? {
                Put::Committed(_) => {
                    self.flights.forget_replies(id, Some(&stored.value), next.generation);
                    self.flights.cache.remove(id, next.incarnation, next.generation);
                    self.shared.announce(&next);
                    tracing::info!(target: "audit", action = "token_dropped", by = %caller.name(), connection = %id);
                    return Ok(());
                }
                // Our own write may be there: then there is nothing left to drop.
                Put::Conflict | Put::Unknown => {}
            }
        }
        Err(Error::Conflict { what: "connection" })
    }

    async fn try_out(
        &self,
        integration: &IntegrationId,
        tenant: &Tenant,
        credentials: Credentials,
    ) -> Result<AccessToken, Error> {
        let party = self.party_for(integration, tenant, &credentials).await?;
        let subject = Subject::default_subject();
        let id = ConnectionId { integration: integration.clone(), tenant: tenant.clone(), subject };
        self.log_in(&party, &id, &LoginGrant { credentials, ttl: None }).await
    }

    /// Both sides of the integration, if these are credentials that it takes.
    async fn party_for(
        &self,
        integration: &IntegrationId,
        tenant: &Tenant,
        credentials: &Credentials,
    ) -> Result<Arc<Party>, Error> {
        credentials.check().map_err(|error| Error::invalid(error.to_string()))?;
        let Some(party) = self.party(integration).await? else {
            return Err(match self.integrations.provider_named_like(integration) {
                Some(provider) if provider.takes().is_none() => takes_none(&provider.id),
                Some(_) => Error::IntegrationMissing(integration.clone()),
                None => Error::not_found("provider", integration),
            });
        };
        if !party.integration.serves(tenant) {
            return Err(Error::Forbidden("this integration belongs to another tenant".into()));
        }
        let provider = &party.provider;
        match provider.takes() {
            None => return Err(takes_none(&provider.id)),
            Some(kind) if kind != credentials.kind() => {
                let what = match kind {
                    CredentialKind::Password => "`username` and `password`",
                    CredentialKind::ApiKey => "`api_key`",
                };
                return Err(Error::invalid(format!("`{}` takes {what}", provider.id)));
            }
            Some(_) => {}
        }
        let joined = provider.kind.is_static() || provider.login.as_ref().is_some_and(|login| login.dialect.basic);
        if joined && credentials.as_token().is_none() {
            return Err(Error::invalid("`username` may hold no colon here: it is sent as HTTP Basic"));
        }
        Ok(party)
    }

    /// One login, for whoever asks for it now.
    async fn log_in(&self, party: &Party, id: &ConnectionId, grant: &LoginGrant) -> Result<AccessToken, Error> {
        let (shared, integration) = (&self.shared, &id.integration);
        let renewal = exchange::login(shared, grant.clone());
        if let Some(standing) = exchange::standing(shared, party, &renewal) {
            return Ok(standing.access);
        }
        let request = exchange::build_login(party, grant).map_err(|fault| Error::invalid(fault.detail()))?;
        shared.limits.enter_login(party, id, shared.settings.proxy.max_wait).await?;
        shared.metrics.called(integration, UpstreamCall::login);
        let shown = format!("{request:?}");
        let unavailable = |detail: String, retry_after| Error::ProviderUnavailable {
            integration: integration.clone(),
            detail,
            retry_after,
        };
        let reply = shared.fetch(request).await.map_err(|error| {
            tracing::warn!(request = shown, %error, "a provider was not reached");
            shared.metrics.logged_in(integration, LoginOutcome::failed);
            unavailable("the provider does not answer".to_owned(), PROVIDER_RETRY)
        })?;
        match exchange::read_login(shared, party, grant, &reply) {
            Ok(login) => {
                shared.metrics.logged_in(integration, LoginOutcome::succeeded);
                Ok(exchange::access(shared, login))
            }
            Err(LoginFailure::Refused { status }) => {
                shared.metrics.logged_in(integration, LoginOutcome::refused);
                tracing::warn!(target: "audit", action = "login_refused", connection = %id, status = status.as_u16());
                Err(Error::InvalidCredentials { integration: integration.clone() })
            }
            Err(failure) => {
                shared.metrics.logged_in(integration, LoginOutcome::failed);
                tracing::warn!(%integration, %failure, "a login failed");
                Err(match failure {
                    LoginFailure::Throttled { retry_after } | LoginFailure::NoOutcome { retry_after, .. } => {
                        unavailable(failure.to_string(), retry_after.unwrap_or(PROVIDER_RETRY))
                    }
                    LoginFailure::Rejected { status } | LoginFailure::Refused { status } => Error::ProviderRejected {
                        integration: integration.clone(),
                        code: format!("http_{}", status.as_u16()),
                    },
                })
            }
        }
    }
}

fn takes_none(provider: &ProviderId) -> Error {
    Error::invalid(format!("`{provider}` takes no credentials; its users consent, or tokens of theirs are stored"))
}
