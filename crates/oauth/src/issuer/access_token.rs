//! Access tokens: JWTs of ours (RFC 9068), written and believed.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    error::OAuthError,
    jws::{ACCESS_TOKEN_TYPE, BadKey, JoseHeader, TokenKey},
    resource::Resource,
    scope::ScopeSet,
};
use crate::Secret;

/// What an access token says, beside who issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenClaims {
    /// On whose behalf: a user, or, for client credentials, the client itself.
    pub subject: String,
    /// Where it may be used.
    pub audience: Resource,
    /// Whom it was issued to.
    pub client_id: String,
    /// What it is good for.
    pub scope: ScopeSet,
    /// Its own name.
    pub jti: String,
    /// When it was issued, to the second.
    pub issued_at: Timestamp,
    /// When it is dead, to the second.
    pub expires_at: Timestamp,
    /// What to call the subject. For people, never an identity.
    pub username: Option<String>,
    /// What a first-party backend reads of it, where it is a session's.
    pub session: Option<SessionClaims>,
}

/// What the access token of a session says beside: the claims `email`, `supa_exp` and, for all of them, `type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionClaims {
    /// Where the backend says the subject can be reached.
    pub email: Option<String>,
    /// When the provider's access token dies that stands behind it, to the second, as it was known at issue.
    pub upstream_expires_at: Option<Timestamp>,
}

/// The claim `type` of a session's access tokens.
const SESSION_TYPE: &str = "api";

/// The longest token that is read: more than the longest scope needs.
pub const MAX_LEN: usize = 16 * 1024;

/// The largest signature: RSA with 4096 bits.
const MAX_SIGNATURE: usize = 512;

/// The payload (RFC 9068 2.2).
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    #[serde(serialize_with = "as_words", skip_serializing_if = "ScopeSet::is_empty")]
    scope: &'a ScopeSet,
    iat: i64,
    exp: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supa_exp: Option<i64>,
}

/// Without the copy that the set's own form would cost.
pub(super) fn as_words<S: Serializer>(scope: &ScopeSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(scope)
}

/// Writes a token and signs it.
pub fn build_access_token(key: &TokenKey, issuer: &str, claims: &AccessTokenClaims) -> Result<Secret, BadKey> {
    let session = claims.session.as_ref();
    let payload = Payload {
        iss: issuer,
        sub: &claims.subject,
        aud: claims.audience.as_str(),
        client_id: &claims.client_id,
        scope: &claims.scope,
        iat: claims.issued_at.as_second(),
        exp: claims.expires_at.as_second(),
        jti: &claims.jti,
        username: claims.username.as_deref(),
        email: session.and_then(|session| session.email.as_deref()),
        kind: session.map(|_| SESSION_TYPE),
        supa_exp: session.and_then(|session| session.upstream_expires_at).map(Timestamp::as_second),
    };
    key.sign(&serde_json::to_vec(&payload).map_err(|_| BadKey)?)
}

/// A key whose signature counts.
#[derive(Clone, Copy, Debug)]
pub struct TrustedKey<'k> {
    /// The key.
    pub key: &'k TokenKey,
    /// The only resource whose tokens it may have signed; `None` = any. Whoever checks with HS256 can sign with it, so
    /// such a key must not make tokens for others.
    pub resource: Option<&'k Resource>,
}

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Us.
    pub issuer: &'a str,
    /// It is for one of these.
    pub audiences: &'a [Resource],
    /// For so long it counts after its death, where clocks differ.
    pub leeway: Duration,
}

/// Why a token is not believed: for the log. The caller learns one thing only, see [`OAuthError::from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// It is no JWT, or lacks a claim.
    #[error("the access token cannot be read")]
    Malformed,
    /// It is a JWT made for something else.
    #[error("the token is no access token")]
    Type,
    /// It names no key, or one that we do not have.
    #[error("the access token names no key of ours")]
    UnknownKey,
    /// It claims another algorithm than its key has; `none` is one.
    #[error("the access token claims another algorithm than its key's")]
    Algorithm,
    /// The key did not sign this.
    #[error("the access token's signature is wrong")]
    Signature,
    /// Somebody else issued it.
    #[error("the access token is another issuer's")]
    Issuer,
    /// It is dead.
    #[error("the access token has expired")]
    Expired,
    /// It is for none of the expected resources, or its key may not sign for this one.
    #[error("the access token is for another resource")]
    Audience,
}

