//! RFC 8628.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokenkeep_oauth::{
    Client, Dialect, ErrorCode,
    device::{DeviceAuthorization, build_device_request, parse_device_response},
    params::Vars,
    token::{RequestContext, TokenFailure},
};

fn parse(status: u16, body: &str) -> Result<DeviceAuthorization, TokenFailure> {
    let status = StatusCode::from_u16(status).unwrap();
    parse_device_response(&Dialect::default(), status, &HeaderMap::new(), body.as_bytes(), Timestamp::UNIX_EPOCH)
}

#[test]
fn the_request() {
    let params = Vars::new();
    let context = RequestContext::new(Timestamp::UNIX_EPOCH, [0; 16], &params);
    let url = "https://id.example/device".parse().unwrap();
    let request = build_device_request(&Dialect::default(), &url, &Client::public("c"), Some("a b"), &context).unwrap();
    assert_eq!(request.body.as_slice(), b"scope=a+b&client_id=c");
}

/// The example of RFC 8628 3.2.
#[test]
fn the_rfc_example() {
    let reply = parse(
        200,
        r#"{"device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS", "user_code": "WDJB-MJHT",
            "verification_uri": "https://example.com/device",
            "verification_uri_complete": "https://example.com/device?user_code=WDJB-MJHT",
            "expires_in": 1800, "interval": 7}"#,
    )
    .unwrap();
    assert_eq!(reply.device_code.expose_secret(), "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS");
    assert_eq!(reply.user_code, "WDJB-MJHT");
    assert_eq!(reply.verification_uri.as_str(), "https://example.com/device");
    assert_eq!(reply.verification_uri_complete.unwrap().query(), Some("user_code=WDJB-MJHT"));
    assert_eq!((reply.expires_at.as_second(), reply.interval), (1800, Duration::from_secs(7)));
}

#[test]
fn defaults_and_the_older_spelling() {
    let reply = parse(200, r#"{"device_code":"d","user_code":"u","verification_url":"https://g.example/d"}"#).unwrap();
    assert_eq!((reply.interval, reply.expires_at.as_second()), (Duration::from_secs(5), 600));
    assert_eq!(reply.verification_uri.as_str(), "https://g.example/d");
    let odd =
        r#"{"device_code":"d","user_code":"u","verification_uri":"https://g.example/d","interval":0,"expires_in":1e9}"#;
    let reply = parse(200, odd).unwrap();
    assert_eq!((reply.interval, reply.expires_at.as_second()), (Duration::from_secs(1), 3600));
}

#[test]
fn replies_that_are_refused() {
    let evil = r#"{"device_code":"d","user_code":"u","verification_uri":"javascript:alert(1)"}"#;
    assert!(!parse(200, evil).unwrap_err().is_definitive());
    assert!(!parse(200, r#"{"user_code":"u"}"#).unwrap_err().is_definitive());
    let denied = TokenFailure::ClientRejected { code: ErrorCode::INVALID_CLIENT };
    assert_eq!(parse(401, r#"{"error":"invalid_client"}"#).unwrap_err(), denied);
}
