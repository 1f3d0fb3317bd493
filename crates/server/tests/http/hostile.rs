//! Whatever is sent, nothing panics, nothing is our fault, and nothing is reflected.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use proptest::prelude::*;

use crate::app::TestApp;

const ROUTES: [&str; 12] = [
    "/v1/connections",
    "/v1/connections/fake/_default/alice",
    "/v1/connections/fake/_default/alice/token",
    "/v1/connections/fake/_default/alice/token/refresh",
    "/v1/subjects/_default/alice",
    "/v1/connect",
    "/v1/integrations/fake",
    "/v1/keys",
    "/v1/providers",
    "/v1/stats",
    "/healthz",
    "/metrics",
];

const HEADERS: [&str; 7] =
    ["authorization", "x-api-key", "content-type", "if-none-match", "x-request-id", "cookie", "content-length"];

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just("v1".to_owned()),
        Just("connections".to_owned()),
        Just("token".to_owned()),
        "[!-~]{0,8}",
        "(%[0-9a-fA-F]{2}){1,4}",
        "%[0-9a-z]{0,2}",
    ];
    let made_up = prop::collection::vec(segment, 0..7).prop_map(|segments| format!("/{}", segments.join("/")));
    let query = prop_oneof![Just(String::new()), "\\?[ -~]{0,20}", "\\?(min_ttl|limit|force|revoke)=[ -~]{0,6}"];
    (prop_oneof![prop::sample::select(&ROUTES[..]).prop_map(str::to_owned), made_up], query)
        .prop_map(|(path, query)| path + &query)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let member = prop_oneof![
        Just("access_token"),
        Just("refresh_token"),
        Just("expires_in"),
        Just("expires_at"),
        Just("name"),
        Just("role"),
        Just("client_id"),
        Just("if_generation"),
        Just("provider"),
    ];
    let value = prop_oneof![Just("null".to_owned()), "[0-9]{1,22}", "\"[ -!#-\\[\\]-~]{0,9}\"", "\\[\\]", "\\{\\}"];
    let object = prop::collection::vec((member, value), 0..4).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    });
    prop_oneof![Just(Vec::new()), object, prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_is_answered_with_500(
        method in prop::sample::select(&["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"][..]),
        path in path(),
        headers in prop::collection::vec((prop::sample::select(&HEADERS[..]), "[ -~\u{80}-\u{ff}]{0,24}"), 0..4),
        json in any::<bool>(),
        admin in any::<bool>(),
        body in body(),
    ) {
        let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = TestApp::start().await;
            let mut request = Request::new(Body::from(body));
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            *request.uri_mut() = uri;
            for (name, value) in headers {
                let value: Vec<u8> = value.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    request.headers_mut().append(HeaderName::from_static(name), value);
                }
            }
            if json {
                request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            }
            if admin {
                request.headers_mut().insert("x-api-key", app.key.parse().unwrap());
                request.headers_mut().remove("authorization");
            }
            let answer = app.send(request).await;
            assert_ne!(answer.status, 500, "{answer:?}");
            if answer.status.as_u16() >= 400 && method != "HEAD" {
                assert!(answer.json()["code"].is_string(), "{answer:?}");
            }
        });
    }
}
