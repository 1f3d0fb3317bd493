//! Access tokens, as a resource checks them with what we publish.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::JwkSet};
use serde_json::{Value, json};
use tokenkeep_core::ports::Clock;
use tokenkeep_engine::Caller;
use tokenkeep_oauth::issuer::jws::Algorithm as Signing;

use super::{FILES, ISSUER, IssuerApp, SECRET, resource};

async fn jwks(app: &IssuerApp) -> JwkSet {
    serde_json::from_value(app.get("/jwks").await.json()).unwrap()
}

/// What the token says, if a key of the set signed it.
fn checked(jwks: &JwkSet, token: &str) -> Option<Value> {
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = jwks.find(header.kid.as_deref()?)?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[FILES]);
    validation.set_issuer(&[ISSUER]);
    // The tests' clock is not the machine's.
    validation.validate_exp = false;
    Some(jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(key).ok()?, &validation).ok()?.claims)
}

#[tokio::test]
async fn an_access_token_is_a_jwt_of_rfc_9068_that_others_can_check() {
    for algorithm in [Signing::Es256, Signing::EdDsa, Signing::Rs256] {
        let app = IssuerApp::with(|told| told.algorithm = algorithm).await;
        let token = app.machine_token("backend").await;
        assert_eq!(jsonwebtoken::decode_header(&token).unwrap().typ.as_deref(), Some("at+jwt"));
        let claims = checked(&jwks(&app).await, &token).unwrap();
        let now = app.app.clock.now().wall.as_second();
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!("backend"), &json!("backend")));
        assert_eq!((&claims["scope"], &claims["aud"]), (&json!("read write"), &json!(FILES)));
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(now), &json!(now + 3600)));
        assert!(claims["jti"].as_str().unwrap().len() >= 16);
        assert_eq!(claims.get("nbf"), None);
    }
}

