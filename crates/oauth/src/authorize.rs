//! The authorization endpoint: the URL the browser is sent to, and what it brings back.

use std::{borrow::Cow, collections::BTreeMap};

use secrecy::ExposeSecret;
use url::Url;

use crate::{
    BuildError, ErrorCode, Secret,
    dialect::{Callback, Dialect, Pkce},
    endpoint,
    params::{Params, Vars, fill_with},
    pkce, text,
    token::set_scope,
};

/// What goes into an authorization URL (RFC 6749 4.1.1).
#[derive(Clone, Copy, Debug)]
pub struct AuthorizeParams<'a> {
    /// The authorization endpoint; a query that stands in it is kept.
    pub url: &'a Url,
    /// Our client id.
    pub client_id: &'a str,
    /// Where the browser comes back to.
    pub redirect_uri: &'a str,
    /// Scopes, separated by spaces.
    pub scope: Option<&'a str>,
    /// Scopes of the dialect's companion, separated by spaces; sent only where there is one.
    pub companion_scope: Option<&'a str>,
    /// What ties the callback to this request and this browser.
    pub state: &'a Secret,
    /// From [`pkce::Verifier::challenge`]; not sent where the dialect refuses PKCE.
    pub challenge: Option<&'a str>,
    /// OIDC: comes back in the `id_token`.
    pub nonce: Option<&'a str>,
    /// The integration's `params`, for `{name}` in the dialect's extra parameters.
    pub params: &'a Vars,
    /// What the caller adds (`prompt`, `login_hint`). The protocol's own parameters cannot be replaced by it.
    pub extra: &'a BTreeMap<String, String>,
}

/// Builds the URL to send the browser to. Each parameter stands in it once: the dialect's replace the caller's, the
/// protocol's own replace both; only `scope` and `response_type` may be the dialect's.
pub fn build_authorize_url(dialect: &Dialect, request: &AuthorizeParams<'_>) -> Result<Url, BuildError> {
    endpoint::check(request.url).map_err(|problem| BuildError::InvalidUrl { problem })?;
    let mut params = Params::new();
    for (name, value) in request.extra {
        params.set(name.clone(), value);
    }
    params.set("response_type", "code");
    set_scope(dialect, "scope", request.scope, &mut params);
    if let Some(companion) = &dialect.companion {
        set_scope(dialect, &companion.scope_param, request.companion_scope, &mut params);
    }
    if dialect.callback == Callback::FormPost {
        params.set("response_mode", "form_post");
    }
    for (name, template) in &dialect.authorize_params {
        let value = fill_with(template, |name| match name {
            "redirect_uri" => Some(request.redirect_uri),
            "client_id" => Some(request.client_id),
            _ => request.params.get(name).map(String::as_str),
        })?;
        if !value.is_empty() {
            params.set(name.clone(), &value);
        }
    }
    let id_param = dialect.client_id_param.clone().unwrap_or_else(|| "client_id".to_owned());
    params.set(id_param, request.client_id);
    params.set("redirect_uri", request.redirect_uri);
    params.set("state", request.state.expose_secret());
    params.set("nonce", request.nonce.unwrap_or_default());
    let challenge = request.challenge.filter(|_| dialect.pkce == Pkce::Sent);
    params.set("code_challenge", challenge.unwrap_or_default());
    params.set("code_challenge_method", challenge.map_or("", |_| pkce::METHOD));

    let kept: Vec<(String, String)> =
        request.url.query_pairs().into_owned().filter(|(name, _)| params.iter().all(|(n, _)| n != name)).collect();
    let mut url = request.url.clone();
    url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(params.iter());
    Ok(url)
}

/// What the browser brought back (RFC 6749 4.1.2, RFC 9207). Whoever reads it compares `state` and calls
/// [`check_issuer`] before believing anything else in it.
#[derive(Clone, Debug)]
pub struct AuthorizationResponse {
    /// Which request it answers, if it is genuine.
    pub state: Secret,
    /// Who says so (RFC 9207).
    pub iss: Option<String>,
    /// The code, or why there is none.
    pub outcome: Result<Secret, AuthorizationError>,
}

