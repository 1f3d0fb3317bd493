//! Every grant and every quirk of a token request, as bytes on the wire.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use tokenkeep_oauth::{
    BuildError, Client, Dialect, Secret,
    dialect::{BodyFormat, ClientAuth, LongLivedSwap, Pkce, RefreshRequest, ScopeSeparator},
    params::Vars,
    token::{Grant, RequestContext, TokenRequest, build_long_lived_swap, build_token_request},
};

fn client() -> Client {
    Client::with_secret("c", Secret::from("s"))
}

fn build(dialect: &Dialect, client: &Client, grant: &Grant) -> Result<TokenRequest, BuildError> {
    let params = Vars::from([("project".to_owned(), "p1".to_owned())]);
    let context = RequestContext {
        redirect_uri: Some("https://us.example/cb"),
        ..RequestContext::new(Timestamp::UNIX_EPOCH, [1; 16], &params)
    };
    build_token_request(dialect, &"https://id.example/token?v=1".parse().unwrap(), client, grant, &context)
}

fn body(dialect: &Dialect, grant: &Grant) -> String {
    let request = build(dialect, &client(), grant).unwrap();
    assert_eq!((request.method, request.url.as_str()), (Method::POST, "https://id.example/token?v=1"));
    String::from_utf8(request.body.to_vec()).unwrap()
}

fn code() -> Grant {
    Grant::AuthorizationCode {
        code: "4/0 A+".into(),
        redirect_uri: "https://us.example/cb".into(),
        verifier: Some("v".into()),
    }
}

fn refresh(scope: Option<&str>) -> Grant {
    Grant::RefreshToken { refresh_token: "r".into(), scope: scope.map(Into::into) }
}

fn extra(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn every_grant_in_the_plain_dialect() {
    let plain = Dialect::default();
    let post = "&client_id=c&client_secret=s";
    for (grant, expected) in [
        (
            code(),
            "grant_type=authorization_code&code=4%2F0+A%2B&redirect_uri=https%3A%2F%2Fus.example%2Fcb&code_verifier=v",
        ),
        (refresh(Some("a b")), "grant_type=refresh_token&refresh_token=r&scope=a+b"),
        (Grant::ClientCredentials { scope: None }, "grant_type=client_credentials"),
        (
            Grant::JwtBearer { assertion: "j".into(), scope: None },
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=j",
        ),
        (
            Grant::DeviceCode { device_code: "d".into() },
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d",
        ),
        (
            Grant::Password { username: "u".into(), password: "p".into(), scope: None },
            "grant_type=password&username=u&password=p",
        ),
    ] {
        assert_eq!(body(&plain, &grant), format!("{expected}{post}"));
    }
}

#[test]
fn the_plain_headers() {
    let request = build(&Dialect::default(), &client(), &refresh(None)).unwrap();
    assert_eq!(request.headers["accept"], "application/json");
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.headers.len(), 2);
}

/// RFC 6749 2.3.1: both halves are form-encoded before base64.
#[test]
fn basic_encodes_both_halves() {
    let dialect = Dialect { client_auth: ClientAuth::Basic, ..Dialect::default() };
    let client = Client::with_secret("a:b", Secret::from("c d/é"));
    let request = build(&dialect, &client, &refresh(None)).unwrap();
    // base64("a%3Ab:c+d%2F%C3%A9")
    assert_eq!(request.headers["authorization"], "Basic YSUzQWI6YytkJTJGJUMzJUE5");
    assert!(request.headers["authorization"].is_sensitive());
    assert_eq!(request.body.as_slice(), b"grant_type=refresh_token&refresh_token=r");
}

