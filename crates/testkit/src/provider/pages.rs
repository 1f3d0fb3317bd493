//! Everything but the token endpoint: what a browser, a device or a caller of the API sees.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State as Extract},
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use url::Url;

use super::{
    Config, Shared,
    token::{Code, DEVICE_INTERVAL, DEVICE_LIFE, Decision, Device, Params, Refusal, authenticate, parse},
};

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/authorize", get(authorize))
        .route("/device", post(start_device).get(approve_device))
        .route("/revoke", post(revoke))
        .route("/userinfo", get(userinfo))
        .route("/user/emails", get(emails))
        .route("/user/orgs", get(organizations))
        .route("/api/echo", any(echo))
        .route("/.well-known/openid-configuration", get(discovery))
}

/// RFC 6749 4.1.1 and 4.1.2: the configured user is signed in and answers at once.
async fn authorize(Extract(shared): Extract<Arc<Shared>>, Query(params): Query<Params>) -> Response {
    let parameter = |name| params.get(name).map(String::as_str).unwrap_or_default();
    let mut state = shared.state();
    let redirect_uri = parameter("redirect_uri");
    let registered = &state.config.redirect_uris;
    let known = registered.is_empty() || registered.iter().any(|uri| uri == redirect_uri);
    let target = match Url::parse(redirect_uri) {
        // Nobody is redirected to where the client did not register (RFC 6749 4.1.2.1).
        Ok(target) if known && parameter("client_id") == state.config.client_id => target,
        _ => return (StatusCode::BAD_REQUEST, "unknown client or redirect_uri").into_response(),
    };
    let challenge = params.get("code_challenge").cloned();
    let error = if parameter("response_type") != "code" {
        Some("unsupported_response_type")
    } else if challenge.is_some() && parameter("code_challenge_method") != "S256"
        || challenge.is_none() && state.config.require_pkce
    {
        Some("invalid_request")
    } else if state.config.user_denies {
        Some("access_denied")
    } else {
        None
    };
    let mut answer = Vec::new();
    if let Some(error) = error {
        answer.push(("error", error.to_owned()));
    } else {
        let code = state.ledger.word("fake_code_");
        let entry = Code {
            redirect_uri: redirect_uri.to_owned(),
            challenge,
            subject: state.config.user.clone(),
            scope: parameter("scope").to_owned(),
            issued_at: shared.now(),
            redeemed: None,
        };
        state.codes.insert(code.clone(), entry);
        answer.push(("code", code));
    }
    if let Some(value) = params.get("state") {
        answer.push(("state", value.clone()));
    }
    if state.config.iss_parameter {
        answer.push(("iss", shared.issuer()));
    }
    if parameter("response_mode") == "form_post" { form_post(&target, &answer) } else { redirect(target, &answer) }
}

fn redirect(mut target: Url, answer: &[(&str, String)]) -> Response {
    target.query_pairs_mut().extend_pairs(answer);
    (StatusCode::FOUND, [(header::LOCATION, String::from(target))]).into_response()
}

