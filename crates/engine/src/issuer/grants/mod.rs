//! What leads to tokens. Each grant has a file of its own, which says who may have what; tokens of ours are made here, for
//! all of them.

mod authorization_code;
mod client_credentials;
mod refresh_token;
mod session;
mod stored;
mod token_exchange;

use std::{borrow::Cow, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use tokenkeep_core::{
    Client, ClientOrigin, GrantId,
    grant::{GrantError, LiveToken},
    time::{after, between},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        access_token::{AccessTokenClaims, build_access_token},
        client::GrantType,
        error::OAuthError,
        resource::Resource,
        scope::ScopeSet,
        token::{TokenReply, TokenRequest},
    },
};

pub(crate) use self::session::{Opening, Reissue, WEBSOCKET, refused};
use super::{Issuer, ProtectedResource, Refused};
use crate::Error;

/// What a grant says that its client may have.
struct Allowed {
    /// On whose behalf.
    subject: String,
    /// What to call them.
    username: Option<String>,
    scope: ScopeSet,
    resource: Resource,
    birth: Birth,
    refresh_token: Option<Secret>,
    grant: Option<GrantId>,
}

/// An access token before it is made: what must be written down first.
#[derive(Clone)]
struct Birth {
    jti: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl Birth {
    fn live(&self) -> LiveToken {
        LiveToken { jti: self.jti.clone(), expires_at: self.expires_at }
    }
}

impl Issuer {
    /// Answers a token request of `client`, who has proven to be who it is (RFC 6749 5).
    pub async fn token(&self, client: &Arc<Client>, request: TokenRequest) -> Result<TokenReply, Refused> {
        let (grant_type, allowed) = match request {
            TokenRequest::AuthorizationCode { code, redirect_uri, verifier, resource } => {
                check_grant_type(client, GrantType::AuthorizationCode)?;
                let said = authorization_code::Said { redirect_uri, verifier, resource };
                (GrantType::AuthorizationCode, self.by_authorization_code(client, &code, said).await?)
            }
            TokenRequest::RefreshToken { refresh_token, scope, resource } => {
                check_grant_type(client, GrantType::RefreshToken)?;
                (GrantType::RefreshToken, self.by_refresh_token(client, &refresh_token, scope, resource).await?)
            }
            TokenRequest::ClientCredentials { scope, resource } => {
                check_grant_type(client, GrantType::ClientCredentials)?;
                (GrantType::ClientCredentials, self.by_client_credentials(client, scope.as_ref(), resource.as_ref())?)
            }
            TokenRequest::TokenExchange(asked) => {
                check_grant_type(client, GrantType::TokenExchange)?;
                return self.by_token_exchange(client, asked).await;
            }
        };
        self.finish(client, grant_type, allowed).await
    }

    /// The end of every grant that leads to a token of ours.
    async fn finish(&self, client: &Client, grant_type: GrantType, allowed: Allowed) -> Result<TokenReply, Refused> {
        let Allowed { subject, username, scope, resource, birth, refresh_token, grant } = allowed;
        let protected = self.protected(&resource)?;
        if !client.may_reach(&resource) {
            return Err(OAuthError::invalid_target("this client may not ask for tokens for that resource").into());
        }
        let Birth { jti, issued_at, expires_at } = birth;
        let claims = AccessTokenClaims {
            subject,
            audience: resource,
            client_id: client.id.to_string(),
            scope,
            jti,
            issued_at,
            expires_at,
            username,
            session: None,
        };
        let issuer = self.settings.url.as_str();
        let signed = self.with_signer(protected, |key| build_access_token(key, issuer, &claims)).await?;
        let access_token = signed.map_err(|_| Error::Conflict { what: "signing key" })?;
        self.handed_out(client, grant_type);
        match grant {
            Some(grant) => tracing::info!(
                target: "audit", action = "token_issued", grant_type = grant_type.as_str(), client = %client.id, %grant,
                jti = claims.jti, resource = %claims.audience,
            ),
            None => self.tally.count(&client.id, &claims.audience),
        }
        Ok(TokenReply {
            access_token,
            issued_token_type: None,
            token_type: Cow::Borrowed("Bearer"),
            expires_in: Some(between(issued_at, expires_at)),
            refresh_token,
            scope: Some(claims.scope.to_string()),
        })
    }

