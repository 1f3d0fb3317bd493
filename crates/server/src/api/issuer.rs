//! `/v1/issuer`: our authorization server, for whoever runs it.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Serialize;
use tokenkeep_engine::issuer::{Issuer, IssuerStats, Purged};
use utoipa::ToSchema;

use crate::{
    AppState,
    auth::Auth,
    extract::Params,
    problem::{NO_ISSUER, Problem},
};

/// The authorization server; where there is none, nothing is there to be managed.
#[derive(Debug)]
pub(crate) struct OurIssuer(pub(crate) Issuer);

impl FromRequestParts<AppState> for OurIssuer {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let none = "there is no `[issuer]` in the configuration of this server";
        state.engine.issuer().cloned().map(Self).ok_or_else(|| Problem::new(NO_ISSUER, none))
    }
}

/// Whatever makes grants: the authorization server, or what issues sessions where there is none.
#[derive(Debug)]
pub(crate) struct Granting(pub(crate) Issuer);

impl FromRequestParts<AppState> for Granting {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let none = "there is neither `[issuer]` nor `[sessions]` in the configuration of this server";
        state.engine.granting().cloned().map(Self).ok_or_else(|| Problem::new(NO_ISSUER, none))
    }
}

/// Counts of clients, grants and tokens. Reads every record: not for every second.
#[utoipa::path(
    get,
    path = "/v1/issuer/stats",
    tag = "operations",
    operation_id = "get_issuer_stats",
    responses(
        (status = 200, description = "the counts", body = IssuerStatsBody),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn stats(
    Auth(caller): Auth,
    Granting(issuer): Granting,
) -> Result<axum::Json<IssuerStatsBody>, Problem> {
    Ok(axum::Json(issuer.issuer_stats(&caller).await?.into()))
}

/// Removes what expired, now instead of at the next half hour.
#[utoipa::path(
    post,
    path = "/v1/issuer/purge",
    tag = "operations",
    operation_id = "purge_expired",
    params(("dry_run" = Option<bool>, Query, description = "only count it")),
    responses(
        (status = 200, description = "what was removed, or would be", body = PurgedBody),
        (status = 400, response = crate::openapi::BadRequest),
        (status = 401, response = crate::openapi::Unauthorized),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, response = crate::openapi::NoIssuer),
        (status = 503, response = crate::openapi::Unavailable),
    ),
)]
pub(crate) async fn purge(
    Auth(caller): Auth,
    Granting(issuer): Granting,
    params: Params,
) -> Result<axum::Json<PurgedBody>, Problem> {
    let dry_run = params.only(&["dry_run"])?.flag("dry_run")?;
    let Purged { clients, grants, interactions, voided, removed } = issuer.purge_expired(&caller, dry_run).await?;
    Ok(axum::Json(PurgedBody { dry_run, clients, grants, interactions, voided, removed }))
}

/// What is there, and counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssuerStats, example = json!({
    "clients": 3, "grants": 12, "access_tokens": 15, "refresh_tokens": 12, "interactions": 1, "codes": 0,
    "subjects": 9, "unreadable": 0,
}))]
pub(crate) struct IssuerStatsBody {
    /// Those of the configuration file included.
    clients: u64,
    /// That something can come of.
    grants: u64,
    /// Of grants. Those of the client credentials grant are not kept, and not counted.
    access_tokens: u64,
    /// One for each grant that has one.
    refresh_tokens: u64,
    /// Users who are being asked.
    interactions: u64,
    /// Not redeemed yet.
    codes: u64,
    /// Users with a grant.
    subjects: u64,
    /// Records that are there and cannot be read.
    unreadable: u64,
}

impl From<IssuerStats> for IssuerStatsBody {
    fn from(stats: IssuerStats) -> Self {
        let IssuerStats { clients, grants, access_tokens, refresh_tokens, interactions, codes, subjects, unreadable } =
            stats;
        Self { clients, grants, access_tokens, refresh_tokens, interactions, codes, subjects, unreadable }
    }
}

/// What had expired.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Purged, example = json!({
    "dry_run": false, "clients": 2, "grants": 7, "interactions": 31, "voided": 0, "removed": 40,
}))]
pub(crate) struct PurgedBody {
    /// Whether it was only counted.
    dry_run: bool,
    /// Clients that registered and were not used.
    clients: u64,
    /// Grants that nothing could come of any more.
    grants: u64,
    /// Users who were asked and did not answer.
    interactions: u64,
    /// Notes of tokens that were revoked and are dead.
    voided: u64,
    /// Records that were removed, of whatever kind.
    removed: u64,
}
