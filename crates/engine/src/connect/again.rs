//! Connecting an account again, for a client that was refused its token and cannot know who will open the link.
//!
//! Nobody may land another account there: neither whoever gets hold of the link, nor whoever is sent it. Where the
//! subject is one that signed in, the provider must say that it is the same account; where an application chose the
//! subject, that application must confirm it on its own pages. Where neither can be, there is no link.

use std::{fmt, time::Duration};

use tokenkeep_core::{
    AuthorizationRequest, ConnectGrant, ConnectId, ConnectionId,
    authorization_request::{Obtained, Stage},
    time::after,
};
use tokenkeep_oauth::Secret;
use url::Url;

use super::{
    Connect, Failure, StartConnect,
    account::identity_of,
    provider_page::{wanted_scope, with_scopes},
    start::Proof,
};
use crate::{Error, integrations::Party};

/// So many links are remembered at once.
const LINKS: u64 = 10_000;
/// A link is handed out another time only if it is good for this long.
const LEFT: Duration = Duration::from_mins(5);

/// The links that were handed out: whoever asks every second gets the same, until somebody opens it.
pub(super) struct Links(moka::sync::Cache<ConnectionId, (ConnectId, Secret)>);

impl Default for Links {
    fn default() -> Self {
        Self(moka::sync::Cache::new(LINKS))
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

impl Connect {
    /// A link that connects the account of `id` again, and no other. `pages` = those of the application, if it has any.
    /// `None` = nobody here could tell whose account it is that comes back.
    pub(crate) async fn again(
        &self,
        id: &ConnectionId,
        by: &str,
        pages: Option<&Url>,
    ) -> Result<Option<Secret>, Error> {
        if let Some((request, link)) = self.again.0.get(id)
            && self.is_unopened(&request).await?
        {
            return Ok(Some(link));
        }
        let party = match self.party(id).await {
            Ok(party) => party,
            Err(error @ Error::StoreUnavailable { .. }) => return Err(error),
            Err(_) => return Ok(None),
        };
        let in_browser = party.integration.grant == ConnectGrant::AuthorizationCode;
        if !in_browser || party.provider.authorize_url.is_none() {
            return Ok(None);
        }
        let signed_in = id.subject.as_str().starts_with(&format!("{}|", id.integration));
        let identity = identity_of(&party).ok().filter(|_| signed_in);
        let (proof, return_to) = match (&identity, pages) {
            (Some(_), _) => (Proof { confirm: false, same_account: true }, None),
            (None, Some(pages)) => (Proof { confirm: true, same_account: false }, Some(pages.clone())),
            (None, None) => return Ok(None),
        };
        let before = self.connections.load(id).await?.and_then(|stored| stored.value.tokens.scope);
        let scope = wanted_scope(&party, before.as_deref());
        let scope = with_scopes(scope.as_deref(), identity.and_then(|identity| identity.scope).as_deref());
        let start = StartConnect { connection: id.clone(), scope, return_to, confirm: None };
        let (request, url) = match self.invite(by, start, &party, proof).await {
            Ok(made) => made,
            // There are links enough.
            Err(Error::TooMany { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let link = Secret::from(String::from(url));
        self.again.0.insert(id.clone(), (request, link.clone()));
        Ok(Some(link))
    }

    async fn is_unopened(&self, request: &ConnectId) -> Result<bool, Error> {
        match self.load(request).await {
            Ok(stored) => {
                let lasts = after(self.shared.now().wall, LEFT) <= stored.value.expires_at;
                Ok(lasts && matches!(stored.value.stage, Stage::Pending(_)))
            }
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses what was obtained with another account than the one that the connection's subject names. What nobody
    /// wants is given back, unless its owner is connected.
    pub(super) async fn check_account(
        &self,
        party: &Party,
        request: &AuthorizationRequest,
        obtained: &Obtained,
        id_token: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<(), Failure> {
        let consented = self.api_of(party, obtained.tokens.as_ref())?.subject(id_token, nonce).await?;
        if consented == request.connection.subject {
            return Ok(());
        }
        let (connect, connection) = (request.id, &request.connection);
        tracing::warn!(target: "audit", action = "connect_refused", %connect, %connection, reason = "another account");
        self.give_back(&ConnectionId { subject: consented, ..connection.clone() }, obtained).await;
        Err(Failure::Refused("another_account".to_owned()))
    }
}
