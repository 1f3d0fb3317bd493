//! The hot path of `/verify`, `/introspect` and `/token`: an access token that was verified a moment ago, asked about in
//! the plainest way, and one that a backend gets for itself. Whatever is not fully understood here is none of the lane's
//! business: the router says what it is worth.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body as HttpBody;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{Client, ports::Clock};
use tokenkeep_engine::issuer::IssuerSettings;
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::AuthMethod,
        form::Form,
        metadata::Endpoint,
        scope::ScopeSet,
        token::{TokenRequest, parse_token_request},
    },
};
use zeroize::Zeroizing;

use super::{
    NO_REFERRER, cors, errors,
    issuing::Issuing,
    verify::{self, Guarded},
};
use crate::{
    auth,
    fast_lane::{LaneBody, turn},
    peer::Peer,
};

/// The largest body that is looked at, in bytes: more than a token of ours needs.
const MAX_BODY: u64 = 4096;
/// The longest credentials that are decoded, in bytes.
const MAX_BASIC: usize = 512;

/// What the lane compares requests with, made once.
#[derive(Debug)]
pub(crate) struct Lane {
    verify: String,
    introspect: String,
    token: String,
    /// How the query may name a resource, and which of them that is.
    resources: Vec<(String, usize)>,
}

impl Lane {
    pub(crate) fn new(settings: &IssuerSettings) -> Self {
        let below = |path: &str| format!("{}{path}", settings.url.path());
        let mut resources = Vec::new();
        for (n, known) in settings.resources.iter().enumerate() {
            let url = known.resource.as_str();
            let encoded: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
            resources.push((encoded, n));
            // What means something else when it is decoded must be encoded.
            if !url.contains(['%', '+', '&']) {
                resources.push((url.to_owned(), n));
            }
        }
        let (introspect, token) = (below(Endpoint::Introspect.path()), below(Endpoint::Token.path()));
        Self { verify: below(verify::PATH), introspect, token, resources }
    }
}

/// What a client that has proven itself may want.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// To know what a token is worth.
    Description,
    /// A token.
    Token,
}

impl Issuing {
    /// The answer to a proxy whose client may go on.
    pub(crate) fn verified<B>(&self, request: &mut Request<B>, peer: Option<Peer>) -> Option<Response<LaneBody>> {
        if request.uri().path() != self.lane.verify {
            return None;
        }
        let (guarded, scope) = self.asked(request.uri().query(), request.headers(), peer)?;
        let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
        let token = auth::bearer(values.next()?.to_str().ok()?)?.trim();
        if values.next().is_some() {
            return None;
        }
        let verified = self.issuer.verified(token)?;
        if verified.claims.audience != guarded.resource || !goes_so_far(&verified.claims.scope, scope) {
            return None;
        }
        let mut put = HeaderMap::with_capacity(16);
        verify::put_headers(&mut put, &verified, token);
        put.insert(NO_REFERRER.0, NO_REFERRER.1);
        let headers = turn(std::mem::take(request.headers_mut()), |headers| headers.extend(put));
        Some(with_headers(headers, verified.description.clone()))
    }

