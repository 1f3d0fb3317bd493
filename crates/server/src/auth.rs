//! Who asks: an API key in a header, or this machine's owner on the local socket.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, header, request::Parts};
use tokenkeep_core::ApiKey;
use tokenkeep_engine::Caller;

use crate::{
    AppState,
    problem::{INVALID_API_KEY, Problem},
};

pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// At which door a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The network: a key is needed.
    Network,
    /// The socket in the data directory, opened by the owner of this process: a key narrows what is allowed, no key
    /// allows everything.
    Local,
}

/// The caller of a management route.
#[derive(Debug)]
pub(crate) struct Auth(pub(crate) Caller);

impl FromRequestParts<AppState> for Auth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        match presented(&parts.headers)? {
            Some(key) => authenticate(state, key).map(|key| Self(Caller::Key(key))),
            None if parts.extensions.get() == Some(&Door::Local) => Ok(Self(Caller::Local)),
            None => Err(Problem::new(INVALID_API_KEY, "send an API key as `Authorization: Bearer` or `X-API-Key`")),
        }
    }
}

fn authenticate(state: &AppState, key: &str) -> Result<Arc<ApiKey>, Problem> {
    let known = state.engine.keys().authenticate(key);
    known.ok_or_else(|| Problem::new(INVALID_API_KEY, "this API key is not known here"))
}

/// The key a request carries. However often and in whichever headers it is said, it must be the same.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let unreadable = || Problem::new(INVALID_API_KEY, "the API key is not made of printable characters");
    let mut found = None;
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
        let text = value.to_str().map_err(|_| unreadable())?;
        bearer(text).ok_or_else(|| Problem::new(INVALID_API_KEY, "only the `Bearer` scheme is understood"))
    });
    let keys = headers.get_all(X_API_KEY).iter().map(|value| value.to_str().map_err(|_| unreadable()));
    for key in bearers.chain(keys) {
        let key = key?.trim();
        if found.is_some_and(|other| other != key) {
            return Err(Problem::invalid("two different API keys were sent; send one"));
        }
        found = Some(key);
    }
    Ok(found)
}

/// The credentials of an `Authorization: Bearer` header (RFC 6750 2.1); the scheme's case does not matter.
pub(crate) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(credentials)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn of(pairs: &[(HeaderName, &'static str)]) -> Result<Option<String>, u16> {
        presented(&headers(pairs)).map(|key| key.map(str::to_owned)).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_key_comes_in_either_header() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(header::AUTHORIZATION, "Bearer tk_a")]), Ok(Some("tk_a".to_owned())));
        assert_eq!(of(&[(header::AUTHORIZATION, "bearer  tk_a")]), Ok(Some("tk_a".to_owned())));
        assert_eq!(of(&[(X_API_KEY, "tk_a")]), Ok(Some("tk_a".to_owned())));
        assert_eq!(of(&[(header::AUTHORIZATION, "Basic dGs6")]), Err(401));
    }

    #[test]
    fn two_keys_must_be_the_same() {
        let both = |b| [(header::AUTHORIZATION, "Bearer tk_a"), (X_API_KEY, b)];
        assert_eq!(of(&both("tk_a")), Ok(Some("tk_a".to_owned())));
        assert_eq!(of(&both("tk_b")), Err(400));
        let mut twice = headers(&[(header::AUTHORIZATION, "Bearer tk_a")]);
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer tk_b"));
        assert_eq!(presented(&twice).unwrap_err().status(), 400);
    }
}
