//! A user is sent to `/authorize` by an application: what they are shown, and where their answer goes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use serde_json::json;
use tokenkeep_core::Role;
use tokenkeep_engine::issuer::{ConfigClient, IssuerSettings, ProtectedResource, Upstream};
use tokenkeep_oauth::{
    issuer::{
        client::{AuthMethod, GrantType},
        metadata::Issuer,
        redirect_uri::RedirectUri,
    },
    pkce::Verifier,
};
use tokenkeep_server::{Protected, Settings as HttpSettings};

use super::{CALLBACK, ISSUER, posted};
use crate::{
    app::{Answered, Ground, TestApp, json_request},
    browser::{Browser, consent, csrf_of},
};

pub(super) const NOTES: &str = "https://notes.example/mcp";
const HOSTILE: &str = "<script>alert(1)</script>\"'&";
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

pub(super) fn named(id: &str, name: &str, redirect_uri: &str) -> ConfigClient {
    let mut named = super::client(id, AuthMethod::None, &[GrantType::AuthorizationCode, GrantType::RefreshToken]);
    named.metadata.redirect_uris = vec![RedirectUri::register(redirect_uri).unwrap()];
    named.metadata.client_name = Some(name.to_owned());
    named
}

pub(super) fn settings() -> IssuerSettings {
    let notes = ProtectedResource { name: Some("Notes <b>".to_owned()), ..super::resource(NOTES, "read write") };
    IssuerSettings {
        upstreams: vec![Upstream::Integration("fake".parse().unwrap()), Upstream::LocalAdministrator],
        resources: vec![notes],
        clients: vec![
            named("web", "Web", CALLBACK),
            named("hostile", HOSTILE, CALLBACK),
            named("loopback", "Local", "http://127.0.0.1/cb"),
            named("scheme", "Phone", "com.example.app:/cb"),
        ],
        ..super::settings()
    }
}

pub(super) async fn app_with(change: impl FnOnce(&mut IssuerSettings)) -> TestApp {
    app_protecting(change, Vec::new()).await
}

/// The same, in front of these servers.
pub(super) async fn app_protecting(change: impl FnOnce(&mut IssuerSettings), protected: Vec<Protected>) -> TestApp {
    let app = app_on(&Ground::default(), change, protected).await;
    app.integrate().await;
    app
}

/// The same, without an integration, on ground that others may stand on, too.
pub(super) async fn app_on(
    ground: &Ground,
    change: impl FnOnce(&mut IssuerSettings),
    protected: Vec<Protected>,
) -> TestApp {
    let mut told = settings();
    change(&mut told);
    let engine = |settings: &mut tokenkeep_engine::Settings| settings.issuer = Some(Arc::new(told));
    TestApp::on(ground, engine, HttpSettings { open_metrics: true, protected, ..HttpSettings::default() }).await
}

pub(super) async fn app() -> TestApp {
    app_with(|_| {}).await
}

