//! Changing the one record that a grant is.

use std::sync::Arc;

use tokenkeep_core::{
    Grant, GrantId,
    grant::{GrantError, Revoked},
    ports::{Expect, Put},
};

use super::{no_such_token, told};
use crate::{
    Error,
    bus::Event,
    error::STORE_RETRY,
    issuer::{Issuer, Refused},
    records::{Loaded, Stored},
};

/// Instances that change one grant at once lose to each other; here they take turns.
const ATTEMPTS: usize = 64;

impl Issuer {
    pub(in crate::issuer) async fn load_grant(&self, id: &GrantId) -> Result<Option<Stored<Grant>>, Error> {
        match self.shared.records.load::<Grant>(id).await.map_err(Error::reading("grant"))? {
            Loaded::Live(stored) => Ok(Some(stored)),
            Loaded::Absent | Loaded::Deleted(_) => Ok(None),
        }
    }

    /// Takes a grant one step further, in which the access token `jti` comes to be; that recognises the step where the
    /// store's answer was lost. A replay ends the grant.
    pub(super) async fn advance<T: Clone>(
        &self,
        id: &GrantId,
        jti: &str,
        step: impl Fn(Grant) -> Result<(Grant, T), GrantError>,
    ) -> Result<(Grant, T), Refused> {
        let _turn = self.turns.of(*id).await;
        let mut tried = None;
        for _ in 0..ATTEMPTS {
            let stored = self.load_grant(id).await?.ok_or_else(no_such_token)?;
            if let Some(done) =
                tried.take_if(|(grant, _): &mut (Grant, T)| stored.value.has_live(jti, grant.created_at))
            {
                return Ok(done);
            }
            let next = match step(stored.value) {
                Ok(next) => next,
                Err(error) => {
                    if let GrantError::Replayed(reason) = error {
                        self.end_grant(id, reason).await?;
                    }
                    return Err(told(error).into());
                }
            };
            match self.shared.records.save(&next.0, (), Expect::Version(&stored.version)).await.map_err(Error::from)? {
                Put::Committed(_) => return Ok(next),
                Put::Conflict => {}
                Put::Unknown => tried = Some(next),
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None }.into())
    }

    /// Ends a grant, and all that it handed out, everywhere. Whether it was this that ended it.
    pub(crate) async fn end_grant(&self, id: &GrantId, reason: Revoked) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.load_grant(id).await? else { return Ok(false) };
            let Some(ended) = stored.value.revoke(reason, self.shared.now().wall) else { return Ok(false) };
            match self.shared.records.save(&ended, (), Expect::Version(&stored.version)).await? {
                Put::Committed(_) => {
                    self.announce_grant(*id);
                    let (client, reason) = (&ended.client, reason.as_str());
                    tracing::warn!(target: "audit", action = "grant_revoked", grant = %id, %client, reason);
                    return Ok(true);
                }
                Put::Conflict => {}
                // It shows next time round, and then there is nothing left to do.
                Put::Unknown => self.announce_grant(*id),
            }
        }
        Err(Error::Conflict { what: "grant" })
    }

    /// A grant, or one of its tokens, counts no more: nobody goes by what they remember.
    pub(in crate::issuer) fn announce_grant(&self, id: GrantId) {
        self.verified.doubt_grant(id, self.shared.now().boot);
        self.shared.bus.send(Event::GrantChanged(id));
    }

    /// Writes a grant whose id was drawn just now.
    pub(in crate::issuer) async fn make_grant(&self, grant: &Arc<Grant>) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(&**grant, (), Expect::Absent).await? {
                // Nobody else can have drawn it: what is there under it is our own write.
                Put::Committed(_) | Put::Conflict => return Ok(()),
                Put::Unknown => {}
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }
}
