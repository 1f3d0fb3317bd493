//! The token endpoint: the fault first, then the grant.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use axum::{
    Router,
    body::Body,
    extract::State as Extract,
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokenkeep_core::{Boot, Now};

use super::{
    Config, Fault, FaultReply, Issued, Outcome, Pause, RequiredAuth, Shared, State, TokenCall,
    fault::Door,
    serve::{cut, truncated},
};

/// How long an authorization code lives (RFC 6749 4.1.2 allows ten minutes).
const CODE_LIFE: Duration = Duration::from_mins(10);
/// How long a device code lives.
pub(super) const DEVICE_LIFE: Duration = Duration::from_mins(10);
/// How long a device waits between two polls.
pub(super) const DEVICE_INTERVAL: Duration = Duration::from_secs(5);

/// An authorization code.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<String>,
    pub(super) subject: String,
    pub(super) scope: String,
    pub(super) issued_at: Boot,
    /// What it brought, if it was redeemed.
    pub(super) redeemed: Option<Issued>,
}

/// A device that waits for its user.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) user_code: String,
    pub(super) scope: String,
    pub(super) issued_at: Boot,
    pub(super) polled_at: Option<Boot>,
    pub(super) decision: Decision,
    pub(super) redeemed: bool,
}

/// What a device's user said.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing yet.
    Pending,
    /// Yes, as this subject.
    Approved(String),
    /// No.
    Denied,
}

pub(super) type Params = HashMap<String, String>;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/token", post(token)).route("/login", post(login))
}

/// A login without OAuth: JSON with `username` and `password` brings `{"Authorization": "Bearer ..."}`, as BlueStakes has
/// it. It is a token request of the grant type `login` for whoever counts, scripts and holds those.
async fn login(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut params = parse(&headers, &body);
    params.push(("grant_type".to_owned(), LOGIN.to_owned()));
    let answer = tokio::spawn(async move { shared.answer_to(&headers, params).await });
    answer.await.unwrap_or_else(|_| cut())
}

/// What a login is called among the grants.
const LOGIN: &str = "login";

async fn token(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    // In a task of its own: a provider goes on with what it has received, whether or not the caller is still there.
    let answer = tokio::spawn(async move { shared.answer(&headers, &body).await });
    answer.await.unwrap_or_else(|_| cut())
}

/// Why a grant was refused: status and error code (RFC 6749 5.2).
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

const fn refuse(code: &'static str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, code)
}

impl Shared {
    pub(super) async fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Response {
        self.answer_to(headers, parse(headers, body)).await
    }

    async fn answer_to(&self, headers: &HeaderMap, params: Vec<(String, String)>) -> Response {
        let (number, fault, door) = self.arrive(params);
        self.pause(fault.before, &door).await;
        let outcome = fault.process.then(|| self.process(number, headers));
        self.pause(fault.after, &door).await;
        self.finish(number);
        let is_login = self.state().log[number].grant_type == LOGIN;
        self.reply(fault.reply, outcome, is_login)
    }

    /// Writes the request down and says what is to go wrong with it.
    fn arrive(&self, params: Vec<(String, String)>) -> (usize, Fault, Arc<Door>) {
        let find = |name: &str| params.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let call = TokenCall {
            grant_type: find("grant_type").unwrap_or_default(),
            refresh_token: find("refresh_token"),
            params,
            outcome: None,
            finished: false,
        };
        let mut state = self.state();
        if let Some(token) = &call.refresh_token {
            state.ledger.arrive(token);
        }
        state.log.push(call);
        let (fault, door) = state.script.next();
        self.calls.send_modify(|calls| *calls += 1);
        (state.log.len() - 1, fault, door)
    }

    fn finish(&self, number: usize) {
        let State { ledger, log, .. } = &mut *self.state();
        log[number].finished = true;
        if let Some(token) = &log[number].refresh_token {
            ledger.leave(token);
        }
        self.finished.send_modify(|finished| *finished += 1);
    }

    async fn pause(&self, pause: Pause, door: &Door) {
        if pause == Pause::Gate {
            door.pass().await;
        } else if let Some(wait) = pause.duration() {
            self.clock.sleep(wait).await;
        }
    }

