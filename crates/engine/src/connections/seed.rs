//! A refresh token from the configuration, to begin with. What is stored wins over it ever after.

use tokenkeep_core::{Connection, ConnectionId, Fingerprint, Spent};
use tokenkeep_oauth::Secret;

use super::{Connections, exchange, record};
use crate::{Caller, Error, Given, PutMode, PutTokens, error::STORE_RETRY};

/// What became of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// Nothing was stored: now it is.
    Stored,
    /// Something is stored, which may well have come from this seed.
    Kept,
    /// Something is stored that never came from this seed: whoever changed it should know that it is ignored.
    Ignored,
}

impl Connections {
    /// Stores `refresh_token` where nothing is stored; never replaces anything.
    pub async fn seed(&self, id: &ConnectionId, refresh_token: Secret) -> Result<Seeded, Error> {
        let fingerprint = exchange::refresh_token(&self.shared, refresh_token.clone()).fingerprint;
        let tokens = PutTokens {
            access_token: None,
            refresh_token: Given::Value(refresh_token),
            expires_at: None,
            scope: None,
            token_type: None,
            display_name: None,
        };
        let only_if_absent = PutMode { force: false, only_if_absent: true };
        match self.put(&Caller::Local, id, tokens, only_if_absent).await {
            Ok(_) => return Ok(Seeded::Stored),
            Err(Error::AlreadyThere { .. }) => {}
            Err(error) => return Err(error),
        }
        let unavailable = |()| Error::StoreUnavailable { retry_after: STORE_RETRY, source: None };
        let seen = record::read(&self.shared.records, id).await.map_err(unavailable)?;
        Ok(match seen.live() {
            Some(connection) if !may_come_from(connection, fingerprint) => Seeded::Ignored,
            _ => Seeded::Kept,
        })
    }
}

/// Whether the connection may have begun with this refresh token. Once it has spent more than a record remembers, that
/// cannot be told any more, and is not claimed.
fn may_come_from(connection: &Connection, seed: Fingerprint) -> bool {
    connection.fingerprint() == Some(seed)
        || connection.spent.contains(seed)
        || connection.spent.len() == Spent::CAPACITY
}
