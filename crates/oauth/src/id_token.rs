//! Who signed in, from an `id_token` that came straight from the token endpoint.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;

use crate::{Secret, reply::number, secret_eq};

/// How far the issuer's clock may be from ours.
pub const CLOCK_SKEW: Duration = Duration::from_mins(1);

/// What an `id_token` must say to be ours.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The provider's issuer. `{claim}` stands for a claim of the token: Microsoft's issuer names the directory that
    /// the user is in.
    pub issuer: &'a str,
    /// Our client id.
    pub client_id: &'a str,
    /// The nonce of the authorization request, if one was sent.
    pub nonce: Option<&'a Secret>,
}

/// Who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Never changes, never reassigned within the issuer.
    pub subject: String,
    /// May be anybody's unless `email_verified`.
    pub email: Option<String>,
    /// Whether the provider vouches for the address.
    pub email_verified: bool,
    /// For people.
    pub name: Option<String>,
}

/// Why an `id_token` is not believed. It never repeats what stood in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// It is no JWT with the claims that OIDC requires.
    #[error("the id_token cannot be read")]
    Malformed,
    /// Another provider issued it.
    #[error("the id_token is another issuer's")]
    Issuer,
    /// It was issued to another client.
    #[error("the id_token is for another client")]
    Audience,
    /// It has expired.
    #[error("the id_token has expired")]
    Expired,
    /// It answers another authorization request.
    #[error("the id_token answers another request")]
    Nonce,
}

/// Reads and checks the claims of an `id_token` **without checking its signature**.
///
/// Only for one received in [`crate::token::TokenReply::id_token`]: OIDC Core 3.1.3.7 (6) lets TLS to the
/// token endpoint stand in for the signature there. One that came any other way must not be passed in.
pub fn parse_direct_id_token(
    id_token: &Secret,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<Identity, IdTokenError> {
    let claims = parse_direct_claims(id_token, expected, now)?;
    let text = |name: &str| claims[name].as_str().map(str::to_owned);
    // Apple writes booleans as strings.
    let email_verified = claims["email_verified"] == true || claims["email_verified"] == "true";
    let subject = text("sub").ok_or(IdTokenError::Malformed)?;
    Ok(Identity { subject, email: text("email"), email_verified, name: text("name") })
}

/// The same, with every claim as it stands there.
pub fn parse_direct_claims(id_token: &Secret, expected: Expected<'_>, now: Timestamp) -> Result<Value, IdTokenError> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
        sub: String,
        aud: Value,
        azp: Option<String>,
        exp: Value,
        nonce: Option<Secret>,
    }
    let mut parts = id_token.expose_secret().split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(IdTokenError::Malformed);
    };
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| IdTokenError::Malformed)?;
    let all: Value = serde_json::from_slice(&payload).map_err(|_| IdTokenError::Malformed)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| IdTokenError::Malformed)?;

    if !is_issuer(expected.issuer, &claims.iss, &all) {
        return Err(IdTokenError::Issuer);
    }
    let for_us = match &claims.aud {
        Value::String(aud) => aud == expected.client_id,
        // Several audiences: one is ours, and `azp` must say that it was issued to us.
        Value::Array(all) if all.len() == 1 => all[0] == expected.client_id,
        Value::Array(all) => all.iter().any(|aud| aud == expected.client_id) && claims.azp.is_some(),
        _ => false,
    };
    if !for_us || claims.azp.is_some_and(|azp| azp != expected.client_id) {
        return Err(IdTokenError::Audience);
    }
    let exp = number(&claims.exp).and_then(|s| Timestamp::from_second(s).ok()).ok_or(IdTokenError::Malformed)?;
    if exp.checked_add(CLOCK_SKEW).unwrap_or(Timestamp::MAX) <= now {
        return Err(IdTokenError::Expired);
    }
    if let Some(nonce) = expected.nonce
        && !claims.nonce.is_some_and(|got| secret_eq(&got, nonce))
    {
        return Err(IdTokenError::Nonce);
    }
    if claims.sub.is_empty() || claims.sub.len() > 255 {
        return Err(IdTokenError::Malformed);
    }
    Ok(all)
}

/// Whether `found` is `expected`, with the claims that it names filled in. What is filled in can only be a word.
fn is_issuer(expected: &str, found: &str, claims: &Value) -> bool {
    let Some((before, rest)) = expected.split_once('{') else { return expected == found };
    let Some((name, after)) = rest.split_once('}') else { return false };
    let is_word = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let Some(word) = claims[name].as_str().filter(is_word) else { return false };
    found
        .strip_prefix(before)
        .and_then(|rest| rest.strip_prefix(word))
        .is_some_and(|rest| is_issuer(after, rest, claims))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: &Value) -> Result<Identity, IdTokenError> {
        let mut claims = json!({
            "iss": "https://id.example.com", "sub": "1042", "aud": "us", "exp": 1_000, "nonce": "n-1",
            "email": "a@example.com", "email_verified": "true",
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = format!("e30.{}.", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        let nonce = Secret::from("n-1");
        let expected = Expected { issuer: "https://id.example.com", client_id: "us", nonce: Some(&nonce) };
        parse_direct_id_token(&token.into(), expected, Timestamp::from_second(1_059).unwrap())
    }

    #[test]
    fn a_good_one_names_the_person() {
        let identity = check(&json!({})).unwrap();
        assert_eq!((identity.subject.as_str(), identity.email_verified), ("1042", true));
        assert!(!check(&json!({"email_verified": "false"})).unwrap().email_verified);
        assert!(check(&json!({"aud": ["us"]})).is_ok());
        assert!(check(&json!({"aud": ["us", "them"], "azp": "us"})).is_ok());
    }

    #[test]
    fn an_issuer_may_name_a_claim() {
        let is = |found: &str, tid: &str| is_issuer("https://id.example/{tid}/v2.0", found, &json!({ "tid": tid }));
        assert!(is("https://id.example/a-1/v2.0", "a-1"));
        for (found, tid) in [
            ("https://id.example/a-2/v2.0", "a-1"),
            ("https://id.example//v2.0", ""),
            ("https://id.example/a/b/v2.0", "a/b"),
            ("https://evil.example/a-1/v2.0", "a-1"),
            ("https://id.example/a-1/v2.0/", "a-1"),
            ("https://id.example/{tid}/v2.0", "{tid}"),
        ] {
            assert!(!is(found, tid), "{found}");
        }
    }

    #[test]
    fn each_check_refuses() {
        assert_eq!(check(&json!({"iss": "https://id.example.com/"})), Err(IdTokenError::Issuer));
        for aud in [json!({"aud": "them"}), json!({"aud": ["us", "them"]}), json!({"aud": []}), json!({"aud": 1})] {
            assert_eq!(check(&aud), Err(IdTokenError::Audience));
        }
        assert_eq!(check(&json!({"azp": "them"})), Err(IdTokenError::Audience));
        assert_eq!(check(&json!({"exp": 999})), Err(IdTokenError::Expired));
        assert_eq!(check(&json!({"exp": null})), Err(IdTokenError::Malformed));
        assert_eq!(check(&json!({"nonce": "n-2"})), Err(IdTokenError::Nonce));
        assert_eq!(check(&json!({"nonce": null})), Err(IdTokenError::Nonce));
        assert_eq!(check(&json!({"sub": ""})), Err(IdTokenError::Malformed));
    }
}
