//! What gets through, and what does not.

use axum::{body::Body, response::IntoResponse as _};
use http::{HeaderName, StatusCode};

use super::{Behind, IssuerApp, calling};
use crate::issuer::PROXY;

#[tokio::test]
async fn nobody_says_who_they_are_themselves() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    let spoofs = [
        ("x-user-id", "root"),
        ("X_User_Id", "root"),
        ("x-user-email", "root@example.com"),
        ("x-auth-scope", "admin"),
        ("x-auth-token", "root"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-user", "root"),
        ("forwarded", "for=203.0.113.7"),
        ("x-real-ip", "203.0.113.7"),
        ("remote_user", "root"),
        ("Mcp_Session_Id", "root"),
        ("cookie", "tokenkeep-connect=x; session=1"),
        ("proxy-authorization", "Basic eDp5"),
        ("origin", "https://evil.example"),
        ("connection", "keep-alive, x-user-name, x-own"),
        ("x-own", "named as hop-by-hop"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("expect", "100-continue"),
    ];
    assert_eq!(app.app.send_from("192.0.2.9", calling("POST", "/mcp", &token, &spoofs)).await.status, 200);
    let seen = behind.only();
    assert_eq!(seen.header("x-user-id"), Some("github|42"));
    assert_eq!(seen.header("x-user-name"), Some("Zo%C3%AB%20Quinn"));
    assert_eq!(seen.header("x-auth-scope"), Some(""));
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.9"));
    assert_eq!(seen.header("x-forwarded-host"), Some("tools.example"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    let known =
        ["x-user-id", "x-user-name", "x-auth-scope", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    let mut others: Vec<_> = seen.headers.keys().map(HeaderName::as_str).filter(|n| !known.contains(n)).collect();
    others.sort_unstable();
    assert_eq!(others, ["content-length", "host"]);
    let all = format!("{seen:?}");
    for hidden in [&*token, "root", "203.0.113.7", "evil"] {
        assert!(!all.contains(hidden), "{all}");
    }
    // Whom a trusted proxy speaks for is known.
    let told = calling("POST", "/mcp", &token, &[("x-forwarded-for", "198.51.100.1")]);
    app.app.send_from(PROXY, told).await;
    assert_eq!(behind.only().header("x-forwarded-for"), Some("198.51.100.1"));
}

#[tokio::test]
async fn what_mcp_says_gets_through_both_ways() {
    let said = |_: &super::Seen| {
        (
            StatusCode::ACCEPTED,
            [
                ("mcp-protocol-version", "2025-11-25"),
                ("content-type", "application/json; charset=utf-8"),
                ("etag", "\"1\""),
                ("cache-control", "max-age=5"),
                ("set-cookie", "__Host-tokenkeep-connect=planted; Path=/"),
                ("strict-transport-security", "max-age=1"),
                ("clear-site-data", "\"cookies\""),
                ("alt-svc", "h3=\":443\""),
            ],
            "{}",
        )
            .into_response()
    };
    let behind = Behind::saying(said).await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    let told = [
        ("mcp-protocol-version", "2025-11-25"),
        ("last-event-id", "42"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("x-custom", "1"),
    ];
    let mut request = calling("POST", "/mcp", &token, &told);
    *request.body_mut() = Body::from("{\"jsonrpc\":\"2.0\"}");
    let answer = app.app.send(request).await;
    let seen = behind.only();
    for (name, value) in told {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.body, "{\"jsonrpc\":\"2.0\"}");
    assert_eq!(seen.header("content-length"), Some("17"));
    assert_eq!((answer.status, answer.text()), (StatusCode::ACCEPTED, "{}"));
    for (name, value) in [
        ("mcp-protocol-version", "2025-11-25"),
        ("etag", "\"1\""),
        ("cache-control", "max-age=5"),
        ("content-length", "2"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    for name in ["set-cookie", "strict-transport-security", "clear-site-data", "alt-svc"] {
        assert_eq!(answer.header(name), None, "{name} is about all of our origin");
    }
}

#[tokio::test]
async fn methods_get_through_as_they_are() {
    let behind = Behind::saying(|_| [("x-own", "1")].into_response()).await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PURGE"] {
        let answer = app.call(method, "/mcp", &token, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-own")), (200, Some("1")), "{method}");
        assert_eq!(behind.only().method, *method);
    }
}

#[tokio::test]
async fn what_would_echo_a_request_or_open_a_tunnel_goes_nowhere() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    for method in ["TRACE", "CONNECT"] {
        let answer = app.call(method, "/mcp", &token, &[]).await;
        answer.problem(405, "method_not_allowed");
        let allowed = answer.header("allow").unwrap();
        assert!(allowed.contains("POST") && !allowed.contains(method), "{allowed}");
    }
    assert!(behind.saw_nothing());
}

#[tokio::test]
async fn a_redirect_stays_here() {
    let sent = |seen: &super::Seen| {
        let host = seen.header("host").unwrap();
        let to = match seen.uri.path() {
            "/inner" => format!("http://{host}/inner/"),
            "/inner/up" => "/other".to_owned(),
            _ => "https://elsewhere.example/".to_owned(),
        };
        (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response()
    };
    let behind = Behind::saying(sent).await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    for (path, to) in
        [("/mcp", "https://tools.example/mcp/"), ("/mcp/up", "/other"), ("/mcp/away", "https://elsewhere.example/")]
    {
        let answer = app.call("POST", path, &token, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (307, Some(to)));
    }
}
