//! `/verify`, as proxies ask it before they let a request through.

use axum::body::Body;
use http::{Request, header};
use serde_json::json;

use super::{FILES, IssuerApp, PROXY, SECRET, bearing, resource};

const METADATA: &str = "https://files.example/.well-known/oauth-protected-resource/mcp";

#[tokio::test]
async fn a_request_is_let_through_with_the_name_of_whoever_makes_it() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    let token = reply["access_token"].as_str().unwrap();
    let uri = format!("/verify?resource={FILES}");
    for method in ["GET", "POST"] {
        for uri in ["/verify", &*uri, "/verify?scope=read"] {
            let mut request = bearing(uri, token);
            *request.method_mut() = method.parse().unwrap();
            let answer = app.app.send(request).await;
            assert_eq!(answer.status, 200, "{method} {uri} {answer:?}");
            answer.is_for_nobody_else();
            assert_eq!(answer.header("x-user-id"), Some("github|42"));
            // A name may be anything, a header may not.
            assert_eq!(answer.header("x-user-name"), Some("Zo%C3%AB%20Quinn"));
            assert_eq!(answer.header("x-auth-token"), Some(token));
            assert_eq!(answer.header("x-auth-scope"), Some("read"));
            assert_eq!(answer.json()["sub"], "github|42");
        }
    }
}

#[tokio::test]
async fn a_request_without_a_token_learns_where_to_get_one() {
    let app = IssuerApp::start().await;
    let answer = app.get("/verify").await;
    answer.refused(401, "invalid_token");
    let challenge = format!("Bearer scope=\"read write\", resource_metadata=\"{METADATA}\"");
    assert_eq!(answer.header("www-authenticate"), Some(&*challenge), "no error: none was brought");
    let answer = app.get("/verify?scope=write").await;
    let challenge = format!("Bearer scope=\"write\", resource_metadata=\"{METADATA}\"");
    assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
    let request = Request::get("/verify").header(header::AUTHORIZATION, "Basic dTpw").body(Body::empty()).unwrap();
    app.app.send(request).await.refused(401, "invalid_token");
    // The challenge leads to where the resource is described.
    let path = METADATA.strip_prefix("https://files.example").unwrap();
    assert_eq!(app.get(path).await.json()["resource"], FILES);
}

#[tokio::test]
async fn a_request_with_a_token_that_does_not_count_is_401_and_told_so() {
    let app = IssuerApp::start().await;
    let answer = app.verified("", "nonsense").await;
    answer.refused(401, "invalid_token");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
    assert!(challenge.contains(&format!("resource_metadata=\"{METADATA}\"")), "{challenge}");
    // Not even in the query.
    let token = app.machine_token("backend").await;
    app.get(&format!("/verify?access_token={token}")).await.refused(401, "invalid_token");
}

#[tokio::test]
async fn a_token_that_does_not_go_so_far_is_403_and_every_scope_is_named() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    let answer = app.verified("?scope=read+write", reply["access_token"].as_str().unwrap()).await;
    answer.refused(403, "insufficient_scope");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"read write\""), "{challenge}");
}

#[tokio::test]
async fn a_token_for_another_resource_is_403() {
    let app = IssuerApp::with(|told| told.resources.push(resource("https://other.example", "read"))).await;
    let form = [("grant_type", "client_credentials"), ("resource", "https://other.example/")];
    let reply = app.post("/token", Some(("backend", SECRET)), &form).await.json();
    let token = reply["access_token"].as_str().unwrap();
    assert_eq!(app.verified("?resource=https://other.example", token).await.status, 200, "the slash is no difference");
    assert_eq!(app.verified("?resource=https://other.example/", token).await.status, 200);
    app.verified(&format!("?resource={FILES}"), token).await.refused(403, "access_denied");
}

#[tokio::test]
async fn the_resource_is_one_that_is_protected() {
    let app = IssuerApp::with(|told| told.resources.push(resource("https://other.example", "read"))).await;
    let token = {
        let form = [("grant_type", "client_credentials"), ("resource", FILES)];
        let reply = app.post("/token", Some(("backend", SECRET)), &form).await.json();
        reply["access_token"].as_str().unwrap().to_owned()
    };
    for query in [
        "",
        "?resource=https://unknown.example",
        "?resource=nonsense",
        "?resource=https://files.example/mcp&resource=https://other.example",
    ] {
        let answer = app.verified(query, &token).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_target")), "{query}");
    }
    let answer = app.verified("?scope=%22", &token).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_scope")));
}