#[tokio::test]
async fn jwks_holds_public_keys_only_and_may_be_cached() {
    let app = IssuerApp::start().await;
    let answer = app.get("/jwks").await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let keys = answer.json();
    for key in keys["keys"].as_array().unwrap() {
        assert!(key["kid"].is_string() && key["alg"].is_string());
        for secret in ["d", "p", "q", "k"] {
            assert_eq!(key.get(secret), None);
        }
    }
    assert!(!keys["keys"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn keys_rotate_with_overlap() {
    let app = IssuerApp::start().await;
    let old = app.machine_token("backend").await;
    let before = jwks(&app).await;
    app.app.engine.issuer().unwrap().rotate_signing_keys(&Caller::Local, None).await.unwrap();
    let new = app.machine_token("backend").await;
    assert_ne!(jsonwebtoken::decode_header(&old).unwrap().kid, jsonwebtoken::decode_header(&new).unwrap().kid);
    assert!(checked(&before, &new).is_some(), "a key is published before it signs");
    assert!(checked(&jwks(&app).await, &old).is_some(), "and after");
    assert_eq!(app.verified("", &old).await.status, 200);
    assert_eq!(app.verified("", &new).await.status, 200);
}

/// The JWKS may be five minutes old wherever it was fetched.
#[tokio::test]
async fn no_key_signs_that_a_cached_jwks_may_lack() {
    let app = IssuerApp::start().await;
    let rotate = async || app.app.post("/v1/signing-keys/rotate", json!({})).await;
    app.app.clock.advance(Duration::from_secs(1));
    assert_eq!(rotate().await.status, 200, "the first pair was announced together");
    let cached = jwks(&app).await;
    app.app.clock.advance(Duration::from_secs(240));
    let early = rotate().await;
    early.problem(429, "too_many_requests");
    assert_eq!(early.header("retry-after"), Some("60"));
    assert!(checked(&cached, &app.machine_token("backend").await).is_some());
    app.app.clock.advance(Duration::from_secs(60));
    assert_eq!(rotate().await.status, 200);
}

#[tokio::test]
async fn a_token_that_we_did_not_sign_so_is_refused_everywhere() {
    let app = IssuerApp::start().await;
    let good = app.machine_token("backend").await;
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let kid = jsonwebtoken::decode_header(&good).unwrap().kid.unwrap();
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    // Key confusion: our public key, taken for a secret of HS256.
    let public = serde_json::to_vec(&jwks(&app).await.keys[0]).unwrap();
    let mut confused = Header::new(Algorithm::HS256);
    (confused.kid, confused.typ) = (Some(kid.clone()), Some("at+jwt".to_owned()));
    let confused = jsonwebtoken::encode(&confused, &claims, &EncodingKey::from_secret(&public)).unwrap();
    let wider = {
        let mut wider = claims.clone();
        wider["scope"] = json!("read write admin");
        encode(&wider)
    };
    let head = |change: Value| {
        let mut head = json!({"alg": "ES256", "typ": "at+jwt", "kid": kid});
        head.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        encode(&head)
    };
    for bad in [
        format!("{}.{payload}.", head(json!({"alg": "none"}))),
        format!("{}.{payload}.{signature}", head(json!({"alg": "none"}))),
        confused,
        format!("{}.{payload}.{signature}", head(json!({"kid": "foreign"}))),
        format!("{}.{payload}.{signature}", head(json!({"kid": null}))),
        format!("{}.{payload}.{signature}", head(json!({"typ": "JWT"}))),
        format!("{header}.{wider}.{signature}"),
        format!("{header}.{payload}.{}", "A".repeat(86)),
    ] {
        app.verified("", &bad).await.refused(401, "invalid_token");
        assert_eq!(app.introspected(&bad).await, json!({"active": false}), "{bad}");
    }
    assert_eq!(app.verified("", &good).await.status, 200);
}

#[tokio::test]
async fn a_token_is_dead_at_its_time_even_if_it_was_seen_before() {
    let app = IssuerApp::start().await;
    let token = app.machine_token("backend").await;
    app.app.clock.advance(Duration::from_secs(3599));
    assert_eq!(app.verified("", &token).await.status, 200);
    app.app.clock.advance(Duration::from_secs(1));
    app.verified("", &token).await.refused(401, "invalid_token");
    assert_eq!(app.introspected(&token).await, json!({"active": false}));
}

/// A resource that can check nothing better has a secret of its own, and what it could sign counts nowhere else.
#[tokio::test]
async fn a_key_of_hs256_is_for_one_resource() {
    const OWN: &str = "0123456789abcdef0123456789abcdef";
    let legacy = "https://legacy.example";
    let app = IssuerApp::with(|told| {
        let own = |url, secret: &str| {
            let (algorithm, signing_secret) = (Some(Signing::Hs256), Some(secret.into()));
            tokenkeep_engine::issuer::ProtectedResource { algorithm, signing_secret, ..resource(url, "read") }
        };
        told.resources.push(own(legacy, OWN));
        told.resources.push(own("https://second.example", "another secret, as long as the first"));
    })
    .await;
    let form = [("grant_type", "client_credentials"), ("resource", legacy)];
    let reply = app.post("/token", Some(("backend", SECRET)), &form).await.json();
    let token = reply["access_token"].as_str().unwrap();
    assert_eq!(app.verified(&format!("?resource={legacy}"), token).await.status, 200);
    let head = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(head.alg, Algorithm::HS256);
    let checked = |secret: &str, audience: &str| {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[audience]);
        validation.validate_exp = false;
        jsonwebtoken::decode::<Value>(token, &DecodingKey::from_secret(secret.as_bytes()), &validation)
    };
    let claims = checked(OWN, legacy).unwrap().claims;
    assert!(checked("another secret, as long as the first", legacy).is_err());
    let published = app.get("/jwks").await;
    assert!(!published.text().contains("HS256") && !published.text().contains(head.kid.as_deref().unwrap()));

    for other in [FILES, "https://second.example"] {
        let mut forged = claims.clone();
        forged["aud"] = json!(other);
        let forged = jsonwebtoken::encode(&head, &forged, &EncodingKey::from_secret(OWN.as_bytes())).unwrap();
        app.verified(&format!("?resource={other}"), &forged).await.refused(401, "invalid_token");
        assert_eq!(app.introspected(&forged).await, json!({"active": false}), "{other}");
    }
}
