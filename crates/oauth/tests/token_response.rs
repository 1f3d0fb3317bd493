//! Every quirk of a token reply, and what each failure means.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokenkeep_oauth::{
    Dialect, ErrorCode, MAX_RETRY_AFTER,
    dialect::{ClientAuth, Companion, ErrorShape, Expiry, ReplyShape},
    parse_retry_after,
    token::{NoOutcome, TokenFailure, TokenReply, parse_code_response, parse_token_response},
};

const HOUR: Duration = Duration::from_hours(1);

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn parse(dialect: &Dialect, status: u16, body: &str) -> Result<TokenReply, TokenFailure> {
    let status = StatusCode::from_u16(status).unwrap();
    parse_token_response(dialect, status, &HeaderMap::new(), body.as_bytes(), now(), Some(HOUR))
}

fn plain(status: u16, body: &str) -> Result<TokenReply, TokenFailure> {
    parse(&Dialect::default(), status, body)
}

/// How many seconds the access token lives.
fn life(dialect: &Dialect, body: &str) -> Option<i64> {
    parse(dialect, 200, body).unwrap().expires_at.map(|at| at.duration_since(now()).as_secs())
}

#[test]
fn a_plain_reply() {
    let reply = plain(
        200,
        r#"{"access_token":"a","token_type":"bearer","expires_in":60,"refresh_token":"r","scope":"x y","id_token":"i"}"#,
    )
    .unwrap();
    assert_eq!(reply.access_token.expose_secret(), "a");
    assert_eq!(reply.token_type, "Bearer");
    assert_eq!(reply.refresh_token.unwrap().expose_secret(), "r");
    assert_eq!(reply.scope.as_deref(), Some("x y"));
    assert_eq!(reply.id_token.unwrap().expose_secret(), "i");
    assert_eq!(reply.expires_at, Some("2026-03-01T12:01:00Z".parse().unwrap()));
}

