//! Naming, changing and removing integrations.

use std::{collections::BTreeMap, time::Duration};

use tokenkeep_core::{ClientSigningKey, ConnectGrant, IntegrationId, ManagedBy, Role, Rotation};
use tokenkeep_engine::{Caller, ConfigIntegration, ConnectStatus, Engine, Error, PutIntegration};
use tokenkeep_testkit::Config;

use crate::{
    alone::key_pair,
    common::{World, alice, fake, put_fake, store_seeded},
    support::{Browser, Stage, params},
};

const LOCAL: &Caller = &Caller::Local;

fn id(name: &str) -> IntegrationId {
    name.parse().unwrap()
}

async fn put(engine: &Engine, name: &str, put: PutIntegration) -> Result<bool, Error> {
    engine.integrations().put(LOCAL, &id(name), put).await.map(|(created, _)| created)
}

fn bare(client_id: &str) -> PutIntegration {
    PutIntegration { client_id: client_id.to_owned(), client_secret: Some("CANARY".into()), ..Default::default() }
}

#[tokio::test]
async fn they_come_and_go_and_never_show_their_secrets() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    assert!(put(&engine, "google", bare("g1")).await.unwrap());
    assert!(!put(&engine, "google", bare("g2")).await.unwrap());
    put(&engine, "github", bare("h1")).await.unwrap();
    let listed = engine.integrations().list(LOCAL).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|view| (view.id.as_str(), view.client_id.as_str())).collect();
    assert_eq!(ids, [("github", "h1"), ("google", "g2")]);
    assert!(listed.iter().all(|view| view.has_client_secret && !view.has_signing_key));
    assert!(!format!("{listed:?}").contains("CANARY"));
    engine.integrations().delete(LOCAL, &id("google")).await.unwrap();
    let gone = [
        engine.integrations().get(LOCAL, &id("google")).await.unwrap_err(),
        engine.integrations().delete(LOCAL, &id("google")).await.unwrap_err(),
    ];
    assert!(gone.iter().all(|error| error.code() == "integration_not_found"));
    assert!(put(&engine, "google", bare("g3")).await.unwrap());
}

#[tokio::test]
async fn what_does_not_fit_its_provider_is_named() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    let with = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let cases: [(&str, PutIntegration, &str); 11] = [
        ("auth0", bare("c"), "`params.tenant`"),
        ("auth0", PutIntegration { params: with("tenant", "evil.example/"), ..bare("c") }, "`params.tenant`"),
        ("google", PutIntegration { params: with("tenant", "x"), ..bare("c") }, "`params.tenant`"),
        ("google", bare(""), "`client_id`"),
        ("my-own", bare("c"), "`provider`"),
        ("mekari-hmac", bare("c"), "knows no OAuth"),
        ("google", PutIntegration { grant: ConnectGrant::JwtBearer, ..bare("c") }, "`signing_key`"),
        ("github", PutIntegration { api_hosts: vec!["api.github.com/x".to_owned()], ..bare("c") }, "`api_hosts`"),
        (
            "google",
            PutIntegration { redirect_uri: Some("http://app.example.com/cb".parse().unwrap()), ..bare("c") },
            "`redirect_uri`",
        ),
        (
            "google",
            PutIntegration { grant: ConnectGrant::ClientCredentials, client_secret: None, ..bare("c") },
            "`client_secret`",
        ),
        (
            "google",
            PutIntegration {
                signing_key: Some(ClientSigningKey { key: "CANARY".into(), key_id: None, issuer: None }),
                ..bare("c")
            },
            "`signing_key`",
        ),
    ];
    for (name, given, named) in cases {
        let error = put(&engine, name, given).await.unwrap_err();
        assert_eq!(error.code(), "invalid_request", "{name}: {error}");
        assert!(error.to_string().contains(named), "{name}: {error}");
        assert!(!format!("{error:?}").contains("CANARY"));
    }
    let unknown = PutIntegration { provider: Some("nobody".parse().unwrap()), ..bare("c") };
    assert_eq!(put(&engine, "x", unknown).await.unwrap_err().code(), "provider_not_found");
    assert!(engine.integrations().list(LOCAL).await.unwrap().is_empty());
}

#[tokio::test]
async fn apple_wants_a_named_p256_key() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    let (key, _) = key_pair();
    let with = |key_id: Option<&str>| PutIntegration {
        client_secret: None,
        signing_key: Some(ClientSigningKey {
            key: key.as_str().into(),
            key_id: key_id.map(str::to_owned),
            issuer: None,
        }),
        params: BTreeMap::from([("team_id".to_owned(), "TEAM".to_owned())]),
        ..bare("com.example.app")
    };
    assert!(put(&engine, "apple", with(None)).await.unwrap_err().to_string().contains("`key_id`"));
    put(&engine, "apple", with(Some("K1"))).await.unwrap();
}