#[test]
fn the_ways_a_client_shows_itself() {
    let with = |client_auth, client: &Client| {
        let dialect = Dialect { client_auth, ..Dialect::default() };
        let request = build(&dialect, client, &refresh(None)).unwrap();
        assert!(!request.headers.contains_key("authorization"));
        String::from_utf8(request.body.to_vec()).unwrap()
    };
    let public = "grant_type=refresh_token&refresh_token=r&client_id=c";
    assert_eq!(with(ClientAuth::None, &client()), public);
    assert_eq!(with(ClientAuth::Basic, &Client::public("c")), public);
    assert_eq!(with(ClientAuth::Post, &Client::public("c")), public);
    assert_eq!(with(ClientAuth::Omitted, &client()), "grant_type=refresh_token&refresh_token=r");
    for client_auth in [ClientAuth::PrivateKeyJwt, ClientAuth::AppleJwt] {
        let dialect = Dialect { client_auth, ..Dialect::default() };
        assert!(build(&dialect, &client(), &refresh(None)).is_err());
    }
}

#[test]
fn quirks_of_names_and_values() {
    let named = Dialect { client_id_param: Some("client_key".into()), ..Dialect::default() };
    assert!(body(&named, &refresh(None)).ends_with("&client_key=c&client_secret=s"));
    let comma = Dialect { scope_separator: ScopeSeparator::Comma, ..Dialect::default() };
    assert!(body(&comma, &refresh(Some(" a  b "))).contains("&scope=a%2Cb&"));
    let none = Dialect { scope_separator: ScopeSeparator::None, ..Dialect::default() };
    assert!(!body(&none, &refresh(Some("a b"))).contains("scope"));
    let no_pkce = Dialect { pkce: Pkce::Refused, ..Dialect::default() };
    assert!(!body(&no_pkce, &code()).contains("code_verifier"));
}

#[test]
fn json_bodies() {
    let dialect = Dialect { body: BodyFormat::Json, ..Dialect::default() };
    let request = build(&dialect, &client(), &refresh(None)).unwrap();
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        r#"{"grant_type":"refresh_token","refresh_token":"r","client_id":"c","client_secret":"s"}"#
    );
}

#[test]
fn extra_parameters_and_headers() {
    let dialect = Dialect {
        token_params: extra("action", "requesttoken"),
        refresh_params: extra("redirect_uri", "{redirect_uri}"),
        token_headers: extra("apikey", "{project}-key"),
        ..Dialect::default()
    };
    assert!(body(&dialect, &code()).ends_with("&action=requesttoken"));
    assert!(body(&dialect, &Grant::ClientCredentials { scope: None }).ends_with("&action=requesttoken"));
    assert!(body(&dialect, &refresh(None)).ends_with("&redirect_uri=https%3A%2F%2Fus.example%2Fcb"));
    let request = build(&dialect, &client(), &code()).unwrap();
    assert_eq!(request.headers["apikey"], "p1-key");
    assert!(request.headers["apikey"].is_sensitive());

    let replaced = Dialect { token_params: extra("grant_type", "x"), ..Dialect::default() };
    assert!(body(&replaced, &code()).starts_with("grant_type=x&"));
    let empty = Dialect { token_params: extra("grant_type", ""), ..Dialect::default() };
    assert!(body(&empty, &code()).starts_with("grant_type=authorization_code&"));
    let unknown = Dialect { token_params: extra("a", "{nobody}"), ..Dialect::default() };
    let missing = BuildError::MissingParam { name: "nobody".into() };
    assert_eq!(build(&unknown, &client(), &code()).unwrap_err(), missing);
    for (name, value) in [("a b", "x"), ("a", "x\ny")] {
        let dialect = Dialect { token_headers: extra(name, value), ..Dialect::default() };
        assert!(matches!(build(&dialect, &client(), &code()), Err(BuildError::InvalidHeader { .. })));
    }
}

