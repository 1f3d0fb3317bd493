//! How clients prove themselves, at every endpoint alike.

use std::{collections::BTreeSet, time::Duration};

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Request, header};
use serde_json::{Value, json};
use tokenkeep_core::ports::Clock;
use tokenkeep_oauth::{
    client_assertion::ASSERTION_TYPE,
    issuer::{
        client::{AuthMethod, GrantType},
        jws::{Algorithm, TokenKey},
        resource::Resource,
    },
};

use super::{ISSUER, IssuerApp, PROXY, SECRET, basic, client, posted, resource};
use crate::operations::Log;

const CREDENTIALS: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn every_endpoint_enforces_the_registered_auth_method() {
    let app = IssuerApp::start().await;
    for path in ["/token", "/introspect", "/revoke"] {
        let ask = async |id: &str, how: &str, secret: &str| {
            let mut form = vec![CREDENTIALS, ("token", "x")];
            if how != "basic" {
                form.push(("client_id", id));
            }
            if how == "post" {
                form.push(("client_secret", secret));
            }
            app.post(path, (how == "basic").then_some((id, secret)), &form).await
        };
        for (id, registered) in [("backend", "basic"), ("poster", "post"), ("native", "none")] {
            for how in ["basic", "post", "none"] {
                let answer = ask(id, how, SECRET).await;
                if how == registered {
                    // What a public client may do there is another question.
                    assert!(registered == "none" || answer.status == 200, "{path} {id} {how} {answer:?}");
                } else {
                    answer.refused(401, "invalid_client");
                }
            }
        }
        for (id, how, secret) in [
            ("backend", "basic", "wrong"),
            ("backend", "basic", ""),
            ("poster", "post", "wrong"),
            ("nobody", "basic", SECRET),
            ("nobody", "none", ""),
        ] {
            ask(id, how, secret).await.refused(401, "invalid_client");
        }
    }
}

