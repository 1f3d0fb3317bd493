//! Backend sessions over HTTP: one test per thing that a backend, or a browser, relies on.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use tokenkeep_core::{Role, ports::Clock as _};
use tokenkeep_engine::{issuer::ProtectedResource, sessions::SessionSettings};
use tokenkeep_oauth::issuer::{jws::Algorithm, metadata::Issuer as IssuerUrl, resource::Resource, scope::ScopeSet};
use tokenkeep_server::Settings as HttpSettings;

use crate::{
    app::{Answered, TestApp, json_request},
    issuer,
};

const ORIGIN: &str = "https://app.example.com";

fn settings(issuer: &str) -> SessionSettings {
    SessionSettings {
        issuer: IssuerUrl::parse(issuer).unwrap(),
        resource: ProtectedResource {
            resource: Resource::parse("https://api.example.com").unwrap(),
            name: None,
            scopes: ScopeSet::default(),
            algorithm: Some(Algorithm::Es256),
            signing_secret: None,
            introspectors: BTreeSet::new(),
            exchangers: BTreeSet::new(),
            needs_upstream: false,
            upstreams: Vec::new(),
        },
        ttl: Duration::from_hours(4),
        grace: Duration::from_mins(1),
        websocket_ttl: Duration::from_mins(5),
        refresh_token_ttl: Some(Duration::from_hours(24)),
        allowed_origins: vec![ORIGIN.to_owned()],
    }
}

/// An application with sessions, and with the integration `fake`.
struct Backend(TestApp);

impl Backend {
    async fn start() -> Self {
        let sessions = |told: &mut tokenkeep_engine::Settings| {
            told.sessions = Some(Arc::new(settings("http://localhost:7420")));
        };
        let app = TestApp::with(sessions, HttpSettings::default()).await;
        app.integrate().await;
        Self(app)
    }

    /// Signs `subject` in, as a backend does after its own login.
    async fn login(&self, subject: &str, more: Value) -> Value {
        let answer = self.try_login(subject, more).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.json()
    }

    async fn try_login(&self, subject: &str, more: Value) -> Answered {
        let issued = self.0.provider.seed(subject);
        let mut body = json!({
            "subject": subject, "email": format!("{subject}@example.com"), "provider": "fake",
            "tokens": {"access_token": issued.access_token, "refresh_token": issued.refresh_token, "expires_in": 3600},
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.0.post("/v1/sessions", body).await
    }

    /// Asks as the session's caller.
    async fn ask(&self, method: &str, path: &str, token: &Value) -> Answered {
        self.ask_with(method, path, token, Body::empty()).await
    }

    async fn ask_with(&self, method: &str, path: &str, token: &Value, body: Body) -> Answered {
        let request = bearing(method, path, token).header(header::CONTENT_TYPE, "application/json");
        self.0.send(request.body(body).unwrap()).await
    }
}

fn bearing(method: &str, path: &str, token: &Value) -> http::request::Builder {
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer)
}

fn claims(token: &Value) -> Value {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_login_answers_what_a_backend_hands_on() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({})).await;
    assert_eq!((&session["token_type"], &session["expires_in"]), (&json!("Bearer"), &json!(2700)));
    assert!(session.get("refresh_token").is_none() && session["upstream_expires_at"].is_string());
    let claims = claims(&session["access_token"]);
    assert_eq!((&claims["sub"], &claims["type"]), (&json!("alice"), &json!("api")));
    assert_eq!(claims["email"], "alice@example.com");

    let token = &session["access_token"];
    let upstream = backend.ask("POST", "/v1/sessions/upstream-token", token).await;
    assert_eq!((upstream.status.as_u16(), upstream.header("cache-control")), (200, Some("no-store")));
    assert_eq!(upstream.json()["token_type"], "Bearer");
    let key = backend.0.get("/v1/connections/fake/_default/alice/token").await.json();
    assert_eq!(upstream.json()["access_token"], key["access_token"]);

    let current = backend.ask("GET", "/v1/sessions/current", token).await.json();
    assert_eq!(current["session_id"], session["session_id"]);
    assert_eq!(current["connection"], "fake/_default/alice");
    assert_eq!((&current["near_expiry"], &current["expires_in"]), (&json!(false), &json!(2700)));
    assert_eq!(current["upstream"]["status"], "active");
    assert!(!current.to_string().contains(key["access_token"].as_str().unwrap()), "no secrets");
}

