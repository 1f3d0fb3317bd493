//! Connections: storing, serving, refreshing and forgetting the tokens that providers issued.

mod access_tokens;
mod credentials;
pub(crate) mod exchange;
pub(crate) mod flight;
mod list;
mod put;
mod record;
mod reports;
pub(crate) mod revoke;
mod seed;
mod serve;
mod view;

use std::sync::Arc;

use tokenkeep_core::{
    Action, Connection, ConnectionId, IntegrationId, Subject, Tenant, change,
    connection::RefreshPolicy,
    ports::{Put, Scope},
};

pub use access_tokens::TokenCounts;
pub use credentials::{GivenCredentials, LoggedIn};
pub use list::{ConnectionFilter, Listing};
pub use put::{Given, PutMode, PutTokens};
pub use seed::Seeded;
pub use view::ConnectionView;

use self::{flight::Flights, reports::Reports, revoke::RevokeError};
use crate::{
    Caller, Error,
    integrations::{Integrations, Party},
    records::{Loaded, Stored},
    shared::Shared,
};

/// The use cases of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    pub(crate) shared: Arc<Shared>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) integrations: Integrations,
    reports: Arc<Reports>,
}

impl Connections {
    pub(crate) fn new(shared: Arc<Shared>, flights: Arc<Flights>, integrations: Integrations) -> Self {
        Self { shared, flights, integrations, reports: Arc::default() }
    }

    /// How the connection stands. A connection that only waits for its first confirmation is `pending`.
    pub async fn status(&self, caller: &Caller, id: &ConnectionId) -> Result<ConnectionView, Error> {
        caller.may_at(Action::ReadStatus, &id.integration, &id.tenant)?;
        let policy = self.policy(&id.integration).await;
        match self.load(id).await? {
            Some(stored) => Ok(ConnectionView::new(&stored.value, &policy, self.shared.now().wall)),
            None => match self.pending_since(id).await? {
                Some(since) => Ok(ConnectionView::pending(id.clone(), since)),
                None => Err(Error::not_found("connection", id)),
            },
        }
    }

    /// Forgets the connection, and with `revoke` tells the provider first. Where the provider cannot be told now,
    /// nothing is forgotten.
    pub async fn delete(&self, caller: &Caller, id: &ConnectionId, revoke: bool) -> Result<(), Error> {
        caller.may_at(Action::DeleteConnection, &id.integration, &id.tenant)?;
        let mut unknown = None;
        for _ in 0..ATTEMPTS {
            let buried = match (self.load(id).await?, unknown.take()) {
                (Some(stored), _) => {
                    if revoke {
                        self.revoke(&stored.value).await?;
                    }
                    let put = self.bury(&stored).await?;
                    unknown = (put == Put::Unknown).then(|| stored.value.clone());
                    matches!(put, Put::Committed(_)).then_some(stored.value)
                }
                // The answer to our own deletion was lost.
                (None, Some(buried)) => Some(buried),
                (None, None) => return Err(Error::not_found("connection", id)),
            };
            if let Some(buried) = buried {
                self.buried(&buried);
                tracing::info!(target: "audit", action = "deleted", by = %caller.name(), connection = %id, revoked = revoke);
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "connection" })
    }