pub(super) fn request_of(client: &str, redirect_uri: &str) -> String {
    let challenge = Verifier::from_secret(VERIFIER.into()).unwrap().challenge();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", redirect_uri),
        ("scope", "read"),
        ("state", "s t&a=te"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    query.finish()
}

pub(super) fn request() -> String {
    request_of("web", CALLBACK)
}

/// Goes to `/authorize`; answers where the page is, and the page.
pub(super) async fn open(browser: &mut Browser, app: &TestApp, request: &str) -> (String, Answered) {
    let sent = browser.get(app, &format!("/authorize?{request}")).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let address = sent.header("location").unwrap().to_owned();
    let page = browser.get(app, &address).await;
    assert_eq!(page.status, 200, "{page:?}");
    (address, page)
}

pub(super) fn approve(page: &Answered, upstream: &str) -> String {
    format!("csrf={}&decision=approve&upstream={upstream}", csrf_of(page))
}

/// The parameters that the client is sent, each there once.
#[track_caller]
pub(super) fn answer_of(answer: &Answered) -> BTreeMap<String, String> {
    assert_eq!(answer.status, 303, "{answer:?}");
    let location: url::Url = answer.header("location").unwrap().parse().unwrap();
    assert!(location.as_str().starts_with(&format!("{CALLBACK}?")), "{location}");
    let mut parameters = BTreeMap::new();
    for (name, value) in location.query_pairs().into_owned() {
        assert!(parameters.insert(name, value).is_none(), "{location}");
    }
    assert_eq!(parameters["iss"], ISSUER);
    assert_eq!(parameters["state"], "s t&a=te");
    parameters
}

/// That this is a page, and one that nothing can be made of.
#[track_caller]
pub(super) fn check_page(page: &Answered, status: u16) {
    assert_eq!(page.status, status, "{page:?}");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    assert_eq!(page.header("location"), None);
    let policy = page.header("content-security-policy").unwrap();
    for directive in ["default-src 'none'; style-src 'nonce-", "frame-ancestors 'none'; base-uri 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    let text = page.text();
    assert!(!text.contains("<script") && !text.contains(" style=\"") && !text.contains("<b>"), "{text}");
    assert!(text.contains("<html lang=\"en\">") && text.contains("<main>"), "{text}");
    assert_eq!((text.matches("<h1>").count(), text.matches("<title>").count()), (1, 1), "{text}");
}

#[tokio::test]
async fn a_user_signs_in_at_a_provider_and_the_client_gets_a_code() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    check_page(&page, 200);
    for shown in [
        "calls itself",
        "Web",
        "web.example",
        "Notes &#60;b&#62;",
        "https://notes.example/mcp",
        "<code>read</code>",
        "Continue with Fake &#38; Sons",
        "Continue with an admin key",
        "Deny",
    ] {
        assert!(page.text().contains(shown), "{shown}: {}", page.text());
    }
    let again = browser.get(&app, &address).await;
    assert_eq!(csrf_of(&again), csrf_of(&page), "a page loaded again is the same page");

    let away = browser.post(&app, &address, &approve(&page, "fake")).await;
    assert_eq!(away.status, 303, "{away:?}");
    let provider = away.header("location").unwrap();
    assert!(provider.starts_with(&app.provider.issuer()), "{provider}");
    let back = browser.get(&app, &consent(provider).await).await;
    let answer = answer_of(&back);
    assert!(answer.contains_key("code") && !answer.contains_key("error"), "{answer:?}");
    assert_eq!(back.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(back.header("cache-control"), Some("no-store"));

    let redeem = [
        ("grant_type", "authorization_code"),
        ("client_id", "web"),
        ("code", &*answer["code"]),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let tokens = app.send(posted("/token", None, &redeem)).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    assert_eq!(tokens.json()["scope"], "read");

    check_page(&browser.get(&app, &address).await, 404);
    check_page(&browser.post(&app, &address, &approve(&page, "fake")).await, 404);
}

#[tokio::test]
async fn a_request_may_come_in_a_form() {
    let app = app().await;
    let mut browser = Browser::default();
    let sent = browser.post_from_elsewhere(&app, "/authorize", &request()).await;
    assert_eq!(sent.status, 303, "the form is not sent on: {sent:?}");
    check_page(&browser.get(&app, sent.header("location").unwrap()).await, 200);
}

#[tokio::test]
async fn what_clients_say_of_themselves_is_only_text() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request_of("hostile", CALLBACK)).await;
    check_page(&page, 200);
    assert!(page.text().contains("&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;"), "{}", page.text());
    let admin = browser.post(&app, &address, &approve(&page, "_administrator")).await;
    check_page(&admin, 200);
    assert!(admin.text().contains("&#60;script&#62;"), "{}", admin.text());
}

#[tokio::test]
async fn what_is_sent_is_not_repeated() {
    let app = app().await;
    let mut browser = Browser::default();
    let hostile: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for path in [
        format!("/authorize?client_id={hostile}&redirect_uri={hostile}"),
        format!("/authorize?client_id=web&redirect_uri={hostile}"),
        format!("/authorize?{hostile}={hostile}&{hostile}=x"),
        format!("/authorize/{}", hostile.replace('+', "%20")),
    ] {
        let page = browser.get(&app, &path).await;
        check_page(&page, page.status.as_u16());
        assert!(page.status.is_client_error() && !page.text().contains("alert(1)"), "{path}: {page:?}");
    }
    let (address, page) = open(&mut browser, &app, &request()).await;
    for form in [
        format!("csrf={}&decision={hostile}", csrf_of(&page)),
        format!("csrf={hostile}&decision=approve&upstream=fake"),
        format!("csrf={}&decision=approve&upstream={hostile}", csrf_of(&page)),
    ] {
        let answer = browser.post(&app, &address, &form).await;
        check_page(&answer, answer.status.as_u16());
        assert!(answer.status.is_client_error() && !answer.text().contains("alert(1)"), "{form}: {answer:?}");
    }
}

#[tokio::test]
async fn who_could_be_anybody_is_warned_of() {
    let app = app().await;
    for (client, redirect_uri, warning, source) in [
        ("loopback", "http://127.0.0.1:51004/cb", "a program on this computer", "http://127.0.0.1:51004"),
        ("scheme", "com.example.app:/cb", "whichever program opens", "com.example.app:"),
    ] {
        let (_, page) = open(&mut Browser::default(), &app, &request_of(client, redirect_uri)).await;
        check_page(&page, 200);
        assert!(page.text().contains(warning) && page.text().contains("Warning:"), "{}", page.text());
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains(&format!("form-action 'self' https: {source}")), "{policy}");
    }
    let (_, page) = open(&mut Browser::default(), &app, &request()).await;
    assert!(!page.text().contains("Warning:"), "{}", page.text());
}