#[tokio::test]
async fn what_stands_behind_a_session_is_said_in_one_way() {
    let backend = Backend::start().await;
    backend.0.hold("bob", 3600).await;
    let on = |more: Value| {
        let mut body = json!({"subject": "bob"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        backend.0.post("/v1/sessions", body)
    };
    assert_eq!(on(json!({"connection": "fake/_default/bob"})).await.status, 201);
    assert_eq!(on(json!({"provider": "fake"})).await.status, 201);
    let unix = backend.0.clock.now().wall.as_second() + 1800;
    let tokens = json!({"access_token": "x", "expires_at": unix});
    let answer = on(json!({"provider": "fake", "tokens": tokens})).await.json();
    assert_eq!(answer["expires_in"], 900);
    for (wrong, code) in [
        (json!({}), "invalid_request"),
        (json!({"connection": "fake/_default/bob", "provider": "fake"}), "invalid_request"),
        (json!({"connection": "bob"}), "invalid_identifier"),
        (json!({"provider": "fake", "ttl": 0}), "invalid_request"),
        (json!({"provider": "fake", "ttl": 604_801}), "invalid_request"),
        (json!({"provider": "fake", "subject": ""}), "invalid_identifier"),
        (json!({"provider": "fake", "secret": "x"}), "invalid_request"),
        (json!({"provider": "fake", "tokens": {"access_token": "x", "expires_at": "soon"}}), "invalid_request"),
    ] {
        on(wrong).await.problem(400, code);
    }
    on(json!({"connection": "fake/_default/nobody"})).await.problem(404, "connection_not_found");
}

#[tokio::test]
async fn a_refresh_reaches_the_browser_twice_and_the_old_token_lives_on() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({})).await;
    let token = &session["access_token"];
    let one = backend.ask("POST", "/v1/sessions/refresh", token).await;
    assert_eq!(one.status, 200, "{one:?}");
    let body = one.json();
    assert_eq!(one.header("x-new-access-token"), body["access_token"].as_str());
    assert_eq!(body["session_id"], session["session_id"]);
    let two = backend.ask("POST", "/v1/sessions/refresh", token).await.json();
    assert_eq!(claims(&two["access_token"]), claims(&body["access_token"]));
    assert_eq!(backend.ask("POST", "/v1/sessions/upstream-token", token).await.status, 200);
    backend.0.clock.advance(Duration::from_secs(60));
    backend.ask("POST", "/v1/sessions/upstream-token", token).await.problem(401, "invalid_session");
    assert_eq!(backend.ask("POST", "/v1/sessions/upstream-token", &body["access_token"]).await.status, 200);
}

#[tokio::test]
async fn a_refresh_token_of_ours_needs_nothing_beside_it() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({"refresh_token": true})).await;
    backend.0.clock.advance(Duration::from_hours(10));
    let with = |token: &Value| {
        let body = json!({"refresh_token": token});
        backend.0.send(json_request(Request::post("/v1/sessions/refresh"), &body))
    };
    let woken = with(&session["refresh_token"]).await;
    assert_eq!(woken.status, 200, "{woken:?}");
    assert_eq!(woken.header("x-new-access-token"), woken.json()["access_token"].as_str());
    assert_ne!(woken.json()["refresh_token"], session["refresh_token"]);
    let upstream = backend.ask("POST", "/v1/sessions/upstream-token", &woken.json()["access_token"]).await;
    assert_eq!(upstream.status, 200);
    with(&json!("no such")).await.problem(401, "invalid_session");
    let nothing = backend.0.send(Request::post("/v1/sessions/refresh").body(Body::empty()).unwrap()).await;
    nothing.problem(401, "invalid_session");
}

#[tokio::test]
async fn one_more_token_and_one_for_a_websocket() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({})).await;
    let token = &session["access_token"];
    let body = Body::from(json!({"ttl": 120}).to_string());
    let other = backend.ask_with("POST", "/v1/sessions/reissue", token, body).await.json();
    assert_eq!(other["expires_in"], 120);
    assert_eq!(backend.ask("POST", "/v1/sessions/reissue", token).await.json()["expires_in"], 2700);
    let socket = backend.ask("POST", "/v1/sessions/websocket", token).await.json();
    assert_eq!(socket["expires_in"], 300);
    assert_eq!(backend.ask("POST", "/v1/sessions/upstream-token", &socket["access_token"]).await.status, 200);
    backend.ask("POST", "/v1/sessions/refresh", &socket["access_token"]).await.problem(403, "forbidden");
    let current = backend.ask("GET", "/v1/sessions/current", &socket["access_token"]).await.json();
    assert_eq!(current["websocket"], true);
}

