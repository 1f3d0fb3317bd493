use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HeaderName};

use super::*;

fn api() -> ApiOf {
    ApiOf {
        hosts: Vec::new(),
        token_header: AUTHORIZATION,
        token_prefix: None,
        headers: vec![(HeaderName::from_static("notion-version"), HeaderValue::from_static("2022-06-28"))],
        unauthorized: vec![401],
        counted: std::sync::OnceLock::new(),
    }
}

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

/// `name: value` of all that goes out, in order of the name.
fn sent(given: &HeaderMap) -> Vec<String> {
    let token = token(&api(), "Bearer", &"the-token".into()).unwrap();
    let mut lines: Vec<_> = outgoing(given, &api(), token)
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .filter(|line| !line.starts_with("user-agent: tokenkeep/"))
        .collect();
    lines.sort();
    lines
}

const ALWAYS: [&str; 2] = ["authorization: Bearer the-token", "notion-version: 2022-06-28"];

#[test]
fn nothing_that_is_said_to_us_goes_on() {
    for (name, value) in [
        ("authorization", "Bearer tk_secret"),
        ("authorization", "Basic c2VjcmV0"),
        ("x-api-key", "tk_secret"),
        ("cookie", "session=secret"),
        ("cookie2", "session=secret"),
        ("proxy-authorization", "Basic c2VjcmV0"),
        ("proxy-authenticate", "Basic"),
        ("proxy-connection", "keep-alive"),
        ("host", "elsewhere.example"),
        ("x-host", "elsewhere.example"),
        ("x-original-host", "elsewhere.example"),
        ("x-forwarded-host", "elsewhere.example"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-prefix", "/admin"),
        ("forwarded", "for=10.0.0.1;host=elsewhere.example"),
        ("x-real-ip", "10.0.0.1"),
        ("true-client-ip", "10.0.0.1"),
        ("via", "1.1 inside"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-tokenkeep-host", "api.example.com"),
        ("x-tokenkeep-anything", "x"),
        ("te", "trailers"),
        ("trailer", "authorization"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "chunked, identity"),
        ("content-length", "5"),
        ("upgrade", "websocket"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("keep-alive", "timeout=5"),
        ("expect", "100-continue"),
        ("connection", "close"),
    ] {
        assert_eq!(sent(&map(&[(name, value)])), ALWAYS, "{name}: {value}");
        let mut twice = map(&[(name, value)]);
        twice.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("again"));
        assert_eq!(sent(&twice), ALWAYS, "{name} twice");
    }
}

#[test]
fn what_the_connection_header_lists_stays_and_the_token_cannot_be_listed_away() {
    let listed = map(&[
        ("connection", "x-one, Authorization,,, X-Two ,notion-version, close, \"x\", ;"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
    ]);
    assert_eq!(sent(&listed), [ALWAYS[0], ALWAYS[1], "x-three: 3"]);
}

#[test]
fn everything_else_goes_through_however_often() {
    let mut given = map(&[("accept", "application/json"), ("content-type", "text/plain"), ("x-request-id", "r1")]);
    given.append(ACCEPT, HeaderValue::from_static("text/html"));
    let through = ["accept: application/json", "accept: text/html", ALWAYS[0], "content-type: text/plain", ALWAYS[1]];
    assert_eq!(sent(&given), [through.as_slice(), &["x-request-id: r1"]].concat());
    let api_header = map(&[("notion-version", "2025-01-01")]);
    assert_eq!(sent(&api_header), [ALWAYS[0], "notion-version: 2025-01-01"], "the caller's word counts");
    let token = token(&api(), "", &"t".into()).unwrap();
    assert_eq!(outgoing(&map(&[("user-agent", "curl")]), &api(), token)["user-agent"], "curl");
}

#[test]
fn the_token_is_written_as_the_provider_wants_it() {
    let written = |header: HeaderName, prefix: Option<&str>, kind: &str| {
        let api = ApiOf { token_header: header.clone(), token_prefix: prefix.map(str::to_owned), ..api() };
        let value = token(&api, kind, &"t".into()).unwrap();
        assert!(value.is_sensitive());
        let given = map(&[("authorization", "Bearer tk_secret"), ("x-api-key", "tk_secret"), ("x-shop-token", "mine")]);
        let sent = outgoing(&given, &api, value);
        assert_eq!(sent.get_all(&header).iter().count(), 1);
        assert!(!format!("{sent:?}").contains("tk_secret"));
        sent[header].to_str().unwrap().to_owned()
    };
    let x_api_key = HeaderName::from_static("x-api-key");
    assert_eq!(written(AUTHORIZATION, None, "Bearer"), "Bearer t");
    assert_eq!(written(AUTHORIZATION, None, "bearer"), "Bearer t");
    assert_eq!(written(AUTHORIZATION, None, ""), "Bearer t");
    assert_eq!(written(AUTHORIZATION, None, "MAC"), "MAC t");
    assert_eq!(written(AUTHORIZATION, Some("Token "), "bearer"), "Token t");
    assert_eq!(written(HeaderName::from_static("x-shop-token"), Some(""), "bearer"), "t");
    assert_eq!(written(x_api_key, Some(""), "bearer"), "t");
    for broken in ["a\r\nx: y", "a\nb", "a\0"] {
        assert_eq!(token(&api(), "Bearer", &broken.into()), None);
    }
}

#[test]
fn a_reply_is_passed_on_without_what_is_not_for_the_caller() {
    let mut reply = map(&[
        ("connection", "keep-alive, x-hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "Basic"),
        ("upgrade", "h2c"),
        ("trailer", "x"),
        ("set-cookie", "session=theirs"),
        ("strict-transport-security", "max-age=1"),
        ("clear-site-data", "\"*\""),
        ("alt-svc", "h3=\":443\""),
        ("x-tokenkeep-error", "forged"),
        ("x-echo", "you sent Bearer the-token, did you not"),
        ("location", "https://elsewhere.example/?access_token=the-token"),
        ("content-type", "application/json"),
        ("content-length", "3"), // beside the transfer encoding it means nothing
        ("www-authenticate", "Bearer error=\"invalid_token\""),
        ("retry-after", "3"),
        ("x-ratelimit-remaining", "0"),
        ("x-request-id", "theirs"),
    ]);
    incoming(&mut reply, &"the-token".into());
    let mut left: Vec<_> = reply.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    let through = ["content-type", "retry-after", "www-authenticate", "x-ratelimit-remaining", "x-request-id"];
    assert_eq!(left, through);

    let mut redirect = map(&[("location", "https://elsewhere.example/")]);
    incoming(&mut redirect, &"the-token".into());
    assert_eq!(redirect["location"], "https://elsewhere.example/");
}

#[test]
fn hop_by_hop_is_what_the_connection_says_and_the_rfc() {
    let mut headers = map(&[("connection", "X-Mine"), ("x-mine", "1"), ("te", "trailers"), ("authorization", "x")]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers.len(), 1);
    assert!(headers.contains_key(AUTHORIZATION) && !headers.contains_key(CONNECTION));
}

#[test]
fn a_length_beside_a_transfer_encoding_goes_with_it() {
    let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3"), ("x-own", "1")]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("x-own", "1")]));
    let mut headers = map(&[("content-length", "3")]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("content-length", "3")]));
}
