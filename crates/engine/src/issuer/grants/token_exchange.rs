//! The token exchange grant (RFC 8693): an access token that a resource was shown, for its user's fresh access token at
//! the provider.
//!
//! What is handed out is not ours, so its user must have been told: the grant says which clients may have it. The request
//! names no connection, so none can be reached but the one that the grant rests on. For the user of a session its backend
//! answers: `[sessions] exchangers` stands in every session that is made.

use std::{sync::Arc, time::Duration};

use tokenkeep_core::{Client, ClientOrigin, ConnectionId, time::between};
use tokenkeep_oauth::issuer::{
    client::{AuthMethod, GrantType},
    error::OAuthError,
    scope::ScopeSet,
    token::TokenReply,
    token_exchange::{ACCESS_TOKEN, TokenExchange},
};

use crate::{
    Caller, Error, Ready,
    issuer::{Issuer, Refused, VerifiedToken, WEBSOCKET},
};

/// What is handed out lives at least this long, where the provider lets it.
const MIN_TTL: Duration = Duration::from_mins(1);

impl Issuer {
    pub(super) async fn by_token_exchange(&self, client: &Client, asked: TokenExchange) -> Result<TokenReply, Refused> {
        let exchanged = self.exchange(client, &asked).await;
        if let Err(refused @ (Refused::Protocol(_) | Refused::InteractionRequired { .. })) = &exchanged {
            let reason = refused.told().code;
            tracing::warn!(target: "audit", action = "token_exchange_refused", client = %client.id, %reason);
        }
        let ready = exchanged?;
        self.handed_out(client, GrantType::TokenExchange);
        Ok(TokenReply {
            access_token: ready.token.clone(),
            issued_token_type: Some(ACCESS_TOKEN),
            token_type: ready.token_type.clone().into(),
            expires_in: ready.expires_at.map(|end| between(self.shared.now().wall, end)),
            refresh_token: None,
            scope: ready.scope.clone(),
        })
    }

    async fn exchange(&self, client: &Client, asked: &TokenExchange) -> Result<Arc<Ready>, Refused> {
        check_vouched_for(client)?;
        let token = self.verify(&asked.subject_token).await.map_err(as_parameter)?;
        if token.incarnation.is_some() && token.claims.scope.contains(WEBSOCKET) {
            return Err(does_not_count().into());
        }
        self.check_speaks_for(client, &token)?;
        let connection = allowed(client, &token, &asked.audience)?;
        let ready = match self.connections.token(&Caller::Local, connection, MIN_TTL).await {
            Ok(ready) => ready,
            // A session is bound to one life of its connection, and over with it.
            Err(Error::NotFound { .. }) if token.incarnation.is_some() => return Err(does_not_count().into()),
            Err(Error::NotFound { .. } | Error::ReauthRequired { .. }) => {
                let (by, pages) = (format!("client:{}", client.id), self.settings.interaction_url.as_ref());
                let connect_url = self.connect.again(connection, &by, pages).await?;
                return Err(Refused::InteractionRequired { connect_url });
            }
            Err(Error::IntegrationMissing(_)) => return Err(no_such_target().into()),
            Err(error) => return Err(error.into()),
        };
        if token.incarnation.is_some_and(|bound| bound != ready.incarnation) {
            return Err(does_not_count().into());
        }
        check_scope(asked.scope.as_ref(), &ready)?;
        let claims = &token.claims;
        tracing::info!(
            target: "audit", action = "token_exchanged", client = %client.id, grant = token.grant.map(tracing::field::display),
            jti = claims.jti, resource = %claims.audience, subject = claims.subject, %connection,
            generation = %ready.generation,
        );
        Ok(ready)
    }

    /// The token was shown to this client, or to one that it is the same to.
    fn check_speaks_for(&self, client: &Client, token: &VerifiedToken) -> Result<(), OAuthError> {
        let resource = self.resource_of(&token.claims.audience);
        if resource.is_some_and(|resource| resource.exchangers.contains(&client.id)) {
            return Ok(());
        }
        Err(OAuthError::invalid_request(
            "subject_token: it is for a resource whose tokens this client may not exchange",
        ))
    }
}

/// Somebody must answer for a client that gets other people's tokens: the operator.
fn check_vouched_for(client: &Client) -> Result<(), OAuthError> {
    let by_operator = matches!(client.origin, ClientOrigin::Api | ClientOrigin::Config);
    if by_operator && client.metadata.token_endpoint_auth_method != AuthMethod::None {
        return Ok(());
    }
    Err(OAuthError::unauthorized_client("only a confidential client of the operator's may exchange tokens"))
}

/// RFC 8693 2.2.2: a subject token that does not count makes the request invalid. An outage stays one.
fn as_parameter(refused: Refused) -> Refused {
    match refused {
        Refused::Protocol(_) => does_not_count().into(),
        other => other,
    }
}

fn does_not_count() -> OAuthError {
    OAuthError::invalid_request("subject_token: it is no access token of this server, expired, revoked or for less")
}

/// The connection whose token the user lets `client` have.
fn allowed<'a>(client: &Client, token: &'a VerifiedToken, audience: &str) -> Result<&'a ConnectionId, OAuthError> {
    let connection = token.connection.as_ref().filter(|connection| connection.integration.as_str() == audience);
    let connection = connection.ok_or_else(no_such_target)?;
    if token.exchangers.contains(&client.id) {
        return Ok(connection);
    }
    Err(OAuthError::consent_required(
        "the user has not allowed this client to use that account: they must sign in again",
    ))
}

/// One answer for every place that the user's grant does not lead to: which of them there are is not said.
fn no_such_target() -> OAuthError {
    OAuthError::invalid_target("audience: what the user allowed rests on no account there")
}

/// What a provider issued cannot be narrowed; so what is asked for is the least that will do.
fn check_scope(asked: Option<&ScopeSet>, ready: &Ready) -> Result<(), OAuthError> {
    let Some(asked) = asked else { return Ok(()) };
    let granted: Vec<&str> = ready.scope.as_deref().unwrap_or_default().split(' ').collect();
    if asked.iter().all(|scope| granted.contains(&scope)) {
        return Ok(());
    }
    Err(OAuthError::invalid_scope("the user's account was not connected with that scope"))
}