#[tokio::test]
async fn a_stored_secret_stays_where_it_was_meant_to_go() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    let tenant = |name: &str| BTreeMap::from([("tenant".to_owned(), name.to_owned())]);
    let first = PutIntegration { params: tenant("acme"), ..bare("c") };
    put(&engine, "auth0", first.clone()).await.unwrap();
    let silent = PutIntegration { client_secret: None, ..first };
    let moves = [
        PutIntegration { params: tenant("evil"), ..silent.clone() },
        PutIntegration { client_id: "other".to_owned(), ..silent.clone() },
        PutIntegration { provider: Some("google".parse().unwrap()), params: BTreeMap::new(), ..silent.clone() },
    ];
    for moved in moves {
        let error = put(&engine, "auth0", moved.clone()).await.unwrap_err();
        assert!(error.to_string().contains("`client_secret` must be given again"), "{error}");
        assert_eq!(error.code(), "invalid_request");
    }
    put(&engine, "auth0", PutIntegration { scope: Some("x".to_owned()), ..silent }).await.unwrap();
    let view = engine.integrations().get(LOCAL, &id("auth0")).await.unwrap();
    assert_eq!((view.has_client_secret, view.scope.as_deref()), (true, Some("x")));
}

#[tokio::test]
async fn they_are_changed_by_those_who_may() {
    let t = Stage::new().await;
    let integrations = t.engine.integrations();
    let app = t.key(Role::Application, None).await;
    assert_eq!(integrations.list(&app).await.unwrap_err().code(), "forbidden");
    let operator = t.key(Role::Operator, None).await;
    assert!(integrations.put(&operator, &fake(), put_fake()).await.is_ok());
    let acme = t.key(Role::Operator, Some(&["acme"])).await;
    let of = |tenant: &str| PutIntegration { tenant: Some(tenant.parse().unwrap()), ..put_fake() };
    for (name, given) in [("fake", put_fake()), ("fake", of("acme")), ("other", of("beta")), ("other", put_fake())] {
        let refused = integrations.put(&acme, &id(name), given).await;
        assert_eq!(refused.unwrap_err().code(), "forbidden", "{name}");
    }
    assert_eq!(integrations.delete(&acme, &fake()).await.unwrap_err().code(), "forbidden");
    integrations.put(&acme, &id("acmes"), of("acme")).await.unwrap();
    integrations.put(LOCAL, &id("betas"), of("beta")).await.unwrap();
    let seen: Vec<_> = integrations.list(&acme).await.unwrap().into_iter().map(|view| view.id).collect();
    assert_eq!(seen, [id("acmes"), id("fake")]);
    assert_eq!(integrations.get(&acme, &id("betas")).await.unwrap_err().code(), "integration_not_found");
    assert_eq!(integrations.delete(&acme, &id("betas")).await.unwrap_err().code(), "integration_not_found");
    integrations.delete(&acme, &id("acmes")).await.unwrap();
}

#[tokio::test]
async fn only_who_may_read_tokens_decides_where_they_go() {
    let t = Stage::new().await;
    let integrations = t.engine.integrations();
    store_seeded(&t.engine, &t.world, &alice()).await;
    let operator = t.key(Role::Operator, None).await;
    let admin = t.key(Role::Admin, None).await;
    let param = |value: &str| BTreeMap::from([("tenant".to_owned(), value.to_owned())]);
    let to_evil = |put: PutIntegration| PutIntegration { api_hosts: vec!["evil.example".to_owned()], ..put };
    let issued = PutIntegration { provider: None, issuer: Some(t.world.provider.issuer()), ..put_fake() };
    let of_auth0 = PutIntegration { provider: Some("auth0".parse().unwrap()), params: param("evil"), ..put_fake() };
    let moves = [to_evil(put_fake()), issued, of_auth0];
    let refused = async |put: &PutIntegration| {
        let error = integrations.put(&operator, &fake(), put.clone()).await.unwrap_err();
        assert_eq!(error.code(), "forbidden", "{error}");
    };
    let before = integrations.get(LOCAL, &fake()).await.unwrap();
    for put in &moves {
        refused(put).await;
    }
    assert_eq!(integrations.get(LOCAL, &fake()).await.unwrap(), before, "nothing changed");
    // What is theirs to change.
    let rotated = PutIntegration {
        client_id: "other".to_owned(),
        client_secret: Some("new".into()),
        scope: Some("x".to_owned()),
        ..put_fake()
    };
    integrations.put(&operator, &fake(), rotated).await.unwrap();
    // The connections outlive their integration, and wait for whatever is made in its place.
    integrations.delete(&operator, &fake()).await.unwrap();
    for put in &moves {
        refused(put).await;
    }
    integrations.put(&operator, &fake(), PutIntegration { provider: None, ..put_fake() }).await.unwrap();
    for put in &moves {
        integrations.put(&admin, &fake(), put.clone()).await.unwrap();
    }
    // Nobody's tokens wait for a new one.
    let new = to_evil(PutIntegration { params: param("acme"), ..bare("c") });
    integrations.put(&operator, &id("auth0"), new).await.unwrap();
}