#[tokio::test]
async fn a_form_that_is_not_ours_changes_nothing() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    let csrf = csrf_of(&page);
    let (_, other) = open(&mut Browser::default(), &app, &request()).await;
    let (_, second) = open(&mut browser, &app, &request()).await;
    assert_ne!(csrf, csrf_of(&second), "each request has its own");
    for csrf in [
        String::new(),
        "csrf=".to_owned(),
        format!("csrf={}", csrf_of(&other)),
        format!("csrf={}", csrf_of(&second)),
        format!("csrf={csrf}&csrf={csrf}"),
        format!("csrf={csrf}x"),
    ] {
        for rest in ["decision=approve&upstream=fake", "decision=approve&upstream=_administrator", "decision=deny"] {
            let refused = browser.post(&app, &address, &format!("{csrf}&{rest}")).await;
            check_page(&refused, 403);
        }
        let key = format!("{csrf}&key={}", app.key);
        let refused = browser.post(&app, &format!("{address}/administrator"), &key).await;
        check_page(&refused, 403);
        assert!(!refused.text().contains("<form"), "{}", refused.text());
    }
    let yes = approve(&page, "fake");
    check_page(&browser.post_from_elsewhere(&app, &address, &yes).await, 403);
    check_page(&Browser::default().post(&app, &address, &yes).await, 403);
    check_page(&browser.post(&app, &address, &format!("csrf={csrf}")).await, 400);
    check_page(&browser.post(&app, &address, &format!("{yes}&decision=deny")).await, 400);
    check_page(&browser.post(&app, &address, &approve(&page, "elsewhere")).await, 400);

    assert_eq!(browser.post(&app, &address, &yes).await.status, 303, "after all this the user's own yes still counts");
}

#[tokio::test]
async fn a_no_is_told_to_the_client_once() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    let no = format!("csrf={}&decision=deny", csrf_of(&page));
    let answer = answer_of(&browser.post(&app, &address, &no).await);
    assert_eq!(answer["error"], "access_denied");
    assert!(!answer.contains_key("code"), "{answer:?}");
    check_page(&browser.post(&app, &address, &no).await, 404);
    check_page(&browser.post(&app, &address, &approve(&page, "fake")).await, 404);
}

#[tokio::test]
async fn nobody_is_sent_where_the_client_did_not_say() {
    let app = app().await;
    let good = request();
    for (bad, why) in [
        (request_of("nobody", CALLBACK), "unknown client"),
        (request_of("web", "https://evil.example/callback"), "unknown address"),
        (request_of("web", &format!("{CALLBACK}/")), "nearly the address"),
        (request_of("web", "javascript:alert(1)"), "no address"),
        (good.replace("client_id=web&", ""), "no client"),
        (format!("{good}&client_id=web"), "two clients"),
        (format!("{good}&redirect_uri=https%3A%2F%2Fevil.example"), "two addresses"),
    ] {
        let page = Browser::default().get(&app, &format!("/authorize?{bad}")).await;
        check_page(&page, 400);
        assert!(page.text().contains("This sign-in cannot begin"), "{why}: {}", page.text());
    }
    for (bad, error) in [
        (good.replace("S256", "plain"), "invalid_request"),
        (good.replace("&code_challenge_method=S256", ""), "invalid_request"),
        (good.replace("code_challenge=", "code_challenged="), "invalid_request"),
        (format!("{good}&resource=https%3A%2F%2Fnotes.example%2Fmcp%23f"), "invalid_target"),
        (format!("{good}&resource=%2Fmcp"), "invalid_target"),
        (good.replace("response_type=code", "response_type=token"), "unsupported_response_type"),
        (good.replace("scope=read", "scope=everything"), "invalid_scope"),
        (format!("{good}&resource=https%3A%2F%2Felsewhere.example"), "invalid_target"),
        (format!("{good}&scope=read"), "invalid_request"),
    ] {
        let answer = Browser::default().get(&app, &format!("/authorize?{bad}")).await;
        assert_eq!(answer_of(&answer)["error"], error, "{bad}");
    }
    // Which of the two its client would believe, nobody knows.
    let twice = Browser::default().get(&app, &format!("/authorize?{good}&state=another")).await;
    assert_eq!(twice.status, 303, "{twice:?}");
    let location = twice.header("location").unwrap();
    assert!(location.starts_with(&format!("{CALLBACK}?error=invalid_request")), "{location}");
    assert!(!location.contains("state="), "{location}");
}

