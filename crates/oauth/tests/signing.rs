//! Assertions are signed so that the public key verifies them, whatever the key.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokenkeep_oauth::{
    BuildError, Client, Dialect, Secret, SigningKey,
    client::KeyError,
    client_assertion::{
        APPLE_AUDIENCE, BearerClaims, ServiceAccountError, build_apple_secret, build_bearer_assertion,
        build_client_assertion, parse_service_account,
    },
    dialect::ClientAuth,
    params::Vars,
    token::{Grant, RequestContext, build_token_request},
};

fn pem(der: &[u8]) -> Secret {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der)).into()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn verify(jwt: &str, key: &DecodingKey, algorithm: Algorithm) -> TokenData<Value> {
    let mut rules = Validation::new(algorithm);
    (rules.validate_exp, rules.validate_aud) = (false, false);
    rules.required_spec_claims.clear();
    jsonwebtoken::decode(jwt, key, &rules).unwrap()
}

fn es256() -> (Secret, DecodingKey) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    (pem(key.to_pkcs8v1().unwrap().as_ref()), DecodingKey::from_ec_der(key.public_key().as_ref()))
}

#[test]
fn each_kind_of_key_signs_what_its_public_half_verifies() {
    let ec = es256();
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed = (pem(ed.to_pkcs8v1().unwrap().as_ref()), DecodingKey::from_ed_der(ed.public_key().as_ref()));
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let rsa = (pem(der.as_ref()), DecodingKey::from_rsa_der(rsa.public_key().as_ref()));
    for ((pem, public), algorithm) in [(ec, Algorithm::ES256), (ed, Algorithm::EdDSA), (rsa, Algorithm::RS256)] {
        let key = SigningKey::from_pem(&pem, Some("k1".into())).unwrap();
        assert_eq!(key.algorithm(), format!("{algorithm:?}"));
        let client = Client::with_key("c", key);
        let jwt = build_client_assertion(&client, "https://id.example/token", &[1; 16], now()).unwrap();
        let token = verify(jwt.expose_secret(), &public, algorithm);
        assert_eq!(token.header.kid.as_deref(), Some("k1"));
        assert_eq!(
            token.claims,
            json!({
                "iss": "c", "sub": "c", "aud": "https://id.example/token",
                "jti": "AQEBAQEBAQEBAQEBAQEBAQ", "iat": 1_000_000, "exp": 1_000_300,
            })
        );
    }
}

#[test]
fn a_request_carries_the_assertion() {
    let (pem, public) = es256();
    let client = Client::with_key("c", SigningKey::from_pem(&pem, None).unwrap());
    let dialect = Dialect { client_auth: ClientAuth::PrivateKeyJwt, ..Dialect::default() };
    let (url, params) = ("https://id.example/token".parse().unwrap(), Vars::new());
    let grant = Grant::ClientCredentials { scope: None };
    for (audience, expected) in [(None, "https://id.example/token"), (Some("https://id.example"), "https://id.example")]
    {
        let context = RequestContext { audience, ..RequestContext::new(now(), [1; 16], &params) };
        let request = build_token_request(&dialect, &url, &client, &grant, &context).unwrap();
        let sent: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
        let names: Vec<&str> = sent.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["grant_type", "client_id", "client_assertion_type", "client_assertion"]);
        assert_eq!(sent[2].1, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert_eq!(verify(&sent[3].1, &public, Algorithm::ES256).claims["aud"], expected);
    }
}

