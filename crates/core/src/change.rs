//! What consent, PUT and delete do to a connection. Each keeps or advances incarnation and generation, so that the
//! commit rule still knows what to do with a reply that is on its way.

use jiff::Timestamp;

use crate::{
    AccessToken, Connection, ConnectionId, Deleted, Generation, Health, Incarnation, Renewal, Spent, TokenSet,
    refresh::Seen,
};

/// Tokens that come from outside the refresh protocol: by consent, by PUT, by import.
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// The access token.
    pub access: Option<AccessToken>,
    /// What brings the next one.
    pub renewal: NewRenewal,
    /// The scope, if known.
    pub scope: Option<String>,
    /// For people, if given.
    pub display_name: Option<String>,
}

/// What new tokens say about the refresh token.
#[derive(Clone, Debug)]
pub enum NewRenewal {
    /// Nothing: the stored one stays. A second consent often brings none, and erasing the first one's loses the
    /// account.
    Keep,
    /// There is none any more.
    Remove,
    /// This one.
    Replace(Renewal),
}

/// The refresh token to be stored was spent before: storing it would end the grant at the next refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this refresh token was spent before; a newer one is stored")]
pub struct StaleRefreshToken;

/// The connection as it stands once `new` has taken the place of its tokens. A new life begins where there was
/// none; the generation goes on in any case. `force` stores even a refresh token that is known to be spent.
pub fn replace(
    id: &ConnectionId,
    seen: &Seen,
    new: NewTokens,
    fresh: Incarnation,
    force: bool,
    now: Timestamp,
) -> Result<Connection, StaleRefreshToken> {
    let mut next = match seen {
        Seen::Live(connection, _) => connection.as_ref().clone(),
        Seen::Absent => begin(id, fresh, Generation(0), now),
        Seen::Deleted(Deleted { generation, .. }, _) => begin(id, fresh, *generation, now),
    };
    let held = next.fingerprint();
    match new.renewal {
        NewRenewal::Keep => {}
        NewRenewal::Remove => {
            next.tokens.renewal = None;
            next.alternate = None;
        }
        NewRenewal::Replace(renewal) => {
            if next.spent.contains(renewal.fingerprint) && !force {
                return Err(StaleRefreshToken);
            }
            next.tokens.renewal = Some(renewal);
            next.health = Health::Healthy;
            next.last_error = None;
        }
    }
    if next.fingerprint() != held {
        // The attempt, if any, spends what is no longer here. Its reply will find that out by the commit rule.
        next.attempt = None;
    }
    next.tokens.access = new.access;
    next.tokens.scope = new.scope.or(next.tokens.scope);
    next.display_name = new.display_name.or(next.display_name);
    next.generation = next.generation.next();
    next.committed_by = None;
    next.updated_at = now;
    Ok(next)
}

fn begin(id: &ConnectionId, incarnation: Incarnation, last: Generation, now: Timestamp) -> Connection {
    Connection {
        id: id.clone(),
        incarnation,
        generation: last,
        tokens: TokenSet::default(),
        committed_by: None,
        spent: Spent::default(),
        attempt: None,
        alternate: None,
        health: Health::Healthy,
        last_error: None,
        display_name: None,
        created_at: now,
        updated_at: now,
        last_refreshed_at: None,
    }
}

/// What is remembered of `connection` once it is deleted.
pub fn delete(connection: &Connection) -> Deleted {
    Deleted { incarnation: connection.incarnation, generation: connection.generation }
}

/// The connection without its dead access token, if it has one that died before `died_before`; clean-up's work on
/// what still holds a refresh token.
pub fn drop_dead_access(connection: &Connection, died_before: Timestamp, now: Timestamp) -> Option<Connection> {
    let access = connection.tokens.access.as_ref()?;
    if access.is_alive(died_before) {
        return None;
    }
    let mut next = connection.clone();
    next.tokens.access = None;
    next.updated_at = now;
    Some(next)
}

/// The connection without its access token, if it has one. A reply that is on its way brings the next one all the same.
pub fn drop_access(connection: &Connection, now: Timestamp) -> Option<Connection> {
    connection.tokens.access.as_ref()?;
    let mut next = connection.clone();
    next.tokens.access = None;
    next.generation = next.generation.next();
    next.committed_by = None;
    next.updated_at = now;
    Some(next)
}