#[tokio::test]
async fn the_files_integrations_are_changed_in_the_file() {
    let engine = World::new(Rotation::Strict).await.engine(1, None).await;
    let integrations = engine.integrations();
    let entry = |name: &str, integration: PutIntegration| ConfigIntegration { id: id(name), integration };
    put(&engine, "github", bare("by-api")).await.unwrap();
    let file = vec![entry("google", bare("g1")), entry("mine", put_fake())];
    integrations.sync_config(file.clone()).await.unwrap();
    let before = integrations.get(LOCAL, &id("google")).await.unwrap();
    assert_eq!(before.managed_by, ManagedBy::Config);
    for refused in [put(&engine, "google", bare("g2")).await.map(drop), integrations.delete(LOCAL, &id("google")).await]
    {
        assert_eq!(refused.unwrap_err().code(), "managed_by_config");
    }
    integrations.sync_config(file).await.unwrap();
    assert_eq!(integrations.get(LOCAL, &id("google")).await.unwrap(), before, "nothing changed");
    integrations.sync_config(vec![entry("google", bare("g3")), entry("github", bare("by-file"))]).await.unwrap();
    let after: Vec<_> = integrations.list(LOCAL).await.unwrap();
    let ids: Vec<_> = after.iter().map(|view| (view.id.as_str(), view.client_id.as_str(), view.managed_by)).collect();
    assert_eq!(ids, [("github", "by-file", ManagedBy::Config), ("google", "g3", ManagedBy::Config)]);
    let wrong = integrations.sync_config(vec![entry("auth0", bare("c"))]).await.unwrap_err();
    assert!(wrong.to_string().contains("integration `auth0`: `params.tenant`"), "{wrong}");
    let twice = vec![entry("google", bare("a")), entry("google", bare("b"))];
    assert_eq!(integrations.sync_config(twice).await.unwrap_err().code(), "invalid_request");
    // An issuer that does not answer keeps nobody from starting.
    let silent = PutIntegration { issuer: Some("http://127.0.0.1:1".to_owned()), ..bare("c") };
    integrations.sync_config(vec![entry("idp", silent)]).await.unwrap();
}

fn discoveries(engine: &Engine) -> u32 {
    let text = engine.metrics().render();
    let line = text.lines().find(|line| line.contains("call=\"discovery\"") && !line.starts_with('#'));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn an_issuer_is_enough() {
    let world = World::new(Rotation::Strict).await;
    let issuer = world.provider.issuer();
    let put = PutIntegration { provider: None, issuer: Some(issuer.clone()), ..put_fake() };
    let t = Stage::in_world(world, put).await;
    let view = t.engine.integrations().get(LOCAL, &fake()).await.unwrap();
    assert_eq!((view.provider.as_str(), view.issuer.as_deref()), ("oidc", Some(issuer.as_str())));
    let mut browser = Browser::default();
    let provider = browser.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    let query = crate::support::at_provider(&provider).await;
    assert_eq!(params(&provider)["client_id"], "fake-client");
    assert_eq!(browser.come_back(&t.engine, &query).await.unwrap().status, ConnectStatus::Connected);

    // It says that it always sends `iss`: a callback without is somebody else's.
    let mut browser = Browser::default();
    let provider = browser.open(&t.engine, &t.started().await.authorize_url.unwrap()).await.unwrap();
    let query = crate::support::at_provider(&provider).await;
    let kept: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("iss=")).collect();
    let returned = browser.come_back(&t.engine, &kept.join("&")).await.unwrap();
    assert_eq!(returned.error.as_deref(), Some("issuer_mismatch"));

    assert_eq!(discoveries(&t.engine), 1);
    t.advance(Duration::from_mins(59));
    t.access_token(&alice()).await.unwrap();
    assert_eq!(discoveries(&t.engine), 1);
    t.advance(Duration::from_mins(62));
    t.access_token(&alice()).await.unwrap();
    assert_eq!(discoveries(&t.engine), 2);
}

#[tokio::test]
async fn an_issuer_must_answer_for_itself() {
    let world = World::with(Config::default()).await;
    let engine = world.engine(1, None).await;
    let of = |issuer: &str| PutIntegration { issuer: Some(issuer.to_owned()), ..bare("c") };
    // The same server under another name.
    let other = world.provider.issuer().replace("127.0.0.1", "localhost");
    for (issuer, code) in [
        (other.as_str(), "invalid_request"),
        ("http://id.example.com", "invalid_request"),
        ("id.example.com", "invalid_request"),
        ("http://127.0.0.1:1", "provider_unavailable"),
    ] {
        let error = put(&engine, "idp", of(issuer)).await.unwrap_err();
        assert_eq!(error.code(), code, "{issuer}: {error}");
        assert!(error.to_string().contains("issuer"), "{error}");
    }
    let both = PutIntegration { provider: Some("google".parse().unwrap()), ..of(&world.provider.issuer()) };
    assert_eq!(put(&engine, "idp", both).await.unwrap_err().code(), "invalid_request");
    assert!(engine.integrations().list(LOCAL).await.unwrap().is_empty());
}