#[tokio::test]
async fn a_logout_ends_all_of_it() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({"refresh_token": true})).await;
    let token = &session["access_token"];
    let other = backend.ask("POST", "/v1/sessions/reissue", token).await.json();
    assert_eq!(backend.ask("DELETE", "/v1/sessions/current", token).await.status, 204);
    for token in [token, &other["access_token"]] {
        for (method, path) in [
            ("GET", "/v1/sessions/current"),
            ("POST", "/v1/sessions/upstream-token"),
            ("POST", "/v1/sessions/refresh"),
            ("POST", "/v1/sessions/reissue"),
            ("POST", "/v1/sessions/websocket"),
            ("DELETE", "/v1/sessions/current"),
        ] {
            let refused = backend.ask(method, path, token).await;
            refused.problem(401, "invalid_session");
            assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
    }
    let body = json!({"refresh_token": session["refresh_token"]});
    let refused = backend.0.send(json_request(Request::post("/v1/sessions/refresh"), &body)).await;
    refused.problem(401, "invalid_session");
    assert_eq!(backend.0.get("/v1/connections/fake/_default/alice").await.status, 200, "the connection stays");
}

#[tokio::test]
async fn who_must_sign_in_again_is_told_so_and_an_outage_is_no_such_thing() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({"ttl": 36_000})).await;
    let token = &session["access_token"];
    backend.0.clock.advance(Duration::from_hours(2));
    backend.0.provider.fault(tokenkeep_testkit::Fault::server_error());
    let down = backend.ask("POST", "/v1/sessions/upstream-token", token).await;
    down.problem(503, "provider_unavailable");
    assert!(down.header("retry-after").is_some());
    backend.0.clock.advance(Duration::from_mins(5));
    backend.0.provider.revoke_subject("alice");
    let over = backend.ask("POST", "/v1/sessions/upstream-token", token).await.problem(401, "reauth_required");
    assert_eq!(over["connect"]["subject"], "alice");
    backend.ask("POST", "/v1/sessions/refresh", token).await.problem(401, "reauth_required");
    assert_eq!(backend.ask("GET", "/v1/sessions/current", token).await.json()["upstream"]["status"], "reauth_required");
    backend.0.clock.advance(Duration::from_mins(2));
    backend.0.break_store(true);
    backend.ask("GET", "/v1/sessions/current", token).await.problem(503, "store_unavailable");
}

#[tokio::test]
async fn issuing_and_counting_take_a_key() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({})).await;
    let body = json!({"subject": "alice", "provider": "fake"});
    for (role, expected) in [(Role::Application, 201), (Role::Operator, 403), (Role::Reader, 403)] {
        let key = backend.0.key(role, &[]).await;
        let request = bearing("POST", "/v1/sessions", &json!(key));
        assert_eq!(backend.0.send(json_request(request, &body)).await.status, expected, "{role:?}");
    }
    let acme = backend.0.key(Role::Application, &["acme"]).await;
    let request = bearing("POST", "/v1/sessions", &json!(acme));
    backend.0.send(json_request(request, &body)).await.problem(403, "forbidden");
    for (method, path) in [("GET", "/v1/sessions/stats"), ("POST", "/v1/sessions/cleanup")] {
        backend.ask(method, path, &session["access_token"]).await.problem(401, "invalid_api_key");
        backend.ask(method, path, &json!(backend.0.key(Role::Reader, &[]).await)).await.problem(403, "forbidden");
    }
    let key = json!(backend.0.key(Role::Application, &[]).await);
    let stats = backend.ask("GET", "/v1/sessions/stats", &key).await.json();
    let expected = json!({"total_tokens": 2, "expired_tokens": 0, "active_tokens": 2, "active_sessions": 2,
        "storage_type": "memory"});
    assert_eq!(stats, expected);
    assert_eq!(backend.ask("POST", "/v1/sessions/cleanup", &key).await.json(), json!({"removed": 0}));
    // Nor is a key a session.
    backend.ask("POST", "/v1/sessions/upstream-token", &json!(backend.0.key)).await.problem(401, "invalid_session");
}

