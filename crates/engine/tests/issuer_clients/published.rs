//! Clients whose id is the address of a document, and keys that stand at one.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokenkeep_core::{Client, ClientOrigin, Rotation};
use tokenkeep_engine::{
    issuer::{IssuerSettings, Refused},
    transport::TransportOptions,
};
use tokenkeep_oauth::issuer::{
    client::AuthMethod,
    jws::{Algorithm, TokenKey},
    token::Credential,
};
use tokenkeep_testkit::Site;

use crate::{
    common::{
        World,
        issuer::{ISSUER, TestIssuer, client_credentials, metadata, settings},
        now,
    },
    support::code_of,
};

/// An issuer that may fetch from `localhost`, and the site there.
async fn stage() -> (TestIssuer, Site) {
    let settings = IssuerSettings { document_hosts: ["localhost".to_owned()].into(), ..settings() };
    with_site(settings).await
}

async fn with_site(settings: IssuerSettings) -> (TestIssuer, Site) {
    let mut world = World::new(Rotation::Strict).await;
    world.clock.set_wall("2030-01-01T00:00:00Z".parse().unwrap());
    world.issuer = Some(settings);
    world.transport = TransportOptions { extra_ca_file: Some(Site::ca_file()), ..TransportOptions::default() };
    let engine = world.engine(1, None).await;
    (TestIssuer { world, engine }, Site::start().await)
}