#[tokio::test]
async fn a_malformed_basic_header_is_401_with_a_challenge() {
    let app = IssuerApp::start().await;
    for path in ["/token", "/introspect", "/revoke"] {
        for malformed in ["Basic", "Basic !!!", "Basic bm9jb2xvbg==", "Bearer x"] {
            let mut request = posted(path, None, &[CREDENTIALS, ("token", "x")]);
            request.headers_mut().insert(header::AUTHORIZATION, malformed.parse().unwrap());
            let answer = app.app.send(request).await;
            answer.refused(401, "invalid_client");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Basic realm="), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_client_is_told_so_that_it_registers_again() {
    let app = IssuerApp::start().await;
    let form = [("grant_type", "refresh_token"), ("client_id", "client_gone"), ("refresh_token", "x")];
    app.post("/token", None, &form).await.refused(401, "invalid_client");
}

#[tokio::test]
async fn parameters_come_once_in_a_form_and_never_in_the_address() {
    let app = IssuerApp::start().await;
    let ask = async |path: &str, kind: Option<&str>, body: String| {
        let mut request = Request::post(path).header(header::AUTHORIZATION, basic("backend", SECRET));
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        app.app.send(request.body(Body::from(body)).unwrap()).await
    };
    let kind = "application/x-www-form-urlencoded";
    let form = Some(kind);
    let good = "grant_type=client_credentials".to_owned();
    assert_eq!(ask("/token", Some("application/x-www-form-urlencoded; charset=UTF-8"), good.clone()).await.status, 200);
    ask("/token", Some("application/json"), r#"{"grant_type":"client_credentials"}"#.into())
        .await
        .refused(415, "invalid_request");
    ask("/token", None, good.clone()).await.refused(415, "invalid_request");
    ask("/token?grant_type=client_credentials", form, String::new()).await.refused(400, "invalid_request");
    ask("/token", form, format!("{good}&{good}")).await.refused(400, "invalid_request");
    let with = |count: usize| (1..count).fold(good.clone(), |form, n| format!("{form}&p{n}=x"));
    assert_eq!(ask("/token", form, with(64)).await.status, 200);
    ask("/token", form, with(65)).await.refused(400, "invalid_request");
    ask("/token", form, format!("{good}&x={}", "y".repeat(65_536))).await.refused(413, "invalid_request");
    assert_eq!(app.get("/token?grant_type=client_credentials").await.status, 405);
    // A secret in the address proves nothing.
    let query = format!("/token?client_id=poster&client_secret={}", SECRET.replace(' ', "+"));
    let request = Request::post(query).header(header::CONTENT_TYPE, kind);
    app.app.send(request.body(Body::from(good)).unwrap()).await.refused(401, "invalid_client");
}

#[tokio::test]
async fn whoever_guesses_secrets_waits_and_nobody_else_does() {
    let app = IssuerApp::start().await;
    let ask = async |peer: &str, id: &str, secret: &str| {
        app.app.send_from(peer, posted("/token", Some((id, secret)), &[CREDENTIALS])).await
    };
    for _ in 0..30 {
        ask("192.0.2.1", "backend", "guess").await.refused(401, "invalid_client");
    }
    let late = ask("192.0.2.1", "backend", SECRET).await;
    late.refused(429, "temporarily_unavailable");
    assert_eq!(late.header("retry-after"), Some("60"));
    let late =
        app.app.send_from("192.0.2.1", posted("/introspect", Some(("backend", SECRET)), &[("token", "x")])).await;
    late.refused(429, "temporarily_unavailable");
    assert_eq!(ask("192.0.2.2", "backend", SECRET).await.status, 200, "the client itself is elsewhere");
    assert_eq!(ask("192.0.2.1", "gate", SECRET).await.status, 200, "another client");
    app.app.clock.advance(Duration::from_mins(1));
    assert_eq!(ask("192.0.2.1", "backend", SECRET).await.status, 200);
}

#[tokio::test]
async fn behind_a_proxy_those_it_speaks_for_are_counted_each_for_themselves() {
    let app = IssuerApp::start().await;
    let ask = async |peer: &str, told: &str, secret: &str| {
        let mut request = posted("/token", Some(("backend", secret)), &[CREDENTIALS]);
        request.headers_mut().insert("x-forwarded-for", told.parse().unwrap());
        app.app.send_from(peer, request).await
    };
    for _ in 0..30 {
        ask(PROXY, "198.51.100.7", "guess").await.refused(401, "invalid_client");
    }
    ask(PROXY, "198.51.100.7", SECRET).await.refused(429, "temporarily_unavailable");
    assert_eq!(ask(PROXY, "198.51.100.8", SECRET).await.status, 200, "somebody else behind it");
    assert_eq!(ask("192.0.2.1", "198.51.100.7", SECRET).await.status, 200, "nobody speaks for others unasked");
}

#[tokio::test]
async fn assertions_are_counted_by_the_client_that_they_name() {
    let stored = TokenKey::generate(Algorithm::Es256, &[7; 32]).unwrap();
    let key = TokenKey::from_stored(Algorithm::Es256, &stored).unwrap();
    let jwk = key.public_jwk().unwrap();
    let app = IssuerApp::with(|told| {
        for id in ["signer", "other"] {
            let mut signer = client(id, AuthMethod::PrivateKeyJwt, &[GrantType::ClientCredentials]);
            signer.metadata.jwks = Some(serde_json::from_value(json!({"keys": [jwk]})).unwrap());
            told.clients.push(signer);
        }
    })
    .await;
    let now = app.app.clock.now().wall.as_second();
    let ask = async |id: &str, aud: &str, jti: usize| {
        let claims = json!({"iss": id, "sub": id, "aud": aud, "exp": now + 60, "jti": jti.to_string()});
        let assertion = signed(&stored, key.kid(), &claims);
        let form = [CREDENTIALS, ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &*assertion)];
        app.app.send_from("192.0.2.1", posted("/token", None, &form)).await
    };
    for jti in 0..30 {
        ask("signer", "https://other.example", jti).await.refused(401, "invalid_client");
    }
    ask("signer", ISSUER, 30).await.refused(429, "temporarily_unavailable");
    assert_eq!(ask("other", ISSUER, 31).await.status, 200, "another client");
}

#[tokio::test]
async fn whoever_guesses_under_many_names_waits_as_well() {
    let app = IssuerApp::start().await;
    for n in 0..600 {
        let request = posted("/token", Some((&format!("client-{n}"), "guess")), &[CREDENTIALS]);
        app.app.send_from("2001:db8::1", request).await.refused(401, "invalid_client");
    }
    let ask = async |peer: &str| {
        app.app.send_from(peer, posted("/token", Some(("backend", SECRET)), &[CREDENTIALS])).await.status.as_u16()
    };
    assert_eq!(ask("2001:db8::2").await, 429, "any address of a /64 is the same customer's");
    assert_eq!(ask("2001:db8:0:1::1").await, 200);
}

#[tokio::test]
async fn a_client_that_is_refused_is_seen_in_the_log_and_its_secret_is_not() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = IssuerApp::start().await;
    let ask = async |id: &str, secret: &str| app.post("/token", Some((id, secret)), &[CREDENTIALS]).await;
    assert_eq!(ask("backend", SECRET).await.status, 200);
    ask("nobody", "hunter2").await.refused(401, "invalid_client");
    assert!(!log.text().contains("client_refused"), "{}", log.text());
    for _ in 0..40 {
        ask("backend", "hunter2").await;
    }
    ask("poster", SECRET).await.refused(401, "invalid_client");
    let text = log.text();
    let events: Vec<_> = text.lines().filter(|line| line.contains("client_refused")).collect();
    assert_eq!(events.len(), 31, "who is held back is not heard: {text}");
    for (event, client) in [(events[0], "client=backend"), (events[30], "client=poster")] {
        for part in ["WARN", "audit", client] {
            assert!(event.contains(part), "{part}: {event}");
        }
    }
    assert!(!text.contains("hunter2") && !text.contains(SECRET), "{text}");
}

/// RFC 6749 2.3.1 has both halves form-encoded, which `curl -u` and others leave out.
#[tokio::test]
async fn a_chosen_secret_counts_encoded_and_as_it_is() {
    const CHOSEN: &str = "a+b%20c%FF&100% sure";
    let app = IssuerApp::with(|told| {
        let mut plus = client("plus+%41", AuthMethod::ClientSecretBasic, &[GrantType::ClientCredentials]);
        plus.secret = Some(CHOSEN.into());
        told.clients.push(plus);
    })
    .await;
    let ask = async |basic: String| {
        let mut request = posted("/token", None, &[CREDENTIALS]);
        request.headers_mut().insert(header::AUTHORIZATION, basic.parse().unwrap());
        app.app.send(request).await
    };
    let raw = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    assert_eq!(ask(basic("plus+%41", CHOSEN)).await.status, 200);
    assert_eq!(ask(raw(&format!("plus+%41:{CHOSEN}"))).await.status, 200);
    for wrong in ["a b c", "a+b c%FF&100% sure", ""] {
        ask(raw(&format!("plus+%41:{wrong}"))).await.refused(401, "invalid_client");
    }
}

#[tokio::test]
async fn a_client_of_some_resources_gets_tokens_for_no_other() {
    let app = IssuerApp::with(|told| {
        told.resources = vec![resource("https://a.example", "a"), resource("https://b.example", "b")];
        let mut bound = client("bound", AuthMethod::ClientSecretBasic, &[GrantType::ClientCredentials]);
        bound.resources = Some(BTreeSet::from([Resource::parse("https://a.example").unwrap()]));
        told.clients.push(bound);
    })
    .await;
    let ask = async |resource: &str| {
        app.post("/token", Some(("bound", SECRET)), &[CREDENTIALS, ("resource", resource)]).await
    };
    assert_eq!(ask("https://a.example").await.status, 200);
    ask("https://b.example").await.refused(400, "invalid_target");
}

#[tokio::test]
async fn an_assertion_is_for_us_alive_and_used_once() {
    let stored = TokenKey::generate(Algorithm::Es256, &[7; 32]).unwrap();
    let key = TokenKey::from_stored(Algorithm::Es256, &stored).unwrap();
    let jwk = key.public_jwk().unwrap();
    let app = IssuerApp::with(|told| {
        let mut signer = client("signer", AuthMethod::PrivateKeyJwt, &[GrantType::ClientCredentials]);
        signer.metadata.jwks = Some(serde_json::from_value(json!({"keys": [jwk]})).unwrap());
        told.clients.push(signer);
    })
    .await;
    let now = app.app.clock.now().wall.as_second();
    let claims = |change: Value| {
        let mut all =
            json!({"iss": "signer", "sub": "signer", "aud": ISSUER, "iat": now, "exp": now + 60, "jti": "j1"});
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        signed(&stored, key.kid(), &all)
    };
    let ask = async |assertion: &str| {
        let form = [CREDENTIALS, ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)];
        app.post("/token", None, &form).await
    };
    let good = claims(json!({}));
    assert_eq!(ask(&good).await.status, 200);
    ask(&good).await.refused(401, "invalid_client");
    assert_eq!(ask(&claims(json!({"jti": "j2", "aud": format!("{ISSUER}/token")}))).await.status, 200);
    for wrong in [
        json!({"jti": "j3", "aud": "https://other.example"}),
        json!({"jti": "j4", "exp": now - 60}),
        json!({"jti": "j5", "exp": now + 86_400 * 30}),
        json!({"jti": "j6", "iss": "backend", "sub": "backend"}),
        json!({"jti": "j8", "iss": "backend"}),
        json!({"jti": null}),
    ] {
        ask(&claims(wrong.clone())).await.refused(401, "invalid_client");
    }
    let other = TokenKey::generate(Algorithm::Es256, &[8; 32]).unwrap();
    let all = json!({"iss": "signer", "sub": "signer", "aud": ISSUER, "exp": now + 60, "jti": "j7"});
    ask(&signed(&other, key.kid(), &all)).await.refused(401, "invalid_client");
}

pub(super) fn signed(pkcs8: &[u8], kid: &str, claims: &Value) -> String {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some(kid.to_owned());
    jsonwebtoken::encode(&header, claims, &jsonwebtoken::EncodingKey::from_ec_der(pkcs8)).unwrap()
}
