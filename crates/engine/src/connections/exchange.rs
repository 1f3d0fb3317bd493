//! One exchange at a token endpoint, or one login: what is spent, as a request; the reply, as what it means.

use tokenkeep_core::{
    AccessToken, Connection, ConnectionId, Fingerprint, LoginGrant, RenewBy, Renewal,
    ports::{Reply, Request},
    refresh::{Answer, Fault, INVALID_CREDENTIALS, Received, Refused},
};
use tokenkeep_oauth::{
    Secret,
    client_assertion::{BearerClaims, MAX_BEARER_LIFETIME, build_bearer_assertion},
    login::{Life, LoginDialect, LoginFailure, LoginReply, build_login_request, parse_login_response},
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
        RenewBy::Login(_) => provider.login.as_ref().map(|login| &login.url),
    };
    url.cloned().ok_or_else(|| misconfigured(format!("provider `{}` has no endpoint for this", provider.id)))
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
        RenewBy::Login(login) => return build_login(party, login),
    };
    request(shared, party, &grant, &url)
}

/// The request that logs in.
pub(crate) fn build_login(party: &Party, grant: &LoginGrant) -> Result<Request, Fault> {
    let provider = &party.provider;
    let login = provider.login.as_ref();
    let login = login.ok_or_else(|| misconfigured(format!("provider `{}` has no login", provider.id)))?;
    let built = build_login_request(&login.dialect, &login.url, &party.client, &grant.credentials)
        .map_err(|error| misconfigured(error.to_string()))?;
    Ok(Request { method: built.method, url: built.url, headers: built.headers, body: built.body })
}

/// What `renewal` brings without asking anybody: credentials that are what the API takes.
pub(crate) fn standing(shared: &Shared, party: &Party, renewal: &Renewal) -> Option<Received> {
    let login = renewal.login().filter(|_| party.provider.kind.is_static())?;
    let (token, token_type) = login.credentials.as_token()?;
    let issued_at = shared.now().wall;
    let access = AccessToken { token, token_type: token_type.to_owned(), issued_at, expires_at: None };
    Some(Received { access, renewal: None, scope: None })
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
    if let Some(login) = spent.login() {
        return match read_login(shared, party, login, reply) {
            Ok(login) => {
                Answer::Tokens(Box::new(Received { access: access(shared, login), renewal: None, scope: None }))
            }
            Err(LoginFailure::Refused { .. }) => {
                Answer::Refused(Refused::Grant { code: INVALID_CREDENTIALS.to_owned() })
            }
            Err(LoginFailure::Throttled { retry_after }) => Answer::Refused(Refused::Throttled { retry_after }),
            Err(LoginFailure::Rejected { status }) => {
                Answer::Refused(Refused::Request { code: format!("http_{}", status.as_u16()) })
            }
            Err(lost @ LoginFailure::NoOutcome { .. }) => Answer::Lost { detail: lost.to_string() },
        };
    }
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

/// What a reply to a login says.
pub(crate) fn read_login(
    shared: &Shared,
    party: &Party,
    grant: &LoginGrant,
    reply: &Reply,
) -> Result<LoginReply, LoginFailure> {
    let life = Life { ttl: grant.ttl, default: party.provider.default_lifetime };
    let plain = LoginDialect::default();
    let dialect = party.provider.login.as_ref().map_or(&plain, |login| &login.dialect);
    parse_login_response(dialect, reply.status, &reply.headers, &reply.body, shared.now().wall, life)
}

/// The token that a login brought, as a connection holds it.
pub(crate) fn access(shared: &Shared, login: LoginReply) -> AccessToken {
    AccessToken {
        token: login.access_token,
        token_type: login.token_type,
        issued_at: shared.now().wall,
        expires_at: login.expires_at,
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
        RenewBy::Login(grant) => return login(shared, grant),
    };
    let fingerprint: Fingerprint = shared.records.barrier().hashes().fingerprint(&Secret::from(word));
    Renewal { by, fingerprint }
}

/// Credentials as a connection holds them. Others have another fingerprint, so that a reply to the old ones finds out.
pub(crate) fn login(shared: &Shared, grant: LoginGrant) -> Renewal {
    let fingerprint = shared.records.barrier().hashes().fingerprint(&grant.credentials.fingerprinted());
    Renewal { by: RenewBy::Login(grant), fingerprint }
}
