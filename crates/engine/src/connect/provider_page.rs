//! The provider's page: the way there, and what a browser brings back from it.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use tokenkeep_oauth::{
    ErrorCode, Secret,
    authorize::{
        AuthorizationResponse, AuthorizeParams, build_authorize_url, check_issuer, parse_authorization_response,
    },
    dialect::Pkce,
    pkce::Verifier,
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Connect,
    obtain::{Failure, known_word},
};
use crate::{Error, integrations::Party};

/// Longer callbacks are nobody's.
const MAX_CALLBACK: usize = 64 * 1024;

/// What goes along when a browser is sent to a provider.
pub(crate) struct Leaving<'a> {
    pub(crate) redirect_uri: &'a Url,
    pub(crate) scope: Option<&'a str>,
    pub(crate) state: &'a Secret,
    pub(crate) pkce_verifier: Option<&'a Secret>,
    pub(crate) nonce: Option<&'a Secret>,
}

/// Where the browser is sent.
pub(crate) fn authorize_url(party: &Party, leaving: &Leaving<'_>) -> Result<Url, Error> {
    let provider = &party.provider;
    let url = provider.authorize_url.as_ref();
    let url = url.ok_or_else(|| Error::invalid("this provider has no page to consent on any more"))?;
    let verifier = leaving.pkce_verifier.cloned().and_then(Verifier::from_secret);
    let challenge = verifier.as_ref().map(Verifier::challenge);
    let params = AuthorizeParams {
        url,
        client_id: &party.client.id,
        redirect_uri: leaving.redirect_uri.as_str(),
        scope: leaving.scope,
        // The catalogue asks for it by a parameter of the integration's.
        companion_scope: None,
        state: leaving.state,
        challenge: challenge.as_deref(),
        nonce: leaving.nonce.map(Secret::expose_secret),
        params: &provider.params,
        extra: &BTreeMap::new(),
    };
    build_authorize_url(&provider.dialect, &params).map_err(|error| Error::invalid(error.to_string()))
}

/// What is asked for: as given, or as the integration or the provider say, and what brings a refresh token.
pub(crate) fn wanted_scope(party: &Party, given: Option<&str>) -> Option<String> {
    let asked = given.or(party.integration.scope.as_deref()).or(party.provider.default_scope.as_deref());
    with_scopes(asked, party.provider.offline_scope.as_deref())
}

/// These scopes, and those of `more` that are not among them.
pub(crate) fn with_scopes(scope: Option<&str>, more: Option<&str>) -> Option<String> {
    let mut scopes: Vec<&str> = scope.unwrap_or_default().split_whitespace().collect();
    for one in more.unwrap_or_default().split_whitespace() {
        if !scopes.contains(&one) {
            scopes.push(one);
        }
    }
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

/// The `state` of a callback, a query or a form body, as it stands there: nothing is believed yet.
pub(crate) fn state_of_callback(raw: &[u8]) -> Option<String> {
    let pairs = form_urlencoded::parse(raw.get(..MAX_CALLBACK).unwrap_or(raw));
    pairs.into_iter().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned())
}

/// Reads a callback.
pub(crate) fn parse_callback(party: &Party, raw: &[u8]) -> Result<AuthorizationResponse, Error> {
    if raw.len() > MAX_CALLBACK {
        return Err(Error::invalid("the callback is too long"));
    }
    parse_authorization_response(&party.provider.dialect, raw).map_err(|error| Error::invalid(error.to_string()))
}

/// The code that the browser brought, from the provider that it was sent to.
pub(crate) fn code_of(party: &Party, response: AuthorizationResponse) -> Result<Secret, Failure> {
    let issuer = party.provider.issuer.as_deref();
    match (check_issuer(response.iss.as_deref(), issuer, party.sends_iss), response.outcome) {
        (Err(_), _) => Err(Failure::Refused("issuer_mismatch".to_owned())),
        (Ok(()), Err(error)) if error.code == ErrorCode::ACCESS_DENIED => Err(Failure::Denied),
        (Ok(()), Err(error)) => Err(Failure::Refused(known_word(&error.code))),
        (Ok(()), Ok(code)) => Ok(code),
    }
}

impl Connect {
    /// A PKCE verifier and a nonce, where `party` takes the one and `scope` leads to the other.
    pub(crate) fn draw_proofs(&self, party: &Party, scope: Option<&str>) -> (Option<Secret>, Option<Secret>) {
        let with_pkce = party.provider.dialect.pkce == Pkce::Sent;
        let verifier = with_pkce.then(|| Verifier::from_entropy(&Zeroizing::new(self.shared.entropy.bytes32())).into());
        let asks_who = scope.is_some_and(|scope| scope.split(' ').any(|s| s == "openid"));
        (verifier, asks_who.then(|| self.draw()))
    }
}