/// OAuth 2.0 Form Post Response Mode: the browser posts the answer across sites.
fn form_post(target: &Url, answer: &[(&str, String)]) -> Response {
    use std::fmt::Write as _;
    let fields = answer.iter().fold(String::new(), |mut fields, (name, value)| {
        let _infallible = write!(fields, r#"<input type="hidden" name="{name}" value="{}">"#, escaped(value));
        fields
    });
    let action = escaped(target.as_str());
    Html(format!(
        r#"<body onload="document.forms[0].submit()"><form method="post" action="{action}">{fields}</form></body>"#
    ))
    .into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// RFC 8628 3.1 and 3.2.
async fn start_device(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let params: Params = parse(&headers, &body).into_iter().collect();
    let mut state = shared.state();
    if params.get("client_id") != Some(&state.config.client_id) {
        return refused(&Refusal(StatusCode::UNAUTHORIZED, "invalid_client"));
    }
    let device_code = state.ledger.word("fake_device_");
    let user_code = state.ledger.word("")[..8].to_uppercase();
    let device = Device {
        user_code: user_code.clone(),
        scope: params.get("scope").cloned().unwrap_or_default(),
        issued_at: shared.now(),
        polled_at: None,
        decision: Decision::Pending,
        redeemed: false,
    };
    state.devices.insert(device_code.clone(), device);
    let page = format!("{}/device", shared.issuer());
    Json(json!({
        "device_code": device_code,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "user_code": user_code,
        "verification_uri": page,
        "expires_in": DEVICE_LIFE.as_secs(),
        "interval": DEVICE_INTERVAL.as_secs(),
    }))
    .into_response()
}

/// The page a user opens: opening it is the answer.
async fn approve_device(Extract(shared): Extract<Arc<Shared>>, Query(params): Query<Params>) -> StatusCode {
    let approve = !shared.state().config.user_denies;
    let known = params.get("user_code").is_some_and(|user_code| shared.decide_device(user_code, approve));
    if known { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

impl Shared {
    /// Says whether such a device waits.
    pub(super) fn decide_device(&self, user_code: &str, approve: bool) -> bool {
        let mut state = self.state();
        let user = state.config.user.clone();
        let Some(device) = state.devices.values_mut().find(|device| device.user_code == user_code) else {
            return false;
        };
        device.decision = if approve { Decision::Approved(user) } else { Decision::Denied };
        true
    }

    /// Something about the holder of the token.
    fn describe(&self, headers: &HeaderMap, what: impl FnOnce(&str, &Config) -> Value) -> Response {
        let Some(subject) = self.bearer(headers) else { return bearer_required() };
        let config = self.state().config.clone();
        if config.userinfo_down {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        Json(what(&subject, &config)).into_response()
    }

    /// Whose bearer token a request carries (RFC 6750 2.1).
    fn bearer(&self, headers: &HeaderMap) -> Option<String> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        self.state().ledger.subject_of(token, self.now()).map(str::to_owned)
    }
}

/// RFC 7009: an unknown token is revoked already.
async fn revoke(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let params: Params = parse(&headers, &body).into_iter().collect();
    let mut state = shared.state();
    if let Err(refusal) = authenticate(&state.config, &shared.issuer(), &headers, &params, shared.clock.now()) {
        return refused(&refusal);
    }
    let Some(token) = params.get("token") else {
        return refused(&Refusal(StatusCode::BAD_REQUEST, "invalid_request"));
    };
    state.ledger.revoke(token);
    state.revocations.push(token.clone());
    StatusCode::OK.into_response()
}

fn refused(Refusal(status, code): &Refusal) -> Response {
    (*status, Json(json!({ "error": code }))).into_response()
}

fn bearer_required() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)]).into_response()
}

pub(super) async fn userinfo(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap) -> Response {
    shared.describe(&headers, |subject, config| {
        let (email, verified) = (format!("{subject}@fake.example"), !config.email_unverified);
        json!({ "sub": subject, "name": subject, "email": email, "email_verified": verified })
    })
}

/// As GitHub lists them.
async fn emails(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap) -> Response {
    shared.describe(&headers, |subject, _| {
        json!([
            { "email": format!("{subject}@elsewhere.example"), "primary": false, "verified": true },
            { "email": format!("{subject}@fake.example"), "primary": true, "verified": true },
        ])
    })
}

/// As GitHub lists them.
async fn organizations(
    Extract(shared): Extract<Arc<Shared>>,
    Query(params): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let page: usize = params.get("page").and_then(|page| page.parse().ok()).unwrap_or(1);
    let mut link = None;
    let mut response = shared.describe(&headers, |_, config| {
        let mut pages = config.organizations.chunks(config.organizations_per_page).skip(page.saturating_sub(1));
        let names = pages.next().unwrap_or_default();
        link = pages.next().map(|_| format!("<{}/user/orgs?page={}>; rel=\"next\"", shared.issuer(), page + 1));
        names.iter().map(|name| json!({ "login": name })).collect::<Vec<_>>().into()
    });
    if let Some(link) = link.and_then(|link| link.parse().ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The API behind the tokens: says what it was asked.
async fn echo(
    Extract(shared): Extract<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(subject) = shared.bearer(&headers) else { return bearer_required() };
    let body = String::from_utf8_lossy(&body);
    Json(json!({ "subject": subject, "method": method.as_str(), "uri": uri.to_string(), "body": body })).into_response()
}

/// `OpenID` Connect Discovery 1.0 and RFC 8414.
async fn discovery(Extract(shared): Extract<Arc<Shared>>) -> Response<Body> {
    let issuer = shared.issuer();
    let at = |path: &str| Value::from(format!("{issuer}{path}"));
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "revocation_endpoint": at("/revoke"),
        "device_authorization_endpoint": at("/device"),
        "userinfo_endpoint": at("/userinfo"),
        "jwks_uri": at("/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported":
            ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
        "authorization_response_iss_parameter_supported": shared.state().config.iss_parameter,
    }))
    .into_response()
}
