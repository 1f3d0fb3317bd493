//! Nothing that holds a secret can be printed, and nothing that is read can make us panic.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeMap, fmt::Debug};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use proptest::prelude::*;
use tokenkeep_oauth::{
    Client, Dialect, Secret,
    authorize::{AuthorizeParams, parse_authorization_response},
    client_assertion::parse_service_account,
    device::parse_device_response,
    dialect::{ClientAuth, ErrorShape, Expiry, RefreshRequest, ReplyShape},
    discovery::{build_metadata_urls, parse_metadata},
    id_token::{Expected, parse_direct_id_token},
    params::Vars,
    pkce::Verifier,
    revoke::{
        TokenKind, build_basic_delete, build_bearer_revocation, build_revocation_request, parse_revocation_response,
    },
    token::{Grant, RequestContext, TokenRequest, build_token_request, parse_code_response, parse_token_response},
};

/// What must not come out anywhere.
const CANARY: &str = "canary-7f3a";

fn secret() -> Secret {
    CANARY.into()
}

#[track_caller]
fn silent(value: &impl Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

fn dialects() -> Vec<Dialect> {
    let plain = Dialect::default;
    vec![
        plain(),
        Dialect { client_auth: ClientAuth::Basic, expiry: Expiry::EpochSeconds("at".into()), ..plain() },
        Dialect { errors: ErrorShape::OkFalse, expiry: Expiry::Rfc3339("at".into()), ..plain() },
        Dialect { errors: ErrorShape::StatusNonZero, reply: ReplyShape::Under("body".into()), ..plain() },
        Dialect { errors: ErrorShape::Graph, expiry: Expiry::Never, ..plain() },
        Dialect { errors: ErrorShape::DeadRefreshToken("dead".into()), ..plain() },
    ]
}

#[test]
fn requests_cannot_be_printed() {
    let (url, params) = ("https://id.example/token".parse().unwrap(), Vars::new());
    let context = RequestContext::new(Timestamp::UNIX_EPOCH, [0; 16], &params);
    let client = Client::with_secret("c", secret());
    silent(&client);
    let grants = [
        Grant::AuthorizationCode { code: secret(), redirect_uri: String::new(), verifier: Some(secret()) },
        Grant::RefreshToken { refresh_token: secret(), scope: None },
        Grant::JwtBearer { assertion: secret(), scope: None },
        Grant::DeviceCode { device_code: secret() },
        Grant::AccessToken { access_token: secret() },
        Grant::Password { username: "u".into(), password: secret(), scope: None },
    ];
    let check = |request: TokenRequest| {
        silent(&request);
        silent(&request.headers);
    };
    for client_auth in [ClientAuth::Post, ClientAuth::Basic, ClientAuth::None] {
        let dialect = Dialect {
            client_auth,
            refresh: RefreshRequest::AccessTokenByGet { grant_type: "x".into() },
            token_headers: BTreeMap::from([("apikey".into(), CANARY.into())]),
            ..Dialect::default()
        };
        for grant in &grants {
            silent(grant);
            check(build_token_request(&dialect, &url, &client, grant, &context).unwrap());
        }
        let kind = TokenKind::Refresh;
        check(build_revocation_request(&dialect, &url, &client, &secret(), kind, &context).unwrap());
        check(build_basic_delete(&dialect, &url, &client, &secret(), &context).unwrap());
        check(build_bearer_revocation(&dialect, Method::POST, &url, &client, &secret(), &context).unwrap());
    }
    let extra = BTreeMap::new();
    silent(&AuthorizeParams {
        url: &url,
        client_id: "c",
        redirect_uri: "r",
        scope: None,
        companion_scope: None,
        state: &secret(),
        challenge: None,
        nonce: None,
        params: &params,
        extra: &extra,
    });
    silent(&Verifier::from_secret(CANARY.repeat(4).into()).unwrap());
}

#[test]
fn replies_cannot_be_printed() {
    let headers = HeaderMap::new();
    let at = Timestamp::UNIX_EPOCH;
    let good = format!(r#"{{"access_token":"{CANARY}","refresh_token":"{CANARY}","id_token":"{CANARY}"}}"#);
    silent(&parse_token_response(&Dialect::default(), StatusCode::OK, &headers, good.as_bytes(), at, None).unwrap());
    silent(&parse_code_response(&Dialect::default(), StatusCode::OK, &headers, good.as_bytes(), at, None).unwrap());
    let callback = format!("code={CANARY}&state={CANARY}");
    silent(&parse_authorization_response(&Dialect::default(), callback.as_bytes()).unwrap());
    let device = format!(r#"{{"device_code":"{CANARY}","user_code":"u","verification_uri":"https://a.example"}}"#);
    silent(&parse_device_response(&Dialect::default(), StatusCode::OK, &headers, device.as_bytes(), at).unwrap());
}

/// A provider may answer with what was sent; a failure must not carry it on, in `Debug` or `Display`.
#[test]
fn failures_do_not_repeat_the_reply() {
    let bodies = [
        format!("Invalid token {CANARY}"),
        format!(r#"{{"error":"{CANARY}!","error_description":"{CANARY}"}}"#),
        format!(r#"{{"error":"Token {CANARY} is dead"}}"#),
        format!(r#"{{"ok":false,"error":"no {CANARY}"}}"#),
        format!(r#"{{"status":503,"error":"invalid refresh_token {CANARY}"}}"#),
        format!(r#"{{"error":{{"type":"{CANARY} ","code":"{CANARY} ","message":"{CANARY}"}}}}"#),
        format!(r#"{{"access_token":7,"token":"{CANARY}"}}"#),
        format!("error={CANARY}+dead"),
    ];
    for dialect in dialects() {
        for status in [200, 302, 400, 401, 409, 429, 500] {
            for body in &bodies {
                let status = StatusCode::from_u16(status).unwrap();
                let (headers, now) = (HeaderMap::new(), Timestamp::UNIX_EPOCH);
                let failure = parse_token_response(&dialect, status, &headers, body.as_bytes(), now, None).unwrap_err();
                silent(&failure);
                assert!(!failure.to_string().contains(CANARY) && !failure.code().contains(CANARY), "{failure}");
                silent(&parse_revocation_response(status, &headers, body.as_bytes(), now));
            }
        }
    }
}

/// Bytes that look like a reply often enough to get past the first check.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "access_token",
        "refresh_token",
        "expires_in",
        "at",
        "error",
        "errors",
        "body",
        "status",
        "ok",
        "scope",
        "code",
        "device_code",
        "user_code",
        "verification_uri",
        "issuer",
        "token_type",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        Just("{}".to_owned()),
        Just("[{\"errorType\":1}]".to_owned()),
        Just("null".to_owned()),
        Just("\"https://a.example\"".to_owned()),
    ];
    let object = prop::collection::vec((word, value), 0..8).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    });
    prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes), object]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_reply_makes_us_panic(body in body(), status in 100u16..1000, retry in any::<Vec<u8>>(), now in any::<i64>()) {
        let now = Timestamp::from_second(now % 200_000_000_000).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&retry) {
            headers.insert("retry-after", value);
        }
        for dialect in dialects() {
            if let Ok(reply) = parse_token_response(&dialect, status, &headers, &body, now, None) {
                prop_assert!(status.is_success());
                prop_assert!(reply.expires_at.is_none_or(|at| at > now));
            }
            let _ = parse_code_response(&dialect, status, &headers, &body, now, None);
            let _ = parse_device_response(&dialect, status, &headers, &body, now);
            let _ = parse_authorization_response(&dialect, &body);
        }
        let _ = parse_revocation_response(status, &headers, &body, now);
        let _ = parse_metadata("https://a.example", status, &body);
    }

    #[test]
    fn no_text_makes_us_panic(text in any::<String>()) {
        let expected = Expected { issuer: &text, client_id: &text, nonce: None };
        let _ = parse_direct_id_token(&text.clone().into(), expected, Timestamp::UNIX_EPOCH);
        let _ = parse_service_account(&text.clone().into());
        let _ = build_metadata_urls(&text);
        let _ = Verifier::from_secret(text.into());
    }
}
