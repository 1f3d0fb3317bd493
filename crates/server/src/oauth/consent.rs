//! `/authorize/{interaction}`: the page that says who asks for what, and what its user answers.
//!
//! It is shown before anybody signs in anywhere. Whatever a client says of itself is only that, so the page leads with
//! what cannot be chosen freely: the address that gets the access. The client's own links and pictures are left out: they
//! would lend it somebody else's face.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, Uri, header};
use secrecy::ExposeSecret;
use tokenkeep_core::InteractionId;
use tokenkeep_engine::issuer::{ADMINISTRATOR, ConsentPage, Issuer, Next};
use tokenkeep_oauth::Secret;
use url::Url;
use zeroize::Zeroizing;

use super::{
    administrator,
    authorize::{leave, page_of},
    issuing::Issuing,
    sorry::Sorry,
};
use crate::{
    AppState, body,
    cookie::Cookie,
    pages::{FormAction, Nonce, page},
    problem::Problem,
};

/// Says who asks for what.
pub(crate) async fn show(State(state): State<AppState>, issuing: Issuing, uri: Uri, headers: HeaderMap) -> Response {
    try_show(&state, &issuing.issuer, &uri, &headers).await.unwrap_or_else(|sorry| sorry.page(&state))
}

/// Takes the answer.
pub(crate) async fn decide(
    State(state): State<AppState>,
    issuing: Issuing,
    uri: Uri,
    headers: HeaderMap,
    request: Request,
) -> Response {
    try_decide(&state, &issuing.issuer, &uri, &headers, request).await.unwrap_or_else(|sorry| sorry.page(&state))
}

async fn try_show(state: &AppState, issuer: &Issuer, uri: &Uri, headers: &HeaderMap) -> Result<Response, Sorry> {
    let asked = issuer.consent(&interaction(uri)?, browser(state, headers)).await?;
    let nonce = Nonce::fresh(state.entropy());
    let template = ConsentTemplate { nonce: &nonce, asked: Asked::new(issuer, &asked), page: &asked };
    Ok(shown(state, StatusCode::OK, &template, &nonce, &asked))
}

async fn try_decide(
    state: &AppState,
    issuer: &Issuer,
    uri: &Uri,
    headers: &HeaderMap,
    request: Request,
) -> Result<Response, Sorry> {
    let (id, browser) = (interaction(uri)?, browser(state, headers));
    let form = Form::read(request, state).await?;
    let csrf = form.one("csrf").unwrap_or_default();
    match form.one("decision").as_ref().map(ExposeSecret::expose_secret) {
        Some("approve") => {
            let upstream = form.one("upstream");
            let upstream = upstream.as_ref().map(ExposeSecret::expose_secret);
            match issuer.approve(&id, browser.clone(), csrf.expose_secret(), upstream).await? {
                Next::Upstream(url) => leave(url.as_str()),
                Next::Answer(answer) => leave(answer.expose_secret()),
                Next::Administrator => {
                    let asked = issuer.consent(&id, browser).await?;
                    Ok(administrator::ask(state, issuer, &asked, false))
                }
            }
        }
        Some("deny") => leave(issuer.deny(&id, browser, csrf.expose_secret()).await?.expose_secret()),
        _ => Err(Problem::invalid("the form says neither `approve` nor `deny`").into()),
    }
}

/// The page, and the cookie that its answer must come back with.
pub(crate) fn shown(
    state: &AppState,
    status: StatusCode,
    template: &impl Template,
    nonce: &Nonce,
    asked: &ConsentPage,
) -> Response {
    let mut response = page(status, template, nonce, FormAction::AwayTo(&asked.form_action));
    if let Some(cookie) = Cookie::Browser.set(&asked.browser, state.public_url()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The cookie of this browser, if it has one.
pub(crate) fn browser(state: &AppState, headers: &HeaderMap) -> Option<Secret> {
    Cookie::Browser.read(headers, state.public_url())
}

/// The `{interaction}` of `…/authorize/{interaction}` and whatever follows.
pub(crate) fn interaction(uri: &Uri) -> Result<InteractionId, Sorry> {
    let named = uri.path().rsplit_once("/authorize/").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    named.and_then(|name| name.parse().ok()).ok_or(Sorry::OVER)
}

/// What a page of ours posted. Wiped when it is done with: it may hold a key.
pub(crate) struct Form(Zeroizing<Vec<u8>>);

impl Form {
    pub(crate) async fn read(request: Request, state: &AppState) -> Result<Self, Problem> {
        body::read(request, state).await.map(Self)
    }

    /// The field of that name. One that is there twice counts as none: no page of ours has it so.
    pub(crate) fn one(&self, name: &str) -> Option<Secret> {
        let mut found = form_urlencoded::parse(&self.0).filter(|(field, _)| field == name);
        let (_, value) = found.next()?;
        found.next().is_none().then(|| Secret::from(value.into_owned()))
    }
}

/// Where the access goes, as far as it can be told from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A host that only its owner answers for.
    Website,
    /// A port of the user's own machine (RFC 8252 8.3): whichever program listens there.
    ThisMachine,
    /// A scheme (RFC 8252 8.6): whichever program claimed it.
    PrivateScheme,
}

/// What every page of an interaction says: who asks, and where the access goes.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Which server this is.
    pub(crate) server: &'a str,
    /// Where the forms lead.
    pub(crate) action: String,
    pub(crate) csrf: &'a Secret,
    pub(crate) client_name: Option<&'a str>,
    pub(crate) destination: Destination,
    pub(crate) redirect_host: &'a str,
    /// The resource, for people.
    pub(crate) resource: String,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(issuer: &'a Issuer, page: &'a ConsentPage) -> Self {
        Self::at(issuer.settings().url.as_str(), page_of(issuer, page.interaction), page)
    }

    fn at(server: &'a str, action: String, page: &'a ConsentPage) -> Self {
        let host = |url: &str| Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let name = page.resource_name.clone().or_else(|| host(page.resource.as_str()));
        Self {
            server: server.split_once("://").map_or(server, |(_, rest)| rest),
            action,
            csrf: &page.csrf,
            client_name: page.client_name.as_deref().filter(|name| !name.trim().is_empty()),
            destination: match page {
                ConsentPage { private_scheme: true, .. } => Destination::PrivateScheme,
                ConsentPage { loopback: true, .. } => Destination::ThisMachine,
                _ => Destination::Website,
            },
            redirect_host: &page.redirect_host,
            resource: name.unwrap_or_else(|| page.resource.as_str().to_owned()),
        }
    }
}

