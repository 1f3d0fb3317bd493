//! What an operator sees of grants, and how they are ended; counts; clean-up.

use std::collections::{BTreeSet, HashSet};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokenkeep_core::{
    Action, Client, ClientId, ConnectionId, Grant, GrantId, Interaction, Subject, Tenant,
    grant::{GrantStage, LiveToken, Revoked},
    ports::{Cursor, Expect, Filter, Kind, Put, Query, Scope},
    session::session_client,
    time::{after, before},
};
use tokenkeep_oauth::issuer::{resource::Resource, scope::ScopeSet};

use super::Issuer;
use crate::{
    Caller, Error,
    records::{Aggregate, Listed, Loaded, Stored},
    upkeep::GRACE,
};

const PAGE: u32 = 200;
const MAX_LIMIT: u32 = 1000;
/// So many records are looked at for one page of answers.
const LOOKED_AT: usize = 20_000;
/// So many grants are ended at once.
const AT_ONCE: usize = 16;

/// Which grants to list.
#[derive(Clone, Debug, Default)]
pub struct GrantFilter {
    /// Given to this client.
    pub client: Option<ClientId>,
    /// Given by this subject.
    pub subject: Option<Subject>,
    /// That rest on this connection.
    pub connection: Option<ConnectionId>,
    /// At most so many, 1 to 1000.
    pub limit: u32,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// One page of grants.
#[derive(Clone, Debug, Default)]
pub struct GrantListing {
    /// The grants, in no particular but in a stable order.
    pub items: Vec<GrantView>,
    /// How many records of this page are there and cannot be read.
    pub unreadable: u64,
    /// Where the next page starts; `None` after the last.
    pub next: Option<String>,
}

/// How a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStatus {
    /// Its code was not redeemed yet.
    Coded,
    /// It leads to tokens.
    Active,
    /// It was ended.
    Revoked,
    /// Nothing can come of it any more.
    Expired,
}

impl GrantStatus {
    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coded => "coded",
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// What may be known of a grant: no secrets.
#[derive(Clone, Debug)]
pub struct GrantView {
    /// Which.
    pub id: GrantId,
    /// Whom it was given.
    pub client: ClientId,
    /// Who gave it.
    pub subject: Subject,
    /// What the provider called them.
    pub name: Option<String>,
    /// An address that the provider vouched for.
    pub email: Option<String>,
    /// What was allowed.
    pub scope: ScopeSet,
    /// Where.
    pub resource: Resource,
    /// The tokens of the provider that go with it.
    pub connection: Option<ConnectionId>,
    /// The clients that may have those.
    pub exchangers: BTreeSet<ClientId>,
    /// How it stands.
    pub status: GrantStatus,
    /// Why it was ended, where it was: `asked`, `code_replayed`, `refresh_token_replayed`, `upstream_ended`,
    /// `not_admitted`.
    pub revoked_reason: Option<&'static str>,
    /// When it was given.
    pub created_at: Timestamp,
    /// When nothing can come of it any more, or when it was ended.
    pub expires_at: Timestamp,
    /// The access tokens that count.
    pub access_tokens: Vec<LiveToken>,
    /// Whether its client holds a refresh token that counts.
    pub refreshable: bool,
}

impl GrantView {
    fn new(grant: &Grant, now: Timestamp) -> Self {
        let access_tokens: Vec<LiveToken> = grant.live.iter().filter(|token| now < token.expires_at).cloned().collect();
        let (mut status, expires_at, refreshable) = match &grant.stage {
            GrantStage::Coded(code) => (GrantStatus::Coded, code.expires_at, false),
            GrantStage::Active(family) => {
                let tokens = access_tokens.iter().map(|token| token.expires_at).max();
                let end = tokens.map_or(family.expires_at, |tokens| tokens.max(family.expires_at));
                (GrantStatus::Active, end, family.newest > 0 && now < family.expires_at)
            }
            GrantStage::Revoked { at, .. } => (GrantStatus::Revoked, *at, false),
        };
        if status != GrantStatus::Revoked && !grant.is_live(now) {
            status = GrantStatus::Expired;
        }
        Self {
            id: grant.id,
            client: grant.client.clone(),
            subject: grant.subject.clone(),
            name: grant.user.name.clone(),
            email: grant.user.email.clone(),
            scope: grant.scope.clone(),
            resource: grant.resource.clone(),
            connection: grant.connection.clone(),
            exchangers: grant.exchangers.clone(),
            status,
            revoked_reason: match grant.stage {
                GrantStage::Revoked { reason, .. } => Some(reason.as_str()),
                _ => None,
            },
            created_at: grant.created_at,
            expires_at,
            access_tokens,
            refreshable,
        }
    }
}

/// Counts of what is there and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IssuerStats {
    /// Clients that are known, those of the configuration file included.
    pub clients: u64,
    /// Grants that something can come of.
    pub grants: u64,
    /// Access tokens of grants.
    pub access_tokens: u64,
    /// Refresh tokens, one for each grant that has one.
    pub refresh_tokens: u64,
    /// Users who are being asked.
    pub interactions: u64,
    /// Codes that were not redeemed yet.
    pub codes: u64,
    /// Users with a grant.
    pub subjects: u64,
    /// Records that are there and cannot be read.
    pub unreadable: u64,
}

