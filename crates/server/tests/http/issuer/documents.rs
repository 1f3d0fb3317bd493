//! What clients publish of themselves: the document that a client's id is the address of, and its keys.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokenkeep_core::ports::Clock;
use tokenkeep_engine::{issuer::IssuerSettings, transport::TransportOptions};
use tokenkeep_oauth::{
    client_assertion::ASSERTION_TYPE,
    issuer::{
        client::{AuthMethod, GrantType},
        jws::{Algorithm, TokenKey},
    },
};
use tokenkeep_testkit::Site;

use super::{
    CALLBACK, ISSUER, IssuerApp, client,
    clients::signed,
    pages::{check_page, request_of},
};
use crate::{
    app::{Answered, Ground},
    browser::Browser,
};

const DOCUMENT: &str = "/client.json";
const KEYS: &str = "/jwks.json";
/// The longest document that is read.
const LONGEST: usize = 5 * 1024;
/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An authorization server, and a site whose certificate it trusts.
async fn stage(change: impl FnOnce(&mut IssuerSettings, &Site)) -> (IssuerApp, Site) {
    let site = Site::start().await;
    let transport = TransportOptions { extra_ca_file: Some(Site::ca_file()), ..TransportOptions::default() };
    let ground = Ground { transport, ..Ground::default() };
    ground.clock.set_wall("2030-01-01T00:00:00Z".parse().unwrap());
    (IssuerApp::on(&ground, |told| change(told, &site)).await, site)
}

/// The site is on this machine: that is allowed here.
fn with_site(told: &mut IssuerSettings, _: &Site) {
    told.document_hosts = BTreeSet::from(["localhost".to_owned()]);
}

