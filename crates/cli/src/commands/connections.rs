//! `token`, `status`, `refresh`: one connection.

use anyhow::Result;
use http::Method;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::json;
use tokenkeep_oauth::Secret;

use super::{Context, route, show, times::relative};
use crate::{
    args,
    client::{Answer, Call, Client},
    out,
};

/// A token as the API brings it.
#[derive(Deserialize)]
pub(super) struct TokenBody {
    pub(super) access_token: Secret,
    generation: u64,
    expires_at: Option<Timestamp>,
}

/// A connection as the API brings it.
#[derive(Deserialize)]
pub(super) struct ConnectionBody {
    pub(super) provider: String,
    pub(super) tenant: String,
    pub(super) subject: String,
    pub(super) status: String,
    reason: Option<String>,
    scope: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    has_refresh_token: bool,
    #[serde(default)]
    has_credentials: bool,
    pub(super) generation: u64,
    pub(super) display_name: Option<String>,
    last_refreshed_at: Option<Timestamp>,
    pub(super) next_refresh_at: Option<Timestamp>,
    last_error: Option<serde_json::Value>,
}

/// An access token, and nothing else: for `$(tokenkeep token ..)`.
pub(super) async fn token(context: &Context, token: args::Token) -> Result<()> {
    let id = token.which.id()?;
    let answer = fetch(&context.client()?, &route(&id), token.min_ttl).await?;
    show(&answer, token.output, |answer| out::line(answer.read::<TokenBody>()?.access_token.expose_secret()))
}

/// Asks for the token of the connection at `route`.
pub(super) async fn fetch(client: &Client, route: &str, min_ttl: u32) -> Result<Answer> {
    client.call(Call::get(format!("{route}/token?min_ttl={min_ttl}"))).await
}

pub(super) async fn refresh(context: &Context, refresh: args::Refresh) -> Result<()> {
    let id = refresh.which.id()?;
    let body = refresh.if_generation.map_or_else(|| json!({}), |generation| json!({"if_generation": generation}));
    let call = Call::new(Method::POST, format!("{}/token/refresh", route(&id))).json(&body)?;
    let answer = context.client()?.call(call).await?;
    show(&answer, refresh.output, |answer| {
        let TokenBody { generation, expires_at, .. } = answer.read()?;
        out::line(format_args!("{id}: generation {generation}, expires {}", relative(expires_at)))
    })
}

pub(super) async fn status(context: &Context, status: args::Status) -> Result<()> {
    let id = status.which.id()?;
    let answer = context.client()?.call(Call::get(route(&id))).await?;
    show(&answer, status.output, |answer| {
        let body: ConnectionBody = answer.read()?;
        let reason = body.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        out::line(format_args!("{id}: {}{reason}", body.status))?;
        let renewable = match (body.has_credentials, body.has_refresh_token) {
            (true, _) => "by credentials",
            (false, true) => "yes",
            (false, false) => "no",
        };
        let error = body.last_error.as_ref().map_or_else(|| "-".to_owned(), error_words);
        for (name, value) in [
            ("name", body.display_name.unwrap_or_else(|| "-".to_owned())),
            ("scope", body.scope.unwrap_or_else(|| "-".to_owned())),
            ("expires", relative(body.expires_at)),
            ("renewable", renewable.to_owned()),
            ("generation", body.generation.to_string()),
            ("refreshed", relative(body.last_refreshed_at)),
            ("next refresh", relative(body.next_refresh_at)),
            ("last error", error),
        ] {
            out::line(format_args!("  {name:<13} {}", out::printable(value)))?;
        }
        Ok(())
    })
}

/// `code: detail`, of whichever members there are.
fn error_words(error: &serde_json::Value) -> String {
    let member = |name: &str| error.get(name).and_then(serde_json::Value::as_str);
    let words: Vec<&str> = ["code", "detail", "message"].into_iter().filter_map(member).collect();
    words.join(": ").chars().filter(|c| !c.is_control()).collect()
}
