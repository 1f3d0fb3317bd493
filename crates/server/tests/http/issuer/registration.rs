//! Clients that register themselves.

use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use tokenkeep_engine::issuer::Registration;

use super::{CALLBACK, ISSUER, IssuerApp};
use crate::app::{Answered, json_request};

fn public() -> Value {
    json!({"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none", "client_name": "Editor"})
}

fn confidential() -> Value {
    json!({"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_post"})
}

async fn register(app: &IssuerApp, body: &Value) -> Answered {
    app.app.send(json_request(Request::post("/register"), body)).await
}

async fn manage(app: &IssuerApp, method: &str, id: &str, token: Option<&str>, body: Option<&Value>) -> Answered {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let mut request = Request::builder().method(method).uri(format!("/register/{id}"));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = match body {
        Some(body) => json_request(request, body),
        None => request.body(Body::empty()).unwrap(),
    };
    app.app.send(request).await
}

#[tokio::test]
async fn a_public_client_registers_once_and_gets_nothing_that_would_be_a_leak() {
    let app = IssuerApp::start().await;
    let first = register(&app, &public()).await;
    assert_eq!(first.status, 201, "{first:?}");
    first.is_for_nobody_else();
    for secret in ["client_secret", "registration_access_token"] {
        assert_eq!(first.json().get(secret), None);
    }
    app.app.clock.advance(Duration::from_mins(5));
    let again = register(&app, &public()).await;
    assert_eq!((again.status.as_u16(), &again.json()["client_id"]), (201, &first.json()["client_id"]));
    let mut other = public();
    other["client_name"] = json!("Another");
    assert_ne!(register(&app, &other).await.json()["client_id"], first.json()["client_id"]);
}

#[tokio::test]
async fn a_confidential_client_manages_its_registration() {
    let app = IssuerApp::start().await;
    let made = register(&app, &confidential()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let (id, token) = (made["client_id"].as_str().unwrap(), made["registration_access_token"].as_str().unwrap());
    assert_eq!(made["registration_client_uri"], format!("{ISSUER}/register/{id}"));
    let secret = made["client_secret"].as_str().unwrap();
    let form = [("grant_type", "authorization_code"), ("code", "x"), ("client_id", id), ("client_secret", secret)];
    app.post("/token", None, &form).await.refused(400, "invalid_grant");

    let seen = manage(&app, "GET", id, Some(token), None).await;
    assert_eq!((seen.status.as_u16(), &seen.json()["client_id"]), (200, &json!(id)));
    assert_eq!(seen.json().get("client_secret"), None, "only its hash is kept");
    let mut changed = confidential();
    changed["client_id"] = json!(id);
    changed["client_name"] = json!("Renamed");
    let answer = manage(&app, "PUT", id, Some(token), Some(&changed)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["client_name"]), (200, &json!("Renamed")));
    app.post("/token", None, &form).await.refused(400, "invalid_grant");

    for (method, body) in [("GET", None), ("PUT", Some(&changed)), ("DELETE", None)] {
        let none = manage(&app, method, id, None, body).await;
        none.refused(401, "invalid_token");
        assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"tokenkeep\""));
        manage(&app, method, id, Some("nonsense"), body).await.refused(401, "invalid_token");
        let wrong = format!("reg-{}", "A".repeat(43));
        manage(&app, method, id, Some(&wrong), body).await.refused(403, "access_denied");
    }
    let gone = manage(&app, "DELETE", id, Some(token), None).await;
    assert_eq!((gone.status.as_u16(), gone.text()), (204, ""));
    assert_eq!(manage(&app, "GET", id, Some(token), None).await.status, 404);
    app.post("/token", None, &form).await.refused(401, "invalid_client");
    for strange in ["a/b", "https://x.example/c", "%", "é"] {
        assert_eq!(manage(&app, "GET", strange, Some(token), None).await.status, 404, "{strange}");
    }
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_bounded_and_checked() {
    let app = IssuerApp::start().await;
    let with = |change: Value| {
        let mut body = public();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    for bad in
        ["javascript:alert(1)", "http://web.example/cb", "https://web.example/cb#f", "http://localhost.evil.example/cb"]
    {
        let answer = register(&app, &with(json!({"redirect_uris": [bad]}))).await;
        answer.refused(400, "invalid_redirect_uri");
    }
    let many: Vec<String> = (0..17).map(|n| format!("{CALLBACK}{n}")).collect();
    register(&app, &with(json!({"redirect_uris": many}))).await.refused(400, "invalid_redirect_uri");
    let large = with(json!({"x": "y".repeat(16 * 1024)}));
    assert_eq!(register(&app, &large).await.status, 413);
    assert_eq!(register(&app, &with(json!({"application_type": "native"}))).await.status, 201);
    let form = Request::post("/register").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    app.app.send(form.body(Body::from("a=b")).unwrap()).await.refused(415, "invalid_client_metadata");
    let broken = Request::post("/register").header(header::CONTENT_TYPE, "application/json");
    app.app.send(broken.body(Body::from("{")).unwrap()).await.refused(400, "invalid_client_metadata");
}

#[tokio::test]
async fn registration_may_need_a_token_or_be_off() {
    let app = IssuerApp::with(|told| told.registration = Registration::Token("initial".into())).await;
    let with = async |token: &str| {
        let request = Request::post("/register").header(header::AUTHORIZATION, format!("Bearer {token}"));
        app.app.send(json_request(request, &public())).await
    };
    let none = register(&app, &public()).await;
    none.refused(401, "invalid_token");
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"tokenkeep\""));
    let wrong = with("wrong").await;
    wrong.refused(401, "invalid_token");
    assert!(wrong.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    assert_eq!(with("initial").await.status, 201);

    let off = IssuerApp::with(|told| told.registration = Registration::Off).await;
    assert_eq!(register(&off, &public()).await.status, 403);
}

