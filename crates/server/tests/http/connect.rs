//! A user consents in a browser: the pages, their cookies, and what comes of it.

use std::collections::BTreeMap;

use http::Request;
use serde_json::json;
use tokenkeep_core::Role;

use crate::{
    app::{TestApp, json_request},
    browser::{Browser, consent, csrf_of},
};

async fn start(app: &TestApp, body: serde_json::Value) -> (String, String) {
    let started = app.post("/v1/connect", body).await;
    assert_eq!(started.status, 200, "{started:?}");
    let started = started.json();
    assert_eq!(started["status"], "pending");
    assert_eq!(started["expires_in"], 600);
    (started["connect_id"].as_str().unwrap().to_owned(), started["authorize_url"].as_str().unwrap().to_owned())
}

async fn app() -> TestApp {
    let app = TestApp::start().await;
    app.integrate().await;
    app
}

#[tokio::test]
async fn a_user_consents_and_the_connection_is_there() {
    let app = app().await;
    let (id, link) = start(&app, json!({"provider": "fake", "subject": "alice", "scope": "mail.read <b>"})).await;
    let mut browser = Browser::default();

    let page = browser.get(&app, &link).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let (_, nonce) = page.text().split_once("<style nonce=\"").unwrap();
    let (nonce, _) = nonce.split_once('"').unwrap();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' https: http://localhost:* \
         http://127.0.0.1:*; frame-ancestors 'none'; base-uri 'none'"
    );
    assert_eq!(page.header("content-security-policy"), Some(&*policy));
    for shown in ["Fake &#38; Sons", "alice", "mail.read", "&#60;b&#62;"] {
        assert!(page.text().contains(shown), "{shown}: {}", page.text());
    }
    assert!(!page.text().contains("<b>") && !page.text().contains("<script"));

    let away = browser.post(&app, &link, &format!("csrf={}", csrf_of(&page))).await;
    assert_eq!(away.status, 303, "{away:?}");
    let provider = away.header("location").unwrap();
    assert!(provider.starts_with(&app.provider.issuer()), "{provider}");
    assert!(provider.contains("code_challenge_method=S256"), "{provider}");

    let back = browser.get(&app, &consent(provider).await).await;
    assert_eq!(back.status, 200, "{back:?}");
    assert!(back.text().contains("Connected"), "{}", back.text());
    assert_eq!(app.get(&format!("/v1/connect/{id}")).await.json()["status"], "connected");
    let token = app.get("/v1/connections/fake/_default/alice/token").await;
    assert!(app.provider.is_access_live(token.json()["access_token"].as_str().unwrap()));
}

#[tokio::test]
async fn the_application_is_told_and_confirms() {
    let app = app().await;
    let application = app.key(Role::Application, &[]).await;
    let as_application = |path: &str, body| json_request(Request::post(path).header("x-api-key", &application), &body);
    let body = json!({
        "provider": "fake", "tenant": "acme", "subject": "alice", "return_to": "https://app.example.com/done?x=1",
    });
    let started = app.send(as_application("/v1/connect", body)).await.json();
    let (id, link) = (started["connect_id"].as_str().unwrap(), started["authorize_url"].as_str().unwrap());
    let mut browser = Browser::default();
    let away = browser.open(&app, link).await;
    let back = browser.get(&app, &consent(away.header("location").unwrap()).await).await;
    assert_eq!(back.status, 303);
    let returned: url::Url = back.header("location").unwrap().parse().unwrap();
    assert!(returned.as_str().starts_with("https://app.example.com/done?x=1&"), "{returned}");
    let parameters: BTreeMap<_, _> = returned.query_pairs().into_owned().collect();
    assert_eq!(parameters["connect_id"], id);
    let path = "/v1/connections/fake/acme/alice";
    assert_eq!(app.get(path).await.json()["status"], "pending");
    app.get(&format!("{path}/token")).await.problem(404, "connection_not_found");

    let confirm = format!("/v1/connect/{id}/confirm");
    let code = &parameters["code"];
    for wrong in [json!({"subject": "mallory", "code": code}), json!({"subject": "alice", "code": "guess"})] {
        app.send(as_application(&confirm, wrong)).await.problem(403, "forbidden");
    }
    let confirmed = app.send(as_application(&confirm, json!({"subject": "alice", "code": code}))).await;
    assert_eq!(confirmed.status, 200, "{confirmed:?}");
    assert_eq!(confirmed.json()["status"], "active");
    assert_eq!(app.get(&format!("{path}/token")).await.status, 200);
}

