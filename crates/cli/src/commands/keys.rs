//! `keys`: keys to the API.

use anyhow::Result;
use clap::ValueEnum as _;
use http::Method;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenkeep_oauth::Secret;

use super::{Context, confirm, show, signing_keys, times::relative};
use crate::{
    args::{Keys, Output, Role, SigningKeys},
    client::{Call, segment},
    out,
};

#[derive(Deserialize)]
struct Key {
    id: String,
    name: String,
    role: String,
    tenants: Option<Vec<String>>,
    providers: Option<Vec<String>>,
    managed_by: String,
    created_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Key>,
}

#[derive(Deserialize)]
struct Created {
    key: Secret,
}

pub(super) async fn run(context: &Context, command: Keys) -> Result<()> {
    match command {
        Keys::List(output) => list(context, output).await,
        Keys::Create { name, role, tenants, providers, output } => {
            let body = json!({
                "name": name,
                "role": word(role),
                "tenants": none_if_empty(&tenants),
                "providers": none_if_empty(&providers),
            });
            let answer = context.client()?.call(Call::new(Method::POST, "/v1/keys").json(&body)?).await?;
            show(&answer, output, |answer| {
                out::line(answer.read::<Created>()?.key.expose_secret())?;
                out::note("This key is shown once.");
                Ok(())
            })
        }
        Keys::Delete { id, yes } => {
            let client = context.client()?;
            if confirm::really(&format!("Remove the key {id}? Whoever uses it is locked out."), yes)? {
                client.call(Call::new(Method::DELETE, format!("/v1/keys/{}", segment(&id)))).await?;
                out::line(format_args!("{id}: removed"))?;
            }
            Ok(())
        }
        Keys::Signing { command, list } => signing_keys::run(context, command.unwrap_or(SigningKeys::List(list))).await,
    }
}

fn word(role: Role) -> String {
    role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The API takes "all" as no list; an empty one would mean nobody.
fn none_if_empty(names: &[impl ToString]) -> Option<Vec<String>> {
    (!names.is_empty()).then(|| names.iter().map(ToString::to_string).collect())
}

async fn list(context: &Context, output: Output) -> Result<()> {
    let answer = context.client()?.call(Call::get("/v1/keys")).await?;
    if output.json {
        return out::json(&answer.read::<Value>()?["items"]);
    }
    let List { items } = answer.read()?;
    if items.is_empty() {
        out::note("No keys. `tokenkeep keys create NAME --role application` makes one.");
        return Ok(());
    }
    let all = |names: Option<Vec<String>>| names.map_or_else(|| "all".to_owned(), |names| names.join(", "));
    let rows = items.into_iter().map(|key| {
        [key.id, key.name, key.role, all(key.tenants), all(key.providers), key.managed_by, relative(key.created_at)]
    });
    out::table(["ID", "NAME", "ROLE", "TENANTS", "PROVIDERS", "MANAGED BY", "MADE"], rows)
}