    fn process(&self, number: usize, headers: &HeaderMap) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        let mut state = self.state();
        let params: Params = state.log[number].params.iter().cloned().collect();
        let result = if state.log[number].grant_type == LOGIN {
            state.log_in(&params, now.boot)
        } else {
            authenticate(&state.config, &self.issuer(), headers, &params, now)
                .and_then(|()| state.grant(&self.issuer(), &params, now))
        };
        state.log[number].outcome = Some(match &result {
            Ok(issued) => Outcome::Issued(issued.clone()),
            Err(Refusal(_, code)) => Outcome::Refused((*code).to_owned()),
        });
        result
    }

    fn reply(&self, reply: FaultReply, outcome: Option<Result<Issued, Refusal>>, is_login: bool) -> Response {
        let honest = || match outcome {
            Some(Ok(issued)) if is_login => {
                (StatusCode::OK, json!({ "Authorization": format!("Bearer {}", issued.access_token) }))
            }
            Some(Ok(issued)) => (StatusCode::OK, self.token_reply(issued)),
            Some(Err(Refusal(status, code))) => (status, json!({ "error": code })),
            None => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "temporarily_unavailable" })),
        };
        match reply {
            FaultReply::Cut => cut(),
            FaultReply::Honest => respond(honest()),
            FaultReply::Truncated => {
                let (status, body) = honest();
                let bytes = Bytes::from(body.to_string());
                truncated(respond((status, body)), &bytes)
            }
            FaultReply::Verbatim { status, headers, body } => {
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
                for (name, value) in headers {
                    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                        response.headers_mut().insert(name, value);
                    }
                }
                response
            }
        }
    }

    /// RFC 6749 5.1.
    fn token_reply(&self, issued: Issued) -> Value {
        let config = &self.state().config;
        let mut body = config.extra.clone();
        body.insert("access_token".into(), issued.access_token.into());
        body.insert("token_type".into(), "Bearer".into());
        if let Some(refresh_token) = issued.refresh_token {
            body.insert("refresh_token".into(), refresh_token.into());
        }
        if !config.omit_expires_in {
            body.insert("expires_in".into(), config.token_life.as_secs().into());
        }
        if !issued.scope.is_empty() {
            body.insert("scope".into(), issued.scope.into());
        }
        Value::Object(body)
    }
}

fn respond((status, body): (StatusCode, Value)) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"fake\""));
    }
    response
}

/// The parameters of a form or of a JSON object.
pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Vec<(String, String)> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.starts_with("application/json") {
        return form_urlencoded::parse(body).into_owned().collect();
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return Vec::new() };
    let text = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
    members.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Checks who the client is (RFC 6749 2.3, RFC 7523 2.2).
pub(super) fn authenticate(
    config: &Config,
    issuer: &str,
    headers: &HeaderMap,
    params: &Params,
    now: Now,
) -> Result<(), Refusal> {
    let invalid = || Refusal(StatusCode::UNAUTHORIZED, "invalid_client");
    let (method, client_id, proven) = if let Some((id, secret)) = basic(headers) {
        (RequiredAuth::Basic, id, secret == config.client_secret)
    } else if let Some(assertion) = params.get("client_assertion") {
        let kind = params.get("client_assertion_type").map(String::as_str);
        let claims = verify(config, issuer, assertion, now).ok_or_else(invalid)?;
        let id = claims["sub"].as_str().unwrap_or_default().to_owned();
        let proven =
            claims["iss"] == claims["sub"] && kind == Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        (RequiredAuth::PrivateKeyJwt, id, proven)
    } else {
        let id = params.get("client_id").cloned().unwrap_or_default();
        match params.get("client_secret") {
            Some(secret) => (RequiredAuth::Post, id, *secret == config.client_secret),
            None => (RequiredAuth::None, id, true),
        }
    };
    let allowed = match config.client_auth {
        RequiredAuth::Any => method != RequiredAuth::None,
        required => method == required,
    };
    if allowed && proven && client_id == config.client_id { Ok(()) } else { Err(invalid()) }
}

/// RFC 6749 2.3.1: both halves are form-encoded before they are joined.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let plain = |half: &str| form_urlencoded::parse(half.as_bytes()).next().map(|(name, _)| name.into_owned());
    Some((plain(id).unwrap_or_default(), plain(secret).unwrap_or_default()))
}

/// The claims of an assertion that the client's key signed for us and that has not expired (RFC 7523 3).
fn verify(config: &Config, issuer: &str, assertion: &str, now: Now) -> Option<Value> {
    let pem = config.assertion_key_pem.as_ref()?.as_bytes();
    let algorithm = jsonwebtoken::decode_header(assertion).ok()?.alg;
    let key = match algorithm {
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        _ => return None,
    };
    let mut validation = Validation::new(algorithm);
    // Time is judged below by the provider's own clock, the audience by its own names.
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Value>(assertion, &key.ok()?, &validation).ok()?.claims;
    let meant = |audience: &Value| audience == issuer || *audience == json!(format!("{issuer}/token"));
    let for_us = claims["aud"].as_array().map_or_else(|| meant(&claims["aud"]), |many| many.iter().any(meant));
    let alive = claims["exp"].as_i64().is_some_and(|exp| exp > now.wall.as_second());
    (for_us && alive).then_some(claims)
}

