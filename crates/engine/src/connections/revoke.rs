//! Telling a provider that its tokens are no longer wanted.

use http::Method;
use tokenkeep_core::{TokenSet, ports::Request, provider::RevocationMethod};
use tokenkeep_oauth::{
    revoke::{
        RevocationFailure, TokenKind, build_basic_delete, build_bearer_revocation, build_revocation_request,
        parse_revocation_response,
    },
    token::RequestContext,
};

use crate::{integrations::Party, metrics::UpstreamCall, shared::Shared};

/// Why a token could not be revoked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    /// The provider was not reached, or gave no outcome: trying again may help.
    #[error("the provider did not answer: {0}")]
    Unavailable(String),
    /// The provider refused.
    #[error("the provider refused to revoke: {0}")]
    Refused(String),
}

/// Revokes what `tokens` hold, in the provider's way. A provider without one is content with nothing.
pub(crate) async fn revoke(shared: &Shared, party: &Party, tokens: &TokenSet) -> Result<(), RevokeError> {
    let Some(revocation) = &party.provider.revoke else { return Ok(()) };
    let refresh = tokens.renewal.as_ref().and_then(|r| r.refresh_token());
    let access = tokens.access.as_ref().map(|a| &a.token);
    let mut entropy = [0; 16];
    shared.entropy.fill(&mut entropy);
    let context = RequestContext::new(shared.now().wall, entropy, &party.provider.params);
    let (dialect, client, url) = (&party.provider.dialect, &party.client, &revocation.url);
    // The refresh token first: most providers end the whole grant with it (RFC 7009 2.1).
    let either = refresh.map(|t| (t, TokenKind::Refresh)).or(access.map(|t| (t, TokenKind::Access)));
    let built = match (revocation.method, either, access) {
        (RevocationMethod::Rfc7009, Some((token, kind)), _) => {
            build_revocation_request(dialect, url, client, token, kind, &context)
        }
        (RevocationMethod::BearerPost, _, Some(token)) => {
            build_bearer_revocation(dialect, Method::POST, url, client, token, &context)
        }
        (RevocationMethod::BearerDelete, _, Some(token)) => {
            build_bearer_revocation(dialect, Method::DELETE, url, client, token, &context)
        }
        (RevocationMethod::BasicDelete, _, Some(token)) => build_basic_delete(dialect, url, client, token, &context),
        (_, None, _) | (_, _, None) => return Ok(()),
    };
    let built = built.map_err(|error| RevokeError::Refused(error.to_string()))?;
    shared.metrics.called(&party.integration.id, UpstreamCall::revoke);
    let request = Request { method: built.method, url: built.url, headers: built.headers, body: built.body };
    let reply = shared.fetch(request).await.map_err(|error| RevokeError::Unavailable(error.to_string()))?;
    parse_revocation_response(reply.status, &reply.headers, &reply.body, shared.now().wall).map_err(|failure| {
        match failure {
            RevocationFailure::Unavailable { .. } => RevokeError::Unavailable(failure.to_string()),
            RevocationFailure::Refused { .. } => RevokeError::Refused(failure.to_string()),
        }
    })
}
