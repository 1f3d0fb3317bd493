//! A user name and a password, as a request gives them: in a JSON or form body, or where the installation allows it, in
//! the query.

use std::borrow::Cow;

use axum::extract::{FromRequest, Request};
use serde::Deserialize;
use tokenkeep_oauth::{Secret, issuer::form::Form};
use utoipa::ToSchema;

use crate::{
    AppState,
    body::{self, is_form, is_json},
    problem::{Problem, UNSUPPORTED_MEDIA_TYPE},
};

const BOTH: &str = "Both username and password are required";
const NOT_IN_THE_QUERY: &str = "Both username and password are required in a JSON or form body: in the address, proxies \
    and logs would keep them. [compat] credentials_in_query = true allows it all the same";
const UNREADABLE_QUERY: &str = "Both username and password are required, each once";

/// What a request gives.
#[derive(Debug)]
pub(crate) enum Given {
    /// Both.
    Complete {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// Not both, or not where they may stand.
    Incomplete {
        /// The user name, if that is there; else empty.
        username: String,
        /// What is missing, for people. Repeats nothing of the request.
        why: Cow<'static, str>,
    },
}

/// Either of them may be missing, and whatever else stands there is not for us.
#[derive(Debug, Default, Deserialize)]
struct Pair {
    username: Option<String>,
    password: Option<Secret>,
}

/// A user name and a password.
#[derive(ToSchema)]
#[schema(as = CompatGiven, example = json!({"username": "ann", "password": "correct horse battery staple"}))]
#[expect(dead_code, reason = "only describes what `Given` reads")]
pub(crate) struct GivenBody {
    username: String,
    password: String,
}

impl FromRequest<AppState> for Given {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let in_query = match Form::parse(request.uri().query().unwrap_or_default().as_bytes()) {
            Ok(form) => Pair::from(&form),
            Err(_) => return Ok(Self::incomplete(UNREADABLE_QUERY)),
        };
        let (json, form) = (is_json(request.headers()), is_form(request.headers()));
        let body = body::read(request, state).await?;
        if !state.settings.compat.credentials_in_query && !in_query.is_empty() {
            return Ok(Self::incomplete(NOT_IN_THE_QUERY));
        }
        let in_body = match body.as_slice() {
            b"" => Ok(Pair::default()),
            body if json => body::parse(body).map_err(|problem| problem.detail().to_owned()),
            body if form => Form::parse(body).map(|form| Pair::from(&form)).map_err(|error| error.to_string()),
            _ => return Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, "send the body as JSON or as a form")),
        };
        Ok(match in_body {
            Ok(in_body) => in_body.or(in_query).checked(),
            Err(why) => Self::incomplete(format!("{BOTH}: {why}")),
        })
    }
}

impl Given {
    fn incomplete(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Incomplete { username: String::new(), why: why.into() }
    }
}

impl From<&Form> for Pair {
    fn from(form: &Form) -> Self {
        Self { username: form.get("username").map(str::to_owned), password: form.secret("password").cloned() }
    }
}

impl Pair {
    fn is_empty(&self) -> bool {
        self.username.is_none() && self.password.is_none()
    }

    fn or(self, other: Self) -> Self {
        Self { username: self.username.or(other.username), password: self.password.or(other.password) }
    }

    fn checked(self) -> Given {
        use secrecy::ExposeSecret as _;
        let username = self.username.unwrap_or_default();
        match self.password.filter(|password| !password.expose_secret().is_empty()) {
            Some(password) if !username.is_empty() => Given::Complete { username, password },
            _ => Given::Incomplete { username, why: BOTH.into() },
        }
    }
}
