//! `/oauth/callback`: where providers send browsers back to (RFC 6749 4.1.2).
//!
//! Most providers redirect, with the answer in the query. Some (`response_mode=form_post`) have the browser POST it from a
//! page of theirs; such a cross-site POST carries no `SameSite=Lax` cookie, so we could not tell which browser it is.
//! Loosening the cookie to `SameSite=None` would weaken it for everyone, for the sake of a few. Instead the POST is
//! answered with a redirect to `/oauth/return`: that is a top-level GET, on which browsers do send the cookie. What was
//! posted travels in a cookie of its own for that one step: not in the address, where history and logs would keep the code,
//! and not in this process, because the next request may reach another instance.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, Uri, header};
use secrecy::ExposeSecret;
use tokenkeep_engine::{ConnectStatus, Returned, issuer::CameBack};
use tokenkeep_oauth::Secret;

use super::{authorize::leave, sorry::Sorry};
use crate::{
    AppState, body,
    cookie::Cookie,
    pages::{FormAction, Nonce, OutcomeTemplate, page, see_other},
    problem::Problem,
};

/// The members of a posted answer that matter. Others (ID tokens, the user's name) would not fit and are not used.
const KEPT: [&str; 5] = ["code", "state", "iss", "error", "error_description"];

/// The longest value of one of them that is kept.
const MAX_KEPT: usize = 2048;

/// The browser comes back with the answer in the query.
pub(crate) async fn query(State(state): State<AppState>, uri: Uri, headers: HeaderMap) -> Response {
    let answer = uri.query().unwrap_or_default().as_bytes();
    finish(&state, answer, &headers).await
}

/// The browser posts the answer from the provider's page.
pub(crate) async fn form(State(state): State<AppState>, request: Request) -> Response {
    match hop(&state, request).await {
        Ok(response) => response,
        Err(problem) => sorry(&state, &problem),
    }
}

/// The browser comes by itself with what it posted a moment ago.
pub(crate) async fn returned(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let public_url = state.public_url();
    let posted = Cookie::Returned.read(&headers, public_url);
    let answer = posted.and_then(|posted| URL_SAFE_NO_PAD.decode(posted.expose_secret()).ok()).unwrap_or_default();
    let mut response = finish(&state, &answer, &headers).await;
    if let Some(cookie) = Cookie::Returned.clear(public_url) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn hop(state: &AppState, request: Request) -> Result<Response, Problem> {
    let public_url = state.public_url();
    let posted = body::read(request, state).await?;
    let mut kept = form_urlencoded::Serializer::new(String::new());
    // Every pair, repeated ones included: judging them is not done here.
    kept.extend_pairs(
        form_urlencoded::parse(&posted)
            .filter(|(name, value)| KEPT.contains(&name.as_ref()) && value.len() <= MAX_KEPT),
    );
    let kept = Secret::from(URL_SAFE_NO_PAD.encode(kept.finish()));
    let cookie = Cookie::Returned.set(&kept, public_url);
    let cookie = cookie.ok_or_else(|| Problem::invalid("The provider sent an answer that cannot be used."))?;
    let mut response = see_other("/oauth/return").unwrap_or_else(|| StatusCode::NOT_FOUND.into_response());
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn finish(state: &AppState, answer: &[u8], headers: &HeaderMap) -> Response {
    let browser = Cookie::Browser.read(headers, state.public_url());
    // Who signs in at our own server comes back here too: providers know one address of ours.
    if let Some(issuer) = state.engine.issuer().filter(|issuer| issuer.is_ours(answer)) {
        let came_back = issuer.came_back(answer, browser).await;
        let gone = came_back.map_err(|CameBack::Page(error)| Sorry::from(error));
        return gone.and_then(|to| leave(to.expose_secret())).unwrap_or_else(|sorry| sorry.page(state));
    }
    match state.engine.connect().callback(answer, browser).await {
        Ok(returned) => match returned.return_to.as_ref().and_then(|url| see_other(url.as_str())) {
            Some(redirect) => redirect,
            None => outcome(state, &returned),
        },
        Err(error) => sorry(state, &error.into()),
    }
}

fn outcome(state: &AppState, returned: &Returned) -> Response {
    let (mark, title, text) = match returned.status {
        ConnectStatus::Connected => ("✓", "Connected", "You can close this window."),
        ConnectStatus::AwaitingConfirmation => {
            ("✓", "Almost there", "The application that sent you here still has to confirm. You can close this window.")
        }
        ConnectStatus::Denied => (
            "✕",
            "Not connected",
            "You, or your organisation, did not allow it. Nothing was stored. To try again, open a new link.",
        ),
        ConnectStatus::Expired => {
            ("⚠", "Too late", "This took longer than ten minutes. Nothing was stored. Start again where you came from.")
        }
        ConnectStatus::Pending | ConnectStatus::Failed => (
            "⚠",
            "That did not work",
            "Nothing was stored. Start again where you came from; if it fails again, tell whoever runs it the word below.",
        ),
    };
    let nonce = Nonce::fresh(state.entropy());
    let template = OutcomeTemplate { nonce: &nonce, mark, title, text, detail: returned.error.as_deref() };
    page(StatusCode::OK, &template, &nonce, FormAction::None)
}

fn sorry(state: &AppState, problem: &Problem) -> Response {
    let status = problem.status();
    let text = if status.is_server_error() {
        "Something is out of order here at the moment. Start again where you came from in a minute."
    } else {
        "This answer does not belong to anything this browser asked for. Start again where you came from, in the same browser."
    };
    let nonce = Nonce::fresh(state.entropy());
    let template =
        OutcomeTemplate {
            nonce: &nonce, mark: "⚠", title: "That did not work", text, detail: Some(problem.detail())
        };
    page(status, &template, &nonce, FormAction::None)
}
