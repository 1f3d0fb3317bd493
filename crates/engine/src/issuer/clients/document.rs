//! Clients whose id is the address of the document that describes them (Client ID Metadata Documents).

use std::sync::Arc;

use jsonwebtoken::jwk::JwkSet;
use tokenkeep_core::{Client, ClientId};
use tokenkeep_oauth::issuer::error::OAuthError;

use crate::{
    Error,
    issuer::{Issuer, Refused},
};

impl Issuer {
    /// The client that the document at `id` describes.
    pub(super) async fn document_client(&self, _id: &ClientId) -> Result<Option<Arc<Client>>, Error> {
        Ok(None)
    }

    /// The keys that `client` signs assertions with.
    pub(in crate::issuer) async fn keys_of(&self, client: &Client) -> Result<JwkSet, Refused> {
        match &client.metadata.jwks {
            Some(keys) => Ok(keys.clone()),
            None => Err(OAuthError::invalid_client("this client has no keys").into()),
        }
    }
}