/// RFC 9700 4.11.2: whoever registers itself would have this server send people anywhere.
#[tokio::test]
async fn an_error_leads_to_whom_nobody_vouches_for_by_a_link_only() {
    let app = app().await;
    let register = async |uri: &str| {
        let body = json!({"redirect_uris": [uri], "token_endpoint_auth_method": "none"});
        let made = app.send(json_request(Request::post("/register"), &body)).await;
        made.json()["client_id"].as_str().unwrap().to_owned()
    };
    let evil = "https://evil.example/login?a=b";
    let stranger = register(evil).await;
    let request = request_of(&stranger, evil);
    for (bad, error) in [
        (format!("{request}&prompt=none"), "interaction_required"),
        (request.replace("S256", "plain"), "invalid_request"),
        (request.replace("scope=read", "scope=everything"), "invalid_scope"),
    ] {
        let page = Browser::default().get(&app, &format!("/authorize?{bad}")).await;
        check_page(&page, 400);
        let text = page.text();
        assert!(text.contains("<strong>evil.example</strong>"), "{text}");
        let link = text.split_once("href=\"").unwrap().1.split_once('"').unwrap().0.replace("&#38;", "&");
        let answer: url::Url = link.parse().unwrap();
        assert!(link.starts_with(&format!("{evil}&")), "{link}");
        let all: BTreeMap<_, _> = answer.query_pairs().collect();
        assert_eq!((&*all["error"], &*all["state"], &*all["iss"]), (error, "s t&a=te", ISSUER));
    }

    let native = "http://127.0.0.1/cb";
    let local = register(native).await;
    for (client, redirect_uri) in [(&*local, "http://127.0.0.1:51004/cb"), ("web", CALLBACK)] {
        let bad = format!("/authorize?{}&prompt=none", request_of(client, redirect_uri));
        let sent = Browser::default().get(&app, &bad).await;
        assert_eq!(sent.status, 303, "{sent:?}");
        assert!(sent.header("location").unwrap().starts_with(&format!("{redirect_uri}?error=interaction_required")));
    }
}

#[tokio::test]
async fn another_browser_does_not_get_in_between() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    let away = browser.post(&app, &address, &approve(&page, "fake")).await;
    let callback = consent(away.header("location").unwrap()).await;

    let mut other = Browser::default();
    let refused = other.get(&app, &callback).await;
    check_page(&refused, 403);
    assert!(refused.text().contains("another browser"), "{}", refused.text());
    let _ = open(&mut other, &app, &request()).await;
    check_page(&other.get(&app, &callback).await, 403);

    assert!(answer_of(&browser.get(&app, &callback).await).contains_key("code"));
    check_page(&browser.get(&app, &callback).await, 404);
}

