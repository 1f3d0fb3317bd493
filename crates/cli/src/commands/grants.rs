//! `grants`: what subjects allowed clients.

use anyhow::Result;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenkeep_core::{ClientId, Subject};
use url::form_urlencoded::Serializer;

use super::{Context, confirm, pages, show, stats, times::relative};
use crate::{
    args::{Grants, ListGrants, Output, WhichGrant, WhichGrants},
    client::{Call, segment},
    out,
};

#[derive(Deserialize)]
pub(super) struct Grant {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) subject: String,
    pub(super) name: Option<String>,
    pub(super) email: Option<String>,
    pub(super) scope: String,
    pub(super) resource: String,
    pub(super) connection: Option<String>,
    #[serde(default)]
    pub(super) exchangers: Vec<String>,
    pub(super) status: String,
    pub(super) revoked_reason: Option<String>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) access_tokens: Vec<AccessToken>,
    pub(super) refreshable: bool,
}

#[derive(Deserialize)]
pub(super) struct AccessToken {
    pub(super) jti: String,
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Revoked {
    revoked: u64,
}

#[derive(Deserialize)]
struct Purged {
    clients: u64,
    grants: u64,
    interactions: u64,
    voided: u64,
    removed: u64,
}

pub(super) async fn run(context: &Context, command: Grants) -> Result<()> {
    match command {
        Grants::List(list) => all(context, list).await,
        Grants::Show { which, output } => {
            let answer = context.client()?.call(Call::get(path(&which))).await?;
            show(&answer, output, |answer| words(answer.read()?))
        }
        Grants::Revoke { which, yes, output } => revoke(context, which, yes, output).await,
        Grants::Stats(output) => {
            let answer = context.client()?.call(Call::get("/v1/issuer/stats")).await?;
            show(&answer, output, |answer| stats::lines("", &answer.read()?))
        }
        Grants::Purge { dry_run, output } => purge(context, dry_run, output).await,
    }
}

fn path(which: &WhichGrant) -> String {
    match (&which.id, &which.jti) {
        (Some(id), _) => format!("/v1/grants/{id}"),
        (None, jti) => by_token(jti.as_deref().unwrap_or_default()),
    }
}

fn by_token(jti: &str) -> String {
    format!("/v1/grants/by-token/{}", segment(jti))
}

async fn all(context: &Context, list: ListGrants) -> Result<()> {
    let connection = list.connection.as_ref().map(ToString::to_string);
    let filters = [
        ("client", list.client.as_ref().map(ClientId::as_str)),
        ("subject", list.subject.as_ref().map(Subject::as_str)),
        ("connection", connection.as_deref()),
    ];
    let listed = pages::all(&context.client()?, "/v1/grants", &filters, list.limit).await?;
    if list.output.json {
        return out::json(&listed.items);
    }
    if listed.items.is_empty() {
        out::note("No grants: nobody has signed in to a client.");
        return Ok(());
    }
    let shown = listed.items.len();
    let rows = listed.items.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    out::table(["GRANT", "SUBJECT", "CLIENT", "STATUS", "TOKENS", "REFRESHABLE", "MADE", "ENDS"], rows)?;
    if listed.more {
        out::note(format_args!("There are more than these {shown}."));
    }
    Ok(())
}

fn row(item: Value) -> Result<[String; 8]> {
    let grant: Grant = serde_json::from_value(item)?;
    Ok([
        grant.id,
        grant.name.map_or_else(|| grant.subject.clone(), |name| format!("{} ({name})", grant.subject)),
        grant.client_id,
        grant.status,
        grant.access_tokens.len().to_string(),
        if grant.refreshable { "yes" } else { "no" }.to_owned(),
        relative(grant.created_at),
        relative(grant.expires_at),
    ])
}

pub(super) fn words(grant: Grant) -> Result<()> {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let status = match grant.revoked_reason {
        Some(reason) => format!("{} ({reason})", grant.status),
        None => grant.status,
    };
    out::line(&grant.id)?;
    for (name, value) in [
        ("client", grant.client_id),
        ("subject", grant.subject),
        ("name", or_none(grant.name)),
        ("e-mail", or_none(grant.email)),
        ("scope", grant.scope),
        ("resource", grant.resource),
        ("connection", or_none(grant.connection)),
        ("exchanged by", or_none(Some(grant.exchangers.join(", ")).filter(|clients| !clients.is_empty()))),
        ("status", status),
        ("made", relative(grant.created_at)),
        ("ends", relative(grant.expires_at)),
        ("refreshable", if grant.refreshable { "yes" } else { "no" }.to_owned()),
    ] {
        out::line(format_args!("  {name:<13} {}", out::printable(value)))?;
    }
    for token in grant.access_tokens {
        out::line(format_args!("  {:<13} {}, dead {}", "access token", token.jti, relative(token.expires_at)))?;
    }
    Ok(())
}

async fn revoke(context: &Context, which: WhichGrants, yes: bool, output: Output) -> Result<()> {
    let (path, question, what) = match &which {
        WhichGrants { id: Some(id), .. } => {
            (format!("/v1/grants/{id}"), format!("End the grant {id} and all its tokens?"), id.to_string())
        }
        WhichGrants { jti: Some(jti), .. } => {
            (by_token(jti), format!("Take back the access token {jti}?"), jti.clone())
        }
        WhichGrants { subject: Some(subject), .. } => {
            let question = format!("End everything that {subject} allowed? They are asked again by every client.");
            (of("subject", subject.as_str()), question, subject.to_string())
        }
        WhichGrants { client, .. } => {
            let client = client.as_ref().map(ClientId::as_str).unwrap_or_default();
            let question = format!("End everything that {client} was allowed? Its users are asked again.");
            (of("client", client), question, client.to_owned())
        }
    };
    let client = context.client()?;
    if !confirm::really(&question, yes)? {
        return Ok(());
    }
    let answer = client.call(Call::new(Method::DELETE, path)).await?;
    let many = which.subject.is_some() || which.client.is_some();
    let revoked = if many { answer.read::<Revoked>()?.revoked } else { 1 };
    if output.json {
        return out::json(&json!({"of": what, "revoked": revoked}));
    }
    if many {
        return out::line(format_args!("{what}: {} ended", counted(revoked)));
    }
    out::line(format_args!("{what}: ended"))
}

/// `1 grant`, `2 grants`.
pub(super) fn counted(grants: u64) -> String {
    if grants == 1 { "1 grant".to_owned() } else { format!("{grants} grants") }
}

fn of(name: &str, value: &str) -> String {
    Serializer::for_suffix("/v1/grants?".to_owned(), "/v1/grants?".len()).append_pair(name, value).finish()
}

async fn purge(context: &Context, dry_run: bool, output: Output) -> Result<()> {
    let path = format!("/v1/issuer/purge?dry_run={dry_run}");
    let answer = context.client()?.call(Call::new(Method::POST, path)).await?;
    show(&answer, output, |answer| {
        let Purged { clients, grants, interactions, voided, removed } = answer.read()?;
        let had = format!(
            "{clients} clients, {grants} grants, {interactions} sign-ins and {voided} notes of revoked tokens had expired"
        );
        if dry_run {
            return out::line(format_args!("{had}; nothing was removed"));
        }
        out::line(format_args!("{had}; {removed} records removed"))
    })
}
