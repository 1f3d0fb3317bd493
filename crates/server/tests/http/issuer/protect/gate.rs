//! Who is let through, and what the others are told.

use axum::{body::Body, response::IntoResponse as _};
use http::{Request, StatusCode};

use super::{Behind, IssuerApp, TOOLS, calling};
use crate::issuer::FILES;

const METADATA: &str = "https://tools.example/.well-known/oauth-protected-resource/mcp";

#[tokio::test]
async fn who_has_a_token_is_let_through_with_a_name() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "tools").await;
    let token = app.tools_token("tools").await;
    let answer = app.call("GET", "/mcp/a/b?c=d%20e&access_token=x", &token, &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text(), "{\"from\":\"behind\"}");
    let seen = behind.only();
    assert_eq!(seen.uri, "/inner/a/b?c=d%20e&access_token=x");
    assert_eq!(seen.header("x-user-id"), Some("github|42"));
    assert_eq!(seen.header("x-user-name"), Some("Zo%C3%AB%20Quinn"));
    assert_eq!(seen.header("x-auth-scope"), Some("tools"));
    assert_eq!(seen.header("authorization"), None, "our token is for us");
    assert_eq!(seen.header("host"), behind.url.authority().into());
}

#[tokio::test]
async fn who_has_none_learns_where_to_get_one() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "tools").await;
    let bare = format!("Bearer scope=\"tools\", resource_metadata=\"{METADATA}\"");
    for path in ["/mcp", "/mcp/", "/mcp/a", "/mcp?access_token=x"] {
        for method in ["GET", "POST", "DELETE", "HEAD", "PUT"] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = app.app.send(request).await;
            assert_eq!(answer.status, 401, "{method} {path} {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some(&*bare), "no error: none was brought");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
    }
    let answer = app.call("POST", "/mcp", "nonsense", &[]).await;
    answer.refused(401, "invalid_token");
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
    // The token of somebody who may do anything here is none for there.
    app.call("POST", "/mcp", &app.app.key, &[]).await.refused(401, "invalid_token");
    assert!(behind.saw_nothing());
    let described = Request::get(METADATA.strip_prefix("https://tools.example").unwrap());
    let described = app.app.send(described.header("host", "tools.example").body(Body::empty()).unwrap()).await;
    assert_eq!(described.json()["resource"], TOOLS);
    assert_eq!(described.json()["scopes_supported"], serde_json::json!(["tools"]));
}

#[tokio::test]
async fn a_token_for_elsewhere_or_for_less_is_403() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "tools admin").await;
    let reply = app.redeem(&app.allow_for("native", "read", FILES).await).await.json();
    app.call("POST", "/mcp", reply["access_token"].as_str().unwrap(), &[]).await.refused(403, "access_denied");
    let less = app.tools_token("tools").await;
    let answer = app.call("POST", "/mcp", &less, &[]).await;
    answer.refused(403, "insufficient_scope");
    assert!(answer.header("www-authenticate").unwrap().contains("scope=\"admin tools\""), "{answer:?}");
    assert!(behind.saw_nothing());
    let enough = app.tools_token("tools admin").await;
    assert_eq!(app.call("POST", "/mcp", &enough, &[]).await.status, 200);
}

#[tokio::test]
async fn a_token_that_was_taken_back_counts_no_more() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    assert_eq!(app.call("POST", "/mcp", &token, &[]).await.status, 200);
    let form = [("client_id", "native"), ("token", &*token)];
    assert_eq!(app.post("/revoke", None, &form).await.status, 200);
    app.call("POST", "/mcp", &token, &[]).await.refused(401, "invalid_token");
}

#[tokio::test]
async fn an_outage_is_no_refusal() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    app.app.break_store(true);
    let answer = app.call("POST", "/mcp", &token, &[]).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some() && answer.header("www-authenticate").is_none());
    assert!(behind.saw_nothing());
    app.app.break_store(false);
    assert_eq!(app.call("POST", "/mcp", &token, &[]).await.status, 200);
}

