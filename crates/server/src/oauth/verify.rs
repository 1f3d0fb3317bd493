//! `/verify`: a proxy asks whether to let a request through (forward auth). 200 with who it is, or the 401 or 403 that
//! its client is to see. What we stand in front of ourselves (`protect`) goes by the same rules.

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use tokenkeep_engine::issuer::{Issuer, ProtectedResource, Refused, VerifiedToken};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        challenge::BearerChallenge, error::OAuthError, form::Form, metadata::resource_metadata_url, resource::Resource,
        scope::ScopeSet,
    },
};
use url::Url;

use super::{
    bearer::presented,
    errors::{self, Failure},
    issuing::Issuing,
};
use crate::peer::Peer;

/// Below the issuer's path.
pub(crate) const PATH: &str = "/verify";

const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
const X_USER_NAME: HeaderName = HeaderName::from_static("x-user-name");
const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const X_AUTH_SCOPE: HeaderName = HeaderName::from_static("x-auth-scope");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A resource that requests are let through to.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(super) resource: Resource,
    url: Url,
    scopes: ScopeSet,
    /// Where it is described.
    metadata: Url,
}

impl Guarded {
    pub(crate) fn new(known: &ProtectedResource) -> Self {
        let resource = known.resource.clone();
        let (url, metadata) = (resource.url(), resource_metadata_url(&resource));
        Self { resource, url, scopes: known.scopes.clone(), metadata }
    }

    /// Whether a request to `url` is one to this resource.
    fn covers(&self, url: &Url) -> bool {
        let path = self.url.path().trim_end_matches('/');
        let below = url.path().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let query = self.url.query().is_none_or(|query| url.query() == Some(query));
        self.url.origin() == url.origin() && below && query
    }

    /// The token that `headers` bring, if it counts here and goes as far as `asked`; else what its client is to see.
    pub(crate) async fn admit(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        asked: Option<&ScopeSet>,
    ) -> Result<(Secret, Arc<VerifiedToken>), Failure> {
        let Some(token) = presented(headers)? else {
            let error = OAuthError::invalid_token("a request to this resource needs an access token");
            // None was brought, so nothing was wrong with it (RFC 6750 3.1).
            return Err(Failure::from(error).with_challenge(self.challenge(None, asked)));
        };
        let verified = issuer.verify(&token).await.map_err(|refused| match refused {
            Refused::Protocol(error) => self.refusal(error, asked),
            other => other.into(),
        })?;
        admit(&verified, &self.resource, asked).map_err(|error| self.refusal(error, asked))?;
        Ok((token, verified))
    }

    /// A refusal of the token that was brought.
    pub(crate) fn refusal(&self, error: OAuthError, asked: Option<&ScopeSet>) -> Failure {
        let challenge = self.challenge(Some(&error), asked);
        Failure::from(error).with_challenge(challenge)
    }

    fn challenge(&self, error: Option<&OAuthError>, asked: Option<&ScopeSet>) -> HeaderValue {
        let scope = asked.unwrap_or(&self.scopes);
        BearerChallenge { resource_metadata: Some(&self.metadata), scope: Some(scope), error }.to_header()
    }
}

pub(crate) async fn verify(issuing: Issuing, request: Request) -> Result<Response, Failure> {
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes())?;
    let asked = asked_scope(&query)?;
    let guarded = meant(&issuing, &query, request.headers(), request.extensions())?;
    let (token, verified) = guarded.admit(&issuing.issuer, request.headers(), asked.as_ref()).await?;
    let mut response = verified.description.clone().into_response();
    put_headers(response.headers_mut(), &verified, token.expose_secret());
    Ok(response)
}

/// Whether a token that counts may go to `resource`, and far enough.
fn admit(token: &VerifiedToken, resource: &Resource, asked: Option<&ScopeSet>) -> Result<(), OAuthError> {
    if token.claims.audience != *resource {
        return Err(OAuthError::access_denied("the access token is for another resource"));
    }
    match asked {
        Some(asked) if !asked.is_subset(&token.claims.scope) => {
            Err(OAuthError::insufficient_scope("the access token does not go so far"))
        }
        _ => Ok(()),
    }
}

/// Who it is, for what stands behind the proxy. All are always there, so that none of the client's own gets through.
pub(super) fn put_headers(headers: &mut HeaderMap, verified: &VerifiedToken, token: &str) {
    errors::put_headers(headers);
    put_user(headers, verified);
    let mut token = plain(token);
    token.set_sensitive(true);
    headers.insert(X_AUTH_TOKEN, token);
}

