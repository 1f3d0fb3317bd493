//! An MCP server exchanges the token it was shown for its user's token at the provider (RFC 8693).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::Request;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokenkeep_core::{
    Client, ClientOrigin, Grant,
    ports::{Clock, Expect, Put},
};
use tokenkeep_engine::{
    issuer::{IssuerSettings, ProtectedResource, Upstream},
    records::Loaded,
    sessions::SessionSettings,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::{AuthMethod, GrantType},
        jws::Algorithm,
    },
};
use tokenkeep_server::Settings as HttpSettings;

use super::{
    CALLBACK, SECRET, client,
    pages::{self, VERIFIER, check_page, open, request},
    posted, resource,
    upstreams::{refresh, tokens_by},
};
use crate::{
    app::{Answered, TestApp, json_request},
    browser::{Browser, consent, csrf_of},
    operations::Log,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const OTHER: &str = "https://other.example/mcp";

/// Two resources, each with a server that exchanges what it is shown, and clients that may not.
fn settings(told: &mut IssuerSettings) {
    told.upstreams = vec![Upstream::Integration("fake".parse().unwrap())];
    told.resources[0].exchangers = ids(&["notes-server", "plain", "public", "stored"]);
    told.resources.push(resource(OTHER, "read"));
    told.resources[1].exchangers = ids(&["other-server"]);
    for (id, method, grants) in [
        ("notes-server", AuthMethod::ClientSecretBasic, &[GrantType::TokenExchange][..]),
        ("other-server", AuthMethod::ClientSecretBasic, &[GrantType::TokenExchange, GrantType::ClientCredentials]),
        ("plain", AuthMethod::ClientSecretBasic, &[GrantType::ClientCredentials]),
        ("public", AuthMethod::None, &[GrantType::TokenExchange]),
    ] {
        let mut client = client(id, method, grants);
        client.metadata.client_name = Some(format!("The {id}"));
        told.clients.push(client);
    }
}

fn ids<T: std::str::FromStr + Ord>(ids: &[&str]) -> BTreeSet<T>
where
    T::Err: std::fmt::Debug,
{
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

async fn app() -> TestApp {
    pages::app_with(settings).await
}

/// Somebody signs in for the notes, and allows what the page says; answers their access token.
async fn signed_in(app: &TestApp) -> String {
    text(&sign_in(app).await, "access_token")
}

async fn sign_in(app: &TestApp) -> Value {
    tokens_by(app, &format!("{}&resource={}", request(), urlencoded(pages::NOTES))).await
}

fn urlencoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn text(from: &Value, name: &str) -> String {
    from[name].as_str().unwrap_or_else(|| panic!("no {name}: {from}")).to_owned()
}

fn usual(token: &str) -> [(&'static str, &str); 4] {
    [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ACCESS_TOKEN), ("audience", "fake")]
}

/// What `client` gets for `token`, with some parameters changed: an empty one is absent.
async fn exchange_with(app: &TestApp, client: &str, token: &str, changes: &[(&str, &str)]) -> Answered {
    let usual = [
        ("grant_type", EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", "fake"),
    ];
    let kept = usual.into_iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    let form: Vec<_> = kept.chain(changes.iter().copied()).collect();
    app.send(posted("/token", Some((client, SECRET)), &form)).await
}

async fn exchange(app: &TestApp, client: &str, token: &str) -> Answered {
    exchange_with(app, client, token, &[]).await
}

/// The token that is held for that user of the provider's.
async fn held(app: &TestApp, user: &str) -> String {
    let answer = app.get(&format!("/v1/connections/fake/_default/fake%7C{user}/token")).await;
    text(&answer.json(), "access_token")
}

/// Changes what a user allowed, behind everybody's back.
async fn tamper(app: &TestApp, change: impl FnOnce(&mut Grant)) {
    let listed = app.get("/v1/grants").await.json();
    let id = text(&listed["items"][0], "id").parse().unwrap();
    let Loaded::Live(mut stored) = app.records.load::<Grant>(&id).await.unwrap() else { panic!("no grant") };
    change(&mut stored.value);
    let put = app.records.save(&stored.value, (), Expect::Version(&stored.version)).await.unwrap();
    assert!(matches!(put, Put::Committed(_)));
    // Nothing is remembered for longer than this without a bus.
    app.clock.advance(Duration::from_secs(10));
}

#[tokio::test]
async fn a_resource_gets_its_users_token_and_a_fresh_one_when_it_is_due() {
    let app = app().await;
    let token = signed_in(&app).await;
    let answer = exchange(&app, "notes-server", &token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.is_for_nobody_else();
    let first = answer.json();
    let members: BTreeSet<_> = first.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(members.is_superset(&BTreeSet::from(["access_token", "issued_token_type", "token_type", "expires_in"])));
    assert!(!members.contains("refresh_token"), "{first}");
    assert_eq!((&first["issued_token_type"], &first["token_type"]), (&json!(ACCESS_TOKEN), &json!("Bearer")));
    assert_eq!(first["expires_in"], 3600);
    assert_eq!(text(&first, "access_token"), held(&app, "fake-user").await);

    // The provider's tokens live for a minute now; ours live on.
    app.provider.configure(|provider| provider.token_life = Duration::from_secs(100));
    app.clock.advance(Duration::from_secs(3590));
    let second = exchange(&app, "notes-server", &token).await;
    assert_eq!(second.status, 200, "{second:?}");
    let second = second.json();
    assert_ne!(first["access_token"], second["access_token"]);
    assert!(app.provider.is_access_live(&text(&second, "access_token")));
    assert_eq!((app.provider.calls(), &second["expires_in"]), (2, &json!(100)));
    let metrics = app.get("/metrics").await.text().to_owned();
    assert!(metrics.contains(&format!("grant_type=\"{EXCHANGE}\"}} 2")), "{metrics}");
}

#[tokio::test]
async fn only_a_confidential_client_of_the_operators_with_the_right_may() {
    let app = app().await;
    let token = signed_in(&app).await;
    exchange(&app, "plain", &token).await.refused(400, "unauthorized_client");
    let form = [
        ("grant_type", EXCHANGE),
        ("client_id", "public"),
        ("subject_token", &*token),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", "fake"),
    ];
    app.send(posted("/token", None, &form)).await.refused(400, "unauthorized_client");
    let form = [form[0], form[2], form[3], form[4]];
    app.send(posted("/token", Some(("notes-server", "wrong")), &form)).await.refused(401, "invalid_client");
    exchange_with(&app, "notes-server", &token, &[("client_id", "web")]).await.refused(400, "invalid_request");

    // One that registered itself does not get the grant type, and would not get further if it had it.
    let body = json!({
        "redirect_uris": [CALLBACK], "grant_types": ["authorization_code", EXCHANGE],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let registered = app.send(json_request(Request::post("/register"), &body)).await;
    assert_eq!((registered.status.as_u16(), &registered.json()["grant_types"]), (201, &json!(["authorization_code"])));
    let made = json!({"client_id": "stored", "grant_types": [EXCHANGE]});
    let secret = text(&app.post("/v1/clients", made).await.json(), "client_secret");
    let form = usual(&token);
    let by_stored = async || app.send(posted("/token", Some(("stored", &secret)), &form)).await;
    assert_eq!(by_stored().await.status, 200, "the operator made it");
    let id = "stored".parse().unwrap();
    let Loaded::Live(known) = app.records.load::<Client>(&id).await.unwrap() else { panic!("no client") };
    let used_at = Some(app.clock.now().wall);
    let changed = Client { origin: ClientOrigin::Registered { management: None }, used_at, ..known.value };
    app.records.save(&changed, (), Expect::Version(&known.version)).await.unwrap();
    app.clock.advance(Duration::from_secs(10));
    by_stored().await.refused(400, "unauthorized_client");
}

#[tokio::test]
async fn a_token_for_another_resource_is_not_exchanged() {
    let app = app().await;
    let token = signed_in(&app).await;
    tamper(&app, |grant| grant.exchangers.extend(ids(&["other-server"]))).await;
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
    exchange(&app, "other-server", &token).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn what_the_user_did_not_allow_is_not_handed_out() {
    for allowed in [&[][..], &["other-server"], &["plain", "public", "stored"]] {
        let app = app().await;
        let token = signed_in(&app).await;
        tamper(&app, |grant| grant.exchangers = ids(allowed)).await;
        exchange(&app, "notes-server", &token).await.refused(400, "consent_required");
    }
}

#[tokio::test]
async fn another_users_connection_is_never_reached() {
    let app = app().await;
    let mine = signed_in(&app).await;
    app.provider.configure(|provider| provider.user = "bob".to_owned());
    let bobs = signed_in(&app).await;
    for (token, user) in [(&mine, "fake-user"), (&bobs, "bob"), (&mine, "fake-user")] {
        let answer = exchange(&app, "notes-server", token).await;
        assert_eq!(text(&answer.json(), "access_token"), held(&app, user).await);
    }
    assert_ne!(held(&app, "bob").await, held(&app, "fake-user").await);
    app.put("/v1/integrations/more", json!({"provider": "fake", "client_id": "a", "client_secret": "b"})).await;
    let held = app.put("/v1/connections/more/_default/fake%7Cfake-user", json!({"access_token": "x"})).await;
    assert_eq!(held.status, 201, "{held:?}");
    for audience in ["more", "fake/_default/fake|bob", "fake|bob", "github", "..", "FAKE"] {
        let answer = exchange_with(&app, "notes-server", &mine, &[("audience", audience)]).await;
        answer.refused(400, "invalid_target");
    }
}

#[tokio::test]
async fn a_subject_token_that_does_not_count_is_not_exchanged() {
    let app = app().await;
    let all = sign_in(&app).await;
    let (token, refresh_token) = (text(&all, "access_token"), text(&all, "refresh_token"));
    for (subject_token, subject_token_type) in [
        (&*refresh_token, ACCESS_TOKEN),
        (&refresh_token, REFRESH_TOKEN),
        (&token, REFRESH_TOKEN),
        (&token, "urn:ietf:params:oauth:token-type:id_token"),
        (&token, "urn:ietf:params:oauth:token-type:saml2"),
        ("not a token", ACCESS_TOKEN),
        (&held(&app, "fake-user").await, ACCESS_TOKEN),
    ] {
        let changes = [("subject_token", subject_token), ("subject_token_type", subject_token_type)];
        exchange_with(&app, "notes-server", "", &changes).await.refused(400, "invalid_request");
    }
    for change in [
        ("actor_token", &*token),
        ("requested_token_type", REFRESH_TOKEN),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", ""),
        ("audience", ""),
    ] {
        exchange_with(&app, "notes-server", &token, &[change]).await.refused(400, "invalid_request");
    }
    exchange_with(&app, "notes-server", &token, &[("resource", pages::NOTES)]).await.refused(400, "invalid_target");

    // A backend's own token has no user behind it.
    let form = [("grant_type", "client_credentials"), ("resource", OTHER)];
    let machine = app.send(posted("/token", Some(("other-server", SECRET)), &form)).await.json();
    exchange(&app, "other-server", &text(&machine, "access_token")).await.refused(400, "invalid_target");

    // Another is made before this one expires, and then the grant is revoked.
    app.clock.advance(Duration::from_secs(3599));
    let second = refresh(&app, &all).await.json();
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
    app.clock.advance(Duration::from_secs(1));
    exchange(&app, "notes-server", &token).await.refused(400, "invalid_request");
    let token = text(&second, "access_token");
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
    let grant = text(&app.get("/v1/grants").await.json()["items"][0], "id");
    assert_eq!(app.delete(&format!("/v1/grants/{grant}")).await.status, 204);
    exchange(&app, "notes-server", &token).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn no_scope_is_promised_that_the_account_was_not_connected_with() {
    let app = app().await;
    let token = signed_in(&app).await;
    for scope in ["email", "profile email"] {
        let answer = exchange_with(&app, "notes-server", &token, &[("scope", scope)]).await;
        let granted = text(&answer.json(), "scope");
        assert!(granted.contains("email") && granted.contains("profile"), "what it is good for is said: {granted}");
    }
    for scope in ["mail", "email admin"] {
        exchange_with(&app, "notes-server", &token, &[("scope", scope)]).await.refused(400, "invalid_scope");
    }
}

/// Opens the link and consents as `user`; answers what they see in the end.
async fn connect(app: &TestApp, link: &str, user: &str) -> Answered {
    app.provider.configure(|provider| user.clone_into(&mut provider.user));
    let mut browser = Browser::default();
    let page = browser.get(app, link).await;
    check_page(&page, 200);
    let away = browser.post(app, link, &format!("csrf={}", csrf_of(&page))).await;
    browser.get(app, &consent(away.header("location").unwrap()).await).await
}

#[tokio::test]
async fn where_the_connection_ended_its_own_user_is_shown_the_way_back_and_nobody_else() {
    let app = app().await;
    app.provider.configure(|provider| provider.token_life = Duration::from_secs(100));
    let token = signed_in(&app).await;
    app.provider.revoke_subject("fake-user");
    app.clock.advance(Duration::from_secs(100));
    let refused = exchange(&app, "notes-server", &token).await;
    refused.refused(400, "interaction_required");
    let link = text(&refused.json(), "connect_url");
    assert!(link.starts_with("http://localhost:7420/connect/"), "{link}");
    let again = exchange(&app, "notes-server", &token).await.json();
    assert_eq!(text(&again, "connect_url"), link, "whoever asks every second gets the same link");

    let elsewhere = connect(&app, &link, "mallory").await;
    assert!(elsewhere.text().contains("another_account"), "{}", elsewhere.text());
    assert_eq!(app.provider.families().iter().filter(|f| f.subject == "mallory" && !f.revoked).count(), 0);
    let refused = exchange(&app, "notes-server", &token).await;
    refused.refused(400, "interaction_required");
    let second = text(&refused.json(), "connect_url");
    assert_ne!(second, link, "that one is spent");

    let back = connect(&app, &second, "fake-user").await;
    assert_eq!(back.status, 200, "{back:?}");
    assert!(back.text().contains("Connected"), "{}", back.text());
    let answer = exchange(&app, "notes-server", &token).await;
    assert_eq!(text(&answer.json(), "access_token"), held(&app, "fake-user").await);

    // One that was deleted is as one that ended.
    assert_eq!(app.delete("/v1/connections/fake/_default/fake%7Cfake-user").await.status, 204);
    let refused = exchange(&app, "notes-server", &token).await;
    refused.refused(400, "interaction_required");
    connect(&app, &text(&refused.json(), "connect_url"), "fake-user").await;
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
}

#[tokio::test]
async fn an_outage_is_one_and_says_nothing_of_the_token() {
    let app = app().await;
    app.provider.configure(|provider| provider.token_life = Duration::from_secs(100));
    let token = signed_in(&app).await;
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
    let is_outage = |answer: &Answered| {
        answer.refused(503, "temporarily_unavailable");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    };
    app.break_store(true);
    app.clock.advance(Duration::from_secs(10));
    is_outage(&exchange(&app, "notes-server", &token).await);
    app.break_store(false);
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);

    // The provider is down, and the token that is there is dead.
    app.provider.faults(20, tokenkeep_testkit::Fault::server_error());
    app.clock.advance(Duration::from_secs(100));
    is_outage(&exchange(&app, "notes-server", &token).await);
}

#[tokio::test]
async fn the_page_says_who_may_use_the_account() {
    let app = app().await;
    let says = |page: &Answered| page.text().contains("may use your account");
    let mut browser = Browser::default();
    let of = |url: &str| format!("{}&resource={}", request(), urlencoded(url));
    let (_, page) = open(&mut browser, &app, &of(pages::NOTES)).await;
    check_page(&page, 200);
    assert!(says(&page), "{}", page.text());
    for shown in ["The notes-server", "Fake &#38; Sons", "stored"] {
        assert!(page.text().contains(shown), "{shown}: {}", page.text());
    }
    assert!(!page.text().contains("other-server"));

    let plain = pages::app().await;
    let (_, page) = open(&mut browser, &plain, &of(pages::NOTES)).await;
    assert!(!says(&page), "nobody asks for it: {}", page.text());

    // Who signs in with a key has no account that could be used.
    let local = pages::app_with(|told| {
        settings(told);
        told.upstreams = vec![Upstream::LocalAdministrator];
    })
    .await;
    let (_, page) = open(&mut browser, &local, &of(pages::NOTES)).await;
    assert!(!says(&page), "{}", page.text());
}

#[tokio::test]
async fn it_is_advertised_where_some_client_may() {
    let supported = async |app: &TestApp| {
        let document = app.get("/.well-known/oauth-authorization-server").await.json();
        document["grant_types_supported"].as_array().unwrap().contains(&json!(EXCHANGE))
    };
    assert!(supported(&app().await).await);
    assert!(!supported(&pages::app().await).await);
}

#[tokio::test]
async fn whoever_exchanges_may_introspect() {
    let app = app().await;
    let token = signed_in(&app).await;
    for (client, active) in [("notes-server", true), ("other-server", false)] {
        let answer = app.send(posted("/introspect", Some((client, SECRET)), &[("token", &token)])).await;
        assert_eq!(answer.json()["active"], active, "{client}");
    }
}

#[tokio::test]
async fn an_application_says_itself_whom_its_user_allowed_and_confirms_who_came_back() {
    let app = pages::app_with(|told| {
        settings(told);
        told.interaction_url = Some("https://app.example.com/sign-in?x=1".parse().unwrap());
    })
    .await;
    app.hold("alice", 3600).await;
    let ask = async || {
        let mut browser = Browser::default();
        let request = format!("{}&resource={}", request(), urlencoded(pages::NOTES));
        let away = browser.get(&app, &format!("/authorize?{request}")).await;
        let url: url::Url = away.header("location").unwrap().parse().unwrap();
        let id = url.query_pairs().find(|(name, _)| name == "interaction").unwrap().1.into_owned();
        format!("/v1/interactions/{id}")
    };
    let interaction = ask().await;
    let shown = app.get(&interaction).await.json();
    assert_eq!(shown["exchangers"], json!(["notes-server", "plain", "public", "stored"]));
    let accept = format!("{interaction}/accept");
    let alice = "fake/_default/alice";
    for (said, status) in [
        (json!({"subject": "acme|1", "connection": alice, "exchangers": ["other-server"]}), 400),
        (json!({"subject": "acme|1", "exchangers": ["notes-server"]}), 400),
    ] {
        app.post(&accept, said).await.problem(status, "invalid_request");
    }
    let allow = async |accept: &str, said: Value| {
        let answer = app.post(accept, said).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let back: url::Url = text(&answer.json(), "redirect_to").parse().unwrap();
        let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "web"),
            ("code", &*code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        text(&app.send(posted("/token", None, &form)).await.json(), "access_token")
    };
    let silent = allow(&accept, json!({"subject": "acme|1", "connection": alice})).await;
    exchange(&app, "notes-server", &silent).await.refused(400, "consent_required");

    let accept = format!("{}/accept", ask().await);
    let said = json!({"subject": "acme|1", "connection": alice, "exchangers": ["notes-server"]});
    let token = allow(&accept, said).await;
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
    let listed = app.get("/v1/grants").await.json();
    assert!(listed["items"].as_array().unwrap().iter().any(|one| one["exchangers"] == json!(["notes-server"])));

    app.delete("/v1/connections/fake/_default/alice").await;
    let refused = exchange(&app, "notes-server", &token).await;
    refused.refused(400, "interaction_required");
    let back = connect(&app, &text(&refused.json(), "connect_url"), "whoever").await;
    assert_eq!(back.status, 303, "{back:?}");
    let back: url::Url = back.header("location").unwrap().parse().unwrap();
    assert!(back.as_str().starts_with("https://app.example.com/sign-in?x=1&"), "{back}");
    exchange(&app, "notes-server", &token).await.refused(400, "interaction_required");
    let value = |name: &str| back.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    assert_eq!(value("status"), "awaiting_confirmation");
    let confirm = format!("/v1/connect/{}/confirm", value("connect_id"));
    app.post(&confirm, json!({"subject": "bob", "code": value("code")})).await.problem(403, "forbidden");
    assert_eq!(app.post(&confirm, json!({"subject": "alice", "code": value("code")})).await.status, 200);
    assert_eq!(exchange(&app, "notes-server", &token).await.status, 200);
}

#[tokio::test]
async fn a_sessions_token_is_exchanged_by_those_that_its_backend_named() {
    let app = Box::pin(with_sessions()).await;
    let first = app.provider.seed("alice");
    let tokens = json!({"access_token": first.access_token, "refresh_token": first.refresh_token, "expires_in": 3600});
    let body = json!({"subject": "alice", "provider": "fake", "tokens": tokens, "ttl": 7200});
    let session = app.post("/v1/sessions", body).await;
    assert_eq!(session.status, 201, "{session:?}");
    let token = text(&session.json(), "access_token");
    let answer = exchange(&app, "notes-server", &token).await;
    assert_eq!(text(&answer.json(), "access_token"), first.access_token);
    exchange(&app, "other-server", &token).await.refused(400, "invalid_request");
    exchange_with(&app, "notes-server", &token, &[("audience", "more")]).await.refused(400, "invalid_target");
    let narrow = app.engine.sessions().unwrap().for_websocket(&Secret::from(&*token)).await.unwrap();
    exchange(&app, "notes-server", narrow.access_token.expose_secret()).await.refused(400, "invalid_request");

    // Its backend connects; nobody here could tell whose account it is.
    app.provider.revoke_subject("alice");
    app.clock.advance(Duration::from_secs(3600));
    let refused = exchange(&app, "notes-server", &token).await;
    refused.refused(400, "interaction_required");
    assert_eq!(refused.json().get("connect_url"), None);

    // What stands in the connection's place later is another's, as far as the session knows.
    assert_eq!(app.delete("/v1/connections/fake/_default/alice").await.status, 204);
    exchange(&app, "notes-server", &token).await.refused(400, "invalid_request");
    app.hold("alice", 3600).await;
    exchange(&app, "notes-server", &token).await.refused(400, "invalid_request");
}

/// With sessions, whose tokens the notes' server may exchange.
async fn with_sessions() -> TestApp {
    let mut told = pages::settings();
    settings(&mut told);
    let sessions = SessionSettings {
        issuer: told.url.clone(),
        resource: ProtectedResource {
            algorithm: Some(Algorithm::Es256),
            exchangers: ids(&["notes-server"]),
            introspectors: BTreeSet::new(),
            ..resource("https://api.example.com", "")
        },
        ttl: Duration::from_hours(4),
        grace: Duration::from_mins(1),
        websocket_ttl: Duration::from_mins(5),
        refresh_token_ttl: None,
        allowed_origins: Vec::new(),
    };
    let engine = |settings: &mut tokenkeep_engine::Settings| {
        settings.issuer = Some(Arc::new(told));
        settings.sessions = Some(Arc::new(sessions));
    };
    let app = TestApp::with(engine, HttpSettings::default()).await;
    app.integrate().await;
    app
}

#[tokio::test]
async fn each_exchange_is_in_the_audit_log_and_no_token_or_link_is() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = app().await;
    app.provider.configure(|provider| provider.token_life = Duration::from_secs(100));
    let token = signed_in(&app).await;
    let upstream = text(&exchange(&app, "notes-server", &token).await.json(), "access_token");
    exchange(&app, "other-server", &token).await.refused(400, "invalid_request");
    app.provider.revoke_subject("fake-user");
    app.clock.advance(Duration::from_secs(100));
    let link = text(&exchange(&app, "notes-server", &token).await.json(), "connect_url");
    let log = log.text();
    let line = log.lines().find(|line| line.contains("action=\"token_exchanged\"")).unwrap_or_else(|| panic!("{log}"));
    for said in ["client=notes-server", "connection=fake/_default/fake|fake-user", "grant=", "jti="] {
        assert!(line.contains(said), "{said}: {line}");
    }
    assert_eq!(log.matches("action=\"token_exchange_refused\"").count(), 2);
    let ticket = link.rsplit('/').next().unwrap();
    for secret in [&*token, &*upstream, ticket] {
        assert!(!log.contains(secret), "{secret}");
    }
}
