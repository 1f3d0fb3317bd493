//! A small backend whose users sign in at Supabase: the browser gets tokenkeep's token, the provider's stays where it is.
//!
//! README.md says how to run it.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "an example is told things by the environment")]

use std::{
    env,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A token with so many seconds left is refreshed along the way.
const NEAR_EXPIRY: u64 = 600;

/// What a WebSocket is closed with when its session is over.
const SESSION_OVER: u16 = 4001;

struct Backend {
    http: reqwest::Client,
    /// `http://localhost:7420`, and a key of the role `application`.
    tokenkeep: String,
    key: String,
    /// `https://xyz.supabase.co`, and its publishable key.
    supabase: String,
    apikey: String,
}

type App = State<Arc<Backend>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let backend = Backend {
        http: reqwest::Client::new(),
        tokenkeep: env::var("TOKENKEEP_URL")?,
        key: env::var("TOKENKEEP_KEY")?,
        supabase: env::var("SUPABASE_URL")?,
        apikey: env::var("SUPABASE_KEY")?,
    };
    let app = Router::new()
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/socket-token", post(socket_token))
        .route("/socket", get(socket))
        .route("/logout", post(logout))
        .with_state(Arc::new(backend));
    let listener = tokio::net::TcpListener::bind(env::var("LISTEN").unwrap_or("127.0.0.1:8080".into())).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Signs in at Supabase, and hands what that brought to tokenkeep. The browser sees our token only.
async fn login(State(backend): App, Json(user): Json<Value>) -> Result<Json<Value>, Refused> {
    let credentials = json!({"email": user["email"], "password": user["password"]});
    let url = format!("{}/auth/v1/token?grant_type=password", backend.supabase);
    let request = backend.http.post(url).header("apikey", &backend.apikey);
    let signed_in =
        answer(request.header(header::CONTENT_TYPE, "application/json").body(credentials.to_string())).await?;
    let session = json!({
        "subject": signed_in["user"]["id"], "email": signed_in["user"]["email"], "provider": "supabase",
        "tokens": {"access_token": signed_in["access_token"], "refresh_token": signed_in["refresh_token"],
            "expires_in": signed_in["expires_in"]},
        "refresh_token": user["remember"] == true,
    });
    let url = format!("{}/v1/sessions", backend.tokenkeep);
    let request = backend.http.post(url).bearer_auth(&backend.key);
    answer(request.header(header::CONTENT_TYPE, "application/json").body(session.to_string())).await.map(Json)
}

/// Any route that works with the user's data: the provider's token is asked for, used, and forgotten.
async fn me(State(backend): App, headers: HeaderMap) -> Result<Response, Refused> {
    let token = bearer(&headers)?;
    let upstream = backend.session("upstream-token", token).await?;
    let access_token = upstream["access_token"].as_str().unwrap_or_default();
    let url = format!("{}/auth/v1/user", backend.supabase);
    let user = answer(backend.http.get(url).header("apikey", &backend.apikey).bearer_auth(access_token)).await?;
    let mut response = Json(user).into_response();
    if seconds_left(token).is_some_and(|left| left <= NEAR_EXPIRY) {
        // Whatever else the browser does, it goes on with this one; the old one lives on for a minute.
        if let Ok(new) = backend.session("refresh", token).await
            && let Ok(value) = new["access_token"].as_str().unwrap_or_default().parse()
        {
            response.headers_mut().insert(HeaderName::from_static("x-new-access-token"), value);
        }
    }
    Ok(response)
}

/// Browsers cannot send headers with a WebSocket: a token that may stand in a URL lives for five minutes, and can do no
/// more than this.
async fn socket_token(State(backend): App, headers: HeaderMap) -> Result<Json<Value>, Refused> {
    backend.session("websocket", bearer(&headers)?).await.map(Json)
}

/// Where the socket would be opened (`WebSocketUpgrade`). Whoever keeps it open asks `upstream-token` as before, and
/// closes it with 4001 once that answers 401.
async fn socket(State(backend): App, Query(query): Query<Vec<(String, String)>>) -> Result<Json<Value>, Refused> {
    let token = query.iter().find(|(name, _)| name == "token").map(|(_, token)| token.as_str());
    match backend.session("upstream-token", token.unwrap_or_default()).await {
        Ok(_) => Ok(Json(json!({"open": true}))),
        Err(Refused(StatusCode::UNAUTHORIZED, _)) => Ok(Json(json!({"open": false, "close": SESSION_OVER}))),
        Err(outage) => Err(outage),
    }
}

async fn logout(State(backend): App, headers: HeaderMap) -> Result<StatusCode, Refused> {
    let url = format!("{}/v1/sessions/current", backend.tokenkeep);
    answer(backend.http.delete(url).bearer_auth(bearer(&headers)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Backend {
    /// Asks tokenkeep as the session's caller.
    async fn session(&self, what: &str, token: &str) -> Result<Value, Refused> {
        let url = format!("{}/v1/sessions/{what}", self.tokenkeep);
        answer(self.http.post(url).bearer_auth(token)).await
    }
}

/// What the other side refused: the browser is told the same. 401 = sign in again; 503 = try again.
struct Refused(StatusCode, Value);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Refused> {
    let unreachable = |_| Refused(StatusCode::SERVICE_UNAVAILABLE, json!({"code": "unavailable"}));
    let reply = request.send().await.map_err(unreachable)?;
    let status = reply.status();
    let body = serde_json::from_slice(&reply.bytes().await.map_err(unreachable)?).unwrap_or_default();
    if status.is_success() { Ok(body) } else { Err(Refused(status, body)) }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    token.ok_or_else(|| Refused(StatusCode::UNAUTHORIZED, json!({"code": "invalid_session"})))
}

/// How long the token says that it lives. Whether it counts, tokenkeep has said.
fn seconds_left(token: &str) -> Option<u64> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(claims["exp"].as_u64()?.saturating_sub(now))
}