#[tokio::test]
async fn a_form_post_callback_finds_its_browser() {
    let app = app().await;
    let (_, link) = start(&app, json!({"provider": "fake", "subject": "alice"})).await;
    let mut browser = Browser::default();
    let away = browser.open(&app, &link).await;
    let callback = consent(away.header("location").unwrap()).await;
    let (url, form) = callback.split_once('?').unwrap();
    // What is not needed is left behind, whatever its size.
    let form = format!("{form}&id_token={}", "x".repeat(8000));

    let hop = browser.post_from_elsewhere(&app, url, &form).await;
    assert_eq!(hop.status, 303, "{hop:?}");
    assert_eq!(hop.header("location"), Some("/oauth/return"), "the code is not in the address");
    app.get("/v1/connections/fake/_default/alice").await.problem(404, "connection_not_found");
    let end = browser.get(&app, "/oauth/return").await;
    assert!(end.text().contains("Connected"), "{}", end.text());
    assert!(!browser.cookies.contains_key("tokenkeep-returned"), "{:?}", browser.cookies.keys());
    assert_eq!(app.get("/v1/connections/fake/_default/alice").await.json()["status"], "active");
}

#[tokio::test]
async fn every_callback_address_is_the_same() {
    for address in ["/oauth/callback", "/callback", "/oauth/fake/callback"] {
        let app = app().await;
        let (_, link) = start(&app, json!({"provider": "fake", "subject": "alice"})).await;
        let mut browser = Browser::default();
        let away = browser.open(&app, &link).await;
        let callback = consent(away.header("location").unwrap()).await;
        let (_, query) = callback.split_once('?').unwrap();
        let end = browser.get(&app, &format!("{address}?{query}")).await;
        assert!(end.text().contains("Connected"), "{address}: {}", end.text());
    }
}

#[tokio::test]
async fn another_browser_gets_nothing() {
    let app = app().await;
    let (_, link) = start(&app, json!({"provider": "fake", "subject": "alice"})).await;
    let (mut first, mut second) = (Browser::default(), Browser::default());
    let away = first.open(&app, &link).await;
    let refused = second.open(&app, &link).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.header("location").is_none());
    let callback = consent(away.header("location").unwrap()).await;
    let stolen = second.get(&app, &callback).await;
    assert_eq!(stolen.status, 403, "{stolen:?}");
    app.get("/v1/connections/fake/_default/alice").await.problem(404, "connection_not_found");
    assert!(first.get(&app, &callback).await.text().contains("Connected"));
    assert_eq!(first.get(&app, &callback).await.status, 404, "a callback counts once");
}

#[tokio::test]
async fn only_a_click_on_our_page_leaves() {
    let app = app().await;
    let (_, link) = start(&app, json!({"provider": "fake", "subject": "alice"})).await;
    let mut browser = Browser::default();
    let page = browser.get(&app, &link).await;
    let csrf = format!("csrf={}", csrf_of(&page));
    for (answer, why) in [
        (browser.post_from_elsewhere(&app, &link, &csrf).await, "no cookie"),
        (browser.post(&app, &link, "csrf=guess").await, "another token"),
        (browser.post(&app, &link, "").await, "no token"),
    ] {
        assert_eq!(answer.status, 400, "{why}: {answer:?}");
        assert!(answer.header("location").is_none(), "{why}");
    }
    assert_eq!(browser.post(&app, &link, &csrf).await.status, 303);
}

