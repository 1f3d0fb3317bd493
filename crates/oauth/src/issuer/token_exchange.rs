//! Token exchange, from the server's side (RFC 8693): a token of ours for the user's token at a provider.

use secrecy::ExposeSecret;
use serde::Serialize;

use super::{authorize::requested_scope, error::OAuthError, form::Form, scope::ScopeSet};
use crate::Secret;

/// An OAuth access token (RFC 8693 3).
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// What ours are, besides.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What a client asks to have exchanged (RFC 8693 2.1).
#[derive(Debug)]
pub struct TokenExchange {
    /// The access token of ours that it was shown. Not yet believed.
    pub subject_token: Secret,
    /// Where the token that is wanted is good. We name such places, so it is no URL.
    pub audience: String,
    /// What that token must be good for, at least.
    pub scope: Option<ScopeSet>,
}

/// Reads what follows `grant_type`. Nobody acts for somebody else here, and nothing but access tokens is taken or given.
pub(super) fn parse_token_exchange(form: &Form) -> Result<TokenExchange, OAuthError> {
    let invalid = |text: &'static str| Err(OAuthError::invalid_request(text));
    if form.secret("actor_token").is_some() || form.secret("actor_token_type").is_some() {
        return invalid("actor_token: nobody acts for somebody else here");
    }
    match form.get("subject_token_type") {
        Some(ACCESS_TOKEN | JWT) => {}
        None => return invalid("subject_token_type is missing"),
        Some(_) => return invalid("subject_token_type: only access tokens of this server are exchanged"),
    }
    if form.get("requested_token_type").is_some_and(|wanted| wanted != ACCESS_TOKEN) {
        return invalid("requested_token_type: only access tokens are handed out");
    }
    if form.get("resource").is_some() {
        return Err(OAuthError::invalid_target(
            "resource: say with audience, the id of an integration, what is wanted",
        ));
    }
    let Some(audience) = form.get("audience") else {
        return invalid("audience is missing: the id of the integration whose token is wanted");
    };
    let Some(subject_token) = form.secret("subject_token") else { return invalid("subject_token is missing") };
    Ok(TokenExchange {
        subject_token: subject_token.clone(),
        audience: audience.to_owned(),
        scope: requested_scope(form)?,
    })
}

/// The refusal where only the user can help (OpenID Connect Core 3.1.2.6), with the link that begins it: whoever holds
/// that can use it once.
pub fn build_interaction_required(error: &OAuthError, connect_url: &Secret) -> Secret {
    let body = InteractionRequired {
        error: error.code.as_str(),
        error_description: &error.description,
        connect_url: connect_url.expose_secret(),
    };
    serde_json::to_string(&body).expect("it is made of texts").into()
}

#[derive(Serialize)]
struct InteractionRequired<'a> {
    error: &'a str,
    error_description: &'a str,
    connect_url: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: [(&str, &str); 3] =
        [("subject_token", "t"), ("subject_token_type", ACCESS_TOKEN), ("audience", "github")];

    /// The request, with some parameters changed: an empty one is absent.
    fn with(changes: &[(&str, &str)]) -> Result<TokenExchange, String> {
        let kept = ASKED.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept.chain(changes)).finish();
        let parsed = Form::parse(body.as_bytes()).and_then(|form| parse_token_exchange(&form));
        parsed.map_err(|error| error.code.to_string())
    }

    #[test]
    fn an_access_token_is_exchanged_for_one() {
        for same in [&[][..], &[("subject_token_type", JWT)], &[("requested_token_type", ACCESS_TOKEN)]] {
            let asked = with(same).unwrap();
            assert_eq!((asked.subject_token.expose_secret(), &*asked.audience, asked.scope), ("t", "github", None));
        }
        assert_eq!(with(&[("scope", "repo")]).unwrap().scope, ScopeSet::parse("repo").ok());
    }

    #[test]
    fn nothing_else_is_taken_or_given() {
        let refresh_token = "urn:ietf:params:oauth:token-type:refresh_token";
        for (name, value, code) in [
            ("subject_token", "", "invalid_request"),
            ("subject_token_type", "", "invalid_request"),
            ("subject_token_type", "access_token", "invalid_request"),
            ("subject_token_type", refresh_token, "invalid_request"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token", "invalid_request"),
            ("requested_token_type", refresh_token, "invalid_request"),
            ("requested_token_type", JWT, "invalid_request"),
            ("actor_token", "t", "invalid_request"),
            ("actor_token_type", ACCESS_TOKEN, "invalid_request"),
            ("audience", "", "invalid_request"),
            ("resource", "https://api.github.com", "invalid_target"),
            ("scope", "\"", "invalid_scope"),
        ] {
            assert_eq!(with(&[(name, value)]).err().as_deref(), Some(code), "{name}={value}");
        }
    }
}
