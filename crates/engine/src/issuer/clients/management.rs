//! Clients that registered themselves, and manage their registration (RFC 7592).

use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokenkeep_core::{Client, ClientId, ClientOrigin, ClientSecretHash, client::ManagementHash};
use tokenkeep_oauth::{
    Secret,
    issuer::{client::AuthMethod, error::OAuthError},
};

use super::registration::{MANAGEMENT, Registered, audit};
use crate::{
    Error,
    issuer::{Issuer, Refused},
};

/// Why a client may not manage a registration.
#[derive(Debug, thiserror::Error)]
pub enum ManagementRefused {
    /// What came with the request is no registration access token.
    #[error("the registration access token is missing or none of this server's")]
    Unauthenticated,
    /// The token does not manage this client, or nothing does.
    #[error("the registration access token does not manage this client")]
    WrongToken,
    /// There is no such client, or none any more.
    #[error("there is no such client; it may have expired")]
    UnknownClient,
    /// The client may, but not this; or something else is in the way.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl ManagementRefused {
    /// The HTTP status it goes with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::WrongToken => StatusCode::FORBIDDEN,
            Self::UnknownClient => StatusCode::NOT_FOUND,
            Self::Refused(refused) => refused.told().status(),
        }
    }

    /// What is told to whoever asked.
    pub fn told(&self) -> OAuthError {
        match self {
            Self::Unauthenticated => OAuthError::invalid_token(self.to_string()),
            Self::WrongToken => OAuthError::access_denied(self.to_string()),
            Self::UnknownClient => OAuthError::invalid_client(self.to_string()),
            Self::Refused(refused) => refused.told(),
        }
    }
}

impl From<Error> for ManagementRefused {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { what: "client", .. } => Self::UnknownClient,
            Error::Invalid(text) => OAuthError::invalid_client_metadata(text).into(),
            error => Self::Refused(error.into()),
        }
    }
}

impl From<OAuthError> for ManagementRefused {
    fn from(error: OAuthError) -> Self {
        Self::Refused(error.into())
    }
}

/// What an update says beside the metadata (RFC 7592 2.2).
#[derive(Deserialize)]
struct Named {
    client_id: Option<String>,
    client_secret: Option<Secret>,
}

impl Issuer {
    /// What is registered. The secret is not shown again: only its hash is kept.
    pub async fn registered(&self, client_id: &str, token: &Secret) -> Result<Registered, ManagementRefused> {
        let client = self.managed(client_id, token).await?;
        let metadata = client.metadata.clone();
        Ok(self.registered_as(client, metadata, None, Some(token.clone())))
    }

    /// Takes a new registration in the place of the old one. A client that has a secret keeps it; one that needs one
    /// from now on gets it here.
    pub async fn update_registration(
        &self,
        client_id: &str,
        token: &Secret,
        body: &[u8],
    ) -> Result<Registered, ManagementRefused> {
        let client = self.managed(client_id, token).await?;
        let metadata = self.registrable(body)?;
        self.check_named(&client, body)?;
        if metadata.token_endpoint_auth_method == AuthMethod::None {
            return Err(OAuthError::invalid_client_metadata("a client that proves itself cannot become public").into());
        }
        let (hash, drawn) = self.drawn_secret();
        let (client, secret) = self
            .change_client(&client.id, |client| {
                let (secret, shown) = match (metadata.token_endpoint_auth_method.has_secret(), client.secret) {
                    (false, _) => (None, None),
                    (true, Some(kept)) => (Some(kept), None),
                    (true, None) => (Some(hash.clone()), Some(drawn.clone())),
                };
                Ok((Client { metadata: metadata.clone(), secret, ..client }, shown))
            })
            .await?;
        audit("client_changed", &client);
        Ok(self.registered_as(client, metadata, secret, Some(token.clone())))
    }

    /// Removes the client, and ends what was granted to it.
    pub async fn delete_registration(&self, client_id: &str, token: &Secret) -> Result<(), ManagementRefused> {
        let client = self.managed(client_id, token).await?;
        self.remove_client(&client.id).await?;
        audit("client_deleted", &client);
        Ok(())
    }

    /// The client that `token` manages, as the store has it.
    async fn managed(&self, client_id: &str, token: &Secret) -> Result<Client, ManagementRefused> {
        let drawn = token.expose_secret().strip_prefix(MANAGEMENT);
        if drawn.is_none_or(|drawn| drawn.len() != 43) {
            return Err(ManagementRefused::Unauthenticated);
        }
        if self.configured(client_id).is_some() {
            return Err(ManagementRefused::WrongToken);
        }
        let id = ClientId::new(client_id).map_err(|_| ManagementRefused::UnknownClient)?;
        let now = self.shared.now().wall;
        let stored = self.load_client(&id).await?.filter(|stored| stored.value.is_known(now));
        let client = stored.ok_or(ManagementRefused::UnknownClient)?.value;
        let presented = ManagementHash(self.shared.records.barrier().hashes().management(token));
        match &client.origin {
            ClientOrigin::Registered { management: Some(own) } if *own == presented => Ok(client),
            _ => Err(ManagementRefused::WrongToken),
        }
    }

    /// A client may name itself and its secret, and no other.
    fn check_named(&self, client: &Client, body: &[u8]) -> Result<(), OAuthError> {
        let malformed = |_| OAuthError::invalid_client_metadata("client_id and client_secret are texts");
        let named: Named = serde_json::from_slice(body).map_err(malformed)?;
        let is_own_id = named.client_id.is_none_or(|id| id == client.id.as_str());
        let is_own_secret = named.client_secret.is_none_or(
            |secret| matches!(&client.secret, Some(ClientSecretHash::Keyed(hash)) if self.is_secret(hash, &secret)),
        );
        if is_own_id && is_own_secret {
            return Ok(());
        }
        Err(OAuthError::invalid_client_metadata("client_id or client_secret are not this client's"))
    }
}
