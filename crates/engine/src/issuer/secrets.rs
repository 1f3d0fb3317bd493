//! The secrets of the configuration file. They change while the server runs, and nothing else of it does: whoever
//! rotates one does not restart us.

use std::sync::Arc;

use jiff::Timestamp;
use tokenkeep_oauth::{Secret, issuer::resource::Resource};

use super::{Issuer, IssuerSettings, Registration, clients::Configured};
use crate::{barrier::Hashes, sessions::SessionSettings};

/// The secrets, as they were read last.
#[derive(Debug)]
pub(super) struct Secrets {
    /// The clients, for they have secrets.
    pub(super) clients: Configured,
    /// Who may register, and with which token.
    pub(super) registration: Registration,
    /// The keys of HS256, each its resource's own.
    pub(super) signing: Vec<(Resource, Secret)>,
    /// When the server started.
    since: Timestamp,
}

impl Secrets {
    pub(super) fn new(
        issuer: &IssuerSettings,
        sessions: Option<&SessionSettings>,
        hashes: &Hashes,
        since: Timestamp,
    ) -> Self {
        let resources = issuer.resources.iter().chain(sessions.map(|sessions| &sessions.resource));
        let signing = resources.filter_map(|known| Some((known.resource.clone(), known.signing_secret.clone()?)));
        Self {
            clients: Configured::new(issuer, hashes, since),
            registration: issuer.registration.clone(),
            signing: signing.collect(),
            since,
        }
    }
}

impl Issuer {
    /// Takes over what was read anew, as far as it is secret. What was proven with a former secret, and what was signed
    /// with a former key of HS256, counts no more.
    pub(crate) async fn renew_secrets(&self, issuer: &IssuerSettings, sessions: Option<&SessionSettings>) {
        let since = self.secrets.load().since;
        let told = Secrets::new(issuer, sessions, self.shared.records.barrier().hashes(), since);
        self.secrets.store(Arc::new(told));
        self.take_configured_keys().await;
        // Last: what was verified by the former keys must not come back.
        self.verified.forget_all();
    }
}
