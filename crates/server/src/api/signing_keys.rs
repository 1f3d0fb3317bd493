//! `/v1/signing-keys`: the keys that sign access tokens.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::signing_keys::KeyPhase;
use tokenkeep_engine::issuer::SigningKeyView;
use tokenkeep_oauth::issuer::jws::Algorithm;
use utoipa::ToSchema;

use super::{issuer::Granting, time};
use crate::{auth::Auth, body::OptionalJson, openapi::ProblemBody, problem::Problem};

/// Lists the keys, oldest first. What they look like nobody knows.
#[utoipa::path(
    get,
    path = "/v1/signing-keys",
    tag = "signing keys",
    operation_id = "list_signing_keys",
    responses(
        (status = 200, description = "all of them", body = SigningKeyList),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
    ),
)]
pub(crate) async fn list(
    Auth(caller): Auth,
    Granting(issuer): Granting,
) -> Result<axum::Json<SigningKeyList>, Problem> {
    Ok(axum::Json(issuer.signing_keys(&caller)?.into()))
}

/// The keys that were announced sign from now on, new ones are announced, and the old ones count until the last token
/// that they signed is dead. Refused while a cached JWKS may lack the announced ones: for five minutes.
#[utoipa::path(
    post,
    path = "/v1/signing-keys/rotate",
    tag = "signing keys",
    operation_id = "rotate_signing_keys",
    request_body(content = RotateBody, description = "may be left out"),
    responses(
        (status = 200, description = "all keys, as they are now", body = SigningKeyList),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`conflict`"),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 429, response = crate::openapi::TooMany),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn rotate(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    OptionalJson(body): OptionalJson<RotateBody>,
) -> Result<axum::Json<SigningKeyList>, Problem> {
    let algorithm = body.algorithm.as_deref().map(|word| Algorithm::parse(word).ok_or_else(unknown)).transpose()?;
    Ok(axum::Json(issuer.rotate_signing_keys(&caller, algorithm).await?.into()))
}

fn unknown() -> Problem {
    let words = Algorithm::ALL.map(|algorithm| format!("`{}`", algorithm.as_str())).join(", ");
    Problem::invalid(format!("`algorithm` must be one of {words}"))
}

/// Which keys to rotate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateSigningKeys, example = json!({"algorithm": "ES256"}))]
pub(crate) struct RotateBody {
    /// Only those of this kind: `ES256`, `EdDSA` or `RS256`. Absent = all that are in use.
    algorithm: Option<String>,
}

/// All signing keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningKeyList {
    items: Vec<SigningKeyBody>,
}

impl From<Vec<SigningKeyView>> for SigningKeyList {
    fn from(views: Vec<SigningKeyView>) -> Self {
        Self { items: views.into_iter().map(Into::into).collect() }
    }
}

/// A signing key, without what it looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SigningKey, example = json!({
    "kid": "h0eCqWfPYYjRiNWWWyn2rIEVOgVYkF9ZdXfVzOEXfFo", "algorithm": "ES256", "resource": null, "phase": "active",
    "until": null, "created_at": "2026-11-01T08:00:00Z",
}))]
struct SigningKeyBody {
    /// Its name in the JWKS.
    kid: String,
    /// `ES256`, `EdDSA`, `RS256`, `HS256`.
    algorithm: &'static str,
    /// The only resource whose tokens it signs: the key stands in the configuration. `null` = any.
    resource: Option<String>,
    #[schema(value_type = KeyPhaseWord)]
    phase: &'static str,
    /// While `retiring`: when the last token that it signed is dead.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// `null` = it stands in the configuration.
    #[schema(format = DateTime)]
    created_at: Option<String>,
}

/// `next` = announced, and signs after the next rotation.
#[derive(ToSchema)]
#[schema(as = SigningKeyPhase, rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the words")]
enum KeyPhaseWord {
    Next,
    Active,
    Retiring,
}

impl From<SigningKeyView> for SigningKeyBody {
    fn from(view: SigningKeyView) -> Self {
        let SigningKeyView { kid, algorithm, resource, phase, created_at } = view;
        let (phase, until) = match phase {
            KeyPhase::Next => ("next", None),
            KeyPhase::Active => ("active", None),
            KeyPhase::Retiring { until } => ("retiring", Some(time(until))),
        };
        Self {
            kid,
            algorithm: algorithm.as_str(),
            resource: resource.map(String::from),
            phase,
            until,
            created_at: (created_at != Timestamp::UNIX_EPOCH).then(|| time(created_at)),
        }
    }
}