    /// What every grant notes, whoever made the token.
    fn handed_out(&self, client: &Client, grant_type: GrantType) {
        self.shared.metrics.issued(grant_type.as_str());
        self.note_use(client);
    }

    /// Names a new access token, one of `grant`'s if it has one. Claims are to the second, so its life is.
    fn birth(&self, grant: Option<GrantId>) -> Birth {
        let now = self.shared.now().wall;
        let issued_at = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let random = BASE64_URL_SAFE_NO_PAD.encode(&self.shared.entropy.bytes32()[..16]);
        let jti = match grant {
            Some(grant) => format!("{grant}.{random}"),
            None => random,
        };
        Birth { jti, issued_at, expires_at: after(issued_at, self.settings.access_token_ttl) }
    }

    fn protected(&self, resource: &Resource) -> Result<&ProtectedResource, OAuthError> {
        let known = self.settings.resource(resource);
        known.ok_or_else(|| OAuthError::invalid_target("this server issues no tokens for that resource"))
    }

    /// The resource that is meant: the one that is named, or the only one.
    pub(super) fn meant(&self, resource: Option<&Resource>) -> Result<&ProtectedResource, OAuthError> {
        match resource {
            Some(resource) => self.protected(resource),
            None => self.settings.only_resource().ok_or_else(|| {
                OAuthError::invalid_target("resource is missing, and there is more than one: say which")
            }),
        }
    }

    /// What of the scope that is asked for can be had: RFC 6749 3.3 lets us leave out the rest, but not all of it.
    pub(super) fn granted_scope(
        client: &Client,
        protected: &ProtectedResource,
        asked: Option<&ScopeSet>,
    ) -> Result<ScopeSet, OAuthError> {
        let registered = client.metadata.scope.as_ref();
        let usual = registered.map_or_else(|| protected.scopes.clone(), |known| protected.scopes.intersection(known));
        let Some(asked) = asked else { return Ok(usual) };
        // Who registers itself could have registered any scope, and asks for more when a resource wants more.
        let chosen_by_operator = matches!(client.origin, ClientOrigin::Api | ClientOrigin::Config);
        let granted = if chosen_by_operator { usual } else { protected.scopes.clone() }.intersection(asked);
        let of_resources = asked.iter().any(|scope| !OF_OTHERS.contains(&scope));
        if granted.is_empty() && of_resources && !protected.scopes.is_empty() {
            return Err(OAuthError::invalid_scope("none of these scopes can be had by this client for that resource"));
        }
        Ok(granted)
    }
}

/// What clients of any server ask for, and what is no resource's.
const OF_OTHERS: [&str; 4] = ["openid", "offline_access", "profile", "email"];

fn check_grant_type(client: &Client, grant_type: GrantType) -> Result<(), OAuthError> {
    if client.metadata.allows(grant_type) {
        Ok(())
    } else {
        Err(OAuthError::unauthorized_client("this client did not register this grant type"))
    }
}

/// What the client is told of a failed check: the same words as the log, for it proved to be who it is.
fn told(error: GrantError) -> OAuthError {
    let text: Cow<'static, str> = error.to_string().into();
    match error {
        GrantError::WrongResource => OAuthError::invalid_target(text),
        GrantError::WiderScope => OAuthError::invalid_scope(text),
        // Whether somebody else has such a token is not this client's business.
        GrantError::WrongClient | GrantError::Forged => no_such_token(),
        _ => OAuthError::invalid_grant(text),
    }
}

fn no_such_token() -> OAuthError {
    OAuthError::invalid_grant("there is no such code or refresh token")
}
