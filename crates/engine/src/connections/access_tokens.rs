//! What there is of access tokens at one integration: how many, how alive, and dropping the dead ones. Nothing here
//! asks a provider for anything.

use std::time::Duration;

use jiff::Timestamp;
use tokenkeep_core::{
    AccessToken, Action, Connection, ConnectionId, IntegrationId, Subject, change,
    ports::{Cursor, Expect, Filter, LabelName, Put},
    time::{after, before},
};

use super::Connections;
use crate::{
    Caller, Error,
    records::{Aggregate as _, Loaded, Stored},
    upkeep::GRACE,
};

/// Access tokens by how long they still live. The last three add up to the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// All that are held, dead ones too.
    pub total: u64,
    /// Alive for longer than *soon*.
    pub valid: u64,
    /// Alive, but not for longer.
    pub expiring_soon: u64,
    /// Dead, and not cleaned up yet.
    pub expired: u64,
}

impl TokenCounts {
    fn add(&mut self, token: &AccessToken, soon: Duration, now: Timestamp) {
        self.total += 1;
        *match token {
            token if !token.is_alive(now) => &mut self.expired,
            token if !token.is_alive(after(now, soon)) => &mut self.expiring_soon,
            _ => &mut self.valid,
        } += 1;
    }
}

/// So many records are read at a time.
const PAGE: u32 = 200;

impl Connections {
    /// Counts the access tokens that `subject` has at `integration`, in every tenant that the caller sees. Reads every
    /// connection there.
    pub async fn count_tokens(
        &self,
        caller: &Caller,
        integration: &IntegrationId,
        subject: &Subject,
        soon: Duration,
    ) -> Result<TokenCounts, Error> {
        caller.may(Action::ReadStatus)?;
        let now = self.shared.now().wall;
        let mut counts = TokenCounts::default();
        let mut cursor = None;
        loop {
            let (page, next) = self.seen_at(caller, integration, subject, cursor).await?;
            for token in page.iter().filter_map(|stored| stored.value.tokens.access.as_ref()) {
                counts.add(token, soon, now);
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(counts);
            }
        }
    }

    /// Whether a token is there that needs no refresh yet. No connection is no token.
    pub async fn has_valid_token(&self, caller: &Caller, id: &ConnectionId) -> Result<bool, Error> {
        caller.may_at(Action::ReadStatus, &id.integration, &id.tenant)?;
        let Some(stored) = self.load(id).await? else { return Ok(false) };
        let now = self.shared.now().wall;
        let margin = self.policy(&id.integration).await.margin;
        let token = stored.value.tokens.access.filter(|token| token.is_alive(now));
        Ok(token.is_some_and(|token| token.due_at(margin).is_none_or(|due| due > now)))
    }

    /// Cleans up after `subject` at `integration`, in every tenant that the caller sees: access tokens that have been
    /// dead for over five minutes are dropped, and connections whose record holds nothing that could bring another go
    /// with theirs. Answers how many tokens there were.
    pub async fn drop_dead_tokens(
        &self,
        caller: &Caller,
        integration: &IntegrationId,
        subject: &Subject,
    ) -> Result<u64, Error> {
        // Less than forgetting the connections, which the same callers may do.
        caller.may(Action::DeleteConnection)?;
        let now = self.shared.now().wall;
        let died_before = before(now, GRACE);
        let margin = self.policy(integration).await.margin;
        let (mut dropped, mut cursor) = (0, None);
        loop {
            let (page, next) = self.seen_at(caller, integration, subject, cursor).await?;
            for stored in page {
                let Some(without) = change::drop_dead_access(&stored.value, died_before, now) else { continue };
                // A record that may expire holds nothing that could bring another token.
                let removes = stored.value.expires_at().is_some();
                let put = if removes {
                    self.bury(&stored).await?
                } else {
                    self.shared.records.save(&without, margin, Expect::Version(&stored.version)).await?
                };
                // Whoever changed the record meanwhile knows better: the next clean-up will see.
                if let Put::Committed(_) = put {
                    dropped += 1;
                    if removes {
                        self.buried(&stored.value);
                    }
                }
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        self.shared.metrics.cleaned.inc_by(dropped);
        tracing::info!(%integration, tokens_dropped = dropped, by = %caller.name(), "cleaned up");
        Ok(dropped)
    }

    /// One page of the connections that `subject` has at `integration`, as far as the caller sees them.
    async fn seen_at(
        &self,
        caller: &Caller,
        integration: &IntegrationId,
        subject: &Subject,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Stored<Connection>>, Option<Cursor>), Error> {
        let filter = Filter::Label(LabelName::Provider, integration.to_string());
        let page = self.shared.records.list::<Connection>(caller.scope(None), filter, PAGE, cursor).await?;
        let seen = page.items.into_iter().filter_map(|item| match item.content {
            Ok(Loaded::Live(stored)) => {
                let id = &stored.value.id;
                let mine = id.integration == *integration && id.subject == *subject;
                (mine && caller.sees_tenant(&id.tenant) && caller.sees_integration(integration)).then_some(stored)
            }
            Ok(_) => None,
            Err(why) => {
                tracing::error!(%why, "a connection's record cannot be read");
                None
            }
        });
        Ok((seen.collect(), page.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_counts_once() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let token = |life: Option<i64>| AccessToken {
            token: "x".into(),
            token_type: "Bearer".into(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: life.map(|s| Timestamp::from_second(1_000_000 + s).unwrap()),
        };
        let mut counts = TokenCounts::default();
        for life in [None, Some(601), Some(600), Some(1), Some(0), Some(-1)] {
            counts.add(&token(life), Duration::from_mins(10), now);
        }
        assert_eq!(counts, TokenCounts { total: 6, valid: 2, expiring_soon: 2, expired: 2 });
    }
}
