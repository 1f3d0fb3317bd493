//! Supabase Auth's token endpoint and its user, which is no OAuth: `grant_type` stands in the query, the body is JSON, and a header
//! `apikey` says which project is meant. Its sign-in by password takes whatever password an address comes with.

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State as Extract},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{Shared, pages::userinfo};

/// The project's publishable key.
pub const GOTRUE_APIKEY: &str = "sb_publishable_testkit";

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/auth/v1/token", post(token)).route("/auth/v1/user", get(user))
}

async fn token(
    Extract(shared): Extract<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !names_the_project(&headers) {
        return refused(StatusCode::UNAUTHORIZED, "no_authorization");
    }
    let (Ok(Value::Object(mut members)), true) = (serde_json::from_slice(&body), is_json) else {
        return refused(StatusCode::BAD_REQUEST, "bad_json");
    };
    match query.as_deref() {
        Some("grant_type=password") => match members.get("email").and_then(Value::as_str) {
            Some(email) => signed_in(&shared, email),
            None => refused(StatusCode::BAD_REQUEST, "validation_failed"),
        },
        Some("grant_type=refresh_token") if members.keys().eq(["refresh_token"]) => {
            members.insert("grant_type".to_owned(), "refresh_token".into());
            members.insert("client_id".to_owned(), shared.state().config.client_id.clone().into());
            members.insert("client_secret".to_owned(), shared.state().config.client_secret.clone().into());
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = Value::Object(members).to_string();
            // In a task of its own: a provider goes on with what it has received.
            let answer = tokio::spawn(async move { shared.answer(&headers, body.as_bytes()).await });
            answer.await.unwrap_or_else(|_| super::cut())
        }
        _ => refused(StatusCode::BAD_REQUEST, "validation_failed"),
    }
}

async fn user(shared: Extract<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !names_the_project(&headers) {
        return refused(StatusCode::UNAUTHORIZED, "no_authorization");
    }
    userinfo(shared, headers).await
}

fn names_the_project(headers: &HeaderMap) -> bool {
    headers.get("apikey").is_some_and(|key| key == GOTRUE_APIKEY)
}

fn signed_in(shared: &Shared, email: &str) -> Response {
    let issued = shared.seed(email);
    let life = shared.state().config.token_life.as_secs();
    let expires_at = shared.clock.now().wall.as_second().saturating_add_unsigned(life);
    let body = json!({
        "access_token": issued.access_token, "token_type": "bearer", "expires_in": life, "expires_at": expires_at,
        "refresh_token": issued.refresh_token, "user": {"id": email, "email": email},
    });
    axum::Json(body).into_response()
}

fn refused(status: StatusCode, code: &str) -> Response {
    (status, axum::Json(json!({"code": status.as_u16(), "error_code": code, "msg": code}))).into_response()
}
