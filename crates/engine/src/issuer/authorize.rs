//! The authorization endpoint (RFC 6749 4.1.1): what a client asks for is checked and written down, before anybody is
//! asked.

use std::sync::Arc;

use tokenkeep_core::{
    Client, ClientOrigin, Interaction, InteractionId,
    interaction::{INTERACTION_LIFE, InteractionStage},
    ports::{Expect, Put},
    time::after,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        authorize::{Ask, AuthorizationRequest, build_error},
        client::GrantType,
        error::OAuthError,
        redirect_uri::{RedirectKind, RedirectUri},
        resource::Resource,
        scope::ScopeSet,
    },
};
use url::Url;

use super::Issuer;
use crate::{Error, error::STORE_RETRY};

const ATTEMPTS: usize = 8;

/// Where a browser goes that a client sent.
#[derive(Debug)]
pub enum Authorization {
    /// Its user is asked, on our page.
    Ask(InteractionId),
    /// Its user is asked by the application (`[issuer] interaction_url`).
    Elsewhere(Url),
    /// Back to the client, with an error.
    Answer(Secret),
    /// The same, where nobody vouches for the place: its user says whether to go there.
    Offer {
        /// Where that is.
        answer: Secret,
        /// What the client would be told.
        error: OAuthError,
    },
}

/// Why a browser that a client sent goes nowhere.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeRefused {
    /// It cannot be known who asks, or where the answer may go: only the user can be told (RFC 6749 4.1.2.1).
    #[error(transparent)]
    Page(#[from] OAuthError),
    /// Something else is in the way.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What a client asks for, and may ask for.
struct Asked {
    ask: Ask,
    scope: ScopeSet,
    resource: Resource,
}

impl Issuer {
    /// A browser comes with `raw`: a query, or the body of a POST.
    pub async fn authorize(&self, raw: &[u8]) -> Result<Authorization, AuthorizeRefused> {
        let request = AuthorizationRequest::parse(raw)?;
        let client = self.asking(&request).await?;
        let redirect_uri = admitted_redirect_uri(&client, &request)?;
        // From here on there is a place where the client can be told.
        match self.asked_for(&client, &request) {
            Ok(asked) => Ok(self.ask(&client, redirect_uri, request.state(), asked).await?),
            Err(error) => {
                let answer = build_error(&redirect_uri, &error, request.state(), self.settings.url.as_str());
                if may_be_sent_to(&client, &redirect_uri) {
                    Ok(Authorization::Answer(answer))
                } else {
                    Ok(Authorization::Offer { answer, error })
                }
            }
        }
    }

    async fn asking(&self, request: &AuthorizationRequest) -> Result<Arc<Client>, AuthorizeRefused> {
        let client = self.client(request.client_id()?).await?;
        Ok(client.ok_or_else(|| OAuthError::invalid_request("this server does not know the client that sent you"))?)
    }

    /// Everything that the client is told if it is wrong, in the order in which it is checked.
    fn asked_for(&self, client: &Client, request: &AuthorizationRequest) -> Result<Asked, OAuthError> {
        check_grant_type(client)?;
        let ask = request.ask()?;
        let protected = self.meant(ask.resource.as_ref())?;
        check_reach(client, &protected.resource)?;
        let scope = Self::granted_scope(client, protected, ask.scope.as_ref())?;
        Ok(Asked { scope, resource: protected.resource.clone(), ask })
    }

    /// Writes down what is asked for.
    async fn ask(
        &self,
        client: &Client,
        redirect_uri: String,
        state: Option<&str>,
        asked: Asked,
    ) -> Result<Authorization, Error> {
        let now = self.shared.now().wall;
        let id = InteractionId(self.shared.ulid());
        let exchangers = self.settings.resource(&asked.resource).map(|known| known.exchangers.clone());
        let interaction = Interaction {
            id,
            client: client.id.clone(),
            redirect_uri,
            state: state.map(str::to_owned),
            scope: asked.scope,
            resource: asked.resource,
            exchangers: exchangers.unwrap_or_default(),
            challenge: asked.ask.challenge,
            created_at: now,
            expires_at: after(now, INTERACTION_LIFE),
            stage: InteractionStage::Asked,
        };
        self.make_interaction(&interaction).await?;
        Ok(match &self.settings.interaction_url {
            None => Authorization::Ask(id),
            Some(url) => {
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("interaction", &id.to_string());
                Authorization::Elsewhere(url)
            }
        })
    }

    async fn make_interaction(&self, interaction: &Interaction) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(interaction, (), Expect::Absent).await? {
                // Its id was drawn just now: what is there under it is our own write.
                Put::Committed(_) | Put::Conflict => return Ok(()),
                Put::Unknown => {}
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }
}

/// Where the answer may go: where the request says, if the client registered that; or the only place there is.
fn admitted_redirect_uri(client: &Client, request: &AuthorizationRequest) -> Result<String, OAuthError> {
    match (request.redirect_uri(), client.metadata.redirect_uris.as_slice()) {
        (Some(uri), _) if client.metadata.admits(uri).is_some() => Ok(uri.to_owned()),
        (Some(_), _) => Err(OAuthError::invalid_request("redirect_uri is none that this client registered")),
        // Which port the program listens at, it alone knows.
        (None, [only]) if only.kind() == RedirectKind::Loopback && only.portless() == *only => {
            Err(OAuthError::invalid_request("redirect_uri is missing, and with it the port on this machine"))
        }
        (None, [only]) => Ok(only.as_str().to_owned()),
        (None, _) => Err(OAuthError::invalid_request("redirect_uri is missing, and it is not the only one")),
    }
}

/// Whether a browser is sent there although its user did nothing yet. Anybody can register, or publish, an address to
/// have people sent to (RFC 9700 4.11.2); what listens on the user's own machine is nobody else's.
fn may_be_sent_to(client: &Client, redirect_uri: &str) -> bool {
    let is_operators = matches!(client.origin, ClientOrigin::Api | ClientOrigin::Config);
    is_operators || RedirectUri::register(redirect_uri).is_ok_and(|uri| uri.kind() == RedirectKind::Loopback)
}

fn check_grant_type(client: &Client) -> Result<(), OAuthError> {
    if client.metadata.allows(GrantType::AuthorizationCode) {
        Ok(())
    } else {
        Err(OAuthError::unauthorized_client("this client did not register the authorization_code grant"))
    }
}

fn check_reach(client: &Client, resource: &Resource) -> Result<(), OAuthError> {
    if client.may_reach(resource) {
        Ok(())
    } else {
        Err(OAuthError::invalid_target("this client may not ask for tokens for that resource"))
    }
}