impl From<AccessTokenError> for OAuthError {
    /// Always the same answer: what was wrong would help only whoever made the token up.
    fn from(_: AccessTokenError) -> Self {
        Self::invalid_token("the access token is expired, revoked or not valid here")
    }
}

/// Reads a token and believes it: signed by one of `keys`, issued by us, for one of the expected resources, alive.
/// Whether it was revoked is not written in it.
pub fn parse_access_token<'k>(
    token: &Secret,
    keys: impl Iterator<Item = TrustedKey<'k>> + Clone,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<AccessTokenClaims, AccessTokenError> {
    let token = token.expose_secret();
    if token.len() > MAX_LEN {
        return Err(AccessTokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(AccessTokenError::Malformed)?;
    let (trusted, payload) = find_key(signed, keys)?;
    check_signature(trusted.key, signed, signature)?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| AccessTokenError::Malformed)?;
    read_claims(&payload, trusted, expected, now)
}

/// The key that the header names, and the payload. Our keys write one header each, so that equality says it all.
fn find_key<'t, 'k>(
    signed: &'t str,
    mut keys: impl Iterator<Item = TrustedKey<'k>> + Clone,
) -> Result<(TrustedKey<'k>, &'t str), AccessTokenError> {
    let own = |trusted: TrustedKey<'k>| signed.strip_prefix(trusted.key.header()).map(|payload| (trusted, payload));
    match keys.clone().find_map(own) {
        Some(found) => Ok(found),
        None => {
            let (header, payload) = signed.split_once('.').ok_or(AccessTokenError::Malformed)?;
            let key_of = |kid: &str| keys.find(|trusted| trusted.key.kid() == kid);
            Ok((read_header(header, key_of)?, payload))
        }
    }
}

/// A header that none of our keys writes today: as the RFCs allow it, or the reason for the log.
fn read_header<'k>(
    header: &str,
    key_of: impl FnOnce(&str) -> Option<TrustedKey<'k>>,
) -> Result<TrustedKey<'k>, AccessTokenError> {
    let header = JoseHeader::parse(header).ok_or(AccessTokenError::Malformed)?;
    if !header.has_type(ACCESS_TOKEN_TYPE) {
        return Err(AccessTokenError::Type);
    }
    let trusted = header.kid.as_deref().and_then(key_of).ok_or(AccessTokenError::UnknownKey)?;
    if header.alg != trusted.key.algorithm().as_str() {
        return Err(AccessTokenError::Algorithm);
    }
    Ok(trusted)
}

fn check_signature(key: &TokenKey, signed: &str, signature: &str) -> Result<(), AccessTokenError> {
    let mut room = [0; MAX_SIGNATURE];
    let length = BASE64_URL_SAFE_NO_PAD.decode_slice(signature, &mut room).map_err(|_| AccessTokenError::Signature)?;
    if key.verify(signed.as_bytes(), &room[..length]) { Ok(()) } else { Err(AccessTokenError::Signature) }
}

/// What is read of the payload: lent by it, unless something in it is escaped.
#[derive(Deserialize)]
struct Claims<'p> {
    #[serde(borrow)]
    iss: Cow<'p, str>,
    sub: String,
    #[serde(borrow)]
    aud: Audience<'p>,
    client_id: String,
    #[serde(borrow, default)]
    scope: Cow<'p, str>,
    iat: i64,
    exp: i64,
    jti: String,
    username: Option<String>,
    email: Option<String>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'p, str>>,
    supa_exp: Option<i64>,
}

/// RFC 7519 4.1.3.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience<'p> {
    One(#[serde(borrow)] Cow<'p, str>),
    Many(#[serde(borrow)] Vec<Cow<'p, str>>),
}

impl Audience<'_> {
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(all) => all.iter().any(|one| one == name),
        }
    }
}

