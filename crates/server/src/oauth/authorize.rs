//! `/authorize`: where applications send their users (RFC 6749 4.1.1). Who asks, and for what, is checked before anything
//! is shown; the page itself stands at an address of its own, so that loading it again starts nothing anew.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{Extensions, HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use tokenkeep_core::InteractionId;
use tokenkeep_engine::{
    Error,
    issuer::{Authorization, AuthorizeRefused, Issuer},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{error::OAuthError, redirect_uri::shown_host},
};

use super::{issuing::Issuing, sorry::Sorry};
use crate::{
    AppState, body,
    pages::{FormAction, Nonce, page, see_other},
    peer::Peer,
    problem::Problem,
};

/// The request in the query.
pub(crate) async fn query(State(state): State<AppState>, issuing: Issuing, request: Request) -> Response {
    let asked = request.uri().query().unwrap_or_default().as_bytes();
    begin(&state, &issuing, request.extensions(), request.headers(), asked)
        .await
        .unwrap_or_else(|sorry| sorry.page(&state))
}

/// The request in a form (OAuth 2.1 3.1).
pub(crate) async fn form(State(state): State<AppState>, issuing: Issuing, request: Request) -> Response {
    let (extensions, headers) = (request.extensions().clone(), request.headers().clone());
    let answered = async {
        let asked = body::read(request, &state).await?;
        begin(&state, &issuing, &extensions, &headers, &asked).await
    };
    answered.await.unwrap_or_else(|sorry| sorry.page(&state))
}

async fn begin(
    state: &AppState,
    issuing: &Issuing,
    extensions: &Extensions,
    headers: &HeaderMap,
    asked: &[u8],
) -> Result<Response, Sorry> {
    if let Some(network) = issuing.origin_of(headers, Peer::of(extensions)) {
        let (ceiling, now) = (&issuing.ceilings.sign_ins, state.clock().now().boot);
        let name = ceiling.name(&network);
        let too_many = |retry_after| Error::TooMany { what: "too many sign-ins begin in your network", retry_after };
        ceiling.check(name, now).map_err(too_many)?;
        ceiling.count(name, now);
    }
    let issuer = &issuing.issuer;
    match issuer.authorize(asked).await {
        Ok(Authorization::Ask(id)) => leave(&page_of(issuer, id)),
        Ok(Authorization::Elsewhere(url)) => leave(url.as_str()),
        Ok(Authorization::Answer(answer)) => leave(answer.expose_secret()),
        Ok(Authorization::Offer { answer, error }) => Ok(offered(state, &answer, &error)),
        Err(AuthorizeRefused::Page(error)) => Err(Sorry::client(&error)),
        Err(AuthorizeRefused::Failed(error)) => Err(error.into()),
    }
}

/// Says why nothing comes of it, and lets the user go on to whoever sent them, with that answer.
fn offered(state: &AppState, answer: &Secret, error: &OAuthError) -> Response {
    let nonce = Nonce::fresh(state.entropy());
    let (host, answer) = (shown_host(answer.expose_secret()), answer.expose_secret());
    let template = OfferedTemplate { nonce: &nonce, host: &host, answer, detail: &error.description };
    page(StatusCode::BAD_REQUEST, &template, &nonce, FormAction::None)
}

#[derive(Debug, Template)]
#[template(path = "offered.html")]
struct OfferedTemplate<'a> {
    nonce: &'a Nonce,
    host: &'a str,
    answer: &'a str,
    detail: &'a str,
}

/// Where the page of an interaction is.
pub(crate) fn page_of(issuer: &Issuer, id: InteractionId) -> String {
    format!("{}/authorize/{id}", issuer.settings().url.path())
}

/// Sends the browser on by GET, whatever it did before: a redirect that keeps the method would carry keys along.
pub(crate) fn leave(to: &str) -> Result<Response, Sorry> {
    see_other(to).ok_or_else(|| Problem::invalid("the address to go on to cannot be used").into())
}