fn document(url: &str, more: &Value) -> String {
    let mut document = json!({"client_id": url, "client_name": "App",
        "redirect_uris": ["https://app.example.com/callback"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    document.to_string()
}

async fn authenticate(test: &TestIssuer, url: &str) -> Result<Arc<Client>, Refused> {
    test.issuer().authenticate(Credential::Public { client_id: url.to_owned() }).await
}

#[tokio::test]
async fn a_document_is_kept_as_long_as_it_says() {
    let (test, site) = stage().await;
    let url = site.url("/client.json");
    site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
    let client = authenticate(&test, &url).await.unwrap();
    assert_eq!((client.id.as_str(), &client.origin), (url.as_str(), &ClientOrigin::Document));
    assert_eq!(client.metadata.client_name.as_deref(), Some("App"));
    test.advance(Duration::from_secs(599));
    authenticate(&test, &url).await.unwrap();
    assert_eq!(site.asked(), 1);
    test.advance(Duration::from_secs(1));
    site.publish("/client.json", "no-store", &document(&url, &json!({"client_name": "New"})));
    for _ in 0..2 {
        assert_eq!(authenticate(&test, &url).await.unwrap().metadata.client_name.as_deref(), Some("New"));
    }
    assert_eq!(site.asked(), 2);
}

#[tokio::test]
async fn those_who_want_the_same_document_at_once_share_one_fetch() {
    let (test, site) = stage().await;
    let url = site.url("/client.json");
    site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
    let closed = site.gate.write().await;
    let mut all = Vec::new();
    for _ in 0..20 {
        let (issuer, client_id) = (test.issuer().clone(), url.clone());
        all.push(tokio::spawn(async move { issuer.authenticate(Credential::Public { client_id }).await.is_ok() }));
    }
    site.is_asked().await;
    drop(closed);
    for one in all {
        assert!(one.await.unwrap());
    }
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn what_is_of_no_use_is_an_answer_and_is_not_kept() {
    let (test, site) = stage().await;
    let url = site.url("/client.json");
    let other = document(&site.url("/other.json"), &json!({}));
    let long = format!("{}{}", document(&url, &json!({})), " ".repeat(5 * 1024));
    let json = "content-type: application/json";
    for (status, head, body) in [
        ("404 Not Found", json, String::new()),
        ("302 Found", "location: /real.json\r\ncontent-type: application/json", String::new()),
        ("200 OK", "content-type: text/html", document(&url, &json!({}))),
        ("200 OK", json, "{".to_owned()),
        ("200 OK", json, other),
        ("200 OK", json, long),
        ("200 OK", json, document(&url, &json!({"client_secret": "everybody's"}))),
        ("200 OK", json, document(&url, &json!({"token_endpoint_auth_method": "client_secret_post"}))),
        ("200 OK", json, document(&url, &json!({"grant_types": ["client_credentials"]}))),
    ] {
        site.answer_with("/client.json", status, head, &body);
        site.publish("/real.json", "max-age=600", &document(&url, &json!({})));
        let refused = authenticate(&test, &url).await.unwrap_err();
        assert_eq!(code_of(&refused), "invalid_client", "{status} {body}");
        assert_eq!(site.asked(), 1, "{status} {body}");
    }
    for status in ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"] {
        site.answer_with("/client.json", status, json, "");
        let refused = authenticate(&test, &url).await.unwrap_err();
        assert_eq!(code_of(&refused), "temporarily_unavailable", "{status}");
        assert!(refused.retry_after().is_some());
    }
    site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
    assert!(authenticate(&test, &url).await.is_ok());
}

#[tokio::test]
async fn a_fetch_that_takes_too_long_is_given_up() {
    let (test, site) = stage().await;
    let url = site.url("/client.json");
    let _closed = site.gate.write().await;
    let (issuer, client_id) = (test.issuer().clone(), url.clone());
    let waiting = tokio::spawn(async move { issuer.authenticate(Credential::Public { client_id }).await });
    site.is_asked().await;
    test.advance(Duration::from_secs(5));
    assert_eq!(code_of(&waiting.await.unwrap().unwrap_err()), "temporarily_unavailable");
}

#[tokio::test]
async fn nobody_makes_this_server_knock_at_its_own_doors() {
    let (test, site) = with_site(settings()).await;
    let own = site.url("/client.json");
    site.publish("/client.json", "max-age=600", &document(&own, &json!({})));
    let port = own.rsplit(':').next().unwrap().split('/').next().unwrap();
    let hosts = ["localhost", "127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "10.0.0.1"];
    for host in hosts {
        let url = format!("https://{host}:{port}/client.json");
        let refused = authenticate(&test, &url).await.unwrap_err();
        assert_eq!(code_of(&refused), "invalid_client", "{url}");
        assert!(!refused.told().to_json().contains(host), "{url}");
    }
    assert_eq!(site.asked(), 0);
}

/// Whoever names addresses where nothing is does not keep out others, and not for long who published something there.
#[tokio::test]
async fn where_too_much_fails_nothing_is_fetched_and_what_was_still_counts() {
    let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
    let (test, site) = with_site(IssuerSettings { document_hosts: hosts.into(), ..settings() }).await;
    let url = site.url("/client.json");
    site.publish("/client.json", "max-age=60", &document(&url, &json!({})));
    authenticate(&test, &url).await.unwrap();
    test.advance(Duration::from_secs(60));
    // It has no certificate under that name.
    let elsewhere = |n: usize| site.url(&format!("/{n}.json")).replace("localhost", "127.0.0.1");
    for n in 0..70 {
        assert_eq!(code_of(&authenticate(&test, &elsewhere(n)).await.unwrap_err()), "temporarily_unavailable");
    }
    for n in 0..59 {
        let nothing = authenticate(&test, &site.url(&format!("/{n}.json"))).await.unwrap_err();
        assert_eq!(code_of(&nothing), "invalid_client", "another host's failures are its own");
    }
    site.answer_with("/client.json", "503 Service Unavailable", "", "");
    assert_eq!(code_of(&authenticate(&test, &url).await.unwrap_err()), "temporarily_unavailable");
    assert_eq!(site.asked(), 61);

    assert_eq!(authenticate(&test, &url).await.unwrap().metadata.client_name.as_deref(), Some("App"));
    let nothing = authenticate(&test, &site.url("/0.json")).await.unwrap_err();
    assert_eq!((code_of(&nothing).as_str(), site.asked()), ("temporarily_unavailable", 0));
    test.advance(Duration::from_secs(60));
    site.publish("/client.json", "max-age=60", &document(&url, &json!({"client_name": "New"})));
    assert_eq!(authenticate(&test, &url).await.unwrap().metadata.client_name.as_deref(), Some("New"));
}

/// One that answers slowly has a part of the room.
#[tokio::test]
async fn a_host_that_answers_slowly_leaves_room_for_others() {
    let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
    let (test, site) = with_site(IssuerSettings { document_hosts: hosts.into(), ..settings() }).await;
    let closed = site.gate.write().await;
    let ask = |url: String| {
        let issuer = test.issuer().clone();
        tokio::spawn(async move { issuer.authenticate(Credential::Public { client_id: url }).await.map(drop) })
    };
    let waiting: Vec<_> = (0..16).map(|n| ask(site.url(&format!("/{n}.json")))).collect();
    site.is_asked_for(16).await;
    let late = tokio::select! {
        late = ask(site.url("/late.json")) => late.unwrap().unwrap_err(),
        () = site.is_asked_for(17) => panic!("it takes all the room there is"),
    };
    assert_eq!(code_of(&late), "temporarily_unavailable");
    let knock = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = knock.local_addr().unwrap().port();
    let other = ask(format!("https://127.0.0.1:{port}/client.json"));
    knock.accept().await.unwrap();
    other.abort();
    drop(closed);
    for one in waiting {
        assert_eq!(code_of(&one.await.unwrap().unwrap_err()), "invalid_client");
    }
}

#[tokio::test]
async fn an_address_that_may_not_be_asked_uses_up_no_room() {
    let (test, site) = stage().await;
    for n in 0..400 {
        let refused = authenticate(&test, &format!("https://10.0.0.1/{n}.json")).await.unwrap_err();
        assert_eq!(code_of(&refused), "invalid_client", "{n}");
    }
    let url = site.url("/client.json");
    site.publish("/client.json", "max-age=600", &document(&url, &json!({})));
    authenticate(&test, &url).await.unwrap();
}

struct Signer {
    pkcs8: zeroize::Zeroizing<Vec<u8>>,
    jwk: Value,
}

fn signer() -> Signer {
    let pkcs8 = TokenKey::generate(Algorithm::Es256, &[0; 32]).unwrap();
    let jwk = TokenKey::from_stored(Algorithm::Es256, &pkcs8).unwrap().public_jwk().unwrap();
    Signer { pkcs8, jwk }
}

impl Signer {
    fn assertion(&self, test: &TestIssuer, client: &str, jti: &str) -> Credential {
        let now = now(&test.world).as_second();
        let claims = json!({"iss": client, "sub": client, "aud": ISSUER, "jti": jti, "iat": now, "exp": now + 60});
        let kid = self.jwk["kid"].as_str().map(str::to_owned);
        let header = Header { kid, ..Header::new(jsonwebtoken::Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.pkcs8);
        let assertion = jsonwebtoken::encode(&header, &claims, &key).unwrap().into();
        Credential::Assertion { client_id: Some(client.to_owned()), assertion }
    }
}

#[tokio::test]
async fn keys_are_fetched_again_for_one_that_is_not_among_them_but_not_at_once() {
    let (test, site) = stage().await;
    let (issuer, url) = (test.issuer(), site.url("/client.json"));
    let more = json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": site.url("/jwks.json"),
        "grant_types": ["authorization_code", "client_credentials"]});
    site.publish("/client.json", "max-age=86400", &document(&url, &more));
    let (old, new) = (signer(), signer());
    let publish = |signer: &Signer| {
        site.publish("/jwks.json", "max-age=86400", &json!({"keys": [signer.jwk]}).to_string());
    };
    publish(&old);
    let client = issuer.authenticate(old.assertion(&test, &url, "1")).await.unwrap();
    assert_eq!(site.asked(), 2);
    // Whoever published it vouches for itself only.
    let refused = issuer.token(&client, client_credentials()).await.unwrap_err();
    assert_eq!(code_of(&refused), "unauthorized_client");
    let replayed = issuer.authenticate(old.assertion(&test, &url, "1")).await.unwrap_err();
    assert_eq!(code_of(&replayed), "invalid_client");

    publish(&new);
    assert!(issuer.authenticate(new.assertion(&test, &url, "2")).await.is_err());
    assert_eq!(site.asked(), 0);
    test.advance(Duration::from_secs(30));
    assert!(issuer.authenticate(new.assertion(&test, &url, "3")).await.is_ok());
    assert!(issuer.authenticate(old.assertion(&test, &url, "4")).await.is_err());
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn keys_are_not_fetched_from_where_documents_are_not() {
    let (test, site) = with_site(settings()).await;
    let issuer = test.issuer();
    let mut metadata = metadata(AuthMethod::PrivateKeyJwt);
    metadata.jwks_uri = Some(site.url("/jwks.json").parse().unwrap());
    let signer = signer();
    site.publish("/jwks.json", "max-age=600", &json!({"keys": [signer.jwk]}).to_string());
    let body = serde_json::to_vec(&metadata).unwrap();
    let client = issuer.register(&body, None, || Ok(())).await.unwrap().client;
    let refused = issuer.authenticate(signer.assertion(&test, client.id.as_str(), "1")).await.unwrap_err();
    assert_eq!((code_of(&refused).as_str(), site.asked()), ("invalid_client", 0));
}