/// What a clean-up removed, or would remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Clients that registered and were not used.
    pub clients: u64,
    /// Grants that nothing can come of.
    pub grants: u64,
    /// Users who were asked and did not answer.
    pub interactions: u64,
    /// Notes of tokens that were revoked, or of assertions that were used, and are dead.
    pub voided: u64,
    /// Records in all that were removed, of whatever kind: whatever has expired goes; 0 in a dry run.
    pub removed: u64,
}

/// Whether the caller may do `action` to clients and grants. They belong to no provider, and stand in `_default`: a key
/// that is bound to something else does not reach them.
pub(super) fn allowed(caller: &Caller, action: Action) -> Result<(), Error> {
    caller.may_in(action, &Tenant::default_tenant())?;
    match caller {
        Caller::Key(key) if key.providers.is_some() => {
            Err(Error::Forbidden("this key is bound to providers; clients and grants belong to none".into()))
        }
        _ => Ok(()),
    }
}

impl Issuer {
    /// One page of grants. A page may hold fewer than `limit` and still have a `next`.
    pub async fn list_grants(&self, caller: &Caller, filter: GrantFilter) -> Result<GrantListing, Error> {
        allowed(caller, Action::ReadGrants)?;
        if filter.limit == 0 || filter.limit > MAX_LIMIT {
            return Err(Error::invalid(format!("`limit` must be 1 to {MAX_LIMIT}")));
        }
        let records = &self.shared.records;
        let by = match &filter {
            GrantFilter { connection: Some(connection), .. } => records.of_connection(connection),
            GrantFilter { subject: Some(subject), .. } => records.of_subject(subject),
            GrantFilter { client: Some(client), .. } => records.of_client(client),
            _ => Filter::All,
        };
        let now = self.shared.now().wall;
        let mut listing = GrantListing::default();
        let mut cursor = filter.cursor.clone().map(Cursor);
        let mut looked_at = 0;
        loop {
            // Never more than fit, so that the page ends where the store's does.
            let room = filter.limit - u32::try_from(listing.items.len()).unwrap_or(filter.limit);
            let page = self.page::<Grant>(by.clone(), room.min(PAGE), cursor.take()).await?;
            looked_at += page.items.len();
            for item in page.items {
                match item.content {
                    Ok(Loaded::Live(stored)) if is_meant(&filter, &stored.value) => {
                        listing.items.push(GrantView::new(&stored.value, now));
                    }
                    Ok(_) => {}
                    Err(why) => {
                        tracing::error!(%why, "a grant's record cannot be read");
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

    /// One grant.
    pub async fn grant_view(&self, caller: &Caller, id: &GrantId) -> Result<GrantView, Error> {
        allowed(caller, Action::ReadGrants)?;
        let stored = self.load_grant(id).await?.ok_or_else(|| Error::not_found("grant", id))?;
        Ok(GrantView::new(&stored.value, self.shared.now().wall))
    }

    /// The grant that the access token of this `jti` belongs to, if the token still counts.
    pub async fn grant_of_token(&self, caller: &Caller, jti: &str) -> Result<GrantView, Error> {
        allowed(caller, Action::ReadGrants)?;
        let now = self.shared.now().wall;
        let unknown = || Error::not_found("access token", jti);
        let TokenName::OfGrant(id) = TokenName::parse(jti).ok_or_else(unknown)? else { return Err(unknown()) };
        let stored = self.load_grant(&id).await?.filter(|stored| stored.value.has_live(jti, now));
        Ok(GrantView::new(&stored.ok_or_else(unknown)?.value, now))
    }

    /// Ends a grant. One that has ended stays as it was, and that is no error.
    pub async fn revoke_grant(&self, caller: &Caller, id: &GrantId) -> Result<(), Error> {
        allowed(caller, Action::RevokeGrants)?;
        if !self.end_grant(id, Revoked::Asked).await? && self.load_grant(id).await?.is_none() {
            return Err(Error::not_found("grant", id));
        }
        audit(caller, "grant", &id);
        Ok(())
    }

    /// Takes back one access token. Of one that belongs to no grant nothing is known but what it says itself: that such
    /// a `jti` counts no more is noted, whether or not there is a token.
    pub async fn revoke_token(&self, caller: &Caller, jti: &str) -> Result<(), Error> {
        allowed(caller, Action::RevokeGrants)?;
        let unknown = || Error::not_found("access token", jti);
        match TokenName::parse(jti).ok_or_else(unknown)? {
            TokenName::OfGrant(id) => {
                if !self.revoke_one(&id, jti).await? {
                    return Err(unknown());
                }
            }
            TokenName::Alone => {
                self.void(jti, after(self.shared.now().wall, self.voided_life())).await?;
            }
        }
        audit(caller, "access_token", &jti);
        Ok(())
    }

    /// Ends whatever `subject` allowed; answers how many grants that were.
    pub async fn revoke_subject(&self, caller: &Caller, subject: &Subject) -> Result<u64, Error> {
        allowed(caller, Action::RevokeGrants)?;
        let filter = self.shared.records.of_subject(subject);
        let ended = self.end_grants(filter, |grant| grant.subject == *subject).await?;
        audit(caller, "subject", subject);
        Ok(ended)
    }

    /// Ends whatever was granted to `client`, which stays, and what it got for itself; answers how many grants that were.
    pub async fn revoke_client_grants(&self, caller: &Caller, client: &ClientId) -> Result<u64, Error> {
        allowed(caller, Action::RevokeGrants)?;
        let ended = self.end_grants_of_client(client).await?;
        audit(caller, "client", client);
        Ok(ended)
    }

    pub(super) async fn end_grants_of_client(&self, client: &ClientId) -> Result<u64, Error> {
        self.void_tokens_of(client).await?;
        self.end_grants(self.shared.records.of_client(client), |grant| grant.client == *client).await
    }

    /// Ends what `subject` allowed on connections of theirs that `is_seen`, and, with `alone`, what rests on none;
    /// answers how many grants that were.
    pub(crate) async fn end_grants_of_person(
        &self,
        subject: &Subject,
        is_seen: impl Fn(&ConnectionId) -> bool,
        alone: bool,
    ) -> Result<u64, Error> {
        let filter = self.shared.records.of_subject(subject);
        let is_meant = |grant: &Grant| grant.subject == *subject && grant.connection.as_ref().map_or(alone, &is_seen);
        self.end_grants(filter, is_meant).await
    }

    /// Shows every session.
    pub(crate) async fn each_session(&self, mut show: impl FnMut(Grant)) -> Result<u64, Error> {
        self.each_of(self.shared.records.of_client(&session_client()), |grant: Grant| {
            if grant.session.is_some() {
                show(grant);
            }
        })
        .await
    }

    /// Forgets dead access tokens of sessions; answers how many.
    pub(crate) async fn drop_dead_session_tokens(&self, is_seen: impl Fn(&ConnectionId) -> bool) -> Result<u64, Error> {
        let died_before = before(self.shared.now().wall, GRACE);
        let (filter, mut cursor, mut dropped) = (self.shared.records.of_client(&session_client()), None, 0);
        loop {
            let page = self.page::<Grant>(filter.clone(), PAGE, cursor).await?;
            for item in page.items {
                let Ok(Loaded::Live(Stored { value: mut grant, version, .. })) = item.content else { continue };
                let before = grant.live.len();
                grant.live.retain(|token| died_before <= token.expires_at);
                let dead = (before - grant.live.len()) as u64;
                if dead == 0 || !grant.connection.as_ref().is_some_and(&is_seen) {
                    continue;
                }
                // Somebody else changed it: what is dead goes with the next change, or the next clean-up.
                if let Put::Committed(_) = self.shared.records.save(&grant, (), Expect::Version(&version)).await? {
                    dropped += dead;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(dropped);
            }
        }
    }

    async fn end_grants(&self, filter: Filter, is_meant: impl Fn(&Grant) -> bool) -> Result<u64, Error> {
        let mut ended = 0;
        let mut cursor = None;
        loop {
            let page = self.page::<Grant>(filter.clone(), PAGE, cursor).await?;
            let meant: Vec<GrantId> = page
                .items
                .into_iter()
                .filter_map(|item| match item.content {
                    Ok(Loaded::Live(stored)) if is_meant(&stored.value) => Some(stored.value.id),
                    Ok(_) => None,
                    Err(why) => {
                        tracing::error!(%why, "a grant's record cannot be read, and so it cannot be ended");
                        None
                    }
                })
                .collect();
            let ending = stream::iter(meant).map(|id| async move { self.end_grant(&id, Revoked::Asked).await });
            ended += ending
                .buffer_unordered(AT_ONCE)
                .try_fold(0, async |sum, was_live| Ok(sum + u64::from(was_live)))
                .await?;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(ended);
            }
            tracing::info!(ended, "grants are being ended");
        }
    }

    /// Counts what is there. Reads every record: not for every second.
    pub async fn issuer_stats(&self, caller: &Caller) -> Result<IssuerStats, Error> {
        allowed(caller, Action::ReadGrants)?;
        let now = self.shared.now().wall;
        let mut stats =
            IssuerStats { clients: self.secrets.load().clients.all().count() as u64, ..IssuerStats::default() };
        stats.unreadable += self.each(|client: Client| stats.clients += u64::from(client.is_known(now))).await?;
        let mut subjects = HashSet::new();
        let unreadable = self
            .each(|grant: Grant| {
                let view = GrantView::new(&grant, now);
                match view.status {
                    GrantStatus::Coded => stats.codes += 1,
                    GrantStatus::Active => {
                        stats.grants += 1;
                        stats.access_tokens += view.access_tokens.len() as u64;
                        stats.refresh_tokens += u64::from(view.refreshable);
                        subjects.insert(grant.subject);
                    }
                    GrantStatus::Revoked | GrantStatus::Expired => {}
                }
            })
            .await?;
        stats.subjects = subjects.len() as u64;
        let is_open = |interaction: &Interaction| now < interaction.expires_at;
        let waiting = |interaction: Interaction| stats.interactions += u64::from(is_open(&interaction));
        stats.unreadable += unreadable + self.each(waiting).await?;
        Ok(stats)
    }

    /// Removes what has expired, or only counts it.
    pub async fn purge_expired(&self, caller: &Caller, dry_run: bool) -> Result<Purged, Error> {
        allowed(caller, Action::CleanUp)?;
        let died_before = before(self.shared.now().wall, GRACE);
        let mut purged = Purged {
            clients: self.expired(Kind::Client, died_before).await?,
            grants: self.expired(Kind::Grant, died_before).await?,
            interactions: self.expired(Kind::Interaction, died_before).await?,
            voided: self.expired(Kind::Voided, died_before).await?,
            removed: 0,
        };
        if !dry_run {
            purged.removed = self.shared.records.store().sweep(died_before).await?;
            let by = caller.name();
            tracing::info!(target: "audit", action = "expired_purged", %by, removed = purged.removed);
        }
        Ok(purged)
    }

    async fn expired(&self, kind: Kind, before: Timestamp) -> Result<u64, Error> {
        let scope = Scope::Tenant(Tenant::default_tenant());
        let filter = Filter::ExpiresBetween(Timestamp::UNIX_EPOCH, before);
        let mut query = Query { scope, kind, filter, limit: PAGE, cursor: None };
        let mut count = 0;
        loop {
            let page = self.shared.records.store().list(&query).await?;
            count += page.records.len() as u64;
            query.cursor = page.next;
            if query.cursor.is_none() {
                return Ok(count);
            }
        }
    }

    /// Shows every record of a kind; answers how many cannot be read.
    async fn each<T: Aggregate>(&self, show: impl FnMut(T)) -> Result<u64, Error> {
        self.each_of(Filter::All, show).await
    }

    async fn each_of<T: Aggregate>(&self, by: Filter, mut show: impl FnMut(T)) -> Result<u64, Error> {
        let mut unreadable = 0;
        let mut cursor = None;
        loop {
            let page = self.page::<T>(by.clone(), PAGE, cursor).await?;
            for item in page.items {
                match item.content {
                    Ok(Loaded::Live(stored)) => show(stored.value),
                    Ok(_) => {}
                    Err(_) => unreadable += 1,
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(unreadable);
            }
        }
    }

    async fn page<T: Aggregate>(&self, by: Filter, limit: u32, cursor: Option<Cursor>) -> Result<Listed<T>, Error> {
        let scope = Scope::Tenant(Tenant::default_tenant());
        Ok(self.shared.records.list::<T>(scope, by, limit, cursor).await?)
    }
}

/// What a `jti` of ours says.
enum TokenName {
    /// It came from this grant.
    OfGrant(GrantId),
    /// It came from client credentials.
    Alone,
}

impl TokenName {
    fn parse(jti: &str) -> Option<Self> {
        let (name, random) = match jti.split_once('.') {
            Some((grant, random)) => (Self::OfGrant(grant.parse().ok()?), random),
            None => (Self::Alone, jti),
        };
        let is_ours = BASE64_URL_SAFE_NO_PAD.decode(random).is_ok_and(|bytes| bytes.len() == 16);
        is_ours.then_some(name)
    }
}

fn is_meant(filter: &GrantFilter, grant: &Grant) -> bool {
    filter.client.as_ref().is_none_or(|client| *client == grant.client)
        && filter.subject.as_ref().is_none_or(|subject| *subject == grant.subject)
        && filter.connection.as_ref().is_none_or(|connection| Some(connection) == grant.connection.as_ref())
}

fn audit(caller: &Caller, what: &'static str, which: &dyn std::fmt::Display) {
    let by = caller.name();
    tracing::info!(target: "audit", action = "revoked", %by, what, %which);
}