#[tokio::test]
async fn what_is_not_below_is_not_there_and_what_could_be_elsewhere_is_refused() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    for other in ["/inner", "/mcpx", "/", "/MCP"] {
        app.call("GET", other, &token, &[]).await.problem(404, "route_not_found");
    }
    for hostile in ["/mcp/../admin", "/mcp/%2e%2e/admin", "/mcp/a%2f..%2fadmin", "/mcp//evil.example/x", "/mcp/..%5cx"]
    {
        app.call("GET", hostile, &token, &[]).await.problem(400, "invalid_path");
    }
    assert!(behind.saw_nothing());
    for (below, there) in [("/mcp", "/inner"), ("/mcp/", "/inner/"), ("/mcp/x/", "/inner/x/"), ("/mcp?", "/inner?")] {
        assert_eq!(app.call("GET", below, &token, &[]).await.status, 200, "{below}");
        assert_eq!(behind.only().uri, there);
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_502() {
    let behind = Behind::start().await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    behind.task.abort();
    let gone = async || app.call("POST", "/mcp", &token, &[("origin", "https://web.example")]).await;
    let mut answer = gone().await;
    // The socket is closed when the task is dropped.
    while answer.status == 200 {
        tokio::task::yield_now().await;
        answer = gone().await;
    }
    let problem = answer.problem(502, "upstream_unreachable");
    assert!(!problem.to_string().contains("127.0.0.1"), "where it is concerns nobody: {problem}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_server_that_wants_credentials_itself_sends_nobody_to_sign_in() {
    let refuses =
        |_: &super::Seen| (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer realm=x")]).into_response();
    let behind = Behind::saying(refuses).await;
    let app = IssuerApp::before(&behind, "").await;
    let answer = app.call("POST", "/mcp", &app.tools_token("").await, &[]).await;
    answer.problem(502, "upstream_unauthorized");
    assert_eq!(answer.header("www-authenticate"), None);
}

#[tokio::test]
async fn what_the_server_asks_of_a_scope_reaches_the_client() {
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"tools write\"";
    let refuses = move |_: &super::Seen| (StatusCode::FORBIDDEN, [("www-authenticate", challenge)]).into_response();
    let behind = Behind::saying(refuses).await;
    let app = IssuerApp::before(&behind, "").await;
    let answer = app.call("POST", "/mcp", &app.tools_token("").await, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (403, Some(challenge)));
}

#[tokio::test]
async fn a_session_is_its_users() {
    let behind = Behind::saying(|_| [("mcp-session-id", "s.1")].into_response()).await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    let named = app.call("POST", "/mcp", &token, &[]).await.header("mcp-session-id").unwrap().to_owned();
    assert!(named.starts_with("s.1.") && !named[4..].is_empty(), "{named}");
    assert_eq!(behind.only().header("mcp-session-id"), None);
    for method in ["POST", "GET", "DELETE"] {
        let answer = app.call(method, "/mcp", &token, &[("mcp-session-id", &named)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("mcp-session-id")), (200, Some(&*named)));
        assert_eq!(behind.only().header("mcp-session-id"), Some("s.1"));
    }
    // The same user with another token, as after a refresh.
    let another = app.tools_token("").await;
    assert_eq!(app.call("POST", "/mcp", &another, &[("mcp-session-id", &named)]).await.status, 200);
    behind.only();
    let somebody = app.tools_token_of_backend().await;
    for (token, session) in [(&somebody, &*named), (&token, "s.1"), (&token, "s.2"), (&token, ""), (&token, ".")] {
        let answer = app.call("POST", "/mcp", token, &[("mcp-session-id", session)]).await;
        answer.problem(404, "session_not_found");
    }
    let twice = [("mcp-session-id", &*named), ("mcp-session-id", &*named)];
    app.call("POST", "/mcp", &token, &twice).await.problem(404, "session_not_found");
    assert!(behind.saw_nothing());
}

#[tokio::test]
async fn a_page_on_any_site_may_ask_and_read() {
    let behind = Behind::saying(|_| {
        [("access-control-allow-origin", "https://only.example"), ("access-control-allow-credentials", "true")]
            .into_response()
    })
    .await;
    let app = IssuerApp::before(&behind, "").await;
    let token = app.tools_token("").await;
    let preflight = Request::options("/mcp")
        .header("origin", "https://inspector.example")
        .header("access-control-request-method", "DELETE")
        .header("access-control-request-headers", "authorization,mcp-protocol-version,mcp-session-id,x-own");
    let answer = app.app.send(preflight.body(Body::empty()).unwrap()).await;
    assert!(answer.status.is_success(), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("DELETE"));
    let allowed = answer.header("access-control-allow-headers").unwrap();
    assert_eq!(allowed, "authorization,mcp-protocol-version,mcp-session-id,x-own");
    assert!(behind.saw_nothing());
    let asked = calling("POST", "/mcp", &token, &[("origin", "https://inspector.example")]);
    let answer = app.app.send(asked).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for name in ["mcp-session-id", "www-authenticate"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    // A server that guards itself against DNS rebinding would not know that origin.
    assert_eq!(behind.only().header("origin"), None);
}