#[tokio::test]
async fn an_admin_key_signs_in_where_that_is_allowed() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    let form = format!("{address}/administrator");
    check_page_less(&browser.get(&app, &form).await, 405);

    let asked = browser.post(&app, &address, &approve(&page, "_administrator")).await;
    check_page(&asked, 200);
    assert!(asked.text().contains("type=\"password\"") && asked.text().contains("web.example"), "{}", asked.text());
    let csrf = csrf_of(&asked);
    let application = app.key(Role::Application, &[]).await;
    for wrong in ["", "tk_guess", &application] {
        let again = browser.post(&app, &form, &format!("csrf={csrf}&key={wrong}")).await;
        check_page(&again, 403);
        assert!(
            again.text().contains("role=\"alert\"") && again.text().contains("type=\"password\""),
            "{}",
            again.text()
        );
        assert!(wrong.is_empty() || !again.text().contains(wrong), "{}", again.text());
    }
    let answer = answer_of(&browser.post(&app, &form, &format!("csrf={csrf}&key={}+", app.key)).await);
    assert!(answer.contains_key("code"), "{answer:?}");

    let app = app_with(|told| told.upstreams.truncate(1)).await;
    let (address, page) = open(&mut browser, &app, &request()).await;
    assert!(!page.text().contains("admin key"), "{}", page.text());
    check_page(&browser.post(&app, &address, &approve(&page, "_administrator")).await, 400);
    let key = format!("csrf={}&key={}", csrf_of(&page), app.key);
    let refused = browser.post(&app, &format!("{address}/administrator"), &key).await;
    check_page(&refused, 403);
    let text = refused.text();
    assert!(!text.contains("type=\"password\"") && !text.contains("another browser"), "{text}");
}

#[tokio::test]
async fn only_another_browser_is_called_one() {
    let app = app().await;
    let body = json!({"client_id": "fake-client", "client_secret": "fake-client-secret", "tenant": "acme"});
    assert_eq!(app.put("/v1/integrations/fake", body).await.status, 200);
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    let refused = browser.post(&app, &address, &approve(&page, "fake")).await;
    check_page(&refused, 400);
    assert!(refused.text().contains("tenant") && !refused.text().contains("browser"), "{}", refused.text());
}

/// That there is no such page.
#[track_caller]
fn check_page_less(answer: &Answered, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_page_that_was_open_for_too_long_says_so() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    app.clock.advance(Duration::from_secs(601));
    for answer in [
        browser.get(&app, &address).await,
        browser.post(&app, &address, &approve(&page, "fake")).await,
        browser.post(&app, &address, &format!("csrf={}&decision=deny", csrf_of(&page))).await,
        browser.get(&app, "/authorize/01J00000000000000000000000").await,
    ] {
        check_page(&answer, 404);
        assert!(answer.text().contains("start again"), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_outage_is_called_one() {
    let app = app().await;
    let mut browser = Browser::default();
    let (address, page) = open(&mut browser, &app, &request()).await;
    app.break_store(true);
    for answer in [
        browser.get(&app, &address).await,
        browser.get(&app, &format!("/authorize?{}", request())).await,
        browser.post(&app, &address, &approve(&page, "fake")).await,
    ] {
        check_page(&answer, 503);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    app.break_store(false);
    assert_eq!(browser.post(&app, &address, &approve(&page, "fake")).await.status, 303);
}

#[tokio::test]
async fn a_flood_of_sign_ins_is_held_back_where_it_comes_from() {
    let app = app().await;
    let ask = async |peer: &str| {
        let request = Request::get(format!("/authorize?{}", request())).body(Body::empty()).unwrap();
        app.send_from(peer, request).await
    };
    for _ in 0..300 {
        assert_eq!(ask("192.0.2.7").await.status, 303);
    }
    let held = ask("192.0.2.7").await;
    check_page(&held, 429);
    assert_eq!(held.header("retry-after"), Some("60"));
    assert_eq!(ask("198.51.100.7").await.status, 303, "others go on");
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(ask("192.0.2.7").await.status, 303);
}

#[tokio::test]
async fn the_pages_stand_below_the_issuers_path() {
    let app = app_with(|told| told.url = Issuer::parse("https://auth.example/as").unwrap()).await;
    let mut browser = Browser::default();
    let get = |path: String| Request::get(path).body(Body::empty()).unwrap();
    check_page_less(&app.send(get(format!("/authorize?{}", request()))).await, 404);
    let sent = browser.get(&app, &format!("/as/authorize?{}", request())).await;
    let address = sent.header("location").unwrap().to_owned();
    assert!(address.starts_with("/as/authorize/"), "{address}");
    let page = browser.get(&app, &address).await;
    check_page(&page, 200);
    assert!(page.text().contains(&format!("action=\"{address}\"")), "{}", page.text());

    let held = TestApp::start().await;
    check_page_less(&held.send(get(format!("/authorize?{}", request()))).await, 404);
}
