//! One exchange at a token endpoint: what is spent, as a request; the reply, as what it means.

use tokenkeep_core::{
    AccessToken, Connection, ConnectionId, Fingerprint, RenewBy, Renewal,
    ports::{Reply, Request},
    refresh::{Answer, Fault, Received, Refused},
};
use tokenkeep_oauth::{
    Secret,
    client_assertion::{BearerClaims, MAX_BEARER_LIFETIME, build_bearer_assertion},
    token::{Grant, RequestContext, TokenFailure, TokenReply, build_token_request, parse_token_response},
};
use url::Url;

use crate::{integrations::Party, shared::Shared};

/// Where the refreshes of `party` go.
pub(crate) fn refresh_url(party: &Party, by: &RenewBy) -> Result<Url, Fault> {
    let provider = &party.provider;
    let url = match by {
        RenewBy::RefreshToken(_) | RenewBy::AccessToken => provider.refresh_url.as_ref(),
        RenewBy::ClientCredentials | RenewBy::JwtBearer => provider.token_url.as_ref(),
    };
    url.cloned().ok_or_else(|| misconfigured(format!("provider `{}` has no token endpoint", provider.id)))
}

/// The request that spends `renewal` for a new access token of `connection`.
pub(crate) fn build(
    shared: &Shared,
    party: &Party,
    connection: &Connection,
    renewal: &Renewal,
) -> Result<Request, Fault> {
    let url = refresh_url(party, &renewal.by)?;
    let scope = party.integration.scope.clone().or_else(|| party.provider.default_scope.clone());
    let grant = match &renewal.by {
        RenewBy::RefreshToken(token) => Grant::RefreshToken { refresh_token: token.clone(), scope: None },
        RenewBy::ClientCredentials => Grant::ClientCredentials { scope },
        RenewBy::JwtBearer => Grant::JwtBearer {
            assertion: assertion(shared, party, &connection.id, scope.as_deref(), &url)?,
            scope: None,
        },
        RenewBy::AccessToken => {
            let access = connection.tokens.access.as_ref();
            let token = access.map(|a| a.token.clone());
            Grant::AccessToken { access_token: token.ok_or_else(|| misconfigured("there is no access token to swap"))? }
        }
    };
    request(shared, party, &grant, &url)
}

/// A request to a token endpoint of `party`.
pub(crate) fn request(shared: &Shared, party: &Party, grant: &Grant, url: &Url) -> Result<Request, Fault> {
    let mut entropy = [0; 16];
    shared.entropy.fill(&mut entropy);
    let redirect_uri = redirect_uri(shared, party);
    let mut context = RequestContext::new(shared.now().wall, entropy, &party.provider.params);
    context.redirect_uri = Some(redirect_uri.as_str());
    let built = build_token_request(&party.provider.dialect, url, &party.client, grant, &context)
        .map_err(|error| misconfigured(error.to_string()))?;
    Ok(Request { method: built.method, url: built.url, headers: built.headers, body: built.body })
}

/// Where the provider sends the browser back to.
pub(crate) fn redirect_uri(shared: &Shared, party: &Party) -> Url {
    party.integration.redirect_uri.clone().unwrap_or_else(|| {
        let mut url = shared.settings.public_url.clone();
        url.set_path("/oauth/callback");
        url
    })
}

/// What a service account says of itself (RFC 7523 2.1). The subject it acts for is the connection's, unless that is
/// the default one.
pub(crate) fn assertion(
    shared: &Shared,
    party: &Party,
    id: &ConnectionId,
    scope: Option<&str>,
    url: &Url,
) -> Result<Secret, Fault> {
    let key = party.client.key.as_ref().ok_or_else(|| misconfigured("the integration has no signing key"))?;
    let issuer = party.assertion_issuer.as_deref();
    let subject = id.subject.as_str();
    let claims = BearerClaims {
        issuer: issuer.unwrap_or(&party.client.id),
        subject: (subject != tokenkeep_core::id::DEFAULT).then_some(subject),
        audience: url.as_str(),
        scope,
        lifetime: MAX_BEARER_LIFETIME,
    };
    build_bearer_assertion(key, claims, shared.now().wall).map_err(|error| misconfigured(error.to_string()))
}

fn misconfigured(detail: impl Into<String>) -> Fault {
    Fault::Misconfigured { detail: detail.into() }
}

/// What a reply to a refresh means.
pub(crate) fn judge(shared: &Shared, party: &Party, spent: &Renewal, reply: &Reply) -> Answer {
    let now = shared.now().wall;
    let provider = &party.provider;
    match parse_token_response(
        &provider.dialect,
        reply.status,
        &reply.headers,
        &reply.body,
        now,
        provider.default_lifetime,
    ) {
        Ok(tokens) => Answer::Tokens(Box::new(received(shared, tokens, spent))),
        Err(failure) => match failure {
            TokenFailure::InvalidGrant { code } => Answer::Refused(Refused::Grant { code: code.to_string() }),
            TokenFailure::DeviceExpired => Answer::Refused(Refused::Grant { code: "expired_token".to_owned() }),
            TokenFailure::ClientRejected { code } => Answer::Refused(Refused::Client { code: code.to_string() }),
            TokenFailure::Throttled { retry_after } => Answer::Refused(Refused::Throttled { retry_after }),
            TokenFailure::Rejected { code } => Answer::Refused(Refused::Request { code: code.to_string() }),
            TokenFailure::DevicePending | TokenFailure::SlowDown => {
                Answer::Refused(Refused::Request { code: "authorization_pending".to_owned() })
            }
            lost @ TokenFailure::NoOutcome { .. } => Answer::Lost { detail: lost.to_string() },
        },
    }
}

fn received(shared: &Shared, reply: TokenReply, spent: &Renewal) -> Received {
    let renewal = match (&spent.by, reply.refresh_token) {
        (RenewBy::RefreshToken(_), Some(token)) => Some(refresh_token(shared, token)),
        // What is spent here is not used up; a refresh token beside it is not what keeps this connection alive.
        _ => None,
    };
    let access = AccessToken {
        token: reply.access_token,
        token_type: reply.token_type,
        issued_at: shared.now().wall,
        expires_at: reply.expires_at,
    };
    Received { access, renewal, scope: reply.scope }
}

/// A refresh token as a connection holds it.
pub(crate) fn refresh_token(shared: &Shared, token: Secret) -> Renewal {
    let fingerprint = shared.records.barrier().hashes().fingerprint(&token);
    Renewal { by: RenewBy::RefreshToken(token), fingerprint }
}

/// What stands where nothing is used up: its fingerprint is that of a fixed word.
pub(crate) fn lasting(shared: &Shared, by: RenewBy) -> Renewal {
    let word = match by {
        RenewBy::ClientCredentials => "client_credentials",
        RenewBy::JwtBearer => "jwt_bearer",
        RenewBy::AccessToken => "access_token",
        RenewBy::RefreshToken(token) => return refresh_token(shared, token),
    };
    let fingerprint: Fingerprint = shared.records.barrier().hashes().fingerprint(&Secret::from(word));
    Renewal { by, fingerprint }
}