fn document(url: &str, more: &Value) -> String {
    let mut document = json!({"client_id": url, "client_name": "Published", "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    document.to_string()
}

/// A user comes from the client at `url`.
async fn authorize(app: &IssuerApp, url: &str) -> Answered {
    app.get(&format!("/authorize?{}", request_of(url, CALLBACK))).await
}

/// The client at `url` redeems something: whoever is a client hears that it is no code.
async fn redeem(app: &IssuerApp, url: &str) -> Answered {
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", url),
        ("code", "none"),
        ("code_verifier", super::pages::VERIFIER),
        ("redirect_uri", CALLBACK),
    ];
    app.post("/token", None, &form).await
}

/// That nobody is taken for a client there, for good.
#[track_caller]
fn is_no_client(authorize: &Answered, redeem: &Answered) {
    check_page(authorize, 400);
    redeem.refused(401, "invalid_client");
}

/// That nobody knows at present.
#[track_caller]
fn is_an_outage(authorize: &Answered, redeem: &Answered) {
    check_page(authorize, 503);
    redeem.refused(503, "temporarily_unavailable");
    for answer in [authorize, redeem] {
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
}

/// Whom the page says that it is.
async fn shown(app: &IssuerApp, url: &str) -> String {
    let sent = authorize(app, url).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let page = Browser::default().get(&app.app, sent.header("location").unwrap()).await;
    let named = |name: &&str| page.text().contains(*name);
    ["Published", "Renamed"].iter().copied().filter(named).collect()
}

#[tokio::test]
async fn a_document_is_a_client_for_as_long_as_it_says() {
    let (app, site) = stage(with_site).await;
    let url = site.url(DOCUMENT);
    site.publish(DOCUMENT, "max-age=600", &document(&url, &json!({})));
    assert_eq!(shown(&app, &url).await, "Published");
    redeem(&app, &url).await.refused(400, "invalid_grant");
    site.publish(DOCUMENT, "no-store", &document(&url, &json!({"client_name": "Renamed"})));
    app.app.clock.advance(Duration::from_secs(599));
    assert_eq!(shown(&app, &url).await, "Published");
    assert_eq!(site.asked(), 1);
    app.app.clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        assert_eq!(shown(&app, &url).await, "Renamed");
        assert!(site.asked() > 0, "what must not be stored is asked for each time");
    }
}

#[tokio::test]
async fn what_is_of_no_use_is_refused_for_good_and_not_kept() {
    let (app, site) = stage(with_site).await;
    let url = site.url(DOCUMENT);
    let plain = document(&url, &json!({}));
    let json = "content-type: application/json\r\ncache-control: max-age=600";
    let with = |more: Value| document(&url, &more);
    for (status, head, body) in [
        ("404 Not Found", json, plain.clone()),
        ("302 Found", "location: /elsewhere.json\r\ncontent-type: application/json", plain.clone()),
        ("307 Temporary Redirect", "location: /elsewhere.json\r\ncontent-type: application/json", plain.clone()),
        ("200 OK", "content-type: text/html", plain.clone()),
        ("200 OK", json, "{".to_owned()),
        ("200 OK", json, document(&site.url("/elsewhere.json"), &json!({}))),
        ("200 OK", json, document(&format!("{url}?"), &json!({}))),
        ("200 OK", json, document(&url.replace("localhost", "LOCALHOST"), &json!({}))),
        ("200 OK", json, with(json!({"client_secret": "everybody's"}))),
        ("200 OK", json, with(json!({"token_endpoint_auth_method": "client_secret_post"}))),
        ("200 OK", json, format!("{plain:<width$}", width = LONGEST + 1)),
    ] {
        site.answer_with(DOCUMENT, status, head, &body);
        site.publish("/elsewhere.json", "max-age=600", &plain);
        is_no_client(&authorize(&app, &url).await, &redeem(&app, &url).await);
        assert_eq!(site.asked(), 2, "once each time, and nothing else: {status} {body}");
    }
    site.publish(DOCUMENT, "max-age=600", &format!("{plain:<LONGEST$}"));
    redeem(&app, &url).await.refused(400, "invalid_grant");
}

/// One that goes on for ever, as far as anybody knows.
#[tokio::test]
async fn a_document_that_is_too_long_is_not_read_to_its_end() {
    let (app, site) = stage(with_site).await;
    let url = site.url(DOCUMENT);
    let head = format!("content-type: application/json\r\ncontent-length: {}", u64::MAX / 2);
    site.answer_with(
        DOCUMENT,
        "200 OK",
        &head,
        &format!("{:<width$}", document(&url, &json!({})), width = 2 * LONGEST),
    );
    is_no_client(&authorize(&app, &url).await, &redeem(&app, &url).await);
    let short = format!("{:<LONGEST$}", document(&url, &json!({})));
    site.answer_with(DOCUMENT, "200 OK", &head, &short);
    is_an_outage(&authorize(&app, &url).await, &redeem(&app, &url).await);
}

#[tokio::test]
async fn an_outage_is_no_answer_and_is_not_kept() {
    let (app, site) = stage(with_site).await;
    let url = site.url(DOCUMENT);
    let long = format!("{:<width$}", "<html>", width = 2 * LONGEST);
    for status in ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"] {
        site.answer_with(DOCUMENT, status, "content-type: text/html\r\ncache-control: max-age=600", &long);
        is_an_outage(&authorize(&app, &url).await, &redeem(&app, &url).await);
    }
    site.publish(DOCUMENT, "max-age=600", &document(&url, &json!({})));
    redeem(&app, &url).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn a_document_may_take_five_seconds() {
    for (takes, counts) in [(PATIENCE.saturating_sub(Duration::from_millis(1)), true), (PATIENCE, false)] {
        let (app, site) = stage(with_site).await;
        let url = site.url(DOCUMENT);
        site.publish(DOCUMENT, "max-age=600", &document(&url, &json!({})));
        let closed = site.gate.write().await;
        let comes = async {
            site.is_asked().await;
            app.app.clock.advance(takes);
            if counts {
                drop(closed);
            }
        };
        let (answer, ()) = tokio::join!(authorize(&app, &url), comes);
        assert_eq!(answer.status.as_u16(), if counts { 303 } else { 503 }, "{takes:?}: {answer:?}");
    }
}

#[tokio::test]
async fn an_error_leads_to_whom_published_itself_by_a_link_only() {
    let (app, site) = stage(with_site).await;
    let url = site.url(DOCUMENT);
    site.publish(DOCUMENT, "max-age=600", &document(&url, &json!({})));
    let page = app.get(&format!("/authorize?{}&prompt=none", request_of(&url, CALLBACK))).await;
    check_page(&page, 400);
    assert!(page.text().contains("Go on to web.example"), "{}", page.text());
}

#[tokio::test]
async fn an_address_in_a_private_network_is_refused_for_good_and_never_asked() {
    let (app, site) = stage(|_, _| {}).await;
    let url = site.url(DOCUMENT);
    let port = url.rsplit(':').next().unwrap();
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "10.0.0.1", "[fe80::1]"] {
        let url = format!("https://{host}:{port}");
        site.publish(DOCUMENT, "max-age=600", &document(&url, &json!({})));
        is_no_client(&authorize(&app, &url).await, &redeem(&app, &url).await);
    }
    assert_eq!(site.asked(), 0);
}