/// The provider's (or user's) refusal (RFC 6749 4.1.2.1). It came through the browser: anybody may have written it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider refused the authorization ({code})")]
pub struct AuthorizationError {
    /// Why.
    pub code: ErrorCode,
    /// The provider's sentence, made fit to be shown by [`text::sanitise`].
    pub description: Option<String>,
}

/// Why a callback is none. It never repeats what stood in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A parameter stands there twice (RFC 6749 3.1).
    #[error("the callback repeats the parameter `{0}`")]
    Duplicate(&'static str),
    /// There is no `state`.
    #[error("the callback has no `state`")]
    NoState,
    /// There is neither a code nor an error, or both.
    #[error("the callback must hold either a code or an error")]
    Ambiguous,
    /// A value is longer than any provider's.
    #[error("the callback's parameter `{0}` is too long")]
    TooLong(&'static str),
}

/// The longest value of a callback parameter, in bytes.
pub const MAX_CALLBACK_VALUE: usize = 8192;

/// Reads a callback: the raw query string, or the raw body of a `form_post`. Parameters that we do not know are
/// ignored, whatever they are (RFC 6749 4.1.2).
pub fn parse_authorization_response(dialect: &Dialect, query: &[u8]) -> Result<AuthorizationResponse, CallbackError> {
    let (mut code, mut state, mut iss, mut error, mut description) = (None, None, None, None, None);
    let code_param = dialect.code_param.as_deref().unwrap_or("code");
    for (name, value) in form_urlencoded::parse(query) {
        let (slot, name) = match name.as_ref() {
            n if n == code_param => (&mut code, "code"),
            "state" => (&mut state, "state"),
            "iss" => (&mut iss, "iss"),
            "error" => (&mut error, "error"),
            "error_description" => (&mut description, "error_description"),
            _ => continue,
        };
        if value.len() > MAX_CALLBACK_VALUE {
            return Err(CallbackError::TooLong(name));
        }
        if slot.replace(value).is_some() {
            return Err(CallbackError::Duplicate(name));
        }
    }
    let present = |value: &Cow<'_, str>| !value.is_empty();
    let state = state.filter(present).ok_or(CallbackError::NoState)?;
    let outcome = match (code.filter(present), error.filter(present)) {
        (Some(code), None) => Ok(Secret::from(code.into_owned())),
        (None, Some(error)) => Err(AuthorizationError {
            code: ErrorCode::from_wire(&error),
            description: description.filter(present).map(|text| text::sanitise(&text)),
        }),
        _ => return Err(CallbackError::Ambiguous),
    };
    Ok(AuthorizationResponse { state: state.into_owned().into(), iss: iss.map(Cow::into_owned), outcome })
}

/// The callback does not come from the server that was asked (RFC 9207): a mix-up, or an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerMismatch {
    /// The server says that it always sends `iss`, and there is none.
    #[error("the callback lacks the `iss` that this provider always sends")]
    Missing,
    /// There is another.
    #[error("the callback's `iss` is another provider's")]
    Different,
}

/// Checks the callback's `iss` (RFC 9207 2.4), byte for byte.
///
/// `expected` is the issuer of the server that was asked, `None` where none is known: then there is nothing to
/// compare. `advertised` is its `authorization_response_iss_parameter_supported`.
pub fn check_issuer(received: Option<&str>, expected: Option<&str>, advertised: bool) -> Result<(), IssuerMismatch> {
    match (received, expected) {
        (Some(received), Some(expected)) if received != expected => Err(IssuerMismatch::Different),
        (None, _) if advertised => Err(IssuerMismatch::Missing),
        _ => Ok(()),
    }
}
