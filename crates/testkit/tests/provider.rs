//! The fake provider, asked over real HTTP.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokenkeep_core::{Rotation, ports::Clock as _};
use tokenkeep_testkit::{Config, FakeProvider, Fault, ManualClock, Outcome, RequiredAuth};
use tokio::{net::TcpSocket, task::JoinSet};

/// Sends one request on a connection of its own; an error = the connection was cut.
async fn send(provider: &FakeProvider, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
    let address = provider.issuer().trim_start_matches("http://").parse().unwrap();
    let stream = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // A set ends its tasks when dropped: whoever drops this future hangs up.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

async fn get(provider: &FakeProvider, path: &str, bearer: &str) -> Response<Bytes> {
    let request = Request::get(path).header("host", "fake").header("authorization", format!("Bearer {bearer}"));
    send(provider, request.body(Full::default()).unwrap()).await.unwrap()
}

async fn post_form(provider: &FakeProvider, path: &str, form: &[(&str, &str)]) -> hyper::Result<Response<Bytes>> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request =
        Request::post(path).header("host", "fake").header("content-type", "application/x-www-form-urlencoded");
    send(provider, request.body(Full::from(body)).unwrap()).await
}

/// A token request of the default client: status and body.
async fn token(provider: &FakeProvider, form: &[(&str, &str)]) -> hyper::Result<(StatusCode, Value)> {
    let client = [("client_id", "fake-client"), ("client_secret", "fake-client-secret")];
    let reply = post_form(provider, "/token", &[&client, form].concat()).await?;
    Ok((reply.status(), serde_json::from_slice(reply.body()).unwrap_or(Value::Null)))
}

async fn refresh(provider: &FakeProvider, token_: &str) -> hyper::Result<(StatusCode, Value)> {
    token(provider, &[("grant_type", "refresh_token"), ("refresh_token", token_)]).await
}

/// A call of the control API.
async fn control(provider: &FakeProvider, method: &str, path: &str, body: Value) -> Value {
    let request = Request::builder().method(method).uri(path).header("host", "fake");
    let request = request.header("content-type", "application/json").body(Full::from(body.to_string())).unwrap();
    serde_json::from_slice(send(provider, request).await.unwrap().body()).unwrap_or(Value::Null)
}

async fn start(config: Config) -> (ManualClock, FakeProvider) {
    let clock = ManualClock::default();
    let provider = FakeProvider::start(Arc::new(clock.clone()), config).await;
    (clock, provider)
}

fn seed(provider: &FakeProvider) -> String {
    provider.seed("alice").refresh_token.unwrap()
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_with_its_verifier() {
    let (_, provider) = start(Config::default()).await;
    let verifier = "a".repeat(43);
    let challenge =
        BASE64_URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()));
    let mut authorize = provider.url("/authorize");
    authorize.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", "fake-client"),
        ("redirect_uri", "http://localhost:1/callback?x=1"),
        ("state", "s&t"),
        ("scope", "mail"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let path = authorize.as_str().trim_start_matches(&provider.issuer());
    let consent = async || {
        let reply = get(&provider, path, "").await;
        assert_eq!(reply.status(), StatusCode::FOUND);
        let location = url::Url::parse(reply.headers()["location"].to_str().unwrap()).unwrap();
        let answer: std::collections::HashMap<_, _> = location.query_pairs().into_owned().collect();
        assert_eq!((answer["x"].as_str(), answer["state"].as_str()), ("1", "s&t"));
        assert_eq!(answer["iss"], provider.issuer());
        answer["code"].clone()
    };
    let redeem = async |code: &str, verifier: &str| {
        let uri = ("redirect_uri", "http://localhost:1/callback?x=1");
        let form = [("grant_type", "authorization_code"), ("code", code), uri, ("code_verifier", verifier)];
        token(&provider, &form).await.unwrap()
    };
    let code = consent().await;
    assert_eq!(redeem(&code, "b").await.1, json!({ "error": "invalid_grant" }));
    let (status, tokens) = redeem(&code, &verifier).await;
    assert_eq!((status, &tokens["scope"], &tokens["expires_in"]), (StatusCode::OK, &json!("mail"), &json!(3600)));
    let access = tokens["access_token"].as_str().unwrap();
    let echo = get(&provider, "/api/echo?q=1", access).await;
    assert_eq!(serde_json::from_slice::<Value>(echo.body()).unwrap()["subject"], "fake-user");
    assert_eq!(redeem(&code, &verifier).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(get(&provider, "/api/echo", access).await.status(), StatusCode::UNAUTHORIZED, "the code came twice");

    provider.configure(|config| config.user_denies = true);
    let refused = get(&provider, path, "").await;
    assert!(refused.headers()["location"].to_str().unwrap().contains("error=access_denied"));
}

#[tokio::test]
async fn strict_rotation_over_http() {
    let (clock, provider) = start(Config::default()).await;
    let first = seed(&provider);
    let (_, tokens) = refresh(&provider, &first).await.unwrap();
    let (access, second) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    assert!(provider.is_live(second) && !provider.is_live(&first));
    assert!(provider.is_access_live(access));
    clock.advance(Duration::from_hours(1));
    assert!(!provider.is_access_live(access));
    assert_eq!(
        refresh(&provider, &first).await.unwrap(),
        (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }))
    );
    assert!(!provider.is_live(second));
    assert_eq!((provider.calls(), provider.spends(&first), provider.max_in_flight()), (2, 2, 1));
    assert_eq!(provider.spent_twice(), [first]);
    assert_eq!(provider.log()[1].outcome, Some(Outcome::Refused("invalid_grant".into())));
}

