//! `/connect/{ticket}`: the page behind an `authorize_url`. It says who asks for what, and only a click on it sends the
//! browser to the provider: whoever merely makes a browser load the link has not yet bound it to anything.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri, header};
use secrecy::ExposeSecret;
use tokenkeep_core::id::DEFAULT;
use tokenkeep_oauth::{Secret, secret_eq};

use crate::{
    AppState, body,
    cookie::Cookie,
    pages::{ConnectTemplate, FormAction, Nonce, OutcomeTemplate, page, random, see_other},
    problem::Problem,
};

/// Shows who asks for what.
pub(crate) async fn show(State(state): State<AppState>, uri: Uri, headers: HeaderMap) -> Response {
    match try_show(&state, &uri, &headers).await {
        Ok(response) => response,
        Err(problem) => sorry(&state, &problem),
    }
}

/// Sends the browser to the provider.
pub(crate) async fn leave(State(state): State<AppState>, uri: Uri, headers: HeaderMap, request: Request) -> Response {
    match try_leave(&state, &uri, &headers, request).await {
        Ok(response) => response,
        Err(problem) => sorry(&state, &problem),
    }
}

async fn try_show(state: &AppState, uri: &Uri, headers: &HeaderMap) -> Result<Response, Problem> {
    let public_url = state.public_url();
    let asked = state.engine.connect().page(ticket(uri)).await?;
    // Kept if there is one: the same browser may have several of these pages open.
    let csrf = Cookie::Csrf.read(headers, public_url).unwrap_or_else(|| random(state.entropy()).into());
    let nonce = Nonce::fresh(state.entropy());
    let template = ConnectTemplate {
        nonce: &nonce,
        provider: &asked.provider_name,
        tenant: Some(asked.tenant.as_str()).filter(|name| *name != DEFAULT),
        subject: match asked.subject.as_str() {
            DEFAULT => "this installation",
            name => name,
        },
        scopes: asked.scope.as_deref().unwrap_or_default().split_whitespace().collect(),
        return_to_host: asked.return_to_host.as_deref(),
        csrf: csrf.expose_secret(),
    };
    let forms = FormAction::Away { plain_http: public_url.scheme() == "http" };
    let mut response = page(StatusCode::OK, &template, &nonce, forms);
    if let Some(cookie) = Cookie::Csrf.set(&csrf, public_url) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn try_leave(state: &AppState, uri: &Uri, headers: &HeaderMap, request: Request) -> Result<Response, Problem> {
    let public_url = state.public_url();
    let form = body::read(request, state).await?;
    let shown = form_urlencoded::parse(&form).find(|(name, _)| name == "csrf").map(|(_, value)| Secret::from(&*value));
    let held = Cookie::Csrf.read(headers, public_url);
    let is_ours = matches!((shown, held), (Some(shown), Some(held)) if secret_eq(&shown, &held));
    if !is_ours {
        return Err(Problem::invalid(
            "This page was open for too long, or your browser keeps no cookies. Open the link again.",
        ));
    }
    let browser = Cookie::Browser.read(headers, public_url);
    let (provider, browser) = state.engine.connect().redirect(ticket(uri), browser).await?;
    let mut response =
        see_other(provider.as_str()).ok_or_else(|| Problem::invalid("The address of the provider cannot be used."))?;
    if let Some(cookie) = Cookie::Browser.set(&browser, public_url) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The last segment of `/connect/{ticket}`. Tickets need no decoding; whatever does is none.
fn ticket(uri: &Uri) -> &str {
    uri.path().rsplit('/').next().unwrap_or_default()
}

fn sorry(state: &AppState, problem: &Problem) -> Response {
    let status = problem.status();
    let text = if status == StatusCode::NOT_FOUND {
        "This link was used before, has expired, or never existed. Ask for a new one where you got it."
    } else if status.is_server_error() {
        "Something is out of order here at the moment. Try the link again in a minute."
    } else {
        problem.detail()
    };
    let nonce = Nonce::fresh(state.entropy());
    let template = OutcomeTemplate { nonce: &nonce, mark: "⚠", title: "This link does not work", text, detail: None };
    page(status, &template, &nonce, FormAction::None).into_response()
}
