//! The fast lane answers `/verify`, `/introspect` and `/token` as the router does, and takes what it is meant to take.

use axum::body::Body;
use http::{Request, header};
use serde_json::Value;

use super::{FILES, IssuerApp, PROXY, SECRET, basic, bearing, posted, resource};
use crate::fast_lane::{hits, without_request_id};

/// Asks both, and says whether the lane took it.
async fn same(app: &IssuerApp, request: impl Fn() -> Request<Body>) -> bool {
    let before = hits(&app.app).await;
    let named = request().headers().contains_key("x-request-id");
    let fast = without_request_id(app.app.send(request()).await, named);
    let taken = hits(&app.app).await > before;
    let slow = without_request_id(app.app.send_slowly(request()).await, named);
    assert_eq!(without_new_token(fast), without_new_token(slow), "{:?}", request());
    taken
}

/// Two tokens are never the same; all else that is said with them is.
fn without_new_token(answer: (u16, Vec<(String, String)>, Vec<u8>)) -> (u16, Vec<(String, String)>, Value) {
    let (status, headers, body) = answer;
    let mut body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if let Some(token) = body.get_mut("access_token") {
        assert_eq!(token.as_str().unwrap().split('.').count(), 3);
        *token = Value::Null;
    }
    (status, headers, body)
}

