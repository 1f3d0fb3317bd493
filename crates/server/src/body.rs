//! Request bodies: JSON, at most 64 KiB, and whatever is wrong with them is said without repeating their content.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Buf;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_path_to_error::Path;
use zeroize::Zeroizing;

use crate::{
    AppState,
    problem::{PAYLOAD_TOO_LARGE, Problem, REQUEST_TIMEOUT, UNSUPPORTED_MEDIA_TYPE},
};

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body. Members that `T` does not know are refused, so that a misspelt one is not quietly ignored: every `T`
/// says `deny_unknown_fields`.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, "send the body as `Content-Type: application/json`"));
        }
        let body = read(request, state).await?;
        parse(&body).map(Self)
    }
}

/// A JSON body that may be left out: then it is as if it were `{}`.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let json = is_json(request.headers());
        let body = read(request, state).await?;
        match body.as_slice() {
            b"" => parse(b"{}").map(Self),
            _ if !json => {
                Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, "send the body as `Content-Type: application/json`"))
            }
            body => parse(body).map(Self),
        }
    }
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is larger than allowed.
    TooLarge,
    /// The connection broke.
    Cut,
    /// It took too long.
    Late,
}

/// The whole body, at most [`MAX_BODY`], in memory that is wiped: it may hold tokens.
pub(crate) async fn read(request: Request, state: &AppState) -> Result<Zeroizing<Vec<u8>>, Problem> {
    read_within(request.into_body(), MAX_BODY, state).await.map_err(|unread| match unread {
        Unread::TooLarge => Problem::new(PAYLOAD_TOO_LARGE, "a body may be at most 64 KiB"),
        Unread::Cut => Problem::invalid("the body was cut off"),
        Unread::Late => Problem::new(REQUEST_TIMEOUT, "the body did not arrive within 30 s"),
    })
}

/// The same with another limit, in bytes.
pub(crate) async fn read_within(mut body: Body, limit: usize, state: &AppState) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let announced = usize::try_from(http_body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Unread::TooLarge);
    }
    let all = async {
        // Room for all of it at once: growing would leave copies behind that nobody wipes.
        let mut all = Zeroizing::new(Vec::with_capacity(if announced > 0 { announced } else { limit }));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Unread::Cut)?;
            if let Some(data) = frame.data_ref() {
                if all.len() + data.remaining() > limit {
                    return Err(Unread::TooLarge);
                }
                all.extend_from_slice(data);
            }
        }
        Ok(all)
    };
    tokio::select! {
        biased;
        read = all => read,
        () = state.clock().sleep(PATIENCE) => Err(Unread::Late),
    }
}

/// Whether the body says that it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers)
        .is_some_and(|kind| kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")))
}

/// Whether the body says that it is a form.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind == "application/x-www-form-urlencoded")
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads JSON; what is wrong with it is said without its content.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| Problem::invalid(explain(error.path(), error.inner())))?;
    json.end().map_err(|error| Problem::invalid(explain_syntax(&error)))?;
    Ok(value)
}

/// What is wrong, and where. serde's own words repeat the value they stumble over, which may be a secret: only the part
/// that says what was expected is kept.
fn explain(path: &Path, error: &serde_json::Error) -> String {
    if !error.is_data() {
        return explain_syntax(error);
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some(name) = text.strip_prefix("missing field ") {
        return format!("the member {name} is missing");
    }
    if let Some(name) = quoted(text, "duplicate field ") {
        return format!("the member `{name}` is there twice");
    }
    if let Some(name) = quoted(text, "unknown field ") {
        return format!("there is no member `{name}` here");
    }
    let path = path.to_string();
    let what = if path == "." { "the body".to_owned() } else { format!("`{}`", name(&path)) };
    match text.rsplit_once("expected ") {
        Some((_, expected)) => format!("{what} must be {expected}"),
        None => format!("{what} cannot be read"),
    }
}

fn explain_syntax(error: &serde_json::Error) -> String {
    format!("the body is no JSON: see line {}, column {}", error.line(), error.column())
}

/// The name in backticks after `prefix`.
fn quoted(text: &str, prefix: &str) -> Option<String> {
    let (quoted, _) = text.strip_prefix(prefix)?.strip_prefix('`')?.split_once('`')?;
    Some(name(quoted))
}

/// A member's name as the caller wrote it, fit to be shown.
fn name(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() && c != '`' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters here")]
    struct Sample {
        name: String,
        age: Option<u32>,
        role: Option<Role>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters here")]
    struct Inner {
        count: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Role {
        Admin,
    }

    fn complaint(body: &str) -> String {
        parse::<Sample>(body.as_bytes()).unwrap_err().detail().to_owned()
    }

    #[test]
    fn what_is_wrong_is_named_and_never_repeated() {
        assert_eq!(complaint("{}"), "the member `name` is missing");
        assert_eq!(complaint(r#"{"nmae": 1}"#), "there is no member `nmae` here");
        assert_eq!(complaint(r#"{"name": "a", "name": "b"}"#), "the member `name` is there twice");
        assert_eq!(complaint(r#"{"name": "a", "age": "s3cret, expected s3cret"}"#), "`age` must be u32");
        assert_eq!(complaint(r#"{"name": "a", "age": -5}"#), "`age` must be u32");
        assert_eq!(complaint(r#"{"name": "a", "role": "s3cret"}"#), "`role` must be `admin`");
        assert_eq!(complaint(r#"{"name": "a", "inner": {"count": 300}}"#), "`inner.count` must be u8");
        assert_eq!(complaint(r#""s3cret""#), "the body must be struct Sample");
        assert_eq!(complaint(r#"{"name": s3cret}"#), "the body is no JSON: see line 1, column 10");
        assert_eq!(complaint(r#"{"name": "a"} s3cret"#), "the body is no JSON: see line 1, column 15");
    }

    #[test]
    fn json_says_that_it_is_json() {
        let is = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(value))]))
        };
        assert!(is("application/json"));
        assert!(is("Application/JSON; charset=utf-8"));
        assert!(is("application/vnd.x+json"));
        assert!(!is("text/plain"));
        assert!(!is("application/x-www-form-urlencoded"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
