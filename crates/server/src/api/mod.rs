//! The management API: one file per resource, each with its handlers and what they read and write.

pub(crate) mod clients;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod credentials;
pub(crate) mod grants;
pub(crate) mod health;
pub(crate) mod instances;
pub(crate) mod integrations;
pub(crate) mod interactions;
pub(crate) mod issuer;
pub(crate) mod keys;
pub(crate) mod providers;
pub(crate) mod sessions;
pub(crate) mod signing_keys;
pub(crate) mod stats;
pub(crate) mod subjects;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use crate::{extract::Params, problem::Problem};

/// How many items a page holds when nobody says.
const DEFAULT_LIMIT: u32 = 100;

/// The most items in one page.
const MAX_LIMIT: u32 = 1000;

/// What a PUT brought about: 201 with the new thing, 200 with the replaced one.
struct Created<T>(bool, T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let status = if self.0 { StatusCode::CREATED } else { StatusCode::OK };
        (status, axum::Json(self.1)).into_response()
    }
}

/// A time as JSON: RFC 3339, UTC, whole seconds; never later than it is.
fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// How many items the caller wants in a page.
fn page_limit(params: &Params) -> Result<u32, Problem> {
    let expected = "a number from 1 to 1000";
    match params.parse("limit", expected)?.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(crate::extract::not("limit", expected)),
    }
}
