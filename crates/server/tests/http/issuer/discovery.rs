//! What clients find out by themselves (RFC 8414, RFC 9728).

use axum::body::Body;
use http::Request;
use tokenkeep_engine::issuer::Registration;
use tokenkeep_oauth::issuer::metadata::Issuer;

use super::{FILES, ISSUER, IssuerApp, PROXY, resource};

#[tokio::test]
async fn metadata_is_the_same_in_all_forms_and_names_the_configured_issuer() {
    let app = IssuerApp::with(|told| told.url = Issuer::parse("https://auth.example/a").unwrap()).await;
    let forms = [
        "/.well-known/oauth-authorization-server/a",
        "/.well-known/openid-configuration/a",
        "/a/.well-known/openid-configuration",
    ];
    let first = app.get(forms[0]).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.json()["issuer"], "https://auth.example/a");
    assert_eq!(first.json()["token_endpoint"], "https://auth.example/a/token");
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("cache-control"), Some("public, max-age=300"));
    for form in &forms[1..] {
        assert_eq!(app.get(form).await.body, first.body, "{form}");
    }
    // The endpoints are where it says they are, and nowhere else.
    app.post("/a/token", None, &[]).await.refused(401, "invalid_client");
    assert_eq!(app.post("/token", None, &[]).await.status, 404);
    assert_eq!(app.get("/.well-known/oauth-authorization-server").await.status, 404);
}

#[tokio::test]
async fn metadata_is_never_derived_from_a_request() {
    let app = IssuerApp::start().await;
    let path = "/.well-known/oauth-authorization-server";
    let plain = app.get(path).await;
    let request = Request::get(path)
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "http")
        .header("forwarded", "host=evil.example;proto=http");
    let told = app.app.send_from(PROXY, request.body(Body::empty()).unwrap()).await;
    assert_eq!(told.body, plain.body);
    assert_eq!(plain.json()["issuer"], ISSUER);
}

#[tokio::test]
async fn metadata_advertises_what_works_and_nothing_else() {
    let app = IssuerApp::start().await;
    let metadata = app.get("/.well-known/openid-configuration").await.json();
    assert_eq!(metadata["code_challenge_methods_supported"], serde_json::json!(["S256"]));
    assert_eq!(metadata["scopes_supported"], serde_json::json!(["read", "write"]));
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    assert_eq!(metadata["client_id_metadata_document_supported"], true);
    // Each of these is used in the tests of clients.rs.
    assert_eq!(
        metadata["token_endpoint_auth_methods_supported"],
        serde_json::json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"])
    );
    assert_eq!(
        metadata["grant_types_supported"],
        serde_json::json!(["authorization_code", "refresh_token", "client_credentials"])
    );
    for endpoint in ["token", "introspection", "revocation"] {
        let url = metadata[format!("{endpoint}_endpoint")].as_str().unwrap();
        let path = url.strip_prefix(ISSUER).unwrap();
        app.post(path, None, &[("token", "x"), ("grant_type", "x")]).await.refused(401, "invalid_client");
    }
    let jwks = metadata["jwks_uri"].as_str().unwrap().strip_prefix(ISSUER).unwrap();
    assert_eq!(app.get(jwks).await.status, 200);
    for (endpoint, status) in [("authorization", 400), ("registration", 405)] {
        let url = metadata[format!("{endpoint}_endpoint")].as_str().unwrap();
        assert_eq!(app.get(url.strip_prefix(ISSUER).unwrap()).await.status, status, "{endpoint}");
    }

    let closed = IssuerApp::with(|told| told.registration = Registration::Off).await;
    let metadata = closed.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata.get("registration_endpoint"), None);
    assert_ne!(closed.post("/register", None, &[]).await.status, 201);
}

#[tokio::test]
async fn without_an_issuer_there_is_nothing_to_be_found() {
    let app = crate::app::TestApp::start().await;
    for path in ["/.well-known/oauth-authorization-server", "/jwks", "/verify", "/.well-known/oauth-protected-resource"]
    {
        app.get(path).await.problem(404, "route_not_found");
    }
}

#[tokio::test]
async fn each_resource_is_described_in_path_and_root_form() {
    let app = IssuerApp::start().await;
    let own = app.get("/.well-known/oauth-protected-resource/mcp").await;
    assert_eq!(own.status, 200);
    assert_eq!(own.json()["resource"], FILES);
    assert_eq!(own.json()["authorization_servers"], serde_json::json!([ISSUER]));
    assert_eq!(own.json()["scopes_supported"], serde_json::json!(["read", "write"]));
    assert_eq!(own.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(app.get("/.well-known/oauth-protected-resource").await.body, own.body);
    assert_eq!(app.get("/.well-known/oauth-protected-resource/other").await.status, 404);
}

#[tokio::test]
async fn resources_that_share_a_path_are_told_apart_by_host_and_never_mixed_up() {
    let app = IssuerApp::with(|told| {
        told.resources = vec![
            resource("https://a.example/mcp", "a"),
            resource("https://b.example/mcp", "b"),
            resource("https://b.example/other", "c"),
        ];
    })
    .await;
    let asked = async |path: &str, host: &str, peer: &str, forwarded: &str| {
        let request = Request::get(path).header("host", host).header("x-forwarded-host", forwarded);
        let answer = app.app.send_from(peer, request.body(Body::empty()).unwrap()).await;
        (answer.status == 200).then(|| answer.json()["resource"].as_str().unwrap().to_owned())
    };
    let (own, root) = ("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource");
    assert_eq!(asked(own, "a.example", "192.0.2.1", "").await.as_deref(), Some("https://a.example/mcp"));
    assert_eq!(asked(own, "B.example:443", "192.0.2.1", "").await.as_deref(), Some("https://b.example/mcp"));
    assert_eq!(asked(own, "c.example", "192.0.2.1", "").await, None, "either would be a guess");
    assert_eq!(asked(root, "a.example", "192.0.2.1", "").await.as_deref(), Some("https://a.example/mcp"));
    assert_eq!(asked(root, "b.example", "192.0.2.1", "").await, None, "it has two");
    assert_eq!(asked(own, "a.example", PROXY, "b.example").await.as_deref(), Some("https://b.example/mcp"));
    assert_eq!(asked(own, "a.example", "192.0.2.1", "b.example").await.as_deref(), Some("https://a.example/mcp"));
}
