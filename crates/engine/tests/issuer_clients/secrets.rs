//! Secrets of the configuration file are rotated while the server runs: what was proven with the former ones is over.

use secrecy::ExposeSecret as _;
use tokenkeep_core::Client;
use tokenkeep_engine::issuer::{ConfigClient, IssuerSettings, Refused, Registration};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        client::AuthMethod,
        jws::Algorithm,
        resource::Resource,
        token::{Credential, TokenRequest},
    },
};

use crate::common::issuer::{OTHER_RESOURCE, RESOURCE, TestIssuer, metadata, settings};

/// Everything that has a secret, each with `version` in it.
fn with(version: &str) -> IssuerSettings {
    let mut settings = settings();
    let secret = |of: &str| Some(Secret::from(format!("{of} {version}, and long enough for a key")));
    settings.clients = vec![ConfigClient {
        id: "file".parse().unwrap(),
        metadata: metadata(AuthMethod::ClientSecretPost),
        secret: secret("client"),
        resources: None,
    }];
    settings.registration = Registration::Token(secret("registration").unwrap());
    settings.resources[0].algorithm = Some(Algorithm::Hs256);
    settings.resources[0].signing_secret = secret("key");
    settings
}

async fn token(test: &TestIssuer, client: &std::sync::Arc<Client>, resource: &str) -> Secret {
    let request = TokenRequest::ClientCredentials { scope: None, resource: Some(Resource::parse(resource).unwrap()) };
    test.issuer().token(client, request).await.unwrap().access_token
}

fn code_of<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
    result.unwrap_err().told().code.to_string()
}

#[tokio::test]
async fn what_was_proven_with_a_former_secret_counts_no_more() {
    let (old, new) = (with("one"), with("two"));
    let test = TestIssuer::with(old.clone()).await;
    let issuer = test.issuer();
    let post = |of: &IssuerSettings| {
        let secret = of.clients[0].secret.clone().unwrap();
        (secret.clone(), Credential::Post { client_id: "file".to_owned(), secret })
    };
    let quickly = |secret: &Secret| issuer.authenticated("file", secret, AuthMethod::ClientSecretPost).is_some();
    let register = async |of: &IssuerSettings| {
        let Registration::Token(token) = &of.registration else { panic!("there is a token") };
        issuer.register(&serde_json::to_vec(&metadata(AuthMethod::None)).unwrap(), Some(token), || Ok(())).await
    };

    let client = issuer.authenticate(post(&old).1).await.unwrap();
    assert!(quickly(&post(&old).0) && !quickly(&post(&new).0));
    let shared = token(&test, &client, RESOURCE).await;
    let published = token(&test, &client, OTHER_RESOURCE).await;
    issuer.verify(&shared).await.unwrap();
    register(&old).await.unwrap();
    assert_eq!(code_of(register(&new).await), "invalid_token");

    let made = issuer.client_view(&tokenkeep_engine::Caller::Local, &client.id).await.unwrap().created_at;
    test.advance(std::time::Duration::from_secs(1));
    test.engine.renew_secrets(Some(&new), None).await;

    assert!(quickly(&post(&new).0) && !quickly(&post(&old).0));
    assert_eq!(code_of(issuer.authenticate(post(&old).1).await), "invalid_client");
    issuer.authenticate(post(&new).1).await.unwrap();
    assert!(issuer.verified(shared.expose_secret()).is_none());
    assert_eq!(code_of(issuer.verify(&shared).await), "invalid_token");
    assert_eq!(code_of(register(&old).await), "invalid_token");
    register(&new).await.unwrap();

    // What has nothing to do with it goes on.
    issuer.verify(&published).await.unwrap();
    let again = token(&test, &client, RESOURCE).await;
    issuer.verify(&again).await.unwrap();
    let view = issuer.client_view(&tokenkeep_engine::Caller::Local, &client.id).await.unwrap();
    assert_eq!(view.created_at, made);
}

/// The keys of the store are read again and again: the former secret does not come back with them.
#[tokio::test]
async fn a_former_key_does_not_come_back() {
    let test = TestIssuer::with(with("one")).await;
    let client = test.issuer().authenticate(Credential::Post {
        client_id: "file".to_owned(),
        secret: with("one").clients[0].secret.clone().unwrap(),
    });
    let client = client.await.unwrap();
    let shared = token(&test, &client, RESOURCE).await;
    test.engine.renew_secrets(Some(&with("two")), None).await;
    test.issuer().rotate_signing_keys(&tokenkeep_engine::Caller::Local, None).await.unwrap();
    assert_eq!(code_of(test.issuer().verify(&shared).await), "invalid_token");
    let now = token(&test, &client, RESOURCE).await;
    test.issuer().verify(&now).await.unwrap();
}
