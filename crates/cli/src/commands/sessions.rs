//! `sessions`: what backends issued to their users. A session is a grant to a client of ours; so it is listed and ended
//! as one.

use anyhow::{Result, bail};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenkeep_core::{Subject, session::SESSION_CLIENT};

use super::{Context, confirm, grants, pages, show, stats, times::relative};
use crate::{
    args::{ListSessions, Output, Sessions, WhichSessions},
    client::{Call, Client},
    out,
};

#[derive(Deserialize)]
struct Cleaned {
    removed: u64,
}

pub(super) async fn run(context: &Context, command: Sessions) -> Result<()> {
    match command {
        Sessions::List(list) => all(context, list).await,
        Sessions::Show { id, output } => {
            let answer = context.client()?.call(Call::get(format!("/v1/grants/{id}"))).await?;
            let grant: grants::Grant = answer.read()?;
            if grant.client_id != SESSION_CLIENT {
                bail!("{id} is no session, but what {} was granted: `tokenkeep grants show {id}`", grant.client_id);
            }
            show(&answer, output, |_| grants::words(grant))
        }
        Sessions::Revoke { which, yes, output } => revoke(context, which, yes, output).await,
        Sessions::Stats(output) => {
            let answer = context.client()?.call(Call::get("/v1/sessions/stats")).await?;
            show(&answer, output, |answer| stats::lines("", &answer.read()?))
        }
        Sessions::Cleanup(output) => {
            let answer = context.client()?.call(Call::new(Method::POST, "/v1/sessions/cleanup".to_owned())).await?;
            show(&answer, output, |answer| {
                let Cleaned { removed } = answer.read()?;
                out::line(format_args!("{removed} dead access tokens forgotten"))
            })
        }
    }
}

async fn all(context: &Context, list: ListSessions) -> Result<()> {
    let connection = list.connection.as_ref().map(ToString::to_string);
    let filters = [
        ("client", Some(SESSION_CLIENT)),
        ("subject", list.subject.as_ref().map(Subject::as_str)),
        ("connection", connection.as_deref()),
    ];
    let listed = pages::all(&context.client()?, "/v1/grants", &filters, list.limit).await?;
    if list.output.json {
        return out::json(&listed.items);
    }
    if listed.items.is_empty() {
        out::note("No sessions: no backend has issued any.");
        return Ok(());
    }
    let shown = listed.items.len();
    let rows = listed.items.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    out::table(["SESSION", "SUBJECT", "E-MAIL", "CONNECTION", "STATUS", "TOKENS", "MADE", "ENDS"], rows)?;
    if listed.more {
        out::note(format_args!("There are more than these {shown}."));
    }
    Ok(())
}

fn row(item: Value) -> Result<[String; 8]> {
    let session: grants::Grant = serde_json::from_value(item)?;
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    Ok([
        session.id,
        session.subject,
        or_none(session.email),
        or_none(session.connection),
        session.status,
        session.access_tokens.len().to_string(),
        relative(session.created_at),
        relative(session.expires_at),
    ])
}

async fn revoke(context: &Context, which: WhichSessions, yes: bool, output: Output) -> Result<()> {
    let client = context.client()?;
    let (question, what) = match &which {
        WhichSessions { id: Some(id), .. } => (format!("End the session {id} and all its tokens?"), id.to_string()),
        WhichSessions { subject, connection, .. } => {
            let subject = subject.as_ref().map(ToString::to_string);
            let what = subject.or_else(|| connection.as_ref().map(ToString::to_string)).unwrap_or_default();
            (format!("End every session of {what}? They sign in again."), what)
        }
    };
    if !confirm::really(&question, yes)? {
        return Ok(());
    }
    let ids = match &which.id {
        Some(id) => vec![id.to_string()],
        None => live(&client, &which).await?,
    };
    for id in &ids {
        client.call(Call::new(Method::DELETE, format!("/v1/grants/{id}"))).await?;
    }
    if output.json {
        return out::json(&json!({"of": what, "revoked": ids.len()}));
    }
    match ids.len() {
        1 => out::line(format_args!("{what}: 1 session ended")),
        several => out::line(format_args!("{what}: {several} sessions ended")),
    }
}

/// The sessions that are meant and have not ended yet.
async fn live(client: &Client, which: &WhichSessions) -> Result<Vec<String>> {
    let connection = which.connection.as_ref().map(ToString::to_string);
    let filters = [
        ("client", Some(SESSION_CLIENT)),
        ("subject", which.subject.as_ref().map(Subject::as_str)),
        ("connection", connection.as_deref()),
    ];
    let listed = pages::all(client, "/v1/grants", &filters, None).await?;
    let read = |item| serde_json::from_value::<grants::Grant>(item).map_err(Into::into);
    let sessions = listed.items.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(sessions.into_iter().filter(|session| session.status == "active").map(|session| session.id).collect())
}
