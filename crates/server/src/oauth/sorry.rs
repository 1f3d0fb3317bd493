//! What a person is told where a sign-in cannot go on: in plain words, with what to do next.

use std::{borrow::Cow, time::Duration};

use axum::response::Response;
use http::{StatusCode, header};
use tokenkeep_engine::Error;
use tokenkeep_oauth::issuer::error::OAuthError;

use crate::{
    AppState,
    pages::{FormAction, Nonce, OutcomeTemplate, page},
    problem::{self, Problem},
};

/// Why a sign-in cannot go on.
#[derive(Debug)]
pub(crate) struct Sorry {
    status: StatusCode,
    title: &'static str,
    text: &'static str,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
}

impl Sorry {
    /// There is no such sign-in, or no longer.
    pub(crate) const OVER: Self = Self {
        status: StatusCode::NOT_FOUND,
        title: "This sign-in is over",
        text: "It took longer than ten minutes, or was finished before. Go back to the application and start again.",
        detail: None,
        retry_after: None,
    };

    /// An admin key came where none signs anybody in.
    pub(crate) const NO_KEYS: Self = Self {
        status: StatusCode::FORBIDDEN,
        title: "Nobody signs in here with a key",
        text: "Nothing was given away. Go back to the application and start again.",
        detail: None,
        retry_after: None,
    };

    /// The client, or where it wants its answer, is wrong: only the user can be told (RFC 6749 4.1.2.1).
    pub(crate) fn client(error: &OAuthError) -> Self {
        let (status, text) = match error.status() {
            status if status.is_server_error() => (status, OUT_OF_ORDER),
            _ => (
                StatusCode::BAD_REQUEST,
                "The application that sent you here is not known, or wants its answer where it may not have one. \
                 Nothing was given away. Go back and try again; if that does not help, tell its makers the line below.",
            ),
        };
        let detail = Some(error.to_string().into());
        Self { status, title: "This sign-in cannot begin", text, detail, retry_after: None }
    }

    /// The page that says so.
    pub(crate) fn page(self, state: &AppState) -> Response {
        let nonce = Nonce::fresh(state.entropy());
        let Self { status, title, text, detail, retry_after } = self;
        let template = OutcomeTemplate { nonce: &nonce, mark: "⚠", title, text, detail: detail.as_deref() };
        let mut response = page(status, &template, &nonce, FormAction::None);
        if let Some(wait) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, problem::retry_after(wait));
        }
        response
    }
}

const OUT_OF_ORDER: &str = "Something is out of order here at the moment. Try again in a minute.";

impl From<Error> for Sorry {
    fn from(error: Error) -> Self {
        let retry_after = error.retry_after();
        let (title, text) = match &error {
            Error::NotFound { .. } => (Self::OVER.title, Self::OVER.text),
            Error::Forbidden(_) => (
                "This sign-in belongs to another browser",
                "The page was opened in another browser or was open for too long, or this browser keeps no cookies. \
                 Go back to the application and start again, in this browser.",
            ),
            Error::Conflict { .. } => (
                "This sign-in went on already",
                "It went on in another window. Finish it there, or go back to the application and start again.",
            ),
            Error::TooMany { .. } => {
                ("Too many sign-ins at once", "There are more than can be served. Wait a minute and try again.")
            }
            error if error.retry_after().is_some() => ("Not at the moment", OUT_OF_ORDER),
            _ => ("That did not work", "Nothing was given away. Go back to the application and start again."),
        };
        let is_known = matches!(error, Error::NotFound { .. });
        let problem = Problem::from(error);
        let detail = (!is_known).then(|| problem.detail().to_owned().into());
        Self { status: problem.status(), title, text, detail, retry_after }
    }
}

impl From<Problem> for Sorry {
    fn from(problem: Problem) -> Self {
        Self {
            status: problem.status(),
            title: "That did not work",
            text: "What your browser sent cannot be used. Nothing was given away. Go back and try again.",
            detail: Some(problem.detail().to_owned().into()),
            retry_after: None,
        }
    }
}