#[test]
fn other_ways_to_refresh() {
    let with = |refresh| Dialect { refresh, ..Dialect::default() };
    let renamed = with(RefreshRequest::Renamed { param: "type".into(), value: "refresh".into() });
    assert_eq!(body(&renamed, &refresh(None)), "type=refresh&refresh_token=r&client_id=c&client_secret=s");

    let mut bare = with(RefreshRequest::TokenOnly);
    bare.client_auth = ClientAuth::Omitted;
    bare.body = BodyFormat::Json;
    assert_eq!(body(&bare, &refresh(Some("a"))), r#"{"refresh_token":"r"}"#);

    let swap = Grant::AccessToken { access_token: "a/1".into() };
    let exchange = with(RefreshRequest::AccessTokenExchange { grant_type: "fb_exchange_token".into() });
    assert_eq!(
        body(&exchange, &swap),
        "grant_type=fb_exchange_token&fb_exchange_token=a%2F1&client_id=c&client_secret=s"
    );

    let by_get = with(RefreshRequest::AccessTokenByGet { grant_type: "ig_refresh_token".into() });
    let request = build(&by_get, &client(), &swap).unwrap();
    assert_eq!(request.method, Method::GET);
    assert_eq!(request.url.as_str(), "https://id.example/token?v=1&grant_type=ig_refresh_token&access_token=a%2F1");
    assert!(request.body.is_empty() && !request.headers.contains_key("content-type"));
    // A connection of that provider that does hold a refresh token (imported) still speaks standard.
    assert!(body(&by_get, &refresh(None)).starts_with("grant_type=refresh_token"));

    assert_eq!(build(&Dialect::default(), &client(), &swap).unwrap_err(), BuildError::NoSuchGrant);
}

#[test]
fn the_swap_for_a_token_that_lasts() {
    let swap = LongLivedSwap { url: String::new(), grant_type: "ig_exchange_token".into() };
    let dialect = Dialect { long_lived: Some(swap), ..Dialect::default() };
    let (url, params) = ("https://graph.example/access_token".parse().unwrap(), Vars::new());
    let context = RequestContext::new(Timestamp::UNIX_EPOCH, [1; 16], &params);
    let build = |dialect, client: &Client| build_long_lived_swap(dialect, &url, client, &"a".into(), &context);
    let request = build(&dialect, &client()).unwrap();
    assert_eq!(
        request.url.as_str(),
        "https://graph.example/access_token?grant_type=ig_exchange_token&client_secret=s&access_token=a"
    );
    assert_eq!(build(&dialect, &Client::public("c")).unwrap_err(), BuildError::MissingSecret);
    assert_eq!(build(&Dialect::default(), &client()).unwrap_err(), BuildError::NoSuchGrant);
}

proptest! {
    #[test]
    fn a_built_request_decodes_to_what_went_in(token in ".+", id in ".+", secret in ".+", json in any::<bool>()) {
        let body = if json { BodyFormat::Json } else { BodyFormat::Form };
        let dialect = Dialect { body, ..Dialect::default() };
        let client = Client::with_secret(id.clone(), Secret::from(secret.clone()));
        let grant = Grant::RefreshToken { refresh_token: token.clone().into(), scope: None };
        let request = build(&dialect, &client, &grant).unwrap();
        let sent: BTreeMap<String, String> = if json {
            serde_json::from_slice(&request.body).unwrap()
        } else {
            form_urlencoded::parse(&request.body).into_owned().collect()
        };
        let expected = [("client_id", id), ("client_secret", secret), ("grant_type", "refresh_token".into()), ("refresh_token", token)];
        prop_assert_eq!(sent, expected.map(|(n, v)| (n.to_owned(), v)).into_iter().collect());
    }

    #[test]
    fn basic_decodes_to_what_went_in(id in ".+", secret in ".+") {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let dialect = Dialect { client_auth: ClientAuth::Basic, ..Dialect::default() };
        let client = Client::with_secret(id.clone(), Secret::from(secret.clone()));
        let request = build(&dialect, &client, &refresh(None)).unwrap();
        let header = request.headers["authorization"].to_str().unwrap().to_owned();
        let pair = BASE64_STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let (i, s) = pair.split_once(':').unwrap();
        let decode = |s: &str| form_urlencoded::parse(format!("x={s}").as_bytes()).next().unwrap().1.into_owned();
        prop_assert_eq!((decode(i), decode(s)), (id, secret));
        prop_assert_eq!(client.secret.unwrap().expose_secret().is_empty(), false);
    }
}
