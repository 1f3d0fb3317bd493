//! What somebody finds who gets hold of the database, the log or the metrics.

use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use tokenkeep_core::ports::{Filter, Kind, Query, Record, Scope};
use tokenkeep_engine::issuer::Upstream;

use super::{
    CALLBACK, SECRET, client,
    pages::{VERIFIER, answer_of, app_with, approve, open, request},
    posted, upstreams,
};
use crate::{
    app::{TestApp, json_request},
    browser::{Browser, consent},
    operations::Log,
};

async fn dump(app: &TestApp) -> Vec<Record> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let query = Query { scope: Scope::Every, kind, filter: Filter::All, limit: 1000, cursor: None };
        let page = app.store.list(&query).await.unwrap();
        assert!(page.next.is_none());
        all.extend(page.records);
    }
    all
}

/// The record as whoever steals it reads it: everything that is in it, one after the other.
fn bytes_of(record: &Record) -> Vec<u8> {
    let mut bytes = format!("{:?} {:?} {:?} {:?} ", record.key, record.version, record.labels, record.sealed_by);
    bytes.push_str(&String::from_utf8_lossy(&record.sealed));
    bytes.into_bytes()
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

fn parameter(url: &str, name: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    url.query_pairs().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}: {url}")).1.into_owned()
}

#[tokio::test]
async fn neither_records_nor_logs_nor_metrics_hold_anything_that_can_be_used() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = app_with(|told| {
        use tokenkeep_oauth::issuer::client::{AuthMethod, GrantType};
        told.upstreams = vec![Upstream::Integration("fake".parse().unwrap())];
        told.clients.push(client("backend", AuthMethod::ClientSecretBasic, &[GrantType::ClientCredentials]));
    })
    .await;
    let mut found: Vec<(&str, String)> = vec![("chosen secret", SECRET.to_owned()), ("admin key", app.key.clone())];
    let mut records = Vec::new();

    let body = json!({"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_post"});
    let registered = app.send(json_request(Request::post("/register"), &body)).await.json();
    for name in ["client_secret", "registration_access_token"] {
        found.push((name, registered[name].as_str().unwrap().to_owned()));
    }

    // The whole way, with a look into the store at every step of it.
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    found.push(("csrf", crate::browser::csrf_of(&page)));
    found.extend(browser.cookies.values().map(|cookie| ("cookie", cookie.clone())));
    records.extend(dump(&app).await);
    let away = browser.post(&app, &address, &approve(&page, "fake")).await;
    let provider = away.header("location").unwrap();
    found.push(("state to the provider", parameter(provider, "state")));
    records.extend(dump(&app).await);
    let callback = consent(provider).await;
    found.push(("the provider's code", parameter(&callback, "code")));
    let code = answer_of(&browser.get(&app, &callback).await)["code"].clone();
    found.push(("code", code.clone()));
    records.extend(dump(&app).await);
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "web"),
        ("code", &*code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let first = app.send(posted("/token", None, &form)).await.json();
    let second = upstreams::refresh(&app, &first).await.json();
    let machine = app.send(posted("/token", Some(("backend", SECRET)), &[("grant_type", "client_credentials")])).await;
    found.push(("machine's access token", machine.json()["access_token"].as_str().unwrap().to_owned()));
    for tokens in [&first, &second] {
        for name in ["access_token", "refresh_token"] {
            found.push((name, tokens[name].as_str().unwrap().to_owned()));
        }
    }
    let access_token = second["access_token"].as_str().unwrap();
    assert_eq!(app.send(super::bearing("/verify", access_token)).await.status, 200);
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    found.push(("signature", signature(access_token)));
    let upstream = app.get("/v1/connections/fake/_default/fake%7Cfake-user/token").await.json();
    found.push(("the provider's access token", upstream["access_token"].as_str().unwrap().to_owned()));
    for family in app.provider.families() {
        found.extend(family.refresh_tokens.into_iter().map(|refresh| ("the provider's refresh token", refresh.token)));
    }
    found.push(("the client secret at the provider", "fake-client-secret".to_owned()));
    // What is refused is not told either.
    app.send(posted("/token", Some(("backend", "canary-wrong-secret")), &[("grant_type", "client_credentials")])).await;
    app.send(posted("/token", None, &form)).await.refused(400, "invalid_grant");
    let request =
        Request::get("/verify?access_token=canary-query").header(header::AUTHORIZATION, "Bearer canary-token");
    app.send(request.body(Body::empty()).unwrap()).await;
    found.extend(["canary-wrong-secret", "canary-query", "canary-token"].map(|canary| ("refused", canary.to_owned())));
    records.extend(dump(&app).await);

    assert!(found.len() >= 18 && found.iter().all(|(_, secret)| secret.len() >= 10), "{found:?}");
    for kind in [Kind::Client, Kind::Grant, Kind::Interaction, Kind::SigningKeys, Kind::Connection] {
        assert!(records.iter().any(|record| record.key.kind == kind && !record.deleted), "{kind:?} was not looked at");
    }
    let metrics = app.get("/metrics").await.text().to_owned();
    let log = log.text();
    assert!(log.contains("token_issued") && log.contains("grant_made"), "{log}");
    for (what, secret) in &found {
        for record in &records {
            assert!(!holds(&bytes_of(record), secret), "{what}: {:?}", record.key);
            assert!(!holds(&record.sealed, secret), "{what}: {:?}", record.key);
        }
        assert!(!holds(log.as_bytes(), secret), "{what} is in the log");
        assert!(!holds(metrics.as_bytes(), secret), "{what} is in the metrics");
    }
}