#[tokio::test]
async fn what_replies_leave_out() {
    let config = Config { omit_expires_in: true, omit_refresh_token: true, ..Config::rotating(Rotation::None) };
    let (_, provider) = start(Config { extra: json!({ "ok": true }).as_object().unwrap().clone(), ..config }).await;
    assert_eq!(provider.seed("alice").refresh_token, None);
    provider.configure(|config| config.omit_refresh_token = false);
    let (_, tokens) = refresh(&provider, &seed(&provider)).await.unwrap();
    let mut members: Vec<_> = tokens.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["access_token", "ok", "token_type"]);
}

#[tokio::test]
async fn the_client_proves_itself_as_required() {
    let (_, provider) = start(Config { client_auth: RequiredAuth::Basic, ..Config::rotating(Rotation::None) }).await;
    let first = seed(&provider);
    assert_eq!(refresh(&provider, &first).await.unwrap().1, json!({ "error": "invalid_client" }));
    let basic = |secret: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("fake-client:{secret}")));
    let form = format!("grant_type=refresh_token&refresh_token={first}");
    for (secret, status) in [("fake-client%2Dsecret", StatusCode::OK), ("wrong", StatusCode::UNAUTHORIZED)] {
        let request = Request::post("/token").header("host", "fake").header("authorization", basic(secret));
        let reply = send(&provider, request.body(Full::from(form.clone())).unwrap()).await.unwrap();
        assert_eq!(reply.status(), status);
    }
    provider.configure(|config| config.client_auth = RequiredAuth::Post);
    assert_eq!(refresh(&provider, &first).await.unwrap().0, StatusCode::OK);
    provider.configure(|config| config.client_auth = RequiredAuth::None);
    assert_eq!(refresh(&provider, &first).await.unwrap().0, StatusCode::UNAUTHORIZED, "a secret was sent");
}

#[tokio::test]
async fn assertions_are_verified() {
    use aws_lc_rs::signature::KeyPair as _;
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
    // SubjectPublicKeyInfo of a P-256 key: a constant head and the point.
    let head = BASE64_STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap();
    let spki = [&head[..head.len() - 1], pair.public_key().as_ref()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(spki));
    let (clock, provider) = start(Config { assertion_key_pem: Some(pem), ..Config::default() }).await;

    let key = jsonwebtoken::EncodingKey::from_ec_der(pkcs8.as_ref());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    let expires = clock.now().wall.as_second() + 60;
    let assertion = |subject: &str, audience: &str| {
        let claims = json!({ "iss": "fake-client", "sub": subject, "aud": audience, "exp": expires });
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    let bearer = async |assertion: &str| {
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)];
        token(&provider, &form).await.unwrap()
    };
    let (status, tokens) = bearer(&assertion("robot", &provider.issuer())).await;
    assert_eq!((status, tokens.get("refresh_token")), (StatusCode::OK, None));
    assert_eq!(bearer(&assertion("robot", "https://else.where")).await.0, StatusCode::BAD_REQUEST);

    let proof = assertion("fake-client", provider.url("/token").as_str());
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let form = [("grant_type", "client_credentials"), ("client_assertion", &proof), ("client_assertion_type", kind)];
    assert_eq!(post_form(&provider, "/token", &form).await.unwrap().status(), StatusCode::OK);
    clock.advance(Duration::from_mins(1));
    assert_eq!(post_form(&provider, "/token", &form).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_device_waits_for_its_user() {
    let (clock, provider) = start(Config::default()).await;
    let reply = post_form(&provider, "/device", &[("client_id", "fake-client"), ("scope", "tv")]).await.unwrap();
    let device: Value = serde_json::from_slice(reply.body()).unwrap();
    let poll = async || {
        let code = device["device_code"].as_str().unwrap();
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code)];
        token(&provider, &form).await.unwrap().1
    };
    assert_eq!(poll().await["error"], "authorization_pending");
    assert_eq!(poll().await["error"], "slow_down");
    let page = device["verification_uri_complete"].as_str().unwrap().trim_start_matches(&provider.issuer()).to_owned();
    assert_eq!(get(&provider, &page, "").await.status(), StatusCode::OK);
    clock.advance(Duration::from_secs(5));
    assert_eq!(poll().await["scope"], "tv");
}

#[tokio::test]
async fn revocation_ends_the_family() {
    let (_, provider) = start(Config::default()).await;
    let tokens = provider.seed("alice");
    let refresh_token = tokens.refresh_token.unwrap();
    let client = [("client_id", "fake-client"), ("client_secret", "fake-client-secret")];
    let form = [&client[..], &[("token", &refresh_token)]].concat();
    assert_eq!(post_form(&provider, "/revoke", &form).await.unwrap().status(), StatusCode::OK);
    assert!(!provider.is_live(&refresh_token) && !provider.is_access_live(&tokens.access_token));
    assert_eq!(provider.revocations(), [refresh_token]);
}

