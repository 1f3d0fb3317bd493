//! Bearer tokens, as requests bring them.

use http::{HeaderMap, header};
use tokenkeep_oauth::{
    Secret,
    issuer::{challenge::BearerChallenge, error::OAuthError},
};

use super::errors::Failure;
use crate::auth;

/// The bearer token (RFC 6750 2.1). Another scheme is as good as none.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Option<Secret>, Failure> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(OAuthError::invalid_request("there are two Authorization headers").into());
    }
    let token = first.and_then(|value| value.to_str().ok()).and_then(auth::bearer).map(str::trim);
    Ok(token.filter(|token| !token.is_empty()).map(Secret::from))
}

/// A refusal of the token that was `presented`, or to do without one: that is no error of the client's (RFC 6750 3.1).
pub(crate) fn refused(error: OAuthError, presented: Option<&Secret>) -> Failure {
    let challenge = BearerChallenge { error: presented.map(|_| &error), ..BearerChallenge::default() }.to_header();
    Failure::from(error).with_challenge(challenge)
}