/// Which resource a proxy's headers lead to, seen from the scope that is wanted.
async fn led_to(app: &IssuerApp, peer: &str, headers: &[(&str, &str)]) -> String {
    let mut request = Request::get("/verify");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = app.app.send_from(peer, request.body(Body::empty()).unwrap()).await;
    match answer.header("www-authenticate").and_then(|c| c.split("scope=\"").nth(1)) {
        Some(rest) if answer.status == 401 => rest.split('"').next().unwrap().to_owned(),
        _ => answer.status.as_u16().to_string(),
    }
}

#[tokio::test]
async fn the_headers_of_a_trusted_proxy_say_which_resource() {
    let app = IssuerApp::with(|told| {
        told.resources = vec![
            resource("https://h.example", "root"),
            resource("https://h.example/mcp", "mcp"),
            resource("https://h.example/mcp/deep", "deep"),
            resource("https://other.example/mcp", "other"),
        ];
    })
    .await;
    for (url, scope) in [
        ("https://h.example/", "root"),
        ("https://h.example/mcp", "mcp"),
        ("https://h.example/mcp/x?y=z", "mcp"),
        ("https://h.example/mcp/deep", "deep"),
        ("https://h.example/mcp/deep/er", "deep"),
        ("https://h.example/mcpx", "root"),
        ("https://h.example/mcp/../x", "root"),
        ("https://h.example/mcp/%2e%2e/x", "root"),
        ("https://other.example/mcp", "other"),
        ("https://other.example/", "403"),
        ("http://h.example/mcp", "403"),
        ("https://h.example:8443/mcp", "403"),
        ("nonsense", "403"),
    ] {
        assert_eq!(led_to(&app, PROXY, &[("x-original-url", url)]).await, scope, "{url}");
        assert_eq!(led_to(&app, "192.0.2.1", &[("x-original-url", url)]).await, "400", "nobody said it");
        if let Some((scheme, rest)) = url.split_once("://") {
            let (host, path) = rest.split_at(rest.find('/').unwrap());
            let told = [("x-forwarded-proto", scheme), ("x-forwarded-host", host), ("x-forwarded-uri", path)];
            assert_eq!(led_to(&app, PROXY, &told).await, scope, "{url}");
            assert_eq!(led_to(&app, "192.0.2.1", &told).await, "400", "nobody said it");
        }
    }
    let told = [("x-forwarded-proto", "wss"), ("x-forwarded-host", "h.example"), ("x-forwarded-uri", "/mcp")];
    assert_eq!(led_to(&app, PROXY, &told).await, "mcp");
}

#[tokio::test]
async fn a_client_cannot_pick_the_resource_past_its_proxy() {
    let app = IssuerApp::with(|told| {
        told.resources = vec![resource("https://h.example/a", "a"), resource("https://h.example/b", "b")];
    })
    .await;
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "h.example"), ("x-forwarded-uri", "/a")];
    // The proxy sets the one kind, the client sends the other along.
    let both = |url| [forwarded.as_slice(), &[("x-original-url", url)]].concat();
    assert_eq!(led_to(&app, PROXY, &both("https://h.example/a/x")).await, "a");
    assert_eq!(led_to(&app, PROXY, &both("https://h.example/b")).await, "403");
    assert_eq!(led_to(&app, PROXY, &both("https://elsewhere.example")).await, "403");
    // The same header twice, or a host that is more than one.
    assert_eq!(led_to(&app, PROXY, &[forwarded.as_slice(), &[("x-forwarded-uri", "/b")]].concat()).await, "403");
    for host in ["h.example/b?", "x@h.example", "h.example#"] {
        let told = [("x-forwarded-proto", "https"), ("x-forwarded-host", host), ("x-forwarded-uri", "/a")];
        assert_eq!(led_to(&app, PROXY, &told).await, "403", "{host}");
    }
    // Said in the query it is the proxy's own word.
    let request = Request::get("/verify?resource=https://h.example/a").header("x-original-url", "https://h.example/b");
    let answer = app.app.send_from(PROXY, request.body(Body::empty()).unwrap()).await;
    assert!(answer.header("www-authenticate").unwrap().contains("scope=\"a\""));
}

#[tokio::test]
async fn an_outage_is_503_and_never_401() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    let token = reply["access_token"].as_str().unwrap();
    app.app.break_store(true);
    let answer = app.verified("", token).await;
    answer.refused(503, "temporarily_unavailable");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    app.app.break_store(false);
    assert_eq!(app.verified("", token).await.status, 200);
    app.app.break_store(true);
    assert_eq!(app.verified("", token).await.status, 200, "it was verified a moment ago");
}
