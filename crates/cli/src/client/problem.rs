//! What a server says when it does not do what was asked (RFC 9457).

use std::fmt;

use serde::Deserialize;

use super::Answer;

/// An error of the server, as the person at the terminal sees it.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The stable word.
    pub(crate) code: Option<String>,
    detail: String,
    /// What to do about it.
    pub(crate) hint: Option<&'static str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    code: Option<String>,
    detail: Option<String>,
    title: Option<String>,
}

impl Problem {
    pub(super) fn of(answer: &Answer) -> Self {
        let body: Body = answer.read().unwrap_or_default();
        let detail = body.detail.or(body.title);
        let detail = detail.unwrap_or_else(|| format!("the server answered {}", answer.status));
        let hint = body.code.as_deref().and_then(hint);
        Self { code: body.code, detail, hint }
    }
}

/// What to do next, where there is something.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "connection_not_found" => "`tokenkeep list` shows what is there; `tokenkeep connect` makes it",
        "reauth_required" => "run `tokenkeep connect` for it again",
        "integration_missing" | "integration_not_found" => "name it with `tokenkeep integrations set`",
        "integration_rejected" => "correct it with `tokenkeep integrations set`",
        "provider_not_found" => "`tokenkeep providers list` shows the catalogue; others go into `[[provider]]`",
        "stale_refresh_token" => "use the newest one, or `--force` if you are sure",
        "already_there" => "leave out `--if-absent` to replace it",
        "provider_unavailable" | "store_unavailable" | "unresolved" => "it may pass: try again in a moment",
        _ => return None,
    })
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What comes over the network is printed on a terminal: nothing in it may steer that.
        let printable: String = self.detail.chars().filter(|c| !c.is_control()).collect();
        f.write_str(&printable)?;
        if let Some(code) = &self.code {
            write!(f, " ({})", code.escape_debug())?;
        }
        if let Some(hint) = self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn problem(status: StatusCode, body: &str) -> String {
        Problem::of(&Answer { status, body: body.as_bytes().to_vec().into() }).to_string()
    }

    #[test]
    fn it_says_what_happened_and_what_to_do() {
        let body = r#"{"code": "connection_not_found", "detail": "there is no connection\u001b[2J", "title": "x"}"#;
        let said = problem(StatusCode::NOT_FOUND, body);
        assert!(said.starts_with("there is no connection[2J (connection_not_found)\nhint: `tokenkeep list`"), "{said}");
    }

    #[test]
    fn any_answer_makes_a_sentence() {
        assert_eq!(problem(StatusCode::BAD_GATEWAY, "<html>"), "the server answered 502 Bad Gateway");
    }
}
