//! Which client asks, and how often it may fail to prove it.

use std::{net::IpAddr, sync::Arc};

use tokenkeep_core::Client;
use tokenkeep_engine::issuer::Refused;
use tokenkeep_oauth::issuer::token::{Credential, parse_credential};

use super::{errors::Failure, form::Posted, issuing::Issuing};
use crate::AppState;

/// The client that a request proves to come from. Whoever guesses secrets is held back, from where they guess: whoever
/// else is that client goes on.
pub(crate) async fn authenticate(state: &AppState, issuing: &Issuing, posted: &Posted) -> Result<Arc<Client>, Failure> {
    let credential = parse_credential(&posted.headers, &posted.form)?;
    let who = guesser(issuing, posted.from, &credential);
    if let Some(who) = who {
        issuing.ceilings.guesses.check(who, state.clock().now().boot).map_err(Failure::too_many)?;
    }
    let authenticated = issuing.issuer.authenticate(credential).await;
    if let (Some(who), Err(Refused::Protocol(_))) = (who, &authenticated) {
        issuing.ceilings.guesses.count(who, state.clock().now().boot);
    }
    Ok(authenticated?)
}

/// Who it is that may be guessing; `None` = there is nothing to guess.
fn guesser(issuing: &Issuing, from: Option<IpAddr>, credential: &Credential) -> Option<u64> {
    let client_id = match credential {
        Credential::Public { .. } => return None,
        Credential::Basic { client_id, .. } | Credential::Post { client_id, .. } => Some(client_id.as_str()),
        Credential::Assertion { client_id, .. } => client_id.as_deref(),
    };
    Some(issuing.ceilings.guesses.name(&(from, client_id)))
}
