//! Telling what a token is worth (RFC 7662): to whom it was issued, and to the resource that it is for.

use bytes::Bytes;
use tokenkeep_core::{
    Client, Grant,
    grant::{GrantStage, Presented},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::AuthMethod,
        error::OAuthError,
        introspection::{IntrospectionReply, TokenDescription},
    },
};

use super::{Issuer, Refused, VerifiedToken};

const INACTIVE: Bytes = Bytes::from_static(br#"{"active":false}"#);

impl Issuer {
    /// The answer, as JSON. Whatever does not count, or is none of the client's business, is inactive.
    pub async fn introspect(&self, client: &Client, token: &Secret) -> Result<Bytes, Refused> {
        if client.metadata.token_endpoint_auth_method == AuthMethod::None {
            // RFC 7662 2.1: whoever proves nothing could try out tokens.
            return Err(OAuthError::invalid_client("a public client may not introspect").into());
        }
        if let Some(presented) = Presented::parse(token) {
            return self.introspect_refresh_token(client, &presented).await;
        }
        match self.verify(token).await {
            Ok(verified) => Ok(self.described(client, &verified)),
            Err(Refused::Protocol(_)) => Ok(INACTIVE),
            Err(failed) => Err(failed),
        }
    }

    /// What `client` is told of a token that counts.
    pub fn described(&self, client: &Client, token: &VerifiedToken) -> Bytes {
        let claims = &token.claims;
        let is_its_own = claims.client_id == client.id.as_str();
        let speaks_for_resource =
            || self.resource_of(&claims.audience).is_some_and(|known| known.is_spoken_for_by(&client.id));
        if is_its_own || speaks_for_resource() { token.description.clone() } else { INACTIVE }
    }

    async fn introspect_refresh_token(&self, client: &Client, presented: &Presented) -> Result<Bytes, Refused> {
        let Some(stored) = self.load_grant(&presented.grant).await? else { return Ok(INACTIVE) };
        let grant: Grant = stored.value;
        let now = self.shared.now().wall;
        let GrantStage::Active(family) = &grant.stage else { return Ok(INACTIVE) };
        let counts = presented.number != 0
            && presented.number == family.newest
            && now < family.expires_at
            && grant.belongs(presented, &client.id);
        if !counts {
            return Ok(INACTIVE);
        }
        let reply = IntrospectionReply::active(TokenDescription {
            iss: self.settings.url.as_str(),
            sub: grant.subject.as_str(),
            aud: grant.resource.as_str(),
            client_id: grant.client.as_str(),
            scope: &grant.scope,
            iat: family.rotated_at.as_second(),
            exp: family.expires_at.as_second(),
            jti: None,
            token_type: None,
            username: grant.user.name.as_deref(),
        });
        Ok(serde_json::to_vec(&reply).map_or(INACTIVE, Bytes::from))
    }
}