#[test]
fn what_a_reply_may_lack() {
    let reply = plain(201, r#"{"access_token":"a","refresh_token":null,"scope":"","token_type":null}"#).unwrap();
    assert_eq!(reply.token_type, "Bearer");
    assert!(reply.refresh_token.is_none() && reply.scope.is_none() && reply.id_token.is_none());
    assert_eq!(reply.expires_at, Some("2026-03-01T13:00:00Z".parse().unwrap()));
}

#[test]
fn a_form_is_understood_whatever_its_content_type() {
    let reply = plain(200, "access_token=a%2B&scope=repo%2Cgist&token_type=bearer&expires_in=28800\n").unwrap();
    assert_eq!(reply.access_token.expose_secret(), "a+");
    assert_eq!(reply.scope.as_deref(), Some("repo gist"));
    assert_eq!(reply.expires_at, Some("2026-03-01T20:00:00Z".parse().unwrap()));
    let refused = plain(200, "error=bad_verification_code&error_description=The+code+passed+is+incorrect").unwrap_err();
    assert_eq!(refused, TokenFailure::InvalidGrant { code: ErrorCode::from_wire("bad_verification_code") });
}

#[test]
fn scopes_in_all_their_shapes() {
    let scope = |value: &str| plain(200, &format!(r#"{{"access_token":"a","scope":{value}}}"#)).unwrap().scope;
    assert_eq!(scope(r#"["chat:read", "chat:edit"]"#).as_deref(), Some("chat:read chat:edit"));
    assert_eq!(scope(r#""a,b, c""#).as_deref(), Some("a b c"));
    assert_eq!(scope(r#""a \u0007b \"q\" é d""#).as_deref(), Some("a d"));
    assert_eq!(scope("7"), None);
}

#[test]
fn expires_in_in_all_its_shapes() {
    let d = Dialect::default();
    let life = |value: &str| life(&d, &format!(r#"{{"access_token":"a","expires_in":{value}}}"#));
    assert_eq!(life("60"), Some(60));
    assert_eq!(life(r#""60""#), Some(60));
    assert_eq!(life("60.9"), Some(60));
    let century = 100 * 365 * 24 * 3600;
    for huge in ["1e300", "9223372036854775807", "18446744073709551615", r#""99999999999999999999""#] {
        assert_eq!(life(huge), Some(century), "{huge}");
    }
    for useless in ["0", "-1", "-9223372036854775808", "null", r#""soon""#, r#""NaN""#, "[]", "true"] {
        assert_eq!(life(useless), Some(3600), "{useless}");
    }
}

#[test]
fn other_ways_to_say_when() {
    let dialect = |expiry| Dialect { expiry, ..Dialect::default() };
    let epoch = dialect(Expiry::EpochSeconds("expires_at".into()));
    let at = now().as_second();
    assert_eq!(life(&epoch, &format!(r#"{{"access_token":"a","expires_at":{}}}"#, at + 90)), Some(90));
    assert_eq!(life(&epoch, &format!(r#"{{"access_token":"a","expires_at":"{}"}}"#, at + 90)), Some(90));
    assert_eq!(life(&epoch, &format!(r#"{{"access_token":"a","expires_at":{}}}"#, at - 90)), Some(3600));
    assert_eq!(life(&epoch, r#"{"access_token":"a","expires_in":5}"#), Some(5));
    let rfc3339 = dialect(Expiry::Rfc3339("expires_at".into()));
    assert_eq!(life(&rfc3339, r#"{"access_token":"a","expires_at":"2026-03-01T13:30:00+01:00"}"#), Some(1800));
    assert_eq!(life(&rfc3339, r#"{"access_token":"a","expires_at":"tomorrow"}"#), Some(3600));
    assert_eq!(life(&dialect(Expiry::Never), r#"{"access_token":"a","expires_in":5}"#), None);
    let forever = parse_token_response(
        &Dialect::default(),
        StatusCode::OK,
        &HeaderMap::new(),
        br#"{"access_token":"a"}"#,
        now(),
        None,
    );
    assert_eq!(forever.unwrap().expires_at, None);
}

#[test]
fn tokens_one_level_down() {
    let dialect =
        Dialect { reply: ReplyShape::Under("body".into()), errors: ErrorShape::StatusNonZero, ..Dialect::default() };
    let reply = parse(&dialect, 200, r#"{"status":0,"body":{"access_token":"a","expires_in":10800}}"#).unwrap();
    assert_eq!(reply.access_token.expose_secret(), "a");
    // A member without tokens holds none: what stands beside it is not ours.
    let none = parse(&dialect, 200, r#"{"status":0,"body":{},"access_token":"theirs"}"#).unwrap_err();
    assert!(!none.is_definitive());
    assert!(parse(&dialect, 200, r#"{"status":0,"access_token":"a"}"#).is_ok());
}

#[test]
fn withings_numbers() {
    let dialect =
        Dialect { reply: ReplyShape::Under("body".into()), errors: ErrorShape::StatusNonZero, ..Dialect::default() };
    let failure = |body| parse(&dialect, 200, body).unwrap_err();
    let dead = failure(r#"{"status":503,"body":{},"error":"Invalid Params: invalid refresh_token"}"#);
    assert_eq!(dead, TokenFailure::InvalidGrant { code: ErrorCode::INVALID_GRANT });
    assert!(matches!(failure(r#"{"status":601}"#), TokenFailure::Throttled { .. }));
    assert!(matches!(failure(r#"{"status":2554}"#), TokenFailure::Rejected { .. }));
    for unclear in [r#"{"status":522}"#, r#"{"status":"?"}"#, r#"{"status":215,"body":{"access_token":"a"}}"#] {
        assert!(!failure(unclear).is_definitive(), "{unclear}");
    }
}

#[test]
fn slack_says_ok_false() {
    let dialect = Dialect { errors: ErrorShape::OkFalse, ..Dialect::default() };
    let failure = |body| parse(&dialect, 200, body).unwrap_err();
    let code = ErrorCode::from_wire;
    assert_eq!(
        failure(r#"{"ok":false,"error":"invalid_refresh_token"}"#),
        TokenFailure::InvalidGrant { code: code("invalid_refresh_token") }
    );
    assert_eq!(
        failure(r#"{"ok":false,"error":"bad_client_secret"}"#),
        TokenFailure::ClientRejected { code: code("bad_client_secret") }
    );
    assert_eq!(failure(r#"{"ok":false,"access_token":"a"}"#), TokenFailure::Rejected { code: ErrorCode::UNRECOGNISED });
    assert!(!failure(r#"{"ok":false,"error":"internal_error"}"#).is_definitive());
    assert!(matches!(failure(r#"{"ok":false,"error":"ratelimited"}"#), TokenFailure::Throttled { .. }));
    let reply = parse(&dialect, 200, r#"{"ok":true,"access_token":"a","token_type":"bot"}"#).unwrap();
    assert_eq!(reply.token_type, "Bearer");
}

#[test]
fn a_code_may_bring_two_sets() {
    let companion =
        Companion { under: "authed_user".into(), scope_param: "user_scope".into(), subject_suffix: ":user".into() };
    let dialect = Dialect { errors: ErrorShape::OkFalse, companion: Some(companion), ..Dialect::default() };
    let parse =
        |body: &str| parse_code_response(&dialect, StatusCode::OK, &HeaderMap::new(), body.as_bytes(), now(), None);
    let both = parse(r#"{"ok":true,"access_token":"bot","authed_user":{"id":"U1","access_token":"user"}}"#).unwrap();
    assert_eq!(both.tokens.unwrap().access_token.expose_secret(), "bot");
    assert_eq!(both.companion.unwrap().access_token.expose_secret(), "user");
    let bot = parse(r#"{"ok":true,"access_token":"bot","authed_user":{"id":"U1"}}"#).unwrap();
    assert!(bot.tokens.is_some() && bot.companion.is_none());
    let user = parse(r#"{"ok":true,"authed_user":{"access_token":"user"}}"#).unwrap();
    assert!(user.tokens.is_none() && user.companion.is_some());
    assert!(!parse(r#"{"ok":true,"authed_user":{"id":"U1"}}"#).unwrap_err().is_definitive());
}

#[test]
fn graph_numbers() {
    let dialect = Dialect { errors: ErrorShape::Graph, ..Dialect::default() };
    let failure =
        |n: u32| parse(&dialect, 400, &format!(r#"{{"error":{{"type":"OAuthException","code":{n}}}}}"#)).unwrap_err();
    assert!(matches!(failure(190), TokenFailure::InvalidGrant { .. }));
    assert!(matches!(failure(101), TokenFailure::ClientRejected { .. }));
    assert!(matches!(failure(4), TokenFailure::Throttled { .. }));
    assert!(matches!(failure(100), TokenFailure::Rejected { .. }));
    assert!(!failure(2).is_definitive());
}

/// RFC 6749 5.2, RFC 8628 3.5, and the words beside them.
#[test]
fn codes_mean_what_they_say_with_any_status() {
    for status in [200, 400, 401, 403] {
        let failure = |code: &str| plain(status, &format!(r#"{{"error":"{code}"}}"#)).unwrap_err();
        let code = ErrorCode::from_wire;
        assert_eq!(failure("invalid_grant"), TokenFailure::InvalidGrant { code: code("invalid_grant") });
        for client in ["invalid_client", "unauthorized_client"] {
            assert_eq!(failure(client), TokenFailure::ClientRejected { code: code(client) });
        }
        for other in ["invalid_request", "invalid_scope", "unsupported_grant_type", "access_denied", "odd_word"] {
            assert_eq!(failure(other), TokenFailure::Rejected { code: code(other) });
        }
        assert_eq!(failure("authorization_pending"), TokenFailure::DevicePending);
        assert_eq!(failure("slow_down"), TokenFailure::SlowDown);
        assert_eq!(failure("expired_token"), TokenFailure::DeviceExpired);
        for unclear in ["server_error", "temporarily_unavailable"] {
            assert!(!failure(unclear).is_definitive());
        }
        assert_eq!(failure("Token R-17 dead"), TokenFailure::Rejected { code: ErrorCode::UNRECOGNISED });
    }
}

#[test]
fn codes_in_unusual_places() {
    let dead = |dialect: &Dialect, body| matches!(parse(dialect, 400, body), Err(TokenFailure::InvalidGrant { .. }));
    let plain = Dialect::default();
    assert!(dead(&plain, r#"{"errors":[{"errorType":"invalid_grant","message":"x"}],"success":false}"#));
    assert!(dead(&plain, r#"{"error":{"code":"invalid_grant"}}"#));
    let named = "refresh_token_not_found refresh_token_already_used";
    let supabase = Dialect { errors: ErrorShape::DeadRefreshToken(named.into()), ..Dialect::default() };
    assert!(dead(&supabase, r#"{"code":400,"error_code":"refresh_token_already_used","msg":"Already Used"}"#));
    assert!(dead(&supabase, r#"{"error":"refresh_token_not_found"}"#));
    assert!(dead(&supabase, r#"{"error":"invalid_grant"}"#));
    assert!(!dead(&supabase, r#"{"error":"refresh_token"}"#));
    assert!(!dead(&plain, r#"{"error":"refresh_token_not_found"}"#));
}

#[test]
fn from_these_nobody_can_tell_whether_the_provider_acted() {
    let dead = r#"{"error":"invalid_grant"}"#;
    for (status, body, why) in [
        (500, dead, NoOutcome::ServerError),
        (502, "<html>", NoOutcome::ServerError),
        (503, r#"{"access_token":"a"}"#, NoOutcome::ServerError),
        (302, dead, NoOutcome::UnexpectedStatus),
        (100, "", NoOutcome::UnexpectedStatus),
        (200, "", NoOutcome::Unreadable),
        (200, "<html>access_token=a</html>", NoOutcome::Unreadable),
        (200, r#"{"access_token":"a""#, NoOutcome::Unreadable),
        (200, "[]", NoOutcome::Unreadable),
        (200, "{}", NoOutcome::Incomplete),
        (200, r#"{"access_token":""}"#, NoOutcome::Incomplete),
        (200, r#"{"access_token":7,"error":null}"#, NoOutcome::Incomplete),
        (200, "{\"access_token\":\"a\\nb\"}", NoOutcome::Incomplete),
        (408, "", NoOutcome::UnexpectedStatus),
        (409, "{}", NoOutcome::UnexpectedStatus),
        (499, "<html>", NoOutcome::UnexpectedStatus),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let expected = TokenFailure::NoOutcome { status, why, retry_after: None };
        assert_eq!(plain(status.as_u16(), body).unwrap_err(), expected, "{status} {body}");
    }
}

#[test]
fn a_refusal_without_a_code() {
    let refused = TokenFailure::Rejected { code: ErrorCode::UNRECOGNISED };
    for (status, body) in [(400, "Bad Request"), (401, ""), (403, "<html>"), (404, "{}"), (422, r#"{"error":{}}"#)] {
        assert_eq!(plain(status, body).unwrap_err(), refused, "{status}");
    }
    // A 401 answers HTTP Basic, where that is how the client showed itself.
    let basic = Dialect { client_auth: ClientAuth::Basic, ..Dialect::default() };
    let rejected = TokenFailure::ClientRejected { code: ErrorCode::UNRECOGNISED };
    assert_eq!(parse(&basic, 401, "").unwrap_err(), rejected);
    assert_eq!(parse(&basic, 400, "").unwrap_err(), refused);
}

#[test]
fn a_token_beside_an_error_is_kept() {
    let reply = plain(200, r#"{"access_token":"a","refresh_token":"r","error":"odd_word"}"#).unwrap();
    assert_eq!(reply.refresh_token.unwrap().expose_secret(), "r");
    assert!(plain(400, r#"{"access_token":"a","error":"invalid_grant"}"#).is_err());
}

#[test]
fn a_byte_order_mark_and_white_space_do_not_matter() {
    assert!(plain(200, "\u{feff} \r\n{\"access_token\":\"a\"}\n").is_ok());
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let wait = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", text.parse().unwrap());
        parse_retry_after(&headers, now())
    };
    assert_eq!(wait("120"), Some(Duration::from_mins(2)));
    assert_eq!(wait(" 0 "), Some(Duration::ZERO));
    assert_eq!(wait("1.5"), Some(Duration::from_millis(1500)));
    assert_eq!(wait("Sun, 01 Mar 2026 12:00:30 GMT"), Some(Duration::from_secs(30)));
    assert_eq!(wait("Sun, 01 Mar 2026 11:00:00 GMT"), Some(Duration::ZERO));
    for huge in ["99999999999999999999999", "Thu, 31 Dec 9998 00:00:00 GMT"] {
        assert_eq!(wait(huge), Some(MAX_RETRY_AFTER), "{huge}");
    }
    for bad in ["", "-1", "soon", "1e5", "Sun, 99 Mar 2026 12:00:30 GMT"] {
        assert_eq!(wait(bad), None, "{bad}");
    }
    assert_eq!(parse_retry_after(&HeaderMap::new(), now()), None);
}

#[test]
fn a_wait_is_passed_on() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "7".parse().unwrap());
    let failure = |status, body: &[u8]| {
        parse_token_response(&Dialect::default(), status, &headers, body, now(), None).unwrap_err()
    };
    let seven = Some(Duration::from_secs(7));
    assert_eq!(
        failure(StatusCode::TOO_MANY_REQUESTS, br#"{"error":"invalid_grant"}"#),
        TokenFailure::Throttled { retry_after: seven }
    );
    assert_eq!(failure(StatusCode::SERVICE_UNAVAILABLE, b"").retry_after(), seven);
    assert_eq!(failure(StatusCode::BAD_REQUEST, br#"{"error":"temporarily_unavailable"}"#).retry_after(), seven);
}