/// A client that signs, and whose keys are on the site.
fn signer(told: &mut IssuerSettings, site: &Site) {
    let mut signer = client("signer", AuthMethod::PrivateKeyJwt, &[GrantType::ClientCredentials]);
    signer.metadata.jwks_uri = Some(site.url(KEYS).parse().unwrap());
    told.clients.push(signer);
}

fn signer_of_site(told: &mut IssuerSettings, site: &Site) {
    with_site(told, site);
    signer(told, site);
}

struct Key {
    stored: Vec<u8>,
    kid: String,
    jwks: String,
}

fn key(seed: u8) -> Key {
    let stored = TokenKey::generate(Algorithm::Es256, &[seed; 32]).unwrap();
    let key = TokenKey::from_stored(Algorithm::Es256, &stored).unwrap();
    let jwks = json!({"keys": [key.public_jwk().unwrap()]}).to_string();
    Key { kid: key.kid().to_owned(), jwks, stored: stored.to_vec() }
}

/// Asks for a token with an assertion that says `jti`.
async fn assert_with(app: &IssuerApp, key: &Key, jti: &str) -> Answered {
    let now = app.app.clock.now().wall.as_second();
    let claims = json!({"iss": "signer", "sub": "signer", "aud": ISSUER, "iat": now, "exp": now + 60, "jti": jti});
    let assertion = signed(&key.stored, &key.kid, &claims);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &*assertion),
    ];
    app.post("/token", None, &form).await
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_for_one_that_is_new() {
    let (app, site) = stage(signer_of_site).await;
    let (old, new) = (key(1), key(2));
    site.publish(KEYS, "max-age=86400", &old.jwks);
    for jti in ["1", "2"] {
        assert_eq!(assert_with(&app, &old, jti).await.status, 200);
    }
    assert_eq!(site.asked(), 1);

    site.publish(KEYS, "max-age=86400", &new.jwks);
    assert_with(&app, &new, "3").await.refused(401, "invalid_client");
    assert_eq!(site.asked(), 0, "whoever makes keys up does not have them fetched at will");
    app.app.clock.advance(Duration::from_secs(30));
    assert_eq!(assert_with(&app, &new, "4").await.status, 200);
    assert_with(&app, &old, "5").await.refused(401, "invalid_client");
    assert_eq!(site.asked(), 1);
    app.app.clock.advance(Duration::from_secs(86_400));
    assert_eq!(assert_with(&app, &new, "6").await.status, 200);
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn keys_are_guarded_as_documents_are() {
    let key = key(1);
    let (app, site) = stage(signer).await;
    site.publish(KEYS, "max-age=600", &key.jwks);
    assert_with(&app, &key, "1").await.refused(401, "invalid_client");
    assert_eq!(site.asked(), 0);

    let (app, site) = stage(signer_of_site).await;
    let json = "content-type: application/json\r\ncache-control: max-age=600";
    let long = format!("{:<width$}", key.jwks, width = 32 * 1024 + 1);
    for (jti, (status, head, body)) in [
        ("302 Found", "location: /elsewhere.json\r\ncontent-type: application/json", &*key.jwks),
        ("404 Not Found", json, &*key.jwks),
        ("200 OK", "content-type: text/html", &*key.jwks),
        ("200 OK", json, &*long),
        ("200 OK", json, "{}"),
    ]
    .into_iter()
    .enumerate()
    {
        site.answer_with(KEYS, status, head, body);
        site.publish("/elsewhere.json", "max-age=600", &key.jwks);
        assert_with(&app, &key, &jti.to_string()).await.refused(401, "invalid_client");
        assert_eq!(site.asked(), 1, "{status} {head}");
    }
    site.answer_with(KEYS, "503 Service Unavailable", json, "");
    assert_with(&app, &key, "down").await.refused(503, "temporarily_unavailable");
    let closed = site.gate.write().await;
    site.asked();
    let comes = async {
        site.is_asked().await;
        app.app.clock.advance(PATIENCE);
    };
    let (answer, ()) = tokio::join!(assert_with(&app, &key, "slow"), comes);
    answer.refused(503, "temporarily_unavailable");
    drop(closed);
    site.publish(KEYS, "max-age=600", &key.jwks);
    assert_eq!(assert_with(&app, &key, "good").await.status, 200);
}