#[tokio::test]
async fn both_lanes_verify_the_same() {
    let app = IssuerApp::with(|told| told.resources[0] = resource("https://files.example/mcp?a+b", "read write")).await;
    let native = app.allow_for("native", "read", "https://files.example/mcp?a+b").await;
    let reply = app.redeem(&native).await.json();
    let token = reply["access_token"].as_str().unwrap();
    let machine = app.machine_token("backend").await;
    for token in [token, &*machine] {
        assert_eq!(app.verified("", token).await.status, 200);
    }
    let encoded = "resource=https%3A%2F%2Ffiles.example%2Fmcp%3Fa%2Bb";
    for (uri, taken) in [
        ("/verify".to_owned(), true),
        ("/verify?scope=read".to_owned(), true),
        (format!("/verify?{encoded}"), true),
        (format!("/verify?{encoded}&scope=read"), true),
        ("/verify?resource=https://files.example/mcp?a+b".to_owned(), false),
        (format!("/verify?scope=read&{encoded}"), false),
        (format!("/verify?{encoded}&{encoded}"), false),
        ("/verify?scope=read%20".to_owned(), false),
        ("/verify?scope=write".to_owned(), false),
        ("/verify?scope=read&scope=write".to_owned(), false),
        ("/verify?".to_owned(), false),
        ("/verify?x=1".to_owned(), false),
        ("/verify/".to_owned(), false),
    ] {
        assert_eq!(same(&app, || bearing(&uri, token)).await, taken, "{uri}");
    }
    assert!(same(&app, || bearing("/verify?scope=read+write", &machine)).await);
    let change = |headers: &[(&'static str, &str)]| {
        let mut request = bearing("/verify", token);
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    };
    assert!(same(&app, || change(&[("x-request-id", "mine-1"), ("accept", "*/*")])).await);
    assert!(same(&app, || change(&[("x-original-url", "https://elsewhere.example")])).await, "nobody said it");
    assert!(!same(&app, || change(&[("authorization", "Bearer x")])).await);
    assert!(!same(&app, || bearing("/verify", "nonsense")).await);
    assert!(!same(&app, || Request::get("/verify").body(Body::empty()).unwrap()).await);
    for method in ["HEAD", "POST"] {
        let request = || {
            let mut request = bearing("/verify", token);
            *request.method_mut() = method.parse().unwrap();
            request
        };
        assert!(!same(&app, request).await);
    }
}

#[tokio::test]
async fn the_lane_leaves_the_words_of_proxies_and_other_resources_to_the_router() {
    let app = IssuerApp::with(|told| told.resources.push(resource("https://other.example", "read"))).await;
    let form = [("grant_type", "client_credentials"), ("resource", FILES)];
    let reply = app.post("/token", Some(("backend", SECRET)), &form).await.json();
    let token = reply["access_token"].as_str().unwrap();
    assert_eq!(app.verified(&format!("?resource={FILES}"), token).await.status, 200);
    assert!(same(&app, || bearing(&format!("/verify?resource={FILES}"), token)).await);
    assert!(!same(&app, || bearing("/verify?resource=https://other.example", token)).await, "403");
    assert!(!same(&app, || bearing("/verify", token)).await, "400");
    let mut told = bearing("/verify", token);
    told.headers_mut().insert("x-original-url", "https://other.example/x".parse().unwrap());
    assert_eq!(app.app.send_from(PROXY, told).await.status, 403);
    let alone = IssuerApp::start().await;
    let token = alone.machine_token("backend").await;
    assert_eq!(alone.verified("", &token).await.status, 200);
    let mut told = bearing("/verify", &token);
    told.headers_mut().insert("x-original-url", "https://other.example/x".parse().unwrap());
    assert_eq!(alone.app.send_from(PROXY, told).await.status, 403, "though there is only one, and the token is its");
}

#[tokio::test]
async fn both_lanes_introspect_the_same() {
    let app = IssuerApp::start().await;
    let token = app.machine_token("backend").await;
    let other = app.redeem(&app.allow("native", "read").await).await.json();
    assert_eq!(app.introspected(&token).await["active"], true);
    let kind = "application/x-www-form-urlencoded";
    let ask = |credentials: &str, kind: &str, body: String| {
        Request::post("/introspect")
            .header(header::AUTHORIZATION, credentials)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap()
    };
    // The secret of the others has spaces, which Basic encodes.
    let plain = "Basic cGxhaW46cGxhaW4=";
    for (id, taken) in [("gate", false), ("web", false)] {
        assert_eq!(same(&app, || posted("/introspect", Some((id, SECRET)), &[("token", &token)])).await, taken);
    }
    let with_plain = IssuerApp::with(|told| {
        let mut plain = told.clients[0].clone();
        (plain.id, plain.secret) = ("plain".parse().unwrap(), Some("plain".into()));
        told.resources[0].introspectors.insert(plain.id.clone());
        told.clients.push(plain);
    })
    .await;
    let token = with_plain.machine_token("backend").await;
    let unseen = with_plain.machine_token("backend").await;
    assert_eq!(with_plain.introspected(&token).await["active"], true);
    for (body, taken) in [
        (format!("token={token}"), true),
        (format!("token={token}&token_type_hint=access_token"), true),
        (format!("token_type_hint=access_token&token={token}"), false),
        (format!("token={token}&token={token}"), false),
        (format!("token={token}&client_id=other"), false),
        (format!("token={token}&client_secret=plain"), false),
        (format!("token={}", token.replace('.', "%2E")), false),
        ("token=nonsense".to_owned(), false),
        ("token=".to_owned(), false),
        (String::new(), false),
        (format!("token={token}&x={}", "y".repeat(5000)), false),
        (format!("token={}", other["refresh_token"].as_str().unwrap()), false),
    ] {
        assert_eq!(same(&with_plain, || ask(plain, kind, body.clone())).await, taken, "{body}");
    }
    let body = || format!("token={token}");
    assert!(!same(&with_plain, || ask("Basic cGxhaW46d3Jvbmc=", kind, body())).await, "a wrong secret");
    assert!(!same(&with_plain, || ask("Basic !", kind, body())).await);
    assert!(!same(&with_plain, || ask("Bearer x", kind, body())).await);
    assert!(!same(&with_plain, || ask(&basic("poster", SECRET), kind, body())).await);
    assert!(!same(&with_plain, || ask(plain, "text/plain", body())).await);
    let get = || Request::get("/introspect").header(header::AUTHORIZATION, plain).body(Body::empty()).unwrap();
    assert!(!same(&with_plain, get).await);
    // What the lane has read of an unusual request, the router still gets.
    assert!(!same(&with_plain, || ask(plain, kind, format!("token={unseen}"))).await);
    assert!(same(&with_plain, || ask(plain, kind, format!("token={unseen}"))).await, "now it is known");
}

#[tokio::test]
async fn both_lanes_issue_the_same() {
    let app = IssuerApp::with(|told| {
        let mut plain = told.clients.iter().find(|known| known.id.as_str() == "backend").unwrap().clone();
        (plain.id, plain.secret) = ("plain".parse().unwrap(), Some("plain".into()));
        told.clients.push(plain);
    })
    .await;
    let credentials = "Basic cGxhaW46cGxhaW4=";
    let ask = |path: &str, credentials: &str, body: &str| {
        Request::post(path)
            .header(header::AUTHORIZATION, credentials)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    for (body, taken) in [
        ("grant_type=client_credentials", true),
        ("grant_type=client_credentials&scope=read", true),
        ("scope=read&grant_type=client_credentials&resource=https%3A%2F%2Ffiles.example%2Fmcp", true),
        ("grant_type=client_credentials&scope=nonsense", false),
        ("grant_type=client_credentials&resource=https://other.example", false),
        ("grant_type=client_credentials&grant_type=client_credentials", false),
        ("grant_type=client_credentials&client_id=plain", false),
        ("grant_type=client_credentials&client_secret=plain", false),
        ("grant_type=authorization_code&code=x", false),
        ("grant_type=refresh_token&refresh_token=x", false),
        ("grant_type=password", false),
        ("", false),
    ] {
        assert_eq!(same(&app, || ask("/token", credentials, body)).await, taken, "{body}");
    }
    let body = "grant_type=client_credentials";
    assert!(!same(&app, || ask("/token?x=1", credentials, body)).await);
    assert!(!same(&app, || ask("/token", "Basic cGxhaW46d3Jvbmc=", body)).await, "a wrong secret");
    let from_a_site = || {
        let mut request = ask("/token", credentials, body);
        request.headers_mut().insert(header::ORIGIN, "https://app.example".parse().unwrap());
        request
    };
    assert!(same(&app, from_a_site).await);
}

#[tokio::test]
async fn whoever_guesses_secrets_finds_out_in_neither_lane() {
    let app = IssuerApp::with(|told| told.clients[2].secret = Some("plain".into())).await;
    let token = app.machine_token("backend").await;
    let ask = async |secret: &str| {
        let request = posted("/introspect", Some(("gate", secret)), &[("token", &token)]);
        app.app.send_from("192.0.2.1", request).await.status.as_u16()
    };
    assert_eq!((ask("plain").await, ask("plain").await), (200, 200));
    for _ in 0..30 {
        assert_eq!(ask("guess").await, 401);
    }
    assert_eq!(ask("plain").await, 429);
    app.app.clock.advance(std::time::Duration::from_mins(1));
    assert_eq!(ask("plain").await, 200);
}

#[tokio::test]
async fn what_is_revoked_is_known_in_neither_lane() {
    let app = IssuerApp::start().await;
    let token = app.machine_token("backend").await;
    for _ in 0..2 {
        assert_eq!(app.verified("", &token).await.status, 200);
    }
    app.post("/revoke", Some(("backend", SECRET)), &[("token", &token)]).await;
    assert_eq!(app.verified("", &token).await.status, 401);
    assert_eq!(app.introspected(&token).await, serde_json::json!({"active": false}));
}