/// RFC 9068: a token is for one audience. An MCP client's leads to no upstream token here, and a session's opens nothing
/// else.
#[tokio::test]
async fn tokens_for_others_are_refused_both_ways() {
    let told = |settings: &mut tokenkeep_engine::Settings| {
        settings.issuer = Some(Arc::new(issuer::settings()));
        settings.sessions = Some(Arc::new(self::settings(issuer::ISSUER)));
    };
    let app = TestApp::with(told, HttpSettings::default()).await;
    app.integrate().await;
    let backend = Backend(app);
    let session = backend.login("alice", json!({})).await;
    assert_eq!(claims(&session["access_token"])["iss"], issuer::ISSUER);
    for path in ["/verify", "/verify?resource=https%3A%2F%2Ffiles.example%2Fmcp"] {
        let refused = backend.ask("GET", path, &session["access_token"]).await;
        assert_eq!(refused.status, 403, "{refused:?}");
    }
    let named = backend.ask("GET", "/verify?resource=https%3A%2F%2Fapi.example.com", &session["access_token"]).await;
    assert_eq!(named.status, 400, "{named:?}");

    let form = |resource: &str| format!("grant_type=client_credentials&resource={resource}");
    let of = |body: String| {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let basic = BASE64_STANDARD.encode(format!("backend:{}", issuer::SECRET.replace(' ', "+")));
        Request::post("/token")
            .header(header::AUTHORIZATION, format!("Basic {basic}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap()
    };
    let refused = backend.0.send(of(form("https%3A%2F%2Fapi.example.com"))).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (400, &json!("invalid_target")));
    let other = backend.0.send(of(form("https%3A%2F%2Ffiles.example%2Fmcp"))).await.json();
    for (method, path) in [("POST", "/v1/sessions/upstream-token"), ("GET", "/v1/sessions/current")] {
        backend.ask(method, path, &other["access_token"]).await.problem(401, "invalid_session");
    }
    let taken = json!({"client_id": "_sessions", "grant_types": ["client_credentials"]});
    backend.0.post("/v1/clients", taken).await.problem(400, "invalid_request");
}

#[tokio::test]
async fn pages_of_the_applications_own_origin_may_read_all_but_the_upstream_token() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({})).await;
    let preflight = |path: &'static str, origin: &'static str| {
        let request = Request::options(path)
            .header(header::ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization");
        backend.0.send(request.body(Body::empty()).unwrap())
    };
    let allowed = "access-control-allow-origin";
    for path in ["current", "refresh", "reissue", "websocket"] {
        let path: &'static str = match path {
            "current" => "/v1/sessions/current",
            "refresh" => "/v1/sessions/refresh",
            "reissue" => "/v1/sessions/reissue",
            _ => "/v1/sessions/websocket",
        };
        assert_eq!(preflight(path, ORIGIN).await.header(allowed), Some(ORIGIN), "{path}");
        assert_eq!(preflight(path, "https://evil.example").await.header(allowed), None, "{path}");
    }
    for path in ["/v1/sessions/upstream-token", "/v1/sessions", "/v1/sessions/stats"] {
        assert_eq!(preflight(path, ORIGIN).await.header(allowed), None, "{path}");
    }
    let request = bearing("POST", "/v1/sessions/refresh", &session["access_token"]).header(header::ORIGIN, ORIGIN);
    let answer = backend.0.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header(allowed), Some(ORIGIN));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("x-new-access-token"));
    assert_eq!(answer.header("access-control-allow-credentials"), None, "no cookie counts here");
}

#[tokio::test]
async fn operators_see_and_end_sessions_as_grants_and_others_check_them() {
    let backend = Backend::start().await;
    let session = backend.login("alice", json!({})).await;
    let id = session["session_id"].as_str().unwrap();
    let listed = backend.0.get("/v1/grants?client=_sessions").await.json();
    assert_eq!((&listed["items"][0]["id"], listed["items"].as_array().unwrap().len()), (&json!(id), 1));
    let jwks = backend.0.send(Request::get("/jwks").body(Body::empty()).unwrap()).await;
    assert!(!jwks.json()["keys"].as_array().unwrap().is_empty());
    let nowhere = backend.0.send(Request::post("/token").body(Body::empty()).unwrap()).await;
    nowhere.problem(404, "route_not_found");
    backend.0.get("/v1/clients").await.problem(404, "no_issuer");
    assert_eq!(backend.0.delete(&format!("/v1/grants/{id}")).await.status, 204);
    backend.ask("GET", "/v1/sessions/current", &session["access_token"]).await.problem(401, "invalid_session");

    let session = backend.login("alice", json!({})).await;
    assert_eq!(backend.0.delete("/v1/subjects/_default/alice").await.status, 204);
    backend.ask("GET", "/v1/sessions/current", &session["access_token"]).await.problem(401, "invalid_session");
    backend.0.delete("/v1/subjects/_default/alice").await.problem(404, "not_found");
}

#[tokio::test]
async fn where_there_are_none_that_is_said() {
    let app = TestApp::start().await;
    app.post("/v1/sessions", json!({"subject": "alice", "provider": "fake"})).await.problem(404, "no_sessions");
    app.get("/v1/sessions/stats").await.problem(404, "no_sessions");
    let jwks = app.send(Request::get("/jwks").body(Body::empty()).unwrap()).await;
    jwks.problem(404, "route_not_found");
}
