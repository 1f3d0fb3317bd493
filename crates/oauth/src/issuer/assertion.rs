//! Believing a client's signed assertion, `private_key_jwt` (RFC 7521 5.2, RFC 7523 3).

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet},
};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::{access_token::Audience, error::OAuthError, jwks::fits, jws::JoseHeader};
use crate::{Secret, client_assertion::ASSERTION_LIFETIME, reply::number};

/// The longest assertion that is read, in bytes.
pub const MAX_LEN: usize = 8 * 1024;

/// The longest name of an assertion, in bytes: it is kept until the assertion is dead.
pub const MAX_JTI: usize = 256;

/// The longest client id, in bytes.
const MAX_CLIENT_ID: usize = 255;

/// What an assertion must say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Who it is from.
    pub client_id: &'a str,
    /// Our names: it is addressed to one of them at least. The issuer and the token endpoint, whichever endpoint it is
    /// shown to.
    pub audiences: &'a [&'a str],
    /// How far the client's clock may be from ours.
    pub leeway: Duration,
}

/// An assertion that is believed, provided that it was never seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Its own name, unique among those of its client only.
    pub jti: String,
    /// From then on it would be refused anyhow: so long its name must be remembered.
    pub expires_at: Timestamp,
}

/// Why an assertion is not believed: for the log. The client learns one thing only, see [`OAuthError::from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// It is no JWT, too long, or lacks a claim.
    #[error("the client assertion cannot be read, or lacks iss, sub, aud, exp or jti")]
    Malformed,
    /// It is a JWT made for something else.
    #[error("the client's JWT is no client assertion")]
    Type,
    /// Not exactly one of the client's keys has that name and is for that algorithm. Keys that stand elsewhere may
    /// have changed since they were fetched.
    #[error("the client assertion names no key of the client, or one of several")]
    UnknownKey,
    /// The key did not sign this.
    #[error("the client assertion's signature is wrong")]
    Signature,
    /// It is another client's.
    #[error("the client assertion is another client's")]
    Client,
    /// It is addressed to somebody else.
    #[error("the client assertion is addressed to somebody else")]
    Audience,
    /// It is dead.
    #[error("the client assertion has expired")]
    Expired,
    /// It was issued in the future, or does not count yet.
    #[error("the client assertion is not valid yet")]
    NotYet,
    /// It would be good for more than five minutes.
    #[error("the client assertion lives too long: five minutes is the most")]
    TooLong,
}

impl From<AssertionError> for OAuthError {
    /// Always the same answer: what was wrong would help whoever pretends to be the client.
    fn from(_: AssertionError) -> Self {
        Self::invalid_client("the client assertion is not valid")
    }
}

/// The payload (RFC 7523 3), lent by it unless something in it is escaped.
#[derive(Deserialize)]
struct Claims<'p> {
    #[serde(borrow)]
    iss: Cow<'p, str>,
    #[serde(borrow)]
    sub: Cow<'p, str>,
    #[serde(borrow)]
    aud: Audience<'p>,
    exp: Number,
    nbf: Option<Number>,
    iat: Option<Number>,
    jti: String,
}

/// Whose assertion it says to be, so that the client can be looked up. Nothing of it is checked.
pub fn parse_asserted_client(assertion: &Secret) -> Result<String, AssertionError> {
    #[derive(Deserialize)]
    struct Subject {
        sub: String,
    }
    let (_, payload, _) = split(assertion)?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| AssertionError::Malformed)?;
    let Subject { sub } = serde_json::from_slice(&payload).map_err(|_| AssertionError::Malformed)?;
    if sub.is_empty() || sub.len() > MAX_CLIENT_ID { Err(AssertionError::Malformed) } else { Ok(sub) }
}

/// Reads an assertion and believes it: signed by one of the client's own `keys`, from the client about itself, to us,
/// alive and not for long. Whether it was seen before is the caller's to find out.
pub fn parse_client_assertion(
    assertion: &Secret,
    keys: &JwkSet,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<Assertion, AssertionError> {
    let (header, payload, signature) = split(assertion)?;
    let signed = &assertion.expose_secret()[..header.len() + 1 + payload.len()];
    let header = JoseHeader::parse(header).ok_or(AssertionError::Malformed)?;
    check_type(&header)?;
    check_signature(find_key(&header, keys)?, &header.alg, signed, signature)?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| AssertionError::Malformed)?;
    let claims: Claims<'_> = serde_json::from_slice(&payload).map_err(|_| AssertionError::Malformed)?;
    if claims.iss != expected.client_id || claims.sub != expected.client_id {
        return Err(AssertionError::Client);
    }
    if !expected.audiences.iter().any(|name| claims.aud.contains(name)) {
        return Err(AssertionError::Audience);
    }
    let expires_at = check_times(&claims, expected.leeway, now)?;
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
        return Err(AssertionError::Malformed);
    }
    Ok(Assertion { jti: claims.jti, expires_at })
}

