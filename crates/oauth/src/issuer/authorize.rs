//! The authorization endpoint, from its own side (RFC 6749 4.1.1 and 4.1.2, RFC 7636, RFC 8707, RFC 9207).

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::ExposeSecret;
use url::Url;

use super::{error::OAuthError, form::Form, resource::Resource, scope::ScopeSet};
use crate::{Secret, pkce::Verifier};

/// What the code verifier must hash to (RFC 7636 4.2, S256). It is no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeChallenge(String);

/// Why a text is no code challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code_challenge of S256 has 43 characters of base64url")]
pub struct InvalidChallenge;

impl CodeChallenge {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, InvalidChallenge> {
        let sane = text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if sane { Ok(Self(text.to_owned())) } else { Err(InvalidChallenge) }
    }

    /// Whether `verifier` is the one that it was made from (RFC 7636 4.6).
    pub fn admits(&self, verifier: &Secret) -> bool {
        Verifier::from_secret(verifier.clone())
            .is_some_and(|verifier| verify_slices_are_equal(verifier.challenge().as_bytes(), self.0.as_bytes()).is_ok())
    }

    /// As it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CodeChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The longest `state` that is handed back.
const MAX_STATE: usize = 2048;

/// A request as it came: not yet believed. What is wrong with its client or its redirect URI must be told to the user;
/// everything else is told to the client, by redirect (RFC 6749 4.1.2.1).
#[derive(Debug)]
pub struct AuthorizationRequest {
    form: Form,
}

impl AuthorizationRequest {
    /// Reads a query, or the body of a POST.
    pub fn parse(encoded: &[u8]) -> Result<Self, OAuthError> {
        let form = Form::read(encoded)?;
        if form.is_once("client_id") && form.is_once("redirect_uri") {
            Ok(Self { form })
        } else {
            Err(OAuthError::invalid_request("client_id or redirect_uri is there twice"))
        }
    }

    /// Who asks.
    pub fn client_id(&self) -> Result<&str, OAuthError> {
        self.form.get("client_id").ok_or_else(|| OAuthError::invalid_request("client_id is missing"))
    }

    /// Where the answer is to go, if it says so.
    pub fn redirect_uri(&self) -> Option<&str> {
        self.form.get("redirect_uri")
    }

    /// The client's own, to be handed back whatever the answer.
    pub fn state(&self) -> Option<&str> {
        self.form.get("state").filter(|state| state.len() <= MAX_STATE && self.form.is_once("state"))
    }

    /// Everything that is told to the client if it is wrong, in the order in which it is checked.
    pub fn ask(&self) -> Result<Ask, OAuthError> {
        self.form.check_once()?;
        self.check_state()?;
        self.check_no_request_object()?;
        self.check_response_type()?;
        self.check_response_mode()?;
        let challenge = self.challenge()?;
        self.check_prompt()?;
        Ok(Ask { challenge, scope: self.scope()?, resource: self.resource()? })
    }

    fn check_state(&self) -> Result<(), OAuthError> {
        match self.form.get("state") {
            Some(state) if state.len() > MAX_STATE => Err(OAuthError::invalid_request("state is too long")),
            _ => Ok(()),
        }
    }

    fn check_no_request_object(&self) -> Result<(), OAuthError> {
        if self.form.get("request").is_some() {
            return Err(OAuthError::request_not_supported("request objects are not taken here"));
        }
        if self.form.get("request_uri").is_some() {
            return Err(OAuthError::request_uri_not_supported("request objects are not fetched here"));
        }
        Ok(())
    }

    fn check_response_type(&self) -> Result<(), OAuthError> {
        match self.form.get("response_type") {
            Some("code") => Ok(()),
            None => Err(OAuthError::invalid_request("response_type is missing")),
            Some(_) => Err(OAuthError::unsupported_response_type("code is the only response_type here")),
        }
    }

    fn check_response_mode(&self) -> Result<(), OAuthError> {
        match self.form.get("response_mode") {
            None | Some("query") => Ok(()),
            Some(_) => Err(OAuthError::invalid_request("query is the only response_mode here")),
        }
    }

    /// PKCE is required of every client, and `plain` is none (OAuth 2.1 4.1.1).
    fn challenge(&self) -> Result<CodeChallenge, OAuthError> {
        let Some(challenge) = self.form.get("code_challenge") else {
            return Err(OAuthError::invalid_request("code_challenge is missing: PKCE with S256 is required"));
        };
        if self.form.get("code_challenge_method") != Some("S256") {
            return Err(OAuthError::invalid_request("S256 is the only code_challenge_method here"));
        }
        CodeChallenge::parse(challenge).map_err(|error| OAuthError::invalid_request(error.to_string()))
    }

    fn check_prompt(&self) -> Result<(), OAuthError> {
        if self.form.get("prompt").is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")) {
            return Err(OAuthError::interaction_required("the user is always asked here"));
        }
        Ok(())
    }

    fn scope(&self) -> Result<Option<ScopeSet>, OAuthError> {
        requested_scope(&self.form)
    }

    fn resource(&self) -> Result<Option<Resource>, OAuthError> {
        requested_resource(&self.form)
    }
}

/// What is asked for, well formed; whether it may be had is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the code is to be bound to.
    pub challenge: CodeChallenge,
    /// The scope; `None` = whatever is usual.
    pub scope: Option<ScopeSet>,
    /// The resource; `None` = the only one.
    pub resource: Option<Resource>,
}