fn read_claims(
    payload: &[u8],
    trusted: TrustedKey<'_>,
    expected: Expected<'_>,
    now: Timestamp,
) -> Result<AccessTokenClaims, AccessTokenError> {
    let claims: Claims<'_> = serde_json::from_slice(payload).map_err(|_| AccessTokenError::Malformed)?;
    if claims.iss != expected.issuer {
        return Err(AccessTokenError::Issuer);
    }
    let time = |seconds| Timestamp::from_second(seconds).map_err(|_| AccessTokenError::Malformed);
    let (issued_at, expires_at) = (time(claims.iat)?, time(claims.exp)?);
    if expires_at.checked_add(expected.leeway).unwrap_or(Timestamp::MAX) <= now {
        return Err(AccessTokenError::Expired);
    }
    let is_meant = |resource: &&Resource| {
        claims.aud.contains(resource.as_str()) && trusted.resource.is_none_or(|own| own == *resource)
    };
    let audience = expected.audiences.iter().find(is_meant).ok_or(AccessTokenError::Audience)?.clone();
    let scope = ScopeSet::parse(&claims.scope).map_err(|_| AccessTokenError::Malformed)?;
    let session = match claims.kind.as_deref() {
        Some(SESSION_TYPE) => {
            Some(SessionClaims { email: claims.email, upstream_expires_at: claims.supa_exp.map(time).transpose()? })
        }
        _ => None,
    };
    Ok(AccessTokenClaims {
        subject: claims.sub,
        audience,
        client_id: claims.client_id,
        scope,
        jti: claims.jti,
        issued_at,
        expires_at,
        username: claims.username,
        session,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::issuer::jws::Algorithm;

    const ISSUER: &str = "https://as.example";

    fn key(algorithm: Algorithm, entropy: u8) -> TokenKey {
        TokenKey::from_stored(algorithm, &TokenKey::generate(algorithm, &[entropy; 32]).unwrap()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn resources() -> [Resource; 2] {
        ["https://a.example", "https://b.example/mcp"].map(|text| Resource::parse(text).unwrap())
    }

    fn claims() -> AccessTokenClaims {
        AccessTokenClaims {
            subject: "github|42".into(),
            audience: resources()[1].clone(),
            client_id: "client_1".into(),
            scope: ScopeSet::parse("read write").unwrap(),
            jti: "j.1".into(),
            issued_at: at(1_000),
            expires_at: at(4_600),
            username: Some("Zoë \"Z\"".into()),
            session: None,
        }
    }

    fn parse(token: &Secret, keys: &[&TokenKey], now: i64) -> Result<AccessTokenClaims, AccessTokenError> {
        let keys = keys.iter().map(|key| TrustedKey { key, resource: None });
        let expected = Expected { issuer: ISSUER, audiences: &resources(), leeway: Duration::from_secs(10) };
        parse_access_token(token, keys, expected, at(now))
    }

    /// A token with another header and payload than ours, signed by `key` all the same.
    fn forge(key: &TokenKey, header: &Value, payload: &str) -> Secret {
        let b64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", b64(header.to_string().as_bytes()), b64(payload.as_bytes()));
        let signature = b64(&key.sign_bytes(signed.as_bytes()).unwrap());
        format!("{signed}.{signature}").into()
    }

    fn payload(change: &Value) -> String {
        let mut payload = json!({"iss": ISSUER, "sub": "s", "aud": "https://a.example", "client_id": "c",
            "scope": "read", "iat": 1_000, "exp": 4_600, "jti": "j"});
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(payload.as_object_mut().unwrap().remove(name)),
                value => payload[name] = value.clone(),
            }
        }
        payload.to_string()
    }

    #[test]
    fn what_is_built_is_read_back() {
        for algorithm in Algorithm::ALL {
            let (key, other) = (key(algorithm, 1), key(algorithm, 2));
            let token = build_access_token(&key, ISSUER, &claims()).unwrap();
            assert_eq!(parse(&token, &[&other, &key], 1_000), Ok(claims()));
            assert_eq!(parse(&token, &[&other], 1_000), Err(AccessTokenError::UnknownKey));
            let bare = AccessTokenClaims { scope: ScopeSet::default(), username: None, ..claims() };
            let token = build_access_token(&key, ISSUER, &bare).unwrap();
            assert_eq!(parse(&token, &[&key], 1_000), Ok(bare));
        }
    }

    /// What others see of it (RFC 9068 2.1 and 2.2).
    #[test]
    fn a_token_is_what_resource_servers_expect() {
        let token = build_access_token(&key(Algorithm::Es256, 1), ISSUER, &claims()).unwrap();
        let mut parts = token.expose_secret().split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
        let header: Value = serde_json::from_slice(&parts.next().unwrap()).unwrap();
        assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));
        let payload: Value = serde_json::from_slice(&parts.next().unwrap()).unwrap();
        assert_eq!(
            payload,
            json!({"iss": ISSUER, "sub": "github|42", "aud": "https://b.example/mcp", "client_id": "client_1",
                "scope": "read write", "iat": 1_000, "exp": 4_600, "jti": "j.1", "username": "Zoë \"Z\""})
        );
    }

    #[test]
    fn a_sessions_token_says_more() {
        let key = key(Algorithm::Es256, 1);
        let session = SessionClaims { email: Some("zoe@example.com".into()), upstream_expires_at: Some(at(9_000)) };
        for session in [session, SessionClaims::default()] {
            let claims = AccessTokenClaims { session: Some(session.clone()), ..claims() };
            let token = build_access_token(&key, ISSUER, &claims).unwrap();
            assert_eq!(parse(&token, &[&key], 1_000), Ok(claims));
            let payload = token.expose_secret().split('.').nth(1).unwrap();
            let payload: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
            assert_eq!(payload["type"], "api");
            assert_eq!(payload["email"].as_str(), session.email.as_deref());
            assert_eq!(payload["supa_exp"].as_i64(), session.upstream_expires_at.map(Timestamp::as_second));
        }
    }

    #[test]
    fn a_token_dies_to_the_second() {
        let key = key(Algorithm::EdDsa, 1);
        let token = build_access_token(&key, ISSUER, &claims()).unwrap();
        assert!(parse(&token, &[&key], 4_609).is_ok());
        assert_eq!(parse(&token, &[&key], 4_610), Err(AccessTokenError::Expired));
    }

    #[test]
    fn the_header_must_be_that_of_an_access_token_by_a_key_of_ours() {
        use AccessTokenError as E;
        let key = key(Algorithm::Es256, 1);
        let kid = key.kid();
        let read = |header: &Value| parse(&forge(&key, header, &payload(&json!({}))), &[&key], 1_000).map(|_| ());
        let ours = json!({"alg": "ES256", "kid": kid, "typ": "at+jwt"});
        assert_eq!(read(&ours), Ok(()));
        for (change, expected) in [
            (json!({"typ": "application/at+jwt"}), Ok(())),
            (json!({"typ": "AT+JWT", "x": 1}), Ok(())),
            (json!({"typ": "JWT"}), Err(E::Type)),
            (json!({"typ": "application/x/at+jwt"}), Err(E::Type)),
            (json!({"typ": null}), Err(E::Type)),
            (json!({"typ": 1}), Err(E::Malformed)),
            (json!({"kid": null}), Err(E::UnknownKey)),
            (json!({"kid": ""}), Err(E::UnknownKey)),
            (json!({"kid": "../../etc/passwd"}), Err(E::UnknownKey)),
            (json!({"alg": "none"}), Err(E::Algorithm)),
            (json!({"alg": "None"}), Err(E::Algorithm)),
            (json!({"alg": "HS256"}), Err(E::Algorithm)),
            (json!({"alg": "es256"}), Err(E::Algorithm)),
            (json!({"alg": null}), Err(E::Malformed)),
            (json!({"crit": ["exp"]}), Err(E::Malformed)),
        ] {
            let mut header = ours.clone();
            for (name, value) in change.as_object().unwrap() {
                header[name] = value.clone();
            }
            assert_eq!(read(&header), expected, "{change}");
        }
    }

    #[test]
    fn every_claim_counts() {
        use AccessTokenError as E;
        let key = key(Algorithm::Hs256, 1);
        let header = json!({"alg": "HS256", "kid": key.kid(), "typ": "at+jwt"});
        let read = |payload: &str| parse(&forge(&key, &header, payload), &[&key], 1_000).map(|_| ());
        for (change, expected) in [
            (json!({}), Ok(())),
            (json!({"aud": ["https://x.example", "https://b.example/mcp"]}), Ok(())),
            (json!({"scope": null}), Ok(())),
            (json!({"more": {"x": 1}}), Ok(())),
            (json!({"aud": "https://x.example"}), Err(E::Audience)),
            (json!({"aud": "https://a.example/"}), Err(E::Audience)),
            (json!({"aud": []}), Err(E::Audience)),
            (json!({"aud": null}), Err(E::Malformed)),
            (json!({"aud": 1}), Err(E::Malformed)),
            (json!({"iss": "https://as.example/"}), Err(E::Issuer)),
            (json!({"iss": null}), Err(E::Malformed)),
            (json!({"exp": 989}), Err(E::Expired)),
            (json!({"exp": null}), Err(E::Malformed)),
            (json!({"exp": "4600"}), Err(E::Malformed)),
            (json!({"exp": 1e300}), Err(E::Malformed)),
            (json!({"exp": i64::MAX}), Err(E::Malformed)),
            (json!({"jti": null}), Err(E::Malformed)),
            (json!({"sub": null}), Err(E::Malformed)),
            (json!({"client_id": null}), Err(E::Malformed)),
            (json!({"scope": "a\"b"}), Err(E::Malformed)),
        ] {
            assert_eq!(read(&payload(&change)), expected, "{change}");
        }
        let twice = payload(&json!({})).replace(r#""exp":4600"#, r#""exp":4600,"exp":9999999"#);
        assert_eq!(read(&twice), Err(E::Malformed));
        assert_eq!(read(&payload(&json!({"more": "x".repeat(MAX_LEN)}))), Err(E::Malformed));
        assert_eq!(read("[]"), Err(E::Malformed));
        assert_eq!(read(""), Err(E::Malformed));
    }

    /// Whoever checks with HS256 can sign: for itself and for nobody else.
    #[test]
    fn a_resources_own_key_makes_no_tokens_for_others() {
        let key = key(Algorithm::Hs256, 1);
        let [a, b] = resources();
        let read = |own: &Resource, audiences: &[Resource], aud: Value| {
            let header = json!({"alg": "HS256", "kid": key.kid(), "typ": "at+jwt"});
            let token = forge(&key, &header, &payload(&json!({"aud": aud})));
            let keys = std::iter::once(TrustedKey { key: &key, resource: Some(own) });
            let expected = Expected { issuer: ISSUER, audiences, leeway: Duration::ZERO };
            parse_access_token(&token, keys, expected, at(1_000)).map(|claims| claims.audience)
        };
        let all = resources();
        assert_eq!(read(&a, &all, json!(a)), Ok(a.clone()));
        assert_eq!(read(&a, &all, json!(b)), Err(AccessTokenError::Audience));
        assert_eq!(read(&b, &all, json!([a, b])), Ok(b.clone()));
        assert_eq!(read(&b, &all[..1], json!([a, b])), Err(AccessTokenError::Audience));
    }

    #[test]
    fn whatever_was_wrong_the_answer_is_the_same() {
        let answer = OAuthError::from(AccessTokenError::Expired);
        assert_eq!(answer.code, crate::ErrorCode::INVALID_TOKEN);
        assert_eq!(answer, AccessTokenError::Signature.into());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let key = key(Algorithm::Es256, 1);
        let token = build_access_token(&key, ISSUER, &claims()).unwrap().expose_secret().to_owned();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let long = format!("{token}{}", "A".repeat(MAX_LEN));
        let unsigned = format!("{signed}.");
        let (five, padded) = (format!("{signed}.x.{signature}"), format!("{token}="));
        let huge = format!("{signed}.{}", "A".repeat(2_000));
        for bad in ["", ".", "..", "...", "a.b.c", "\u{1f600}.x.y", &long, &unsigned, &five, &padded, &huge, signed] {
            assert!(parse(&bad.into(), &[&key], 1_000).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_character_is_one_too_many(at in 0_usize..500, with in "[A-Za-z0-9_.-]") {
            let key = key(Algorithm::Hs256, 1);
            let token = build_access_token(&key, ISSUER, &claims()).unwrap().expose_secret().to_owned();
            let at = at % token.len();
            prop_assume!(token[at..=at] != with);
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert!(parse(&changed.into(), &[&key], 1_000).is_err());
        }

        #[test]
        fn nothing_that_is_sent_panics(token in any::<String>(), payload in any::<String>()) {
            let key = key(Algorithm::Hs256, 1);
            prop_assert!(parse(&token.into(), &[&key], 1_000).is_err());
            let header = json!({"alg": "HS256", "kid": key.kid(), "typ": "at+jwt"});
            prop_assert!(parse(&forge(&key, &header, &payload), &[&key], 1_000).is_err());
        }
    }
}