#[tokio::test]
async fn a_refusal_is_said_kindly_and_stores_nothing() {
    let app = app().await;
    app.provider.configure(|config| config.user_denies = true);
    let (id, link) = start(&app, json!({"provider": "fake", "subject": "alice"})).await;
    let mut browser = Browser::default();
    let away = browser.open(&app, &link).await;
    let end = browser.get(&app, &consent(away.header("location").unwrap()).await).await;
    assert_eq!(end.status, 200);
    assert!(end.text().contains("Not connected"), "{}", end.text());
    assert_eq!(app.get(&format!("/v1/connect/{id}")).await.json()["status"], "denied");
}

#[tokio::test]
async fn links_and_answers_of_nobody_lead_nowhere_and_show_nothing() {
    let app = app().await;
    let mut browser = Browser::default();
    for path in [
        "/connect/none",
        "/connect/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/oauth/callback",
        "/oauth/callback?state=%3Cscript%3E&code=%3Cscript%3Ealert(1)",
        "/oauth/callback?error=%3Cscript%3E&error_description=%3Cscript%3E&state=x",
        "/callback?code=s3cret&state=01ARZ3NDEKTSV4RRFFQ69G5FAV.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "/oauth/return",
        "/oauth/fake/callback?state=",
    ] {
        let answer = browser.get(&app, path).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert!(answer.header("content-security-policy").unwrap().contains("form-action 'none'"));
        let text = answer.text();
        assert!(!text.contains("<script") && !text.contains("s3cret"), "{path}: {text}");
    }
    let long = browser.post_from_elsewhere(&app, "/oauth/callback", &"x".repeat(70_000)).await;
    assert_eq!(long.status, 413);
    let codes = format!("code={}&state={}&iss={}", "c".repeat(2000), "s".repeat(2000), "i".repeat(2000));
    assert_eq!(browser.post_from_elsewhere(&app, "/oauth/callback", &codes).await.status, 400);
}

#[tokio::test]
async fn over_https_cookies_belong_to_this_host_alone() {
    let app = TestApp::with(
        |settings| settings.public_url = "https://tokens.example.com".parse().unwrap(),
        tokenkeep_server::Settings::default(),
    )
    .await;
    app.integrate().await;
    let (_, link) = start(&app, json!({"provider": "fake", "subject": "alice"})).await;
    assert!(link.starts_with("https://tokens.example.com/connect/"));
    let mut browser = Browser::default();
    let page = browser.get(&app, &link).await;
    assert!(page.header("set-cookie").unwrap().ends_with("; Secure"));
    let away = browser.post(&app, &link, &format!("csrf={}", csrf_of(&page))).await;
    assert_eq!(away.status, 303);
    let names: Vec<_> = browser.cookies.keys().map(String::as_str).collect();
    assert_eq!(names, ["__Host-tokenkeep-connect", "__Host-tokenkeep-csrf"]);
    assert!(page.header("content-security-policy").unwrap().contains("; form-action 'self' https:; "));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let app = app().await;
    for (body, status, code) in [
        (json!({"provider": "Fake"}), 400, "invalid_identifier"),
        (json!({"provider": "fake", "tenant": ".."}), 400, "invalid_identifier"),
        (json!({"provider": "fake", "return_to": "nowhere"}), 400, "invalid_request"),
        (json!({"provider": "fake", "return_to": "https://evil.example/"}), 400, "invalid_request"),
        (json!({"provider": "fake", "return_to": "https://app.example.com.evil.example/"}), 400, "invalid_request"),
        (json!({"provider": "fake", "return_to": "javascript:alert(1)"}), 400, "invalid_request"),
        (json!({"provider": "fake", "confirm": true}), 400, "invalid_request"),
        (json!({"subject": "alice"}), 400, "invalid_request"),
        (json!({"provider": "google"}), 502, "integration_missing"),
    ] {
        let answer = app.post("/v1/connect", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["code"].as_str()),
            (status, Some(code)),
            "{body}: {answer:?}"
        );
    }
    let none = "/v1/connect/01ARZ3NDEKTSV4RRFFQ69G5FAV";
    app.get(none).await.problem(404, "connect_not_found");
    let confirm = json!({"subject": "alice", "code": "x"});
    app.post(&format!("{none}/confirm"), confirm).await.problem(404, "connect_not_found");
    app.get("/v1/connect/x").await.problem(400, "invalid_identifier");
}
