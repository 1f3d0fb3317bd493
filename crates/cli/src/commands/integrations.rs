//! `integrations`: our clients at providers.

use anyhow::{Context as _, Result, anyhow};
use http::Method;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Context, confirm, password, show};
use crate::{
    args::{self, Integrations, SetIntegration},
    client::{Call, segment},
    config::read_secret_file,
    out,
};

#[derive(Deserialize)]
struct Body {
    id: String,
    provider: String,
    client_id: String,
    grant: String,
    tenant: Option<String>,
    managed_by: String,
    has_client_secret: bool,
    has_signing_key: bool,
    scope: Option<String>,
    redirect_uri: Option<String>,
    rejection: Option<Rejection>,
}

#[derive(Deserialize)]
struct Rejection {
    code: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Body>,
}

pub(super) async fn run(context: &Context, command: Integrations) -> Result<()> {
    match command {
        Integrations::List(output) => list(context, output).await,
        Integrations::Show { id, output } => {
            let answer = context.client()?.call(Call::get(path(id.as_str()))).await?;
            show(&answer, output, |answer| words(&answer.read()?))
        }
        Integrations::Set(set) => put(context, *set).await,
        Integrations::Delete { id, yes } => {
            let client = context.client()?;
            let question = format!("Remove the integration {id}? Its connections can then no longer be refreshed.");
            if confirm::really(&question, yes)? {
                client.call(Call::new(Method::DELETE, path(id.as_str()))).await?;
                out::line(format_args!("{id}: removed"))?;
            }
            Ok(())
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/integrations/{}", segment(id))
}

async fn list(context: &Context, output: args::Output) -> Result<()> {
    let answer = context.client()?.call(Call::get("/v1/integrations")).await?;
    if output.json {
        return out::json(&answer.read::<Value>()?["items"]);
    }
    let List { items } = answer.read()?;
    if items.is_empty() {
        out::note("No integrations. `tokenkeep integrations set google --client-id ID` names one.");
        return Ok(());
    }
    let rows = items.into_iter().map(|body| {
        let state =
            body.rejection.map_or_else(|| "ok".to_owned(), |rejection| format!("rejected ({})", rejection.code));
        [
            body.id,
            body.provider,
            body.client_id,
            body.grant,
            body.tenant.unwrap_or_else(|| "all".to_owned()),
            body.managed_by,
            state,
        ]
    });
    out::table(["ID", "PROVIDER", "CLIENT ID", "GRANT", "TENANTS", "MANAGED BY", "STATE"], rows)
}

fn words(body: &Body) -> Result<()> {
    let or_default = |value: &Option<String>| value.clone().unwrap_or_else(|| "the default".to_owned());
    let credentials = match (body.has_client_secret, body.has_signing_key) {
        (false, false) => "none",
        (true, false) => "a client secret",
        (false, true) => "a signing key",
        (true, true) => "a client secret and a signing key",
    };
    out::line(format_args!("{} at {}", body.id, body.provider))?;
    for (name, value) in [
        ("client id", body.client_id.clone()),
        ("credentials", credentials.to_owned()),
        ("grant", body.grant.clone()),
        ("scope", or_default(&body.scope)),
        ("redirect URI", or_default(&body.redirect_uri)),
        ("tenants", body.tenant.clone().unwrap_or_else(|| "all".to_owned())),
        ("managed by", body.managed_by.clone()),
        ("rejected", body.rejection.as_ref().map_or_else(|| "no".to_owned(), |rejection| rejection.code.clone())),
    ] {
        out::line(format_args!("  {name:<13} {}", out::printable(value)))?;
    }
    Ok(())
}

async fn put(context: &Context, set: SetIntegration) -> Result<()> {
    let client = context.client()?;
    let mut params = Map::new();
    for pair in &set.params {
        let (name, value) = pair.split_once('=').ok_or_else(|| args::wrong("--param takes NAME=VALUE"))?;
        params.insert(name.to_owned(), value.into());
    }
    let secret = match (&set.client_secret_file, &set.client_secret_env) {
        (Some(file), _) => Some(read_secret_file(file)?),
        (None, Some(name)) => {
            let value = context.environment.text(name)?;
            Some(value.ok_or_else(|| anyhow!("the environment variable {name} is not set"))?.into())
        }
        // One that signs needs no secret; one that can be asked is.
        (None, None) if set.no_client_secret || set.signing_key_file.is_some() || !out::can_ask() => None,
        (None, None) => password::ask("Client secret (empty: none, or keep the stored one)")?,
    };
    let signing_key = match &set.signing_key_file {
        None => None,
        Some(file) => {
            let key = read_secret_file(file).context("--signing-key-file cannot be used")?;
            Some(json!({"key": key.expose_secret(), "key_id": set.signing_key_id, "issuer": set.signing_key_issuer}))
        }
    };
    let body = json!({
        "provider": set.provider,
        "issuer": set.issuer,
        "client_id": set.client_id,
        "client_secret": secret.as_ref().map(|secret| secret.expose_secret().trim()),
        "grant": set.grant,
        "signing_key": signing_key,
        "scope": set.scope,
        "params": params,
        "api_hosts": set.api_hosts,
        "redirect_uri": set.redirect_uri,
        "tenant": set.only_tenant.as_ref().map(tokenkeep_core::Tenant::as_str),
    });
    let answer = client.call(Call::new(Method::PUT, path(set.id.as_str())).json(&body)?).await?;
    show(&answer, set.output, |answer| words(&answer.read()?))
}
