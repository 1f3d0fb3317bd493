//! What clients publish of themselves: the document that their id is the address of (Client ID Metadata Documents),
//! and the keys that they sign assertions with.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::jwk::JwkSet;
use tokenkeep_core::{Client, ClientId, ClientOrigin, ports::Peers};
use tokenkeep_oauth::issuer::{
    client::{check_document_url, parse_client_document},
    error::OAuthError,
    jwks::{self, parse_jwks},
};
use url::Url;

use super::{
    fetch::{Failure, Fetched, What},
    registration::only_for_users,
};
use crate::{
    Error,
    issuer::{Issuer, Refused},
};

/// The longest document that is read, in bytes.
const MAX_DOCUMENT: usize = 5 * 1024;
/// Keys are fetched again for the sake of one that is not among them, if they are this old.
const KEYS_ARE_OLD: Duration = Duration::from_secs(30);
/// What cannot be fetched now may be there after this.
const RETRY: Duration = Duration::from_secs(10);

/// What was fetched.
#[derive(Clone, Debug, Default)]
pub(in crate::issuer) struct Published {
    documents: Arc<Fetched<Client>>,
    keys: Arc<Fetched<JwkSet>>,
}

impl Issuer {
    /// The client that the document at `id` describes.
    pub(super) async fn document_client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, Error> {
        let Some(url) = check_document_url(id.as_str()) else { return Ok(None) };
        let now = self.shared.now();
        if let Some(client) = self.published.documents.kept(&url, now.boot) {
            return Ok(Some(client));
        }
        let what = What { url: &url, peers: self.peers(&url), max_len: MAX_DOCUMENT, or_stale: true };
        let of = id.clone();
        let read = move |body: &[u8]| {
            let mut metadata = parse_client_document(of.as_str(), body).map_err(|error| error.description)?;
            // Anybody can publish a document.
            only_for_users(&mut metadata).map_err(|error| error.description)?;
            let origin = ClientOrigin::Document;
            let (secret, resources, used_at) = (None, None, None);
            Ok(Client { id: of, metadata, secret, origin, resources, created_at: now.wall, used_at })
        };
        match self.published.documents.fetch(&self.shared, what, read).await {
            Ok(client) => Ok(Some(client)),
            Err(Failure::Useless(problem)) => Err(Error::ClientDocument(problem)),
            Err(Failure::Unknown) => Err(Error::ClientDocumentUnavailable { retry_after: RETRY }),
        }
    }

    /// The keys that `client` signs assertions with.
    pub(in crate::issuer) async fn keys_of(&self, client: &Client) -> Result<Arc<JwkSet>, Refused> {
        match (&client.metadata.jwks, &client.metadata.jwks_uri) {
            (Some(keys), _) => Ok(Arc::new(keys.clone())),
            (None, Some(url)) => match self.published.keys.kept(url, self.shared.now().boot) {
                Some(keys) => Ok(keys),
                None => self.fetch_keys(url, true).await,
            },
            (None, None) => Err(OAuthError::invalid_client("this client has no keys").into()),
        }
    }

    /// The same, fetched anew; `None` if they were fetched a moment ago, or came with the client.
    pub(in crate::issuer) async fn newer_keys_of(&self, client: &Client) -> Result<Option<Arc<JwkSet>>, Refused> {
        let (None, Some(url)) = (&client.metadata.jwks, &client.metadata.jwks_uri) else { return Ok(None) };
        match self.published.keys.age(url, self.shared.now().boot) {
            Some(age) if age < KEYS_ARE_OLD => Ok(None),
            _ => self.fetch_keys(url, false).await.map(Some),
        }
    }

    async fn fetch_keys(&self, url: &Url, or_stale: bool) -> Result<Arc<JwkSet>, Refused> {
        let what = What { url, peers: self.peers(url), max_len: jwks::MAX_LEN, or_stale };
        let read = |body: &[u8]| parse_jwks(body).map_err(|error| error.to_string().into());
        self.published.keys.fetch(&self.shared, what, read).await.map_err(|failure| match failure {
            Failure::Useless(problem) => OAuthError::invalid_client(format!("the client's jwks_uri: {problem}")).into(),
            Failure::Unknown => Error::ClientDocumentUnavailable { retry_after: RETRY }.into(),
        })
    }

    /// The operator may allow hosts in private networks.
    fn peers(&self, url: &Url) -> Peers {
        let allowed = url.host_str().is_some_and(|host| self.settings.document_hosts.contains(host));
        if allowed { Peers::Any } else { Peers::Public }
    }
}
