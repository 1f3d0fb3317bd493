//! Which company a request is about.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::{Serialize, Serializer};
use tokenkeep_core::{ConnectionId, Subject, Tenant};
use utoipa::ToSchema;

use crate::{AppState, extract, problem::Problem};

/// The company that a path names: `/tokens/{company_id}/...`, `/tokens/credentials/{company_id}`,
/// `/tickets/store-credentials/{company_id}`. Tenants are named after companies.
#[derive(Clone, Debug)]
pub(crate) struct Company(Tenant);

impl Company {
    /// Stands where a request is about no company: that service says 0.
    pub(super) fn nobody() -> Self {
        Self(Tenant::new("0").expect("a digit is printable"))
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.0
    }

    /// Its account.
    pub(super) fn connection(&self, state: &AppState) -> ConnectionId {
        ConnectionId {
            integration: state.settings.compat.provider.clone(),
            tenant: self.0.clone(),
            subject: Subject::default_subject(),
        }
    }
}

impl FromRequestParts<AppState> for Company {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let mut segments = parts.uri.path().split('/').skip(1);
        let name = match (segments.next(), segments.next(), segments.next()) {
            (Some("tokens"), Some("credentials"), Some(name)) | (Some("tickets"), Some(_), Some(name)) => name,
            (_, name, _) => name.unwrap_or_default(),
        };
        Ok(Self(Tenant::new(&extract::decode(name)?)?))
    }
}

/// A number where it is one: that service numbered its companies.
impl Serialize for Company {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_str().parse::<u64>() {
            // `007` would come back as 7: another company.
            Ok(number) if number.to_string() == self.0.as_str() => serializer.serialize_u64(number),
            _ => serializer.serialize_str(self.0.as_str()),
        }
    }
}

/// How a company stands in a body.
#[derive(ToSchema)]
#[schema(as = CompanyId)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes how a `Company` is written")]
pub(crate) enum CompanyId {
    /// Where it is one.
    Number(u64),
    /// Where it is not.
    Name(String),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_numbers_and_names_are_names() {
        for (name, shown) in [
            ("123", json!(123)),
            ("0", json!(0)),
            ("007", json!("007")),
            ("+7", json!("+7")),
            ("acme", json!("acme")),
            ("99999999999999999999", json!("99999999999999999999")),
        ] {
            let company = Company(Tenant::new(name).unwrap());
            assert_eq!(serde_json::to_value(company).unwrap(), shown);
        }
    }
}