fn split(assertion: &Secret) -> Result<(&str, &str, &str), AssertionError> {
    let mut parts = assertion.expose_secret().split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) if assertion.expose_secret().len() <= MAX_LEN => {
            Ok((header, payload, signature))
        }
        _ => Err(AssertionError::Malformed),
    }
}

/// What the same key may have signed for another purpose (a DPoP proof, an access token) proves nothing here.
fn check_type(header: &JoseHeader) -> Result<(), AssertionError> {
    let fits = !header.is_typed() || header.has_type("JWT") || header.has_type("client-authentication+jwt");
    if fits { Ok(()) } else { Err(AssertionError::Type) }
}

/// The one key that has the name, if there is one in the header, and is for the algorithm.
fn find_key<'k>(header: &JoseHeader, keys: &'k JwkSet) -> Result<&'k Jwk, AssertionError> {
    let is_named = |key: &&Jwk| header.kid.is_none() || header.kid == key.common.key_id;
    let mut found = keys.keys.iter().filter(is_named).filter(|key| fits(key, &header.alg));
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(AssertionError::UnknownKey),
    }
}

fn check_signature(key: &Jwk, algorithm: &str, signed: &str, signature: &str) -> Result<(), AssertionError> {
    let algorithm = match algorithm {
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        "RS256" => Algorithm::RS256,
        "PS256" => Algorithm::PS256,
        _ => return Err(AssertionError::UnknownKey),
    };
    let key = DecodingKey::from_jwk(key).map_err(|_| AssertionError::Signature)?;
    match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key, algorithm) {
        Ok(true) => Ok(()),
        _ => Err(AssertionError::Signature),
    }
}

