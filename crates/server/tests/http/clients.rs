//! Clients of our authorization server are made, shown, changed and removed; their secrets are shown once.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tokenkeep_core::{ClientId, IntegrationId, Role};
use tokenkeep_engine::issuer::{Admitted, ConfigClient, IssuerSettings, ProtectedResource, Registration, Upstream};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::{AuthMethod, ClientMetadata, GrantType},
        jws::Algorithm,
        metadata::Issuer as IssuerUrl,
        resource::Resource,
        scope::ScopeSet,
        token::Credential,
    },
};
use tokenkeep_server::Settings as HttpSettings;

use crate::app::{TestApp, json_request};

pub(crate) const RESOURCE: &str = "https://mcp.example.com/mcp";

/// With an authorization server for one resource, one client in its configuration, and an application's own pages.
pub(crate) async fn issuing() -> TestApp {
    let resource = ProtectedResource {
        resource: Resource::parse(RESOURCE).unwrap(),
        name: Some("Example MCP".to_owned()),
        scopes: ScopeSet::parse("mcp files").unwrap(),
        algorithm: None,
        signing_secret: None,
        introspectors: [ClientId::new("configured").unwrap()].into(),
        exchangers: [].into(),
        needs_upstream: false,
        upstreams: Vec::new(),
    };
    let configured = ConfigClient {
        id: ClientId::new("configured").unwrap(),
        metadata: ClientMetadata::new(AuthMethod::ClientSecretBasic, [GrantType::ClientCredentials]),
        secret: Some(Secret::from("configured-client-secret")),
        resources: None,
    };
    let settings = IssuerSettings {
        url: IssuerUrl::parse("http://localhost:7420").unwrap(),
        registration: Registration::Open,
        document_hosts: Default::default(),
        access_token_ttl: std::time::Duration::from_hours(1),
        refresh_token_ttl: std::time::Duration::from_hours(24),
        algorithm: Algorithm::Es256,
        upstreams: vec![Upstream::Integration(IntegrationId::new("fake").unwrap())],
        resources: vec![resource],
        admitted: Admitted::default(),
        interaction_url: Some("https://app.example.com/sign-in".parse().unwrap()),
        clients: vec![configured],
        trusted_proxies: Default::default(),
    };
    TestApp::with(
        |all| all.issuer = Some(Arc::new(settings)),
        HttpSettings { open_metrics: true, ..HttpSettings::default() },
    )
    .await
}

/// Whether this is the client's secret.
async fn proves(app: &TestApp, id: &str, secret: &str) -> bool {
    let credential = Credential::Basic { client_id: id.to_owned(), secret: Secret::from(secret), as_sent: None };
    app.engine.issuer().unwrap().authenticate(credential).await.is_ok()
}

