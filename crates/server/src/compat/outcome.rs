//! What came of credentials, in the words of the service that these routes come from.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use tokenkeep_engine::Error;
use utoipa::ToSchema;

use super::company::{Company, CompanyId};
use crate::problem::{self, Problem};

/// What came of credentials.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatCredentials, example = json!({
    "success": true,
    "message": "BlueStakes credentials successfully tested and stored for Rocky Mountain Excavating",
    "data": {
        "company_id": 123, "username": "ann", "credentials_tested": true, "credentials_valid": true,
        "credentials_stored": true, "test_error": null, "storage_error": null,
        "company_name": "Rocky Mountain Excavating",
    },
    "error": null,
}))]
pub(crate) struct Outcome {
    /// Whether all went well.
    success: bool,
    /// For people.
    message: String,
    /// How far it got.
    data: Data,
    /// What went wrong: `USERNAME_PASSWORD_REQUIRED`, `COMPANY_NOT_FOUND`, `INVALID_CREDENTIALS`,
    /// `AUTHENTICATION_ERROR`, `ENCRYPTION_ERROR`, `STORAGE_ERROR` or `UNEXPECTED_ERROR`.
    error: Option<&'static str>,
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// How far it got.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompatCredentialsData)]
struct Data {
    /// Whose; 0 where nothing was to be stored.
    #[schema(value_type = CompanyId)]
    company_id: Company,
    /// As it was given.
    username: String,
    /// Whether the provider was asked.
    credentials_tested: bool,
    /// Whether it took them.
    credentials_valid: bool,
    /// Whether they are kept now.
    credentials_stored: bool,
    /// Why it took none, or was not to be asked.
    test_error: Option<String>,
    /// Why they could not be kept.
    storage_error: Option<String>,
    /// The company's name, once its credentials are stored.
    company_name: Option<String>,
}

/// A way to fail.
#[derive(Clone, Copy)]
struct Failure(StatusCode, &'static str, &'static str);

const REQUIRED: &str = "USERNAME_PASSWORD_REQUIRED";
const NOT_FOUND: &str = "COMPANY_NOT_FOUND";
const INVALID: Failure = Failure(
    StatusCode::UNAUTHORIZED,
    "INVALID_CREDENTIALS",
    "BlueStakes credentials are invalid - please check username and password",
);
const UNTESTED: Failure = Failure(
    StatusCode::SERVICE_UNAVAILABLE,
    "AUTHENTICATION_ERROR",
    "Unable to test credentials - BlueStakes API may be unavailable",
);
const UNSEALED: Failure = Failure(
    StatusCode::INTERNAL_SERVER_ERROR,
    "ENCRYPTION_ERROR",
    "Failed to encrypt password - server configuration issue",
);
const UNSTORED: Failure =
    Failure(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", "Failed to store credentials in database");
const UNEXPECTED: Failure = Failure(
    StatusCode::INTERNAL_SERVER_ERROR,
    "UNEXPECTED_ERROR",
    "An unexpected error occurred while processing credentials",
);

impl Outcome {
    fn new(company_id: Company, username: String) -> Self {
        let data = Data {
            company_id,
            username,
            credentials_tested: false,
            credentials_valid: false,
            credentials_stored: false,
            test_error: None,
            storage_error: None,
            company_name: None,
        };
        Self { success: false, message: String::new(), data, error: None, status: StatusCode::OK, retry_after: None }
    }

    /// User name or password are not there; `why` says it to people.
    pub(super) fn incomplete(company: Company, username: String, why: String) -> Self {
        let failed = Self { message: why, error: Some(REQUIRED), ..Self::new(company, username) };
        Self { status: StatusCode::BAD_REQUEST, ..failed }
    }

    /// Nobody knows this company.
    pub(super) fn not_found(company: Company, username: String) -> Self {
        let message = format!("Company with ID {} not found", company.tenant());
        let failed = Self { message, error: Some(NOT_FOUND), ..Self::new(company, username) };
        Self { status: StatusCode::NOT_FOUND, ..failed }
    }

    /// The provider takes them.
    pub(super) fn valid(company: Company, username: String) -> Self {
        let mut outcome = Self::new(company, username);
        outcome.success = true;
        "BlueStakes credentials are valid".clone_into(&mut outcome.message);
        outcome.data.credentials_tested = true;
        outcome.data.credentials_valid = true;
        outcome
    }

    /// The provider takes them, and they are kept.
    pub(super) fn stored(company: Company, username: String, company_name: Option<String>) -> Self {
        let whose = company_name.clone().unwrap_or_else(|| format!("company {}", company.tenant()));
        let mut outcome = Self::valid(company, username);
        outcome.message = format!("BlueStakes credentials successfully tested and stored for {whose}");
        outcome.data.credentials_stored = true;
        outcome.data.company_name = company_name;
        outcome
    }

    /// The engine said no. What is the caller's fault, and not the credentials', is a problem as everywhere else.
    pub(super) fn failed(company: Company, username: String, error: Error) -> Result<Self, Problem> {
        let Failure(status, code, message) = match &error {
            Error::InvalidCredentials { .. } => INVALID,
            Error::ProviderUnavailable { .. }
            | Error::ProviderRejected { .. }
            | Error::IntegrationMissing(_)
            | Error::IntegrationRejected { .. }
            | Error::TooMany { .. } => UNTESTED,
            Error::Unreadable { .. } => UNSEALED,
            Error::StoreUnavailable { .. } | Error::Conflict { .. } => UNSTORED,
            Error::Invalid(why) => return Ok(Self::incomplete(company, username, why.to_string())),
            Error::Forbidden(_) => return Err(error.into()),
            _ => UNEXPECTED,
        };
        problem::log(&error);
        let mut outcome = Self { message: message.to_owned(), error: Some(code), ..Self::new(company, username) };
        outcome.status = status;
        outcome.retry_after = error.retry_after();
        let data = &mut outcome.data;
        if [INVALID.1, UNTESTED.1].contains(&code) {
            // These keep the provider from being asked.
            data.credentials_tested = !matches!(error, Error::TooMany { .. } | Error::IntegrationMissing(_));
            data.test_error = Some(match error {
                Error::ProviderUnavailable { detail, .. } => detail,
                error => error.to_string(),
            });
        } else {
            data.storage_error = Some(error.to_string());
        }
        Ok(outcome)
    }

    /// The same where the store was asked before and after the provider: if it failed now, the provider had said yes.
    pub(super) fn after_login(mut self) -> Self {
        if self.error == Some(UNSTORED.1) {
            self.data.credentials_tested = true;
            self.data.credentials_valid = true;
        }
        self
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(&self)).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, problem::retry_after(wait));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::IntegrationId;

    use super::*;

    #[test]
    fn who_was_never_asked_has_tested_nothing() {
        let tested = |error: Error| {
            let outcome = Outcome::failed(Company::nobody(), "ann".to_owned(), error).unwrap();
            assert_eq!((outcome.status.as_u16(), outcome.error), (503, Some("AUTHENTICATION_ERROR")));
            assert!(outcome.data.test_error.is_some());
            outcome.data.credentials_tested
        };
        let integration = IntegrationId::new("bluestakes").unwrap();
        let retry_after = Duration::from_secs(7);
        assert!(!tested(Error::TooMany { what: "too many logins", retry_after }));
        assert!(!tested(Error::IntegrationMissing(integration.clone())));
        assert!(tested(Error::ProviderUnavailable { integration, detail: "it is down".to_owned(), retry_after }));
    }
}
