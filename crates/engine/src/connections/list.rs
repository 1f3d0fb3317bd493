//! Listing connections, page by page, without secrets.

use jiff::Timestamp;
use tokenkeep_core::{
    Action, AuthorizationRequest, Connection, ConnectionId, IntegrationId, Status, Subject, Tenant,
    authorization_request::Stage,
    ports::{Cursor, Filter, LabelName, Scope},
};

use super::{ConnectionView, Connections};
use crate::{Caller, Error, records::Loaded};

/// Which connections to list.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Of this integration.
    pub provider: Option<IntegrationId>,
    /// Of this tenant.
    pub tenant: Option<Tenant>,
    /// Of this subject.
    pub subject: Option<Subject>,
    /// Of this status.
    pub status: Option<Status>,
    /// At most so many, 1 to 1000.
    pub limit: u32,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// One page of connections.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The connections, in no particular but in a stable order.
    pub items: Vec<ConnectionView>,
    /// How many records of this page are there and cannot be read.
    pub unreadable: u64,
    /// Where the next page starts; `None` after the last.
    pub next: Option<String>,
}

/// So many records are read at a time.
const PAGE: u32 = 200;
/// So many are looked at for one page of answers: a rare status must not hold a request for ever.
const LOOKED_AT: usize = 20_000;
pub(super) const MAX_LIMIT: u32 = 1000;

impl Connections {
    /// One page of what the caller may see. A page may hold fewer than `limit` and still have a `next`.
    pub async fn list(&self, caller: &Caller, filter: ConnectionFilter) -> Result<Listing, Error> {
        caller.may(Action::ReadStatus)?;
        if let Some(tenant) = &filter.tenant {
            caller.may_in(Action::ReadStatus, tenant)?;
        }
        if filter.limit == 0 || filter.limit > MAX_LIMIT {
            return Err(Error::invalid(format!("`limit` must be 1 to {MAX_LIMIT}")));
        }
        if filter.status == Some(Status::Pending) {
            return self.list_pending(caller, &filter).await;
        }
        let scope = caller.scope(filter.tenant.as_ref());
        let by = match (&filter.subject, &filter.provider) {
            (Some(subject), _) => self.shared.records.of_subject(subject),
            (None, Some(provider)) => Filter::Label(LabelName::Provider, provider.to_string()),
            (None, None) => Filter::All,
        };
        let now = self.shared.now().wall;
        let mut listing = Listing::default();
        let mut cursor = filter.cursor.clone().map(Cursor);
        let mut looked_at = 0;
        loop {
            // Never more than fit, so that the page ends where the store's does.
            let room = filter.limit - u32::try_from(listing.items.len()).unwrap_or(filter.limit);
            let page = self
                .shared
                .records
                .list::<Connection>(scope.clone(), by.clone(), room.min(PAGE), cursor.take())
                .await?;
            looked_at += page.items.len();
            for item in page.items {
                match item.content {
                    Ok(Loaded::Live(stored)) if matches(&filter, caller, &stored.value.id) => {
                        let policy = self.policy(&stored.value.id.integration).await;
                        let view = ConnectionView::new(&stored.value, &policy, now);
                        if filter.status.is_none_or(|status| status == view.status) {
                            listing.items.push(view);
                        }
                    }
                    Ok(_) => {}
                    Err(why) => {
                        tracing::error!(%why, "a connection's record cannot be read");
                        listing.unreadable += 1;
                    }
                }
            }
            listing.next = page.next.map(|cursor| cursor.0);
            let full = listing.items.len() >= filter.limit as usize || looked_at >= LOOKED_AT;
            match &listing.next {
                Some(next) if !full => cursor = Some(Cursor(next.clone())),
                _ => return Ok(listing),
            }
        }
    }

    async fn list_pending(&self, caller: &Caller, filter: &ConnectionFilter) -> Result<Listing, Error> {
        let cursor = filter.cursor.clone().map(Cursor);
        let records = &self.shared.records;
        let scope = Scope::Tenant(Tenant::system());
        let page = records.list::<AuthorizationRequest>(scope, Filter::All, filter.limit, cursor).await?;
        let now = self.shared.now().wall;
        let mut listing = Listing { next: page.next.map(|c| c.0), ..Listing::default() };
        for item in page.items {
            let Ok(Loaded::Live(stored)) = item.content else { continue };
            let request = stored.value;
            if waits(&request, now) && matches(filter, caller, &request.connection) {
                listing.items.push(ConnectionView::pending(request.connection, request.created_at));
            }
        }
        Ok(listing)
    }

    /// Since when a first consent to `id` waits for its confirmation, if one does.
    pub(super) async fn pending_since(&self, id: &ConnectionId) -> Result<Option<Timestamp>, Error> {
        let records = &self.shared.records;
        let filter = Filter::Label(LabelName::Connection, records.labels().connection(id));
        let scope = Scope::Tenant(Tenant::system());
        let page = records.list::<AuthorizationRequest>(scope, filter, 100, None).await?;
        let now = self.shared.now().wall;
        let waiting = page.items.into_iter().filter_map(|item| match item.content {
            Ok(Loaded::Live(stored)) if stored.value.connection == *id && waits(&stored.value, now) => {
                Some(stored.value.created_at)
            }
            _ => None,
        });
        Ok(waiting.min())
    }
}

fn waits(request: &AuthorizationRequest, now: Timestamp) -> bool {
    request.is_open(now) && matches!(request.stage, Stage::AwaitingConfirmation { .. })
}

fn matches(filter: &ConnectionFilter, caller: &Caller, id: &ConnectionId) -> bool {
    caller.sees_tenant(&id.tenant)
        && caller.sees_integration(&id.integration)
        && filter.provider.as_ref().is_none_or(|p| *p == id.integration)
        && filter.tenant.as_ref().is_none_or(|t| *t == id.tenant)
        && filter.subject.as_ref().is_none_or(|s| *s == id.subject)
}
