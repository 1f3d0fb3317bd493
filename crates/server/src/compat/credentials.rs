//! `/tokens/credentials/...` and `/tickets/store-credentials/...`: user names and passwords, tried and kept.

use axum::extract::State;
use tokenkeep_core::{Action, Credentials, Tenant};
use tokenkeep_engine::{Caller, Error, GivenCredentials, PutMode};

use super::{
    company::Company,
    given::{Given, GivenBody},
    outcome::Outcome,
    settings::Companies,
};
use crate::{AppState, auth::Auth, problem::Problem};

/// Logs a company in and keeps its credentials, if the provider takes them.
///
/// User name and password stand in a JSON or form body; in the query only where `[compat] credentials_in_query` allows
/// it.
#[utoipa::path(
    post,
    path = "/tokens/credentials/{company_id}",
    tag = "compatibility",
    operation_id = "compat_store_credentials",
    params(("company_id" = String, Path, description = "percent-encoded; never `test`", example = "123")),
    request_body(content(
        (GivenBody = "application/json"),
        (GivenBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the provider takes them, and they are kept", body = Outcome),
        (status = 400, description = "`USERNAME_PASSWORD_REQUIRED`", body = Outcome),
        (status = 401, description = "`INVALID_CREDENTIALS`; as a problem: `invalid_api_key`", body = Outcome),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, description = "`COMPANY_NOT_FOUND`", body = Outcome),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 500, description = "`ENCRYPTION_ERROR`, `STORAGE_ERROR`, `UNEXPECTED_ERROR`", body = Outcome),
        (status = 503, description = "`AUTHENTICATION_ERROR`: see `Retry-After`", body = Outcome),
    ),
)]
pub(crate) async fn store(
    State(state): State<AppState>,
    Auth(caller): Auth,
    company: Company,
    given: Given,
) -> Result<Outcome, Problem> {
    let id = company.connection(&state);
    caller.may_at(Action::PutConnection, &id.integration, &id.tenant)?;
    let (username, password) = match given {
        Given::Complete { username, password } => (username, password),
        Given::Incomplete { username, why } => return Ok(Outcome::incomplete(company, username, why.into_owned())),
    };
    // Asked in any case: while the store does not answer, a login would be for nothing.
    let is_there = match state.engine.connections().status(&caller, &id).await {
        Ok(_) => true,
        Err(Error::NotFound { .. }) => false,
        Err(error) => return Outcome::failed(company, username, error),
    };
    let compat = &state.settings.compat;
    let display_name = compat.company_names.get(&id.tenant).cloned();
    if compat.companies == Companies::Closed && display_name.is_none() && !is_there {
        return Ok(Outcome::not_found(company, username));
    }
    let credentials = Credentials::Password { username: username.clone(), password };
    let given = GivenCredentials { credentials, ttl: None, display_name };
    match state.engine.connections().put_credentials(&caller, &id, given, PutMode::default(), true).await {
        Ok((_, view)) => Ok(Outcome::stored(company, username, view.display_name)),
        Err(error) => Ok(Outcome::failed(company, username, error)?.after_login()),
    }
}

/// The same, at the address that the service had before.
#[utoipa::path(
    post,
    path = "/tickets/store-credentials/{company_id}",
    tag = "compatibility",
    operation_id = "compat_store_ticket_credentials",
    params(("company_id" = String, Path, description = "percent-encoded", example = "123")),
    request_body(content(
        (GivenBody = "application/json"),
        (GivenBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the provider takes them, and they are kept", body = Outcome),
        (status = 400, description = "`USERNAME_PASSWORD_REQUIRED`", body = Outcome),
        (status = 401, description = "`INVALID_CREDENTIALS`; as a problem: `invalid_api_key`", body = Outcome),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 404, description = "`COMPANY_NOT_FOUND`", body = Outcome),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 500, description = "`ENCRYPTION_ERROR`, `STORAGE_ERROR`, `UNEXPECTED_ERROR`", body = Outcome),
        (status = 503, description = "`AUTHENTICATION_ERROR`: see `Retry-After`", body = Outcome),
    ),
)]
pub(crate) async fn store_for_tickets(
    state: State<AppState>,
    auth: Auth,
    company: Company,
    given: Given,
) -> Result<Outcome, Problem> {
    store(state, auth, company, given).await
}

/// Logs in with credentials and keeps nothing.
#[utoipa::path(
    post,
    path = "/tokens/credentials/test",
    tag = "compatibility",
    operation_id = "compat_test_credentials",
    request_body(content(
        (GivenBody = "application/json"),
        (GivenBody = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "the provider takes them", body = Outcome),
        (status = 400, description = "`USERNAME_PASSWORD_REQUIRED`", body = Outcome),
        (status = 401, description = "`INVALID_CREDENTIALS`; as a problem: `invalid_api_key`", body = Outcome),
        (status = 403, response = crate::openapi::Forbidden),
        (status = 413, response = crate::openapi::TooLarge),
        (status = 415, response = crate::openapi::NotJson),
        (status = 500, description = "`STORAGE_ERROR`, `UNEXPECTED_ERROR`", body = Outcome),
        (status = 503, description = "`AUTHENTICATION_ERROR`: see `Retry-After`", body = Outcome),
    ),
)]
pub(crate) async fn test(State(state): State<AppState>, Auth(caller): Auth, given: Given) -> Result<Outcome, Problem> {
    let (tenant, provider) = (own_tenant(&caller), &state.settings.compat.provider);
    caller.may_at(Action::PutConnection, provider, &tenant)?;
    let (username, password) = match given {
        Given::Complete { username, password } => (username, password),
        Given::Incomplete { username, why } => {
            return Ok(Outcome::incomplete(Company::nobody(), username, why.into_owned()));
        }
    };
    let credentials = Credentials::Password { username: username.clone(), password };
    match state.engine.connections().test_credentials(&caller, provider, &tenant, credentials).await {
        Ok(()) => Ok(Outcome::valid(Company::nobody(), username)),
        Err(error) => Outcome::failed(Company::nobody(), username, error),
    }
}

/// In whose name a login is tried that is nobody's yet: a key may only speak for its own tenants.
fn own_tenant(caller: &Caller) -> Tenant {
    let bound = match caller {
        Caller::Key(key) => key.tenants.as_ref().and_then(|tenants| tenants.first()),
        Caller::Local => None,
    };
    bound.cloned().unwrap_or_else(Tenant::default_tenant)
}