#[tokio::test]
async fn the_rate_ceiling_is_for_one_network_and_spares_who_is_known() {
    let app = IssuerApp::start().await;
    let from =
        async |peer: &str, body: &Value| app.app.send_from(peer, json_request(Request::post("/register"), body)).await;
    let company = "2001:db8:0:1::1";
    assert_eq!(from(company, &public()).await.status, 201);
    app.app.clock.advance(Duration::from_secs(2));
    for _ in 0..150 {
        assert_eq!(from(company, &public()).await.status, 201, "a whole company behind one address");
    }
    for n in 0..99 {
        let mut body = public();
        body["client_name"] = json!(format!("Editor {n}"));
        assert_eq!(from("2001:db8:0:1::2", &body).await.status, 201);
    }
    let late = from("2001:db8:0:1::3", &confidential()).await;
    late.refused(429, "temporarily_unavailable");
    assert!(late.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(from(company, &public()).await.status, 201, "it is known");
    assert_eq!(from("2001:db8:0:2::1", &confidential()).await.status, 201, "another network");
    app.app.clock.advance(Duration::from_mins(10));
    assert_eq!(from(company, &confidential()).await.status, 201);
}

#[tokio::test]
async fn who_changes_itself_makes_nobody_elses_tokens_be_asked_for_anew() {
    let app = IssuerApp::start().await;
    let made = register(&app, &confidential()).await.json();
    let (id, token) = (made["client_id"].as_str().unwrap(), made["registration_access_token"].as_str().unwrap());
    let (mine, others) =
        (app.redeem(&app.allow("native", "read").await).await.json(), app.machine_token("backend").await);
    let mine = mine["access_token"].as_str().unwrap();
    for access in [mine, &others] {
        assert_eq!(app.verified("", access).await.status, 200);
    }
    assert_eq!(manage(&app, "PUT", id, Some(token), Some(&confidential())).await.status, 200);
    assert_eq!(manage(&app, "DELETE", id, Some(token), None).await.status, 204);
    app.app.break_store(true);
    for access in [mine, &others] {
        assert_eq!(app.verified("", access).await.status, 200, "it is remembered");
    }
}

#[tokio::test]
async fn whoever_changes_registrations_too_often_waits_and_nobody_else_does() {
    let app = IssuerApp::start().await;
    let made = register(&app, &confidential()).await.json();
    let (id, token) = (made["client_id"].as_str().unwrap(), made["registration_access_token"].as_str().unwrap());
    let from = async |peer: &str, method: &str| {
        let request = Request::builder().method(method).uri(format!("/register/{id}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        app.app.send_from(peer, json_request(request, &confidential())).await
    };
    for _ in 0..600 {
        assert_eq!(from("192.0.2.1", "PUT").await.status, 200);
    }
    for method in ["PUT", "DELETE"] {
        let late = from("192.0.2.1", method).await;
        late.refused(429, "temporarily_unavailable");
        assert_eq!(late.header("retry-after"), Some("60"));
    }
    assert_eq!(from("192.0.2.2", "PUT").await.status, 200, "another network");
    assert_eq!(from("192.0.2.2", "DELETE").await.status, 204);
}

#[tokio::test]
async fn unused_clients_are_forgotten_and_used_ones_live_on() {
    let app = IssuerApp::start().await;
    let id_of = async |name: &str| {
        let mut body = public();
        body["client_name"] = json!(name);
        register(&app, &body).await.json()["client_id"].as_str().unwrap().to_owned()
    };
    let (unused, used) = (id_of("Unused").await, id_of("Used").await);
    let (code, verifier) = app.allow(&used, "read").await;
    let redeem = [
        ("grant_type", "authorization_code"),
        ("client_id", &*used),
        ("code", &*code),
        ("code_verifier", &*verifier),
        ("redirect_uri", CALLBACK),
    ];
    assert_eq!(app.post("/token", None, &redeem).await.status, 200);
    // The use is noted behind the answer.
    while app.app.get(&format!("/v1/clients/{used}")).await.json()["used_at"].is_null() {
        tokio::task::yield_now().await;
    }
    let is_known = async |id: &str| {
        let form = [("grant_type", "authorization_code"), ("client_id", id), ("code", "x")];
        let answer = app.post("/token", None, &form).await;
        let known = answer.status == 400;
        if known {
            answer.refused(400, "invalid_grant");
        } else {
            answer.refused(401, "invalid_client");
        }
        known
    };
    app.app.clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert!(is_known(&unused).await && is_known(&used).await);
    app.app.clock.advance(Duration::from_secs(1));
    assert!(!is_known(&unused).await && is_known(&used).await);
    app.app.clock.advance(Duration::from_hours(91 * 24));
    assert!(!is_known(&used).await);
}

#[tokio::test]
async fn who_proves_itself_is_a_client_of_its_own_and_acts_for_users_only() {
    let app = IssuerApp::start().await;
    let mut body = confidential();
    body["grant_types"] = json!(["authorization_code", "client_credentials"]);
    let (first, second) = (register(&app, &body).await.json(), register(&app, &body).await.json());
    for differs in ["client_id", "client_secret", "registration_access_token"] {
        assert_ne!(first[differs], second[differs], "{differs}");
    }
    assert_eq!(first["grant_types"], json!(["authorization_code"]));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", first["client_id"].as_str().unwrap()),
        ("client_secret", first["client_secret"].as_str().unwrap()),
    ];
    app.post("/token", None, &form).await.refused(400, "unauthorized_client");
    body["grant_types"] = json!(["client_credentials"]);
    register(&app, &body).await.refused(400, "invalid_client_metadata");
}
