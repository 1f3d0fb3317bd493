//! What a client may ask for, and who is told when it may not.

use tokenkeep_engine::{
    Caller,
    issuer::{Authorization, AuthorizeRefused, NewClient, Refused},
};
use tokenkeep_oauth::issuer::{
    client::{AuthMethod, GrantType},
    redirect_uri::RedirectUri,
    resource::Resource,
};

use crate::{
    common::issuer::{OTHER_RESOURCE, REDIRECT, metadata},
    support::{Answer, Stage},
};

async fn refusal(stage: &Stage, change: &[(&str, Option<&str>)]) -> String {
    match stage.issuer().authorize(stage.query(change).as_bytes()).await.unwrap() {
        Authorization::Answer(url) => Answer::read(&url).error().to_owned(),
        other => panic!("{change:?}: {other:?}"),
    }
}

/// Nobody is sent anywhere (RFC 6749 4.1.2.1, RFC 9700 4.11).
#[tokio::test]
async fn who_asks_from_where_is_known_before_anything_else() {
    let stage = Stage::new().await;
    for change in [
        &[("client_id", None)][..],
        &[("client_id", Some("nobody"))],
        &[("client_id", Some(""))],
        &[("redirect_uri", Some("https://evil.example/callback"))],
        &[("redirect_uri", Some("https://app.example.com/callback/"))],
        &[("redirect_uri", Some("https://app.example.com/callback?x"))],
        &[("redirect_uri", Some("https://app.example.com.evil.example/callback"))],
        &[("redirect_uri", Some("javascript:alert(1)"))],
        // The rest is as wrong as can be: it is not looked at.
        &[("redirect_uri", Some("https://evil.example")), ("response_type", None)],
    ] {
        match stage.issuer().authorize(stage.query(change).as_bytes()).await {
            Err(AuthorizeRefused::Page(error)) => assert_eq!(error.status(), 400, "{change:?}"),
            other => panic!("{change:?}: {other:?}"),
        }
    }
    let twice = format!("{}&client_id=x", stage.query(&[]));
    assert!(matches!(stage.issuer().authorize(twice.as_bytes()).await, Err(AuthorizeRefused::Page(_))));
}

#[tokio::test]
async fn everything_else_the_client_is_told() {
    let stage = Stage::new().await;
    for (change, error) in [
        (&[("response_type", Some("token"))][..], "unsupported_response_type"),
        (&[("response_type", None)], "invalid_request"),
        (&[("code_challenge", None)], "invalid_request"),
        (&[("code_challenge_method", Some("plain"))], "invalid_request"),
        (&[("code_challenge_method", None)], "invalid_request"),
        (&[("prompt", Some("none"))], "interaction_required"),
        (&[("request_uri", Some("https://x.example"))], "request_uri_not_supported"),
        (&[("resource", None)], "invalid_target"),
        (&[("resource", Some("https://other.example"))], "invalid_target"),
        (&[("resource", Some("https://mcp.example.com/mcp#x"))], "invalid_target"),
        (&[("scope", Some("admin"))], "invalid_scope"),
    ] {
        assert_eq!(refusal(&stage, change).await, error, "{change:?}");
    }
    assert!(matches!(stage.issuer().authorize(stage.query(&[]).as_bytes()).await.unwrap(), Authorization::Ask(_)));
}

#[tokio::test]
async fn a_client_asks_for_no_more_than_it_may() {
    let mut stage = Stage::new().await;
    let mut no_code = metadata(AuthMethod::ClientSecretPost);
    no_code.grant_types = [GrantType::ClientCredentials].into();
    let elsewhere = Some([Resource::parse(OTHER_RESOURCE).unwrap()].into());
    for (metadata, resources, error) in
        [(no_code, None, "unauthorized_client"), (metadata(AuthMethod::None), elsewhere, "invalid_target")]
    {
        let new = NewClient { metadata, id: None, secret: None, resources };
        stage.client = stage.issuer().create_client(&Caller::Local, new).await.unwrap().0;
        assert_eq!(refusal(&stage, &[]).await, error);
    }
}

#[tokio::test]
async fn the_only_redirect_uri_need_not_be_named() {
    let mut stage = Stage::new().await;
    let unnamed = stage.query(&[("redirect_uri", None)]);
    assert!(matches!(stage.issuer().authorize(unnamed.as_bytes()).await.unwrap(), Authorization::Ask(_)));
    let mut metadata = metadata(AuthMethod::None);
    metadata.redirect_uris = [REDIRECT, "http://127.0.0.1/cb"].map(|uri| RedirectUri::register(uri).unwrap()).into();
    let new = NewClient { metadata, id: None, secret: None, resources: None };
    stage.client = stage.issuer().create_client(&Caller::Local, new).await.unwrap().0;
    let unnamed = stage.query(&[("redirect_uri", None)]);
    let refused = stage.issuer().authorize(unnamed.as_bytes()).await;
    assert!(matches!(refused, Err(AuthorizeRefused::Page(_))));
    for (uri, is_admitted) in [
        ("http://127.0.0.1:51234/cb", true),
        ("http://127.0.0.1/cb", true),
        ("http://127.0.0.1:51234/other", false),
        ("http://localhost:51234/cb", false),
    ] {
        let asked = stage.issuer().authorize(stage.query(&[("redirect_uri", Some(uri))]).as_bytes()).await;
        assert_eq!(matches!(asked, Ok(Authorization::Ask(_))), is_admitted, "{uri}");
    }
}

/// What was asked for at `/authorize` is what the code is good for.
#[tokio::test]
async fn the_code_is_bound_to_what_was_asked_for() {
    let stage = Stage::new().await;
    let answer = stage.sign_in("fake", serde_json::json!({})).await.unwrap();
    let wrong = tokenkeep_oauth::issuer::token::TokenRequest::AuthorizationCode {
        code: answer.code(),
        redirect_uri: Some(REDIRECT.to_owned()),
        verifier: Some("x".repeat(43).into()),
        resource: None,
    };
    let refused = stage.ask_token(wrong).await.unwrap_err();
    assert!(matches!(&refused, Refused::Protocol(error) if error.code.as_str() == "invalid_grant"));
    assert_eq!(stage.token(&answer.code()).await.scope.unwrap(), "read");
}
