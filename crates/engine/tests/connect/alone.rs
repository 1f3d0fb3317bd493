//! Connections that nobody consents to: the integration's own credentials, or its signature, are enough.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tokenkeep_core::{ClientSigningKey, ConnectGrant, ConnectionId};
use tokenkeep_engine::{Caller, ConnectStatus, PutIntegration, StartConnect};
use tokenkeep_testkit::{Config, Outcome};

use crate::{
    common::{alice, fake, put_fake},
    support::{Stage, for_alice},
};

/// A P-256 key: the private half as PKCS#8, the public half as SPKI, both PEM.
pub(crate) fn key_pair() -> (String, String) {
    let pem = |kind: &str, der: &[u8]| {
        format!("-----BEGIN {kind} KEY-----\n{}\n-----END {kind} KEY-----\n", BASE64_STANDARD.encode(der))
    };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    // SubjectPublicKeyInfo of a P-256 key: a constant head and the point.
    let head = BASE64_STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap();
    let spki = [&head[..head.len() - 1], pair.public_key().as_ref()].concat();
    (pem("PRIVATE", pair.to_pkcs8v1().unwrap().as_ref()), pem("PUBLIC", &spki))
}

#[tokio::test]
async fn the_clients_own_credentials() {
    let put = PutIntegration { grant: ConnectGrant::ClientCredentials, scope: Some("a b".to_owned()), ..put_fake() };
    let t = Stage::with(put).await;
    let started = t.started().await;
    assert_eq!((started.status, started.authorize_url), (ConnectStatus::Connected, None));
    assert_eq!(t.status_of(&started.connect_id).await.0, ConnectStatus::Connected);
    let first = t.access_token(&alice()).await.unwrap();
    t.advance(Duration::from_hours(2));
    assert_ne!(t.access_token(&alice()).await.unwrap(), first);
    let log = t.world.provider.log();
    assert_eq!(log.len(), 2);
    for call in log {
        assert_eq!(call.grant_type, "client_credentials");
        assert!(call.params.contains(&("scope".to_owned(), "a b".to_owned())), "{call:?}");
    }

    for refused in [
        StartConnect { confirm: Some(true), ..for_alice() },
        StartConnect { scope: Some("c".to_owned()), ..for_alice() },
    ] {
        assert_eq!(t.start(&Caller::Local, refused).await.unwrap_err().code(), "invalid_request");
    }
    t.world.provider.configure(|config| config.client_secret = "another".to_owned());
    let bobs = StartConnect { connection: "fake/_default/bob".parse().unwrap(), ..for_alice() };
    assert_eq!(t.start(&Caller::Local, bobs.clone()).await.unwrap_err().code(), "integration_rejected");
    assert!(t.is_absent(&bobs.connection).await);
}

#[tokio::test]
async fn a_service_account_signs_for_its_subjects() {
    let (private, public) = key_pair();
    let file = json!({
        "type": "service_account", "client_email": "robot@fake.example", "private_key": private,
        "private_key_id": "k1", "token_uri": "https://elsewhere.example/token",
    });
    let pem =
        ClientSigningKey { key: private.as_str().into(), key_id: None, issuer: Some("robot@fake.example".to_owned()) };
    let json = ClientSigningKey { key: file.to_string().into(), key_id: None, issuer: None };
    for signing_key in [pem, json] {
        let config = Config { assertion_key_pem: Some(public.clone()), ..Config::default() };
        let put = PutIntegration {
            grant: ConnectGrant::JwtBearer,
            signing_key: Some(signing_key),
            scope: Some("mail".to_owned()),
            ..put_fake()
        };
        let t = Stage::configured(config, put).await;
        assert_eq!(t.started().await.status, ConnectStatus::Connected);
        let first = t.access_token(&alice()).await.unwrap();
        let robots: ConnectionId = "fake/_default/_default".parse().unwrap();
        let start = StartConnect { connection: robots.clone(), ..for_alice() };
        t.start(&Caller::Local, start).await.unwrap();
        t.advance(Duration::from_hours(2));
        assert_ne!(t.access_token(&alice()).await.unwrap(), first);
        let issued: Vec<String> = t.world.provider.families().into_iter().map(|family| family.subject).collect();
        assert!(issued.starts_with(&["alice".to_owned(), "robot@fake.example".to_owned()]), "{issued:?}");
        for call in t.world.provider.log() {
            assert!(matches!(&call.outcome, Some(Outcome::Issued(issued)) if issued.scope == "mail"), "{call:?}");
        }
        let view = t.engine.integrations().get(&Caller::Local, &fake()).await.unwrap();
        assert!(view.has_signing_key);
    }
}
