//! Where a client may have answers sent: what it may register, and what is then taken for it.

use http::Request;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    CALLBACK, IssuerApp,
    pages::{NOTES, answer_of, app, app_with, check_page, request, request_of},
};
use crate::{
    app::{TestApp, json_request},
    browser::Browser,
};

#[tokio::test]
async fn redirect_uris_of_every_kind_are_registered_or_refused() {
    let app = IssuerApp::start().await;
    let register = async |uri: &str| {
        let body = json!({"redirect_uris": [uri], "token_endpoint_auth_method": "none"});
        app.app.send(json_request(Request::post("/register"), &body)).await
    };
    for good in [
        "https://app.example/cb",
        "https://app.example:8443/cb?a=b",
        "http://127.0.0.1/cb",
        "http://127.0.0.1:51004/cb",
        "http://[::1]:3000/cb",
        "http://localhost:6274/oauth/callback/debug",
        "com.example.app:/cb",
        "com.example.app://cb",
    ] {
        let answer = register(good).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["redirect_uris"]), (201, &json!([good])), "{answer:?}");
    }
    for bad in [
        "",
        "/cb",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "about:blank",
        "myapp:/cb",
        "http://app.example/cb",
        "http://10.0.0.1/cb",
        "http://0.0.0.0/cb",
        "http://localhost.evil.com/cb",
        "http://127.0.0.1.evil.com/cb",
        "http://localhost@evil.com/cb",
        "https://app.example/cb#f",
        "https://u:p@app.example/cb",
        "https://app.example\\@evil.com/",
        "https://app.example/c b",
        "https://app.example/<script>",
    ] {
        register(bad).await.refused(400, "invalid_redirect_uri");
    }
}

/// How `/authorize` answers: 303 if it goes on.
async fn asked(app: &TestApp, query: &str) -> u16 {
    let answer = Browser::default().get(app, &format!("/authorize?{query}")).await;
    if answer.status == 400 {
        check_page(&answer, 400);
    }
    answer.status.as_u16()
}

#[tokio::test]
async fn what_was_registered_matches_exactly_and_on_this_machine_at_any_port() {
    let app = app().await;
    for (client, redirect_uri, status) in [
        ("web", CALLBACK, 303),
        ("web", "https://web.example/callback2", 400),
        ("web", "https://web.example/callback?x=1", 400),
        ("web", "https://web.example:443/callback", 400),
        ("web", "https://WEB.example/callback", 400),
        ("web", "https://web.example.evil.com/callback", 400),
        ("web", "http://web.example/callback", 400),
        ("loopback", "http://127.0.0.1/cb", 303),
        ("loopback", "http://127.0.0.1:51004/cb", 303),
        ("loopback", "http://127.0.0.1:51004/cb2", 400),
        ("loopback", "http://localhost:51004/cb", 400),
        ("loopback", "http://127.0.0.1:51004@evil.com/cb", 400),
        ("loopback", "http://127.0.0.1.evil.com/cb", 400),
        ("loopback", "https://127.0.0.1/cb", 400),
        ("scheme", "com.example.app:/cb", 303),
        ("scheme", "com.example.app:/other", 400),
    ] {
        assert_eq!(asked(&app, &request_of(client, redirect_uri)).await, status, "{client} {redirect_uri}");
    }
}

#[tokio::test]
async fn redirect_uri_may_be_left_out_where_there_is_one_place_and_no_port_to_know() {
    let app = app().await;
    for (client, redirect_uri, status) in
        [("web", CALLBACK, 303), ("scheme", "com.example.app:/cb", 303), ("loopback", "http://127.0.0.1/cb", 400)]
    {
        let named: String = form_urlencoded::byte_serialize(redirect_uri.as_bytes()).collect();
        let without = request_of(client, redirect_uri).replace(&format!("&redirect_uri={named}"), "");
        assert!(!without.contains("redirect_uri"), "{without}");
        assert_eq!(asked(&app, &without).await, status, "{client}");
    }
}

#[tokio::test]
async fn a_resource_has_one_name_with_and_without_its_slash() {
    let root = |told: &mut tokenkeep_engine::issuer::IssuerSettings| {
        told.resources = vec![super::resource("https://h.example", "read"), super::resource(NOTES, "read")];
    };
    let app = app_with(root).await;
    let naming = |resource: &str| {
        let resource: String = form_urlencoded::byte_serialize(resource.as_bytes()).collect();
        format!("{}&resource={resource}", request())
    };
    for same in ["https://h.example", "https://h.example/", "https://H.example:443/"] {
        assert_eq!(asked(&app, &naming(same)).await, 303, "{same}");
        let sent = Browser::default().get(&app, &format!("/authorize?{}", naming(same))).await;
        let page = Browser::default().get(&app, sent.header("location").unwrap()).await;
        assert!(page.text().contains("https://h.example") && !page.text().contains("https://h.example/"), "{same}");
    }
    for other in ["https://h.example//", "https://h.example/x", "https://notes.example/mcp/", "http://h.example"] {
        let answer = Browser::default().get(&app, &format!("/authorize?{}", naming(other))).await;
        assert_eq!(answer_of(&answer)["error"], "invalid_target", "{other}");
    }

    let app = IssuerApp::with(|told| told.resources = vec![super::resource("https://h.example/", "read")]).await;
    for (resource, counts) in
        [("https://h.example", true), ("https://h.example/", true), ("https://h.example//", false)]
    {
        let (code, verifier) = app.allow_for("native", "read", "https://h.example").await;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "native"),
            ("code", &*code),
            ("code_verifier", &*verifier),
            ("redirect_uri", CALLBACK),
            ("resource", resource),
        ];
        let answer = app.post("/token", None, &form).await;
        if !counts {
            answer.refused(400, "invalid_target");
            continue;
        }
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(app.introspected(&token).await["aud"], "https://h.example", "{resource}");
    }
}

/// The id of a client may be an address that this server fetches: never one that only this server can reach.
#[tokio::test]
async fn nobody_has_this_server_fetch_a_document_from_its_own_network() {
    let app = app().await;
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = door.local_addr().unwrap().port();
    for id in [
        format!("https://127.0.0.1:{port}/client.json"),
        format!("https://localhost:{port}/client.json"),
        format!("https://[::ffff:127.0.0.1]:{port}/client.json"),
        format!("http://127.0.0.1:{port}/client.json"),
        format!("https://u:p@127.0.0.1:{port}/client.json"),
    ] {
        let mut browser = Browser::default();
        let request = format!("/authorize?{}", request_of(&id, CALLBACK));
        let answer = tokio::select! {
            answer = browser.get(&app, &request) => answer,
            _ = door.accept() => panic!("it knocked: {id}"),
        };
        check_page(&answer, 400);
    }
    // A knock would have been heard: here is one, where the operator allows that host.
    let app = app_with(|told| told.document_hosts = ["127.0.0.1".to_owned()].into()).await;
    let request = request_of(&format!("https://127.0.0.1:{port}/client.json"), CALLBACK);
    tokio::select! {
        status = asked(&app, &request) => panic!("it did not knock where it may: {status}"),
        knock = door.accept() => assert!(knock.is_ok()),
    }
}