impl State {
    fn grant(&mut self, issuer: &str, params: &Params, now: Now) -> Result<Issued, Refusal> {
        let parameter = |name| params.get(name).map(String::as_str).unwrap_or_default();
        match parameter("grant_type") {
            "refresh_token" => {
                let token = params.get("refresh_token").ok_or(refuse("invalid_request"))?;
                self.ledger.spend(token, now.boot, &self.config).ok_or(refuse("invalid_grant"))
            }
            "authorization_code" => self.redeem_code(params, now.boot),
            "client_credentials" => {
                let client = self.config.client_id.clone();
                Ok(self.ledger.open(&client, parameter("scope"), false, now.boot, &self.config))
            }
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                let claims =
                    verify(&self.config, issuer, parameter("assertion"), now).ok_or(refuse("invalid_grant"))?;
                let subject = claims["sub"].as_str().or(claims["iss"].as_str()).ok_or(refuse("invalid_grant"))?;
                let scope = claims["scope"].as_str().unwrap_or(parameter("scope"));
                Ok(self.ledger.open(subject, scope, false, now.boot, &self.config))
            }
            "urn:ietf:params:oauth:grant-type:device_code" => self.redeem_device(parameter("device_code"), now.boot),
            "" => Err(refuse("invalid_request")),
            _ => Err(refuse("unsupported_grant_type")),
        }
    }

    fn log_in(&mut self, params: &Params, now: Boot) -> Result<Issued, Refusal> {
        let known = params.get("username").and_then(|username| Some((username, self.config.accounts.get(username)?)));
        match known {
            Some((username, password)) if params.get("password") == Some(password) => {
                let username = username.clone();
                Ok(self.ledger.open(&username, "", false, now, &self.config))
            }
            _ => Err(Refusal(StatusCode::UNAUTHORIZED, "invalid_credentials")),
        }
    }

    /// RFC 6749 4.1.3 and RFC 7636 4.6.
    fn redeem_code(&mut self, params: &Params, now: Boot) -> Result<Issued, Refusal> {
        let code = params.get("code").and_then(|code| self.codes.get_mut(code)).ok_or(refuse("invalid_grant"))?;
        if let Some(issued) = &code.redeemed {
            // RFC 6749 4.1.2: a code that comes twice has leaked; what it brought is revoked.
            self.ledger.revoke(&issued.access_token);
            return Err(refuse("invalid_grant"));
        }
        let verified = match (&code.challenge, params.get("code_verifier")) {
            (Some(challenge), Some(verifier)) => *challenge == s256(verifier),
            (None, None) => true,
            _ => false,
        };
        let alive = now.since(code.issued_at) < CODE_LIFE;
        if !verified || !alive || params.get("redirect_uri") != Some(&code.redirect_uri) {
            return Err(refuse("invalid_grant"));
        }
        let refreshable = !self.config.omit_refresh_token;
        let issued = self.ledger.open(&code.subject, &code.scope, refreshable, now, &self.config);
        code.redeemed = Some(issued.clone());
        Ok(issued)
    }

    /// RFC 8628 3.5.
    fn redeem_device(&mut self, device_code: &str, now: Boot) -> Result<Issued, Refusal> {
        let device = self.devices.get_mut(device_code).ok_or(refuse("invalid_grant"))?;
        if now.since(device.issued_at) >= DEVICE_LIFE {
            return Err(refuse("expired_token"));
        }
        if device.polled_at.replace(now).is_some_and(|last| now.since(last) < DEVICE_INTERVAL) {
            return Err(refuse("slow_down"));
        }
        match &device.decision {
            Decision::Pending => Err(refuse("authorization_pending")),
            Decision::Denied => Err(refuse("access_denied")),
            Decision::Approved(_) if device.redeemed => Err(refuse("invalid_grant")),
            Decision::Approved(subject) => {
                device.redeemed = true;
                let refreshable = !self.config.omit_refresh_token;
                Ok(self.ledger.open(subject, &device.scope, refreshable, now, &self.config))
            }
        }
    }
}

fn s256(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}