pub(super) fn requested_scope(form: &Form) -> Result<Option<ScopeSet>, OAuthError> {
    let scope = form.get("scope").map(ScopeSet::parse).transpose();
    let scope = scope.map_err(|error| OAuthError::invalid_scope(error.to_string()))?;
    Ok(scope.filter(|scope| !scope.is_empty()))
}

/// One resource, however often it is named (RFC 8707 2).
pub(super) fn requested_resource(form: &Form) -> Result<Option<Resource>, OAuthError> {
    let mut found = None;
    for text in form.all("resource") {
        let resource = Resource::parse(text).map_err(|error| OAuthError::invalid_target(error.to_string()))?;
        if found.as_ref().is_some_and(|other| *other != resource) {
            return Err(OAuthError::invalid_target("a token is for one resource: ask for one at a time"));
        }
        found = Some(resource);
    }
    Ok(found)
}

/// Where the browser goes with a code.
pub fn build_success(redirect_uri: &str, code: &Secret, state: Option<&str>, issuer: &str) -> Secret {
    build_answer(redirect_uri, &[("code", code.expose_secret())], state, issuer)
}

/// Where the browser goes with an error.
pub fn build_error(redirect_uri: &str, error: &OAuthError, state: Option<&str>, issuer: &str) -> Secret {
    let told = [("error", error.code.as_str()), ("error_description", error.description.as_ref())];
    build_answer(redirect_uri, &told, state, issuer)
}

/// Adds to whatever query the redirect URI has (RFC 6749 3.1.2), and otherwise leaves it byte for byte.
fn build_answer(redirect_uri: &str, answer: &[(&str, &str)], state: Option<&str>, issuer: &str) -> Secret {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(answer);
    if let Some(state) = state {
        query.append_pair("state", state);
    }
    query.append_pair("iss", issuer);
    let separator = match redirect_uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{redirect_uri}{separator}{}", query.finish()).into()
}

/// The origin that a form may be sent on to, for a content security policy.
pub fn redirect_origin(redirect_uri: &str) -> Option<String> {
    let url = Url::parse(redirect_uri).ok()?;
    Some(match url.origin() {
        url::Origin::Tuple(..) => url.origin().ascii_serialization(),
        url::Origin::Opaque(_) => format!("{}:", url.scheme()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn ask(query: &str) -> Result<Ask, String> {
        let request = AuthorizationRequest::parse(query.as_bytes()).map_err(|error| error.code.to_string())?;
        request.ask().map_err(|error| error.code.to_string())
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_word() {
        let good = format!("response_type=code&code_challenge={CHALLENGE}&code_challenge_method=S256");
        assert!(ask(&good).is_ok());
        let asked = ask(&format!("{good}&resource=https://h.example/&resource=https://h.example&scope=b+a")).unwrap();
        assert_eq!(asked.resource.unwrap().as_str(), "https://h.example");
        assert_eq!(asked.scope.unwrap().to_string(), "a b");
        for (query, code) in [
            (format!("code_challenge={CHALLENGE}&code_challenge_method=S256"), "invalid_request"),
            (good.replace("=code&", "=token&"), "unsupported_response_type"),
            ("response_type=code".to_owned(), "invalid_request"),
            (good.replace("S256", "plain"), "invalid_request"),
            (good.replace("&code_challenge_method=S256", ""), "invalid_request"),
            (good.replace(CHALLENGE, "short"), "invalid_request"),
            (format!("{good}&prompt=none"), "interaction_required"),
            (format!("{good}&request=x"), "request_not_supported"),
            (format!("{good}&request_uri=x"), "request_uri_not_supported"),
            (format!("{good}&response_mode=fragment"), "invalid_request"),
            (format!("{good}&resource=nothing"), "invalid_target"),
            (format!("{good}&resource=https://a.example/%23f"), "invalid_target"),
            (format!("{good}&resource=https://a.example&resource=https://b.example"), "invalid_target"),
            (format!("{good}&scope=%22"), "invalid_scope"),
            (format!("{good}&state={}", "x".repeat(2049)), "invalid_request"),
            (format!("{good}&scope=a&scope=a"), "invalid_request"),
        ] {
            assert_eq!(ask(&query), Err(code.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_challenge_admits_its_verifier() {
        let challenge = CodeChallenge::parse(CHALLENGE).unwrap();
        assert!(challenge.admits(&"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into()));
        for bad in ["", CHALLENGE, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK", "dBjf"] {
            assert!(!challenge.admits(&bad.into()), "{bad}");
        }
    }

    #[test]
    fn answers_carry_iss_once_and_keep_the_address() {
        let go =
            |uri| build_success(uri, &"c.1".into(), Some("a b&c"), "https://as.example").expose_secret().to_owned();
        let tail = "code=c.1&state=a+b%26c&iss=https%3A%2F%2Fas.example";
        assert_eq!(go("https://app.example/cb"), format!("https://app.example/cb?{tail}"));
        assert_eq!(go("https://app.example/cb?x=1"), format!("https://app.example/cb?x=1&{tail}"));
        assert_eq!(go("https://app.example/cb?"), format!("https://app.example/cb?{tail}"));
        assert_eq!(go("com.example.app:/cb"), format!("com.example.app:/cb?{tail}"));
        let error = OAuthError::access_denied("the user said no");
        assert_eq!(
            build_error("http://localhost:1/cb", &error, None, "https://as.example").expose_secret(),
            "http://localhost:1/cb?error=access_denied&error_description=the+user+said+no&iss=https%3A%2F%2Fas.example"
        );
    }
}