    /// Forgets a person: every connection of `subject` in `tenant`. Answers how many there were; none is
    /// [`Error::NotFound`].
    pub async fn forget(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        subject: &Subject,
        revoke: bool,
    ) -> Result<u64, Error> {
        caller.may_in(Action::DeleteConnection, tenant)?;
        let filter = self.shared.records.of_subject(subject);
        let mut forgotten = 0;
        loop {
            // What was deleted leaves the list, so the first page is always the next one.
            let scope = Scope::Tenant(tenant.clone());
            let page = self.shared.records.list::<Connection>(scope, filter.clone(), 100, None).await?;
            let mut left = 0;
            for item in page.items {
                let Ok(Loaded::Live(stored)) = item.content else { continue };
                if stored.value.id.subject != *subject || !caller.sees_integration(&stored.value.id.integration) {
                    continue;
                }
                match self.delete(caller, &stored.value.id, revoke).await {
                    Ok(()) => left += 1,
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            forgotten += left;
            if left == 0 {
                break;
            }
        }
        if forgotten == 0 {
            return Err(Error::not_found("subject", format!("{tenant}/{subject}")));
        }
        tracing::info!(target: "audit", action = "subject_forgotten", by = %caller.name(), %tenant, %subject, connections = forgotten);
        Ok(forgotten)
    }

    async fn revoke(&self, connection: &Connection) -> Result<(), Error> {
        let integration = &connection.id.integration;
        let Some(party) = self.party_of(&connection.id).await? else {
            return Err(Error::IntegrationMissing(integration.clone()));
        };
        match revoke::revoke(&self.shared, &party, &connection.tokens).await {
            Ok(()) => Ok(()),
            Err(RevokeError::Refused(detail)) => {
                // It will refuse the next time as well: what we hold is forgotten all the same.
                tracing::warn!(%integration, detail, "the provider refused to revoke a token");
                Ok(())
            }
            Err(RevokeError::Unavailable(detail)) => Err(Error::ProviderUnavailable {
                integration: integration.clone(),
                detail,
                retry_after: PROVIDER_RETRY,
            }),
        }
    }

    /// Puts a tombstone in its place.
    async fn bury(&self, stored: &Stored<Connection>) -> Result<Put, Error> {
        let connection = &stored.value;
        let remembered = change::delete(connection);
        Ok(self.shared.records.delete::<Connection>(&connection.id, &stored.version, &remembered).await?)
    }

    /// Once there is a tombstone: what is remembered of the connection goes, here and elsewhere.
    fn buried(&self, connection: &Connection) {
        let (id, floor) = (&connection.id, connection.generation.next());
        self.flights.cache.remove(id, connection.incarnation, floor);
        self.flights.forget_replies(id, Some(connection), connection.generation);
        self.shared.announce_deleted(id, connection.incarnation, floor);
    }

    pub(crate) async fn load(&self, id: &ConnectionId) -> Result<Option<Stored<Connection>>, Error> {
        match self.shared.records.load::<Connection>(id).await.map_err(Error::reading("connection"))? {
            Loaded::Live(stored) => Ok(Some(stored)),
            Loaded::Absent | Loaded::Deleted(_) => Ok(None),
        }
    }

    /// The policy of an integration, or what the catalogue says where there is no integration (yet).
    pub(crate) async fn policy(&self, integration: &IntegrationId) -> RefreshPolicy {
        let margin = self.shared.settings.refresh_margin;
        if let Ok(Some(party)) = self.integrations.party(integration).await {
            return party.policy(margin);
        }
        let provider = self.integrations.provider_named_like(integration);
        let rotation = provider.as_ref().map(|p| p.rotation).unwrap_or_default();
        RefreshPolicy::new(rotation, provider.and_then(|p| p.margin).unwrap_or(margin))
    }

    pub(crate) async fn party(&self, integration: &IntegrationId) -> Result<Option<Arc<Party>>, Error> {
        self.integrations.party(integration).await
    }

    /// Where the tokens of `id` may be sent: its integration, if that is there for its tenant.
    pub(crate) async fn party_of(&self, id: &ConnectionId) -> Result<Option<Arc<Party>>, Error> {
        let party = self.party(&id.integration).await?;
        Ok(party.filter(|party| party.integration.serves(&id.tenant)))
    }
}

/// How often a change is tried again when somebody else changed the record meanwhile.
const ATTEMPTS: usize = 8;
/// A provider that does not answer is asked again after this, unless it said otherwise.
pub(crate) const PROVIDER_RETRY: std::time::Duration = std::time::Duration::from_secs(5);