/// Who asks for what.
#[derive(Debug, Template)]
#[template(path = "consent.html")]
struct ConsentTemplate<'a> {
    nonce: &'a Nonce,
    asked: Asked<'a>,
    page: &'a ConsentPage,
}

impl ConsentTemplate<'_> {
    /// Whether somebody gets to use the user's account.
    fn is_about_accounts(&self) -> bool {
        (self.page.resource_uses_account || !self.page.exchangers.is_empty()) && !self.accounts().is_empty()
    }

    /// The providers where an account could be used, whichever of them the user chooses.
    fn accounts(&self) -> String {
        let chosen = self.page.upstreams.iter().filter(|upstream| upstream.id != ADMINISTRATOR);
        chosen.map(|upstream| upstream.name.as_str()).collect::<Vec<_>>().join(" or ")
    }
}

/// What the scopes mean that mean the same everywhere (OpenID Connect Core 5.4 and 11).
fn in_words(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "openid" => "who you are",
        "profile" => "your name",
        "email" => "your e-mail address",
        "offline_access" => "also while you are away",
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use tokenkeep_engine::{issuer::UpstreamChoice, system::SystemEntropy};
    use tokenkeep_oauth::issuer::resource::Resource;

    use super::*;

    pub(crate) const HOSTILE: &str = "<script>alert(1)</script>\"'&";

    /// Whatever somebody else may have a say in says something hostile.
    pub(crate) fn hostile_page() -> ConsentPage {
        let hostile = || HOSTILE.to_owned();
        ConsentPage {
            interaction: "01J00000000000000000000000".parse().unwrap(),
            client_id: "https://app.example/client.json".parse().unwrap(),
            client_name: Some(hostile()),
            client_host: Some(hostile()),
            client_uri: None,
            redirect_host: hostile(),
            loopback: false,
            private_scheme: false,
            resource: Resource::parse("https://notes.example/mcp").unwrap(),
            resource_name: Some(hostile()),
            scopes: vec![hostile()],
            exchangers: vec![hostile()],
            resource_uses_account: true,
            upstreams: vec![UpstreamChoice { id: hostile(), name: hostile() }],
            csrf: HOSTILE.into(),
            browser: HOSTILE.into(),
            form_action: vec![hostile()],
        }
    }

    pub(crate) fn asked(page: &ConsentPage) -> Asked<'_> {
        Asked::at("https://as.example/a", "/a/authorize/1".to_owned(), page)
    }

    /// That whatever is hostile in it is only ever text.
    #[track_caller]
    pub(crate) fn check_escaped(html: &str) {
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("\"'&"), "{html}");
        assert!(html.contains("&#60;script&#62;"), "{html}");
    }

    fn render(page: &ConsentPage) -> String {
        let nonce = Nonce::fresh(&SystemEntropy);
        ConsentTemplate { nonce: &nonce, asked: asked(page), page }.render().unwrap()
    }

    #[test]
    fn the_page_never_shows_input_unescaped() {
        let mut page = hostile_page();
        check_escaped(&render(&page));
        page.loopback = true;
        check_escaped(&render(&page));
        page.private_scheme = true;
        check_escaped(&render(&page));
    }

    #[test]
    fn who_cannot_be_told_apart_is_warned_of() {
        let mut page =
            ConsentPage { client_name: Some(" ".into()), redirect_host: "app.example".into(), ..hostile_page() };
        let html = render(&page);
        assert!(html.contains("An application without a name") && html.contains("app.example"), "{html}");
        assert!(!html.contains("Warning:"), "{html}");
        page.loopback = true;
        assert!(render(&page).contains("a program on this computer (app.example)"));
        assert!(render(&page).contains("Warning:"));
        page.private_scheme = true;
        assert!(render(&page).contains("whichever program opens"));
    }
}