#[test]
fn apples_secret() {
    let (pem, public) = es256();
    let client = Client::with_key("com.example.web", SigningKey::from_pem(&pem, Some("K123".into())).unwrap());
    let jwt = build_apple_secret(&client, "TEAM", now()).unwrap();
    let token = verify(jwt.expose_secret(), &public, Algorithm::ES256);
    assert_eq!(token.header.kid.as_deref(), Some("K123"));
    let expected = json!({
        "iss": "TEAM", "sub": "com.example.web", "aud": APPLE_AUDIENCE, "iat": 1_000_000, "exp": 1_000_300,
    });
    assert_eq!(token.claims, expected);

    let nameless = Client::with_key("c", SigningKey::from_pem(&pem, None).unwrap());
    assert_eq!(build_apple_secret(&nameless, "TEAM", now()).unwrap_err(), BuildError::WrongKey);

    let dialect = Dialect { client_auth: ClientAuth::AppleJwt, ..Dialect::default() };
    let url = "https://appleid.apple.com/auth/token".parse().unwrap();
    let grant = Grant::RefreshToken { refresh_token: "r".into(), scope: None };
    let params = Vars::from([("team_id".to_owned(), "TEAM".to_owned())]);
    let context = RequestContext::new(now(), [1; 16], &params);
    let request = build_token_request(&dialect, &url, &client, &grant, &context).unwrap();
    let (name, secret) = form_urlencoded::parse(&request.body).last().unwrap();
    assert_eq!((name.as_ref(), &verify(&secret, &public, Algorithm::ES256).claims), ("client_secret", &expected));
    let (none, missing) = (Vars::new(), BuildError::MissingParam { name: "team_id".into() });
    let context = RequestContext::new(now(), [1; 16], &none);
    assert_eq!(build_token_request(&dialect, &url, &client, &grant, &context).unwrap_err(), missing);
}

#[test]
fn a_service_account() {
    let (pem, public) = es256();
    let file = json!({
        "type": "service_account", "client_email": "a@p.example", "private_key": pem.expose_secret(),
        "private_key_id": "k9", "token_uri": "https://id.example/token", "project_id": "p",
    });
    let account = parse_service_account(&file.to_string().into()).unwrap();
    let claims = BearerClaims {
        issuer: &account.client_email,
        subject: Some("alice@example.com"),
        audience: &account.token_uri,
        scope: Some("a b"),
        lifetime: Duration::from_hours(24),
    };
    let jwt = build_bearer_assertion(&account.key, claims, now()).unwrap();
    let token = verify(jwt.expose_secret(), &public, Algorithm::ES256);
    assert_eq!(token.header.kid.as_deref(), Some("k9"));
    let expected = json!({
        "iss": "a@p.example", "sub": "alice@example.com", "aud": "https://id.example/token", "scope": "a b",
        "iat": 1_000_000, "exp": 1_003_600,
    });
    assert_eq!(token.claims, expected);
    let claims = BearerClaims { subject: None, scope: None, lifetime: Duration::from_mins(1), ..claims };
    let jwt = build_bearer_assertion(&account.key, claims, now()).unwrap();
    let claims = verify(jwt.expose_secret(), &public, Algorithm::ES256).claims;
    assert_eq!((&claims["exp"], claims.get("sub"), claims.get("scope")), (&json!(1_000_060), None, None));

    let with = |name: &str, value: Value| {
        let mut file = file.clone();
        file[name] = value;
        parse_service_account(&file.to_string().into()).unwrap_err()
    };
    assert_eq!(with("type", json!("authorized_user")), ServiceAccountError::Malformed);
    assert_eq!(with("client_email", json!("")), ServiceAccountError::Malformed);
    assert_eq!(with("private_key", json!("no key")), ServiceAccountError::Key(KeyError::Unusable));
    assert_eq!(parse_service_account(&"{".into()).unwrap_err(), ServiceAccountError::Malformed);
}

#[test]
fn texts_that_are_no_key() {
    let bad = |text: &str| SigningKey::from_pem(&Secret::from(text), None).unwrap_err();
    assert_eq!(bad(""), KeyError::Unusable);
    assert_eq!(bad("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), KeyError::Unusable);
    assert_eq!(bad("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----"), KeyError::Sec1);
    // A public key is none, and a P-384 key signs nothing we know.
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    assert_eq!(bad(pem(ec.public_key().as_ref()).expose_secret()), KeyError::Unusable);
    let p384 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    assert_eq!(bad(pem(p384.to_pkcs8v1().unwrap().as_ref()).expose_secret()), KeyError::Unusable);
}
