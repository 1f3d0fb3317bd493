//! What clients in browsers need, and what they must not get.

use axum::body::Body;
use http::Request;

use super::IssuerApp;

const OPEN: [&str; 8] = [
    "/register",
    "/register/client_1",
    "/token",
    "/revoke",
    "/jwks",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-protected-resource/mcp",
];

#[tokio::test]
async fn browsers_on_any_site_may_use_what_clients_need_and_without_cookies() {
    let app = IssuerApp::start().await;
    for path in OPEN {
        let preflight = Request::options(path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,mcp-protocol-version");
        let answer = app.app.send(preflight.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("access-control-max-age"), Some("86400"));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        for needed in ["authorization", "content-type", "mcp-protocol-version"] {
            assert!(allowed.contains(needed), "{allowed}");
        }
        // A refusal can be read as well.
        let method = if matches!(path, "/token" | "/revoke" | "/register") { "POST" } else { "GET" };
        let asked = Request::builder()
            .method(method)
            .uri(path)
            .header("origin", "https://app.example")
            .body(Body::empty())
            .unwrap();
        assert_eq!(app.app.send(asked).await.header("access-control-allow-origin"), Some("*"), "{path}");
    }
}

#[tokio::test]
async fn browsers_on_other_sites_may_not_introspect_or_verify() {
    let app = IssuerApp::start().await;
    for path in ["/introspect", "/verify"] {
        for method in ["OPTIONS", "POST"] {
            let request = Request::builder().method(method).uri(path).header("origin", "https://evil.example");
            let answer = app.app.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{method} {path}");
        }
    }
}