#[tokio::test]
async fn faults_happen_once_and_in_order() {
    let (_, provider) = start(Config::default()).await;
    let first = seed(&provider);
    provider.fault(Fault::cut_before());
    assert!(refresh(&provider, &first).await.is_err());
    assert!(provider.is_live(&first), "nothing was processed");

    provider.fault(Fault::server_error());
    assert_eq!(refresh(&provider, &first).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    provider.fault(Fault::too_many_requests(7));
    assert_eq!(refresh(&provider, &first).await.unwrap().0, StatusCode::TOO_MANY_REQUESTS);
    provider.fault(Fault::slack("ratelimited"));
    assert_eq!(refresh(&provider, &first).await.unwrap().1, json!({ "ok": false, "error": "ratelimited" }));
    assert!(provider.is_live(&first));

    provider.fault(Fault::cut_after());
    assert!(refresh(&provider, &first).await.is_err());
    assert!(!provider.is_live(&first), "it was rotated");
    let second = provider.families()[0].refresh_tokens[1].token.clone();
    provider.fault(Fault::truncated());
    assert!(refresh(&provider, &second).await.is_err());
    assert!(!provider.is_live(&second));
    let third = provider.families()[0].refresh_tokens[2].token.clone();
    provider.fault(Fault::server_error().after_processing());
    assert_eq!(refresh(&provider, &third).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!provider.is_live(&third));
}

#[tokio::test]
async fn a_late_reply_is_late_but_processed() {
    let (_, provider) = start(Config::default()).await;
    let first = seed(&provider);
    let gate = provider.hold_reply();
    let exchange = async { refresh(&provider, &first).await.unwrap().0 };
    let test = async {
        gate.arrived().await;
        assert!(!provider.is_live(&first));
        assert_eq!(provider.max_in_flight(), 1);
        gate.release();
    };
    assert_eq!(tokio::join!(exchange, test).0, StatusCode::OK);
}

#[tokio::test]
async fn a_held_request_is_processed_even_if_its_caller_is_gone() {
    let (_, provider) = start(Config::default()).await;
    let first = seed(&provider);
    let gate = provider.hold_next();
    {
        let exchange = refresh(&provider, &first);
        tokio::select! {
            _ = exchange => panic!("it is held"),
            () = gate.arrived() => {}
        }
    }
    assert!(provider.is_live(&first));
    assert!(!provider.log()[0].finished);
    // A second request with the same token, while the first is still held, is two in flight.
    provider.fault(Fault::cut_before());
    assert!(refresh(&provider, &first).await.is_err());
    assert_eq!((provider.max_in_flight(), provider.spends(&first)), (2, 2));
    gate.release();
    provider.finished(2).await;
    assert!(!provider.is_live(&first), "it was spent, and nobody heard of it");
}

#[tokio::test]
async fn the_control_api_does_the_same_for_another_process() {
    let (_, provider) = start(Config::default()).await;
    let tokens = control(&provider, "POST", "/_control/seed", json!({ "subject": "bob" })).await;
    let first = tokens["refresh_token"].as_str().unwrap();
    let changed = control(&provider, "POST", "/_control/config", json!({ "rotation": "grace_same:30" })).await;
    assert_eq!(changed["rotation"], "grace_same:30");

    let fault = json!({ "fault": { "after": "gate", "reply": "cut" }, "times": 1 });
    assert_eq!(control(&provider, "POST", "/_control/faults", fault).await, json!({ "gate": 0 }));
    let exchange = async { refresh(&provider, first).await.is_err() };
    let test = async {
        control(&provider, "POST", "/_control/gates/0/arrived", Value::Null).await;
        assert_eq!(control(&provider, "GET", "/_control/gates/0", Value::Null).await, json!({ "arrived": 1 }));
        control(&provider, "POST", "/_control/gates/0/release", Value::Null).await;
    };
    assert!(tokio::join!(exchange, test).0, "the reply is lost");
    let replay = refresh(&provider, first).await.unwrap().1;
    let stats = control(&provider, "GET", "/_control/stats", Value::Null).await;
    assert_eq!(stats["families"][0]["refresh_tokens"][1]["token"], replay["refresh_token"]);
    assert_eq!(
        (&stats["calls"], &stats["spent_twice"], &stats["max_in_flight"]),
        (&json!(2), &json!([first]), &json!(1))
    );
    let live = control(&provider, "POST", "/_control/live", json!({ "refresh_token": replay["refresh_token"] })).await;
    assert_eq!(live, json!({ "refresh_token": true, "access_token": null }));
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let (_, provider) = start(Config::default()).await;
    let address: std::net::SocketAddr = provider.issuer().trim_start_matches("http://").parse().unwrap();
    drop(provider);
    // The port is free again as soon as the runtime has dropped the listener.
    while std::net::TcpListener::bind(address).is_err() {
        tokio::task::yield_now().await;
    }
}
