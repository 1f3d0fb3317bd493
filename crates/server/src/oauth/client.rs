//! Which client asks, and how often it may fail to prove it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use tokenkeep_core::{Boot, Client};
use tokenkeep_engine::issuer::Refused;
use tokenkeep_oauth::issuer::{
    assertion::parse_asserted_client,
    token::{Credential, parse_credential},
};

use super::{errors::Failure, form::Posted, issuing::Issuing};
use crate::{
    AppState,
    peer::{Peer, network_of},
};

/// The client that a request proves to come from. Whoever guesses secrets is held back, from where they guess: whoever
/// else is that client goes on.
pub(crate) async fn authenticate(state: &AppState, issuing: &Issuing, posted: &Posted) -> Result<Arc<Client>, Failure> {
    let credential = parse_credential(&posted.headers, &posted.form)?;
    let guess = Guess::of(issuing, posted.from, &credential);
    if let Some(guess) = &guess {
        guess.check(issuing, state.clock().now().boot).map_err(Failure::too_many)?;
    }
    let authenticated = issuing.issuer.authenticate(credential).await;
    if let (Some(guess), Err(Refused::Protocol(_))) = (guess, &authenticated) {
        let now = state.clock().now().boot;
        issuing.ceilings.guesses.count(guess.client, now);
        issuing.ceilings.guessers.count(guess.network, now);
    }
    Ok(authenticated?)
}

/// What a guess is counted by.
struct Guess {
    client: u64,
    network: u64,
}

impl Guess {
    fn new(issuing: &Issuing, from: Option<IpAddr>, client_id: Option<&str>) -> Self {
        let ceilings = &issuing.ceilings;
        Self { client: ceilings.guesses.name(&(from, client_id)), network: ceilings.guessers.name(&from) }
    }

    /// `None` = there is nothing to guess.
    fn of(issuing: &Issuing, from: Option<IpAddr>, credential: &Credential) -> Option<Self> {
        let asserted;
        let client_id = match credential {
            Credential::Public { .. } => return None,
            Credential::Basic { client_id, .. } | Credential::Post { client_id, .. } => Some(client_id.as_str()),
            Credential::Assertion { assertion, .. } => {
                asserted = parse_asserted_client(assertion).ok();
                asserted.as_deref()
            }
        };
        Some(Self::new(issuing, from, client_id))
    }

    fn check(&self, issuing: &Issuing, now: Boot) -> Result<(), Duration> {
        issuing.ceilings.guesses.check(self.client, now)?;
        issuing.ceilings.guessers.check(self.network, now)
    }
}

impl Issuing {
    /// Whether whoever says to be `client_id` is held back, for it guessed too often.
    pub(super) fn holds_back(&self, client_id: &str, from: Option<IpAddr>, now: Boot) -> bool {
        Guess::new(self, from, Some(client_id)).check(self, now).is_err()
    }

    /// The network that a request comes from; `None` on the local socket.
    pub(super) fn origin_of(&self, headers: &HeaderMap, peer: Option<Peer>) -> Option<IpAddr> {
        peer.map(|peer| network_of(peer.speaks_for(headers, &self.issuer.settings().trusted_proxies)))
    }
}