#[tokio::test]
async fn a_client_works_from_its_making_to_its_end() {
    let app = issuing().await;
    let said = json!({
        "client_name": "Backend", "grant_types": ["client_credentials"], "scope": "mcp", "resources": [RESOURCE],
    });
    let made = app.post("/v1/clients", said).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let (id, secret) = (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    assert!(id.starts_with("client_") && secret.len() == 43, "{made}");
    assert_eq!((&made["origin"], &made["has_secret"]), (&json!("api"), &json!(true)));
    assert!(proves(&app, id, secret).await);

    let path = format!("/v1/clients/{id}");
    let shown = app.get(&path).await;
    assert_eq!(shown.json()["resources"], json!([RESOURCE]));
    assert_eq!(shown.json()["token_endpoint_auth_method"], "client_secret_basic");
    assert!(!shown.text().contains(secret), "shown once");
    let list = app.get("/v1/clients").await;
    assert!(!list.text().contains(secret) && list.text().contains(id));

    let changed = json!({"client_name": "Mailer", "grant_types": ["client_credentials"]});
    let changed = app.put(&path, changed).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!((&changed.json()["client_name"], &changed.json()["resources"]), (&json!("Mailer"), &Value::Null));
    assert_eq!(changed.json()["client_secret"], Value::Null);
    assert!(proves(&app, id, secret).await, "it stays");

    let rotated = app.post(&format!("{path}/secret"), json!({})).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let rotated = rotated.json()["client_secret"].as_str().unwrap().to_owned();
    assert!(proves(&app, id, &rotated).await && !proves(&app, id, secret).await);

    let deleted = app.delete(&path).await;
    assert_eq!((deleted.status.as_u16(), deleted.json()), (200, json!({"grants_revoked": 0})));
    assert!(!proves(&app, id, &rotated).await);
    app.get(&path).await.problem(404, "client_not_found");
    app.delete(&path).await.problem(404, "client_not_found");
}

#[tokio::test]
async fn what_the_operator_chose_is_taken_and_never_shown() {
    let app = issuing().await;
    let said = json!({
        "client_id": "backend", "client_secret": "chosen-by-the-operator", "client_name": "B",
        "grant_types": ["client_credentials"],
    });
    let made = app.post("/v1/clients", said.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.text().contains("chosen-by-the-operator"), "{made:?}");
    assert!(proves(&app, "backend", "chosen-by-the-operator").await);
    app.post("/v1/clients", said).await.problem(412, "already_there");
    let odd = app.post("/v1/clients", json!({"client_id": "a", "client_secret": "SECRETVALUE"})).await;
    odd.problem(400, "invalid_request");
    assert!(!odd.text().contains("SECRETVALUE"));
    app.put("/v1/clients/backend", json!({"client_secret": "x", "grant_types": ["client_credentials"]}))
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn a_client_of_the_configuration_is_shown_and_changed_there() {
    let app = issuing().await;
    assert_eq!(app.get("/v1/clients/configured").await.json()["origin"], "config");
    assert!(!app.get("/v1/clients").await.text().contains("configured-client-secret"));
    let change = json!({"grant_types": ["client_credentials"]});
    app.put("/v1/clients/configured", change.clone()).await.problem(409, "managed_by_config");
    app.delete("/v1/clients/configured").await.problem(409, "managed_by_config");
    app.post("/v1/clients/configured/secret", json!({})).await.problem(409, "managed_by_config");
}

#[tokio::test]
async fn a_client_that_makes_no_sense_is_refused() {
    let app = issuing().await;
    for (said, word) in [
        (json!({}), "redirect_uris"),
        (json!({"redirect_uris": ["javascript:alert(1)"]}), "redirect URI"),
        (json!({"redirect_uris": ["http://localhost.evil.com/"]}), "redirect URI"),
        (json!({"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"}), "proves itself"),
        (json!({"grant_types": ["client_credentials"], "resources": ["https://other.example"]}), "not a resource"),
        (json!({"grant_types": ["client_credentials"], "resources": ["nonsense"]}), "`resources`"),
        (json!({"grant_types": ["client_credentials"], "clientname": "x"}), "`clientname`"),
    ] {
        let problem = app.post("/v1/clients", said.clone()).await.problem(400, "invalid_request");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{said}: {problem}");
    }
    app.post("/v1/clients", json!({"client_id": "\u{e9}", "grant_types": ["client_credentials"]}))
        .await
        .problem(400, "invalid_identifier");
    app.get("/v1/clients?orgin=api").await.problem(400, "invalid_request");
    app.get("/v1/clients?limit=0").await.problem(400, "invalid_request");
}

#[tokio::test]
async fn clients_come_page_by_page() {
    let app = issuing().await;
    for n in 0..5 {
        let said = json!({"client_id": format!("c{n}"), "grant_types": ["client_credentials"]});
        assert_eq!(app.post("/v1/clients", said).await.status, 201);
    }
    let (mut ids, mut path) = (Vec::new(), "/v1/clients?origin=api&limit=2".to_owned());
    loop {
        let page = app.get(&path).await.json();
        ids.extend(page["items"].as_array().unwrap().iter().map(|c| c["client_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/clients?origin=api&limit=2&cursor={next}");
    }
    ids.sort();
    assert_eq!(ids, ["c0", "c1", "c2", "c3", "c4"]);
}

#[tokio::test]
async fn signing_keys_are_rotated_and_the_old_ones_stay_for_their_tokens() {
    let app = issuing().await;
    let phases = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|key| key["phase"].as_str().unwrap().to_owned()).collect()
    };
    let before = app.get("/v1/signing-keys").await.json();
    assert_eq!(phases(&before), ["active", "next"]);
    assert_eq!(before["items"][0]["algorithm"], "ES256");
    let after = app.post("/v1/signing-keys/rotate", json!({"algorithm": "ES256"})).await;
    assert_eq!(after.status, 200, "{after:?}");
    let after = after.json();
    assert_eq!(phases(&after), ["retiring", "active", "next"]);
    assert_eq!(after["items"][1]["kid"], before["items"][1]["kid"], "the one that was announced");
    assert!(after["items"][0]["until"].is_string());
    let empty = app.request("POST", "/v1/signing-keys/rotate").body(Body::empty()).unwrap();
    assert_eq!(app.send(empty).await.json()["items"].as_array().unwrap().len(), 4);
    for word in ["none", "RS256", "HS256"] {
        app.post("/v1/signing-keys/rotate", json!({"algorithm": word})).await.problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn what_is_there_is_counted_and_what_expired_is_removed() {
    let app = issuing().await;
    let stats = app.get("/v1/issuer/stats").await.json();
    assert_eq!((&stats["clients"], &stats["grants"]), (&json!(1), &json!(0)));
    let purge = |query: &'static str| app.post(query, json!({}));
    let dry = purge("/v1/issuer/purge?dry_run=true").await.json();
    assert_eq!((&dry["dry_run"], &dry["removed"]), (&json!(true), &json!(0)));
    assert_eq!(purge("/v1/issuer/purge").await.status, 200);
    purge("/v1/issuer/purge?dryrun=true").await.problem(400, "invalid_request");
}

const ROUTES: [(&str, &str); 16] = [
    ("GET", "/v1/clients"),
    ("POST", "/v1/clients"),
    ("GET", "/v1/clients/configured"),
    ("PUT", "/v1/clients/configured"),
    ("DELETE", "/v1/clients/configured"),
    ("POST", "/v1/clients/configured/secret"),
    ("GET", "/v1/grants"),
    ("DELETE", "/v1/grants?subject=x"),
    ("GET", "/v1/grants/01JD7ZC0000000000000000000"),
    ("DELETE", "/v1/grants/01JD7ZC0000000000000000000"),
    ("GET", "/v1/grants/by-token/x"),
    ("DELETE", "/v1/grants/by-token/x"),
    ("GET", "/v1/issuer/stats"),
    ("POST", "/v1/issuer/purge"),
    ("GET", "/v1/signing-keys"),
    ("POST", "/v1/signing-keys/rotate"),
];

#[tokio::test]
async fn only_who_may_manages_the_authorization_server() {
    let app = issuing().await;
    let client = json!({"grant_types": ["client_credentials"]});
    let send = async |method: &str, path: &str, key: Option<&str>| {
        let request = Request::builder().method(method).uri(path);
        let request = key.into_iter().fold(request, |request, key| request.header("x-api-key", key));
        let has_body = path.starts_with("/v1/clients") && !path.ends_with("/secret");
        let request = match method {
            "POST" | "PUT" if has_body => json_request(request, &client),
            _ => request.body(Body::empty()).unwrap(),
        };
        app.send(request).await
    };
    let bound = app.key(Role::Admin, &["acme"]).await;
    for (method, path) in ROUTES {
        send(method, path, None).await.problem(401, "invalid_api_key");
        for role in [Role::Application, Role::Reader] {
            let key = app.key(role, &[]).await;
            send(method, path, Some(&key)).await.problem(403, "forbidden");
        }
        if !path.contains("signing-keys") {
            send(method, path, Some(&bound)).await.problem(403, "forbidden");
        }
        let operator = app.key(Role::Operator, &[]).await;
        let answer = send(method, path, Some(&operator)).await;
        assert!(answer.status != 401 && answer.status != 403, "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn where_nothing_is_issued_there_is_nothing_to_manage() {
    let app = TestApp::start().await;
    for (method, path) in ROUTES {
        let answer = app.send(json_request(app.request(method, path), &json!({}))).await;
        answer.problem(404, "no_issuer");
    }
}

#[tokio::test]
async fn an_outage_is_no_absence() {
    let app = issuing().await;
    app.break_store(true);
    app.get("/v1/clients/nobody").await.problem(503, "store_unavailable");
    app.get("/v1/grants/01JD7ZC0000000000000000000").await.problem(503, "store_unavailable");
    app.delete("/v1/grants?subject=x").await.problem(503, "store_unavailable");
}