/// Who it is, without the token itself.
pub(crate) fn put_user(headers: &mut HeaderMap, verified: &VerifiedToken) {
    let claims = &verified.claims;
    headers.insert(X_USER_ID, visible(&claims.subject));
    headers.insert(X_USER_NAME, visible(claims.username.as_deref().unwrap_or(&claims.subject)));
    headers.insert(X_AUTH_SCOPE, plain(&claims.scope.to_string()));
}

/// A text in which everything but visible ASCII, and `%`, is percent-encoded: the name of a person may be anything.
fn visible(text: &str) -> HeaderValue {
    if text.bytes().all(|b| b.is_ascii_graphic() && b != b'%') {
        return plain(text);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_graphic() && b != b'%' => encoded.push(char::from(b)),
            b => encoded.extend(form_urlencoded::byte_serialize(&[b]).map(|e| if e == "+" { "%20" } else { e })),
        }
    }
    plain(&encoded)
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("tokens, scopes and what was encoded are printable ASCII")
}

fn asked_scope(query: &Form) -> Result<Option<ScopeSet>, OAuthError> {
    let parsed = query.get("scope").map(ScopeSet::parse).transpose();
    parsed.map_err(|_| OAuthError::invalid_scope("the query parameter scope holds something else than scopes"))
}

/// Whether a trusted proxy tells the URL that is asked for.
pub(super) fn is_told_by_proxy(issuing: &Issuing, headers: &HeaderMap, peer: Option<Peer>) -> bool {
    let proxies = &issuing.issuer.settings().trusted_proxies;
    let told = [X_ORIGINAL_URL, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_URI];
    peer.is_some_and(|peer| peer.is_trusted(proxies)) && told.iter().any(|name| headers.contains_key(name))
}

/// The resource that the request is one to: the proxy names it, or tells the request's URL, or there is only one.
fn meant<'a>(
    issuing: &'a Issuing,
    query: &Form,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<&'a Guarded, Failure> {
    let mut named = query.all("resource");
    if let Some(named_once) = named.next() {
        let known = |resource: Resource| issuing.guarded.iter().find(|known| known.resource == resource);
        let found = Resource::parse(named_once).ok().and_then(known).filter(|_| named.next().is_none());
        return found.ok_or_else(|| OAuthError::invalid_target("the query names no resource of this server").into());
    }
    if is_told_by_proxy(issuing, headers, Peer::of(extensions)) {
        // Proxies set the one or the other, and may let the client's own through: they must not disagree.
        let told = [original_url(headers)?, forwarded_url(headers)?];
        let found: Vec<_> = told.iter().flatten().map(|url| covering(issuing, url)).collect();
        match found.as_slice() {
            [] => {}
            [Some(one)] => return Ok(one),
            [Some(one), Some(other)] if one.resource == other.resource => return Ok(one),
            _ => return Err(unprotected()),
        }
    }
    match issuing.guarded.as_slice() {
        [only] => Ok(only),
        _ => Err(OAuthError::invalid_target("say which resource: /verify?resource=").into()),
    }
}

fn unprotected() -> Failure {
    let error = OAuthError::access_denied("the proxy's headers name no URL of a protected resource");
    error.into()
}

fn covering<'a>(issuing: &'a Issuing, url: &Url) -> Option<&'a Guarded> {
    issuing.guarded.iter().filter(|known| known.covers(url)).max_by_key(|known| known.resource.as_str().len())
}

fn original_url(headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    only(headers, &X_ORIGINAL_URL)?.map(read_url).transpose()
}

fn forwarded_url(headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    let parts =
        (only(headers, &X_FORWARDED_PROTO)?, only(headers, &X_FORWARDED_HOST)?, only(headers, &X_FORWARDED_URI)?);
    let (Some(scheme), Some(host), Some(uri)) = parts else { return Ok(None) };
    // Of a WebSocket it is the HTTP request that opens it.
    let scheme = match scheme {
        "wss" => "https",
        "ws" => "http",
        other => other,
    };
    if host.contains(['/', '\\', '@', '?', '#']) || !uri.starts_with('/') {
        return Err(unprotected());
    }
    read_url(&format!("{scheme}://{host}{uri}")).map(Some)
}

fn read_url(text: &str) -> Result<Url, Failure> {
    Url::parse(text).map_err(|_| unprotected())
}

/// The value of a header that must not be there twice.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()), second) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(unprotected()),
    }
}