/// RFC 7523 3 (4) to (6). When it is refused for good.
fn check_times(claims: &Claims<'_>, leeway: Duration, now: Timestamp) -> Result<Timestamp, AssertionError> {
    let time = |seconds: &Number| {
        let seconds = number(&Value::Number(seconds.clone())).ok_or(AssertionError::Malformed)?;
        Timestamp::from_second(seconds).map_err(|_| AssertionError::Malformed)
    };
    let after = |time: Timestamp, by: Duration| time.checked_add(by).unwrap_or(Timestamp::MAX);
    let exp = time(&claims.exp)?;
    let expires_at = after(exp, leeway);
    if expires_at <= now {
        return Err(AssertionError::Expired);
    }
    for begin in [&claims.nbf, &claims.iat].into_iter().flatten() {
        if time(begin)? > after(now, leeway) {
            return Err(AssertionError::NotYet);
        }
    }
    if exp > after(after(now, ASSERTION_LIFETIME), leeway) {
        return Err(AssertionError::TooLong);
    }
    Ok(expires_at)
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        Client, SigningKey,
        client_assertion::build_client_assertion,
        issuer::{
            jwks::read_jwks,
            jws::{self, TokenKey},
        },
    };

    const ISSUER: &str = "https://as.example";
    const NOW: i64 = 1_000_000;

    fn key(algorithm: jws::Algorithm) -> TokenKey {
        TokenKey::from_stored(algorithm, &TokenKey::generate(algorithm, &[1; 32]).unwrap()).unwrap()
    }

    fn set(keys: &[Value]) -> JwkSet {
        read_jwks(&json!({"keys": keys})).unwrap()
    }

    fn sign(key: &TokenKey, header: &Value, payload: &str) -> Secret {
        let b64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", b64(header.to_string().as_bytes()), b64(payload.as_bytes()));
        format!("{signed}.{}", b64(&key.sign_bytes(signed.as_bytes()).unwrap())).into()
    }

    fn changed(mut value: Value, change: &Value) -> Value {
        for (name, to) in change.as_object().unwrap() {
            match to {
                Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
                to => value[name] = to.clone(),
            }
        }
        value
    }

    fn claims() -> Value {
        json!({"iss": "client_1", "sub": "client_1", "aud": ISSUER, "exp": NOW + 60, "jti": "j"})
    }

    fn read(assertion: &Secret, keys: &JwkSet) -> Result<Assertion, AssertionError> {
        let audiences = [ISSUER, "https://as.example/token"];
        let expected = Expected { client_id: "client_1", audiences: &audiences, leeway: Duration::from_secs(10) };
        parse_client_assertion(assertion, keys, expected, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn a_key_proves_its_client_under_every_name_of_its_algorithm() {
        for (algorithm, words) in [
            (jws::Algorithm::Es256, &["ES256"][..]),
            (jws::Algorithm::EdDsa, &["EdDSA", "Ed25519"]),
            (jws::Algorithm::Rs256, &["RS256"]),
        ] {
            let key = key(algorithm);
            let keys = set(&[key.public_jwk().unwrap()]);
            for alg in words {
                let header = json!({"alg": alg, "kid": key.kid()});
                let assertion = sign(&key, &header, &claims().to_string());
                let expires_at = Timestamp::from_second(NOW + 70).unwrap();
                assert_eq!(read(&assertion, &keys), Ok(Assertion { jti: "j".into(), expires_at }), "{alg}");
                assert_eq!(parse_asserted_client(&assertion), Ok("client_1".to_owned()));
            }
        }
    }

    #[test]
    fn what_our_own_side_builds_is_believed() {
        let stored = TokenKey::generate(jws::Algorithm::Es256, &[1; 32]).unwrap();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(&stored));
        let key = TokenKey::from_stored(jws::Algorithm::Es256, &stored).unwrap();
        let client = Client::with_key("client_1", SigningKey::from_pem(&pem.into(), Some(key.kid().into())).unwrap());
        let now = Timestamp::from_second(NOW).unwrap();
        let assertion = build_client_assertion(&client, ISSUER, &[7; 16], now).unwrap();
        let believed = read(&assertion, &set(&[key.public_jwk().unwrap()])).unwrap();
        assert_eq!(believed.jti, BASE64_URL_SAFE_NO_PAD.encode([7; 16]));
    }

    #[test]
    fn every_claim_counts() {
        use AssertionError as E;
        let key = key(jws::Algorithm::EdDsa);
        let keys = set(&[key.public_jwk().unwrap()]);
        let header = json!({"alg": "EdDSA", "kid": key.kid()});
        let read = |payload: &str| read(&sign(&key, &header, payload), &keys).map(|_| ());
        for (change, expected) in [
            (json!({}), Ok(())),
            (json!({"aud": "https://as.example/token"}), Ok(())),
            (json!({"aud": ["https://x.example", ISSUER]}), Ok(())),
            (json!({"exp": NOW - 9, "iat": NOW - 60, "nbf": NOW - 60}), Ok(())),
            (json!({"exp": 1_000_060.5, "iat": NOW + 10, "nbf": NOW + 10}), Ok(())),
            (json!({"exp": NOW + 310}), Ok(())),
            (json!({"jti": "x".repeat(MAX_JTI)}), Ok(())),
            (json!({"iss": "client_2"}), Err(E::Client)),
            (json!({"sub": "client_2"}), Err(E::Client)),
            (json!({"iss": "client_2", "sub": "client_2"}), Err(E::Client)),
            (json!({"iss": null}), Err(E::Malformed)),
            (json!({"sub": null}), Err(E::Malformed)),
            (json!({"aud": "https://x.example"}), Err(E::Audience)),
            (json!({"aud": "https://as.example/"}), Err(E::Audience)),
            (json!({"aud": "https://as.example.evil.com"}), Err(E::Audience)),
            (json!({"aud": []}), Err(E::Audience)),
            (json!({"aud": ""}), Err(E::Audience)),
            (json!({"aud": null}), Err(E::Malformed)),
            (json!({"aud": {"x": ISSUER}}), Err(E::Malformed)),
            (json!({"exp": NOW - 10}), Err(E::Expired)),
            (json!({"exp": 0}), Err(E::Expired)),
            (json!({"exp": null}), Err(E::Malformed)),
            (json!({"exp": "1000060"}), Err(E::Malformed)),
            (json!({"exp": 1e300}), Err(E::Malformed)),
            (json!({"exp": NOW + 311}), Err(E::TooLong)),
            (json!({"nbf": NOW + 11}), Err(E::NotYet)),
            (json!({"iat": NOW + 11}), Err(E::NotYet)),
            (json!({"iat": "x"}), Err(E::Malformed)),
            (json!({"jti": null}), Err(E::Malformed)),
            (json!({"jti": ""}), Err(E::Malformed)),
            (json!({"jti": 7}), Err(E::Malformed)),
            (json!({"jti": "x".repeat(MAX_JTI + 1)}), Err(E::Malformed)),
            (json!({"more": "x".repeat(MAX_LEN)}), Err(E::Malformed)),
        ] {
            assert_eq!(read(&changed(claims(), &change).to_string()), expected, "{change}");
        }
        let twice = claims().to_string().replace(r#""jti":"j""#, r#""jti":"j","jti":"k""#);
        assert_eq!(read(&twice), Err(E::Malformed));
    }

    #[test]
    fn the_header_names_the_key_and_the_key_decides() {
        use AssertionError as E;
        let key = key(jws::Algorithm::Es256);
        let other = self::key(jws::Algorithm::Es256).public_jwk().unwrap();
        let rsa = self::key(jws::Algorithm::Rs256).public_jwk().unwrap();
        let own = key.public_jwk().unwrap();
        let read = |header: &Value, keys: &[Value]| {
            self::read(&sign(&key, header, &claims().to_string()), &set(keys)).map(|_| ())
        };
        let header = json!({"alg": "ES256", "kid": key.kid()});
        let with = |change: Value| changed(header.clone(), &change);
        for (header, keys, expected) in [
            (with(json!({"typ": "JWT"})), vec![own.clone(), other.clone()], Ok(())),
            (with(json!({"typ": "client-authentication+jwt"})), vec![own.clone()], Ok(())),
            (with(json!({"typ": "application/client-authentication+jwt"})), vec![own.clone()], Ok(())),
            (with(json!({"typ": "at+jwt"})), vec![own.clone()], Err(E::Type)),
            (with(json!({"typ": "dpop+jwt"})), vec![own.clone()], Err(E::Type)),
            (with(json!({"kid": null})), vec![own.clone(), rsa.clone()], Ok(())),
            (with(json!({"kid": null})), vec![own.clone(), other.clone()], Err(E::UnknownKey)),
            (with(json!({"kid": "x"})), vec![own.clone()], Err(E::UnknownKey)),
            (with(json!({"kid": 1})), vec![own.clone()], Err(E::Malformed)),
            (with(json!({})), vec![own.clone(), own.clone()], Err(E::UnknownKey)),
            (with(json!({"kid": null})), vec![other.clone()], Err(E::Signature)),
            (with(json!({"kid": other["kid"]})), vec![own.clone(), other.clone()], Err(E::Signature)),
            (with(json!({"alg": "none"})), vec![own.clone()], Err(E::UnknownKey)),
            (with(json!({"alg": "HS256"})), vec![own.clone()], Err(E::UnknownKey)),
            (with(json!({"alg": "RS256"})), vec![own.clone()], Err(E::UnknownKey)),
            (with(json!({"alg": "RS256", "kid": rsa["kid"]})), vec![own.clone(), rsa.clone()], Err(E::Signature)),
            (with(json!({"alg": null})), vec![own.clone()], Err(E::Malformed)),
            (with(json!({"crit": ["x"], "x": 1})), vec![own.clone()], Err(E::Malformed)),
            // A key that comes with the token proves that somebody has a key.
            (with(json!({"kid": "x", "jwk": own})), vec![other.clone()], Err(E::UnknownKey)),
        ] {
            assert_eq!(read(&header, &keys), expected, "{header}");
        }
    }

    /// The public key is no secret: it must not be one to HMAC with.
    #[test]
    fn a_public_key_is_no_password() {
        let key = key(jws::Algorithm::Rs256);
        let jwk = key.public_jwk().unwrap();
        let modulus = BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        let hmac = TokenKey::from_stored(jws::Algorithm::Hs256, &modulus).unwrap();
        for alg in ["HS256", "RS256", "none"] {
            let forged = sign(&hmac, &json!({"alg": alg, "kid": key.kid()}), &claims().to_string());
            assert!(read(&forged, &set(std::slice::from_ref(&jwk))).is_err(), "{alg}");
        }
        // Nor does a set that was kept before such keys were left out.
        let secret = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "s", "k": "A".repeat(43)}]});
        let kept: JwkSet = serde_json::from_value(secret).unwrap();
        let hmac = TokenKey::from_stored(jws::Algorithm::Hs256, &[0; 32]).unwrap();
        let forged = sign(&hmac, &json!({"alg": "HS256", "kid": "s"}), &claims().to_string());
        assert_eq!(read(&forged, &kept), Err(AssertionError::UnknownKey));
    }

    #[test]
    fn whatever_was_wrong_the_answer_is_the_same() {
        let answer = OAuthError::from(AssertionError::Expired);
        assert_eq!(answer.code, crate::ErrorCode::INVALID_CLIENT);
        assert_eq!(answer, AssertionError::Signature.into());
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(header in any::<String>(), payload in any::<String>(), raw in any::<String>()) {
            let keys = JwkSet { keys: vec![] };
            let b64 = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            for text in [raw.clone(), format!("{raw}.{raw}.{raw}"), format!("{}.{}.", b64(&header), b64(&payload))] {
                prop_assert!(read(&text.as_str().into(), &keys).is_err());
                prop_assert!(parse_asserted_client(&text.into()).is_err());
            }
        }
    }
}