    /// The resource and the scope that a query asks for: `[resource=...][&][scope=...]`.
    fn asked<'q>(
        &self,
        query: Option<&'q str>,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Option<(&Guarded, &'q str)> {
        let (resource, scope) = match query {
            None => (None, ""),
            Some(query) => match (query.strip_prefix("scope="), query.split_once("&scope=")) {
                (Some(scope), _) => (None, scope),
                (None, Some((resource, scope))) => (Some(resource), scope),
                (None, None) => (Some(query), ""),
            },
        };
        let guarded = match (resource, self.guarded.as_slice()) {
            (Some(resource), _) => {
                let named = resource.strip_prefix("resource=")?;
                let (_, n) = self.lane.resources.iter().find(|(known, _)| known == named)?;
                self.guarded.get(*n)?
            }
            (None, [only]) if !verify::is_told_by_proxy(self, headers, peer) => only,
            (None, _) => return None,
        };
        Some((guarded, scope))
    }

    /// A client that has proven to be who it says it is, and what it wants. The body says the rest.
    pub(crate) fn proven<B: HttpBody>(
        &self,
        request: &Request<B>,
        peer: Option<Peer>,
        clock: &dyn Clock,
    ) -> Option<(Wanted, Arc<Client>)> {
        let wanted = match request.uri().path() {
            path if path == self.lane.introspect => Wanted::Description,
            path if path == self.lane.token => Wanted::Token,
            _ => return None,
        };
        let is_ours = request.method() == Method::POST
            && request.uri().query().is_none()
            && request.headers().get(header::CONTENT_TYPE)? == "application/x-www-form-urlencoded"
            && request.body().size_hint().exact().is_some_and(|size| size <= MAX_BODY);
        if !is_ours {
            return None;
        }
        let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
        let encoded = values.next()?.to_str().ok()?.strip_prefix("Basic ")?;
        let mut room = Zeroizing::new([0; MAX_BASIC]);
        let length = BASE64_STANDARD.decode_slice(encoded, &mut *room).ok()?;
        let (id, secret) = std::str::from_utf8(&room[..length]).ok()?.split_once(':')?;
        // Both are form-encoded (RFC 6749 2.3.1).
        let is_plain = |text: &str| !text.contains(['%', '+']);
        if values.next().is_some() || !is_plain(id) || !is_plain(secret) {
            return None;
        }
        // Whoever guesses secrets must not find out here.
        let is_quiet = self.ceilings.guesses.is_quiet();
        if !is_quiet && self.holds_back(id, self.origin_of(request.headers(), peer), clock.now().boot) {
            return None;
        }
        let client = self.issuer.authenticated(id, &Secret::from(secret), AuthMethod::ClientSecretBasic)?;
        Some((wanted, client))
    }

    /// The token that `client` gets for itself. Nothing is spent by it, so whoever is refused may ask the router, too.
    pub(crate) async fn issued(&self, client: &Arc<Client>, body: &[u8]) -> Option<Bytes> {
        let form = Form::parse(body).ok()?;
        let proves_more = ["client_id", "client_secret", "client_assertion", "client_assertion_type"];
        if proves_more.iter().any(|name| form.secret(name).is_some()) {
            return None;
        }
        let request = parse_token_request(&form).ok()?;
        if !matches!(request, TokenRequest::ClientCredentials { .. }) {
            return None;
        }
        let reply = self.issuer.token(client, request).await.ok()?;
        Some(Bytes::copy_from_slice(reply.to_json().expose_secret().as_bytes()))
    }

    /// What `client` is told of the token in `body`: `token=...[&token_type_hint=...]`.
    pub(crate) fn described(&self, client: &Client, body: &[u8]) -> Option<Bytes> {
        let body = std::str::from_utf8(body).ok()?.strip_prefix("token=")?;
        let token = match body.split_once("&token_type_hint=") {
            Some((token, hint)) if hint.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => token,
            Some(_) => return None,
            None => body,
        };
        if !token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return None;
        }
        let verified = self.issuer.verified(token)?;
        Some(self.issuer.described(client, &verified))
    }
}

/// Whether `has` has every word of `asked`, which stands in a query; not, where it is not plain.
fn goes_so_far(has: &ScopeSet, asked: &str) -> bool {
    asked.is_empty() || asked.split('+').all(|word| !word.contains(['%', '&']) && has.contains(word))
}

/// The answer to a client that has proven itself.
pub(crate) fn answered(headers: HeaderMap, wanted: Wanted, told: Bytes) -> Response<LaneBody> {
    let headers = turn(headers, |headers| {
        errors::put_headers(headers);
        if let Wanted::Token = wanted {
            cors::put_headers(headers);
        }
        headers.insert(NO_REFERRER.0, NO_REFERRER.1);
    });
    with_headers(headers, told)
}

fn with_headers(headers: HeaderMap, body: Bytes) -> Response<LaneBody> {
    let mut response = Response::new(LaneBody::Ready(body));
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_compared() {
        let has = ScopeSet::parse("read write %20").unwrap();
        for good in ["", "read", "read+write"] {
            assert!(goes_so_far(&has, good), "{good}");
        }
        for other in ["admin", "read+admin", "read+", "read%20write", "read&scope=write", "%20"] {
            assert!(!goes_so_far(&has, other), "{other}");
        }
    }
}
