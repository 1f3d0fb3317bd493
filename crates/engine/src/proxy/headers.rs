//! Which headers go through. Pure.
//!
//! What belongs to one connection stays there (RFC 9110 7.6.1). What proves who the caller is *here* is for us alone.
//! What comes back is the provider's, but it must not speak for our own origin, nor hand the token out.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::ExposeSecret as _;
use tokenkeep_oauth::Secret;

use super::api::ApiOf;

/// On every reply that is tokenkeep's own and not the provider's: the error's code.
pub const X_TOKENKEEP_ERROR: HeaderName = HeaderName::from_static("x-tokenkeep-error");

/// What we call ourselves to APIs if the caller does not say; some refuse requests that do not.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tokenkeep/", env!("CARGO_PKG_VERSION")));

/// Removes what belongs to one connection only: the standard ones, those that `Connection` lists, and a length that is
/// said beside a transfer encoding.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    remove(headers, is_hop_by_hop);
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 6.3: it overrides whatever length is said beside it.
        headers.remove(header::CONTENT_LENGTH);
    }
    let listed = listed(headers);
    let gone: Vec<_> = headers.keys().filter(|name| unwanted(name) || listed.contains(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// The names that `Connection` lists.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| {
            !name.is_empty() && !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close")
        })
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a caller says to us, and not to the provider: who they are, how they came here, and where to they were sent.
fn is_ours(name: &HeaderName) -> bool {
    match name.as_str() {
        "authorization" | "x-api-key" | "cookie" | "cookie2" => true,
        // Set from the URL and from the body.
        "host" | "content-length" | "expect" => true,
        "forwarded"
        | "via"
        | "x-real-ip"
        | "x-client-ip"
        | "x-cluster-client-ip"
        | "true-client-ip"
        | "cf-connecting-ip" => true,
        // Some servers take them for the path, after everybody has looked at it.
        "x-original-url" | "x-rewrite-url" | "x-original-host" | "x-host" => true,
        name => name.starts_with("x-forwarded-") || name.starts_with("x-tokenkeep-"),
    }
}

/// The headers of a call: the caller's, the API's own, and the token.
pub(super) fn outgoing(given: &HeaderMap, api: &ApiOf, token: HeaderValue) -> HeaderMap {
    let listed = listed(given);
    let mut headers = HeaderMap::with_capacity(given.len() + api.headers.len() + 2);
    for (name, value) in given {
        if !is_hop_by_hop(name) && !is_ours(name) && *name != api.token_header && !listed.contains(name) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in &api.headers {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.insert(api.token_header.clone(), token);
    headers
}

/// What carries the token; `None` if it cannot be sent in a header.
pub(super) fn token(api: &ApiOf, token_type: &str, token: &Secret) -> Option<HeaderValue> {
    let token = token.expose_secret();
    let mut text = zeroize::Zeroizing::new(String::with_capacity(token.len() + 16));
    match &api.token_prefix {
        Some(prefix) => text.push_str(prefix),
        None if token_type.is_empty() || token_type.eq_ignore_ascii_case("bearer") => text.push_str("Bearer "),
        None => {
            text.push_str(token_type);
            text.push(' ');
        }
    }
    text.push_str(token);
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Takes from a reply what is not for the caller.
pub(super) fn incoming(headers: &mut HeaderMap, token: &Secret) {
    let token = token.expose_secret().as_bytes();
    let tells = |value: &HeaderValue| !token.is_empty() && contains(value.as_bytes(), token);
    let echoes: Vec<_> = headers.iter().filter(|(_, value)| tells(value)).map(|(name, _)| name.clone()).collect();
    remove(headers, |name| is_hop_by_hop(name) || speaks_for_the_origin(name) || echoes.contains(name));
}

/// What a client would believe of *our* origin, on which every provider's replies meet.
fn speaks_for_the_origin(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "set-cookie"
            | "set-cookie2"
            | "strict-transport-security"
            | "clear-site-data"
            | "alt-svc"
            | "nel"
            | "report-to"
    ) || name.as_str().starts_with("x-tokenkeep-")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.len() >= part.len() && text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
