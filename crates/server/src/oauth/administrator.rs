//! `/authorize/{interaction}/administrator`: an admin key instead of a provider, for development.
//!
//! The page is only ever the answer to a form, never to a link: nobody can be sent straight to it, past the page that says
//! who asks. The key comes in a body, and is answered with a redirect by GET.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, Uri};
use secrecy::ExposeSecret;
use tokenkeep_engine::{
    Error,
    issuer::{ADMINISTRATOR, ConsentPage, Issuer},
};
use tokenkeep_oauth::{Secret, secret_eq};

use super::{
    authorize::leave,
    consent::{Asked, Destination, Form, browser, interaction, shown},
    issuing::Issuing,
    sorry::Sorry,
};
use crate::{AppState, pages::Nonce};

/// Takes the key.
pub(crate) async fn sign_in(
    State(state): State<AppState>,
    issuing: Issuing,
    uri: Uri,
    headers: HeaderMap,
    request: Request,
) -> Response {
    try_sign_in(&state, &issuing.issuer, &uri, &headers, request).await.unwrap_or_else(|sorry| sorry.page(&state))
}

async fn try_sign_in(
    state: &AppState,
    issuer: &Issuer,
    uri: &Uri,
    headers: &HeaderMap,
    request: Request,
) -> Result<Response, Sorry> {
    let (id, browser) = (interaction(uri)?, browser(state, headers));
    let form = Form::read(request, state).await?;
    let csrf = form.one("csrf").unwrap_or_default();
    // Keys are copied from terminals and mails, with a space or a line end at their edge.
    let key = Secret::from(form.one("key").unwrap_or_default().expose_secret().trim());
    match issuer.sign_in_administrator(&id, browser.clone(), csrf.expose_secret(), &key).await {
        Ok(answer) => leave(answer.expose_secret()),
        Err(refused @ Error::Forbidden(_)) => {
            let asked = issuer.consent(&id, browser).await?;
            // Whoever posts from elsewhere is not shown a page that asks for a key.
            if !secret_eq(&csrf, &asked.csrf) {
                return Err(refused.into());
            }
            let takes_keys = asked.upstreams.iter().any(|upstream| upstream.id == ADMINISTRATOR);
            if takes_keys { Ok(ask(state, issuer, &asked, true)) } else { Err(Sorry::NO_KEYS) }
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks for the key, again if it was wrong.
pub(crate) fn ask(state: &AppState, issuer: &Issuer, asked: &ConsentPage, wrong_key: bool) -> Response {
    let nonce = Nonce::fresh(state.entropy());
    let template = AdministratorTemplate { nonce: &nonce, asked: Asked::new(issuer, asked), wrong_key };
    let status = if wrong_key { StatusCode::FORBIDDEN } else { StatusCode::OK };
    shown(state, status, &template, &nonce, asked)
}

/// Asks for the key. Who gets what stands on this page too: it is here that it is allowed.
#[derive(Debug, Template)]
#[template(path = "administrator.html")]
struct AdministratorTemplate<'a> {
    nonce: &'a Nonce,
    asked: Asked<'a>,
    wrong_key: bool,
}

#[cfg(test)]
mod tests {
    use tokenkeep_engine::system::SystemEntropy;

    use super::*;
    use crate::oauth::consent::tests::{asked, check_escaped, hostile_page};

    #[test]
    fn the_page_never_shows_input_unescaped() {
        let nonce = Nonce::fresh(&SystemEntropy);
        for wrong_key in [false, true] {
            let page = hostile_page();
            let html = AdministratorTemplate { nonce: &nonce, asked: asked(&page), wrong_key }.render().unwrap();
            check_escaped(&html);
            assert_eq!(html.contains("role=\"alert\""), wrong_key);
            assert!(html.contains("type=\"password\""), "{html}");
        }
    }
}
