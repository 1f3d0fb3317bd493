//! `clients`: who may ask our authorization server for tokens.

use anyhow::{Context as _, Result, anyhow};
use http::Method;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenkeep_oauth::Secret;

use super::{Context, confirm, grants, pages, show, times::relative};
use crate::{
    args::{ClientMetadata, Clients, CreateClient, DeleteClients, ListClients},
    client::{Answer, Call, Client, segment},
    config::read_secret_file,
    out,
};

#[derive(Deserialize)]
struct Body {
    client_id: String,
    client_name: Option<String>,
    origin: String,
    has_secret: bool,
    token_endpoint_auth_method: String,
    grant_types: Vec<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    scope: Option<String>,
    resources: Option<Vec<String>>,
    created_at: Option<Timestamp>,
    used_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

/// What is shown once.
#[derive(Deserialize)]
struct Drawn {
    client_id: String,
    client_secret: Option<Secret>,
}

#[derive(Deserialize)]
struct Deleted {
    grants_revoked: u64,
}

/// What is said of a client by its own words, and may be said again; the rest is the server's.
const METADATA: [&str; 17] = [
    "redirect_uris",
    "token_endpoint_auth_method",
    "grant_types",
    "client_name",
    "client_uri",
    "logo_uri",
    "tos_uri",
    "policy_uri",
    "contacts",
    "scope",
    "jwks",
    "jwks_uri",
    "software_id",
    "software_version",
    "application_type",
    "resources",
    "response_types",
];

pub(super) async fn run(context: &Context, command: Clients) -> Result<()> {
    match command {
        Clients::List(list) => all(context, list).await,
        Clients::Show { id, output } => {
            let answer = context.client()?.call(Call::get(path(id.as_str()))).await?;
            show(&answer, output, |answer| words(answer.read()?))
        }
        Clients::Create(create) => make(context, *create).await,
        Clients::Update { id, client: said, output } => {
            let client = context.client()?;
            let mut body: Map<String, Value> = client.fetch(Call::get(path(id.as_str()))).await?;
            body.retain(|name, value| METADATA.contains(&name.as_str()) && !value.is_null());
            body.extend(members(&said)?);
            let answer = client.call(Call::new(Method::PUT, path(id.as_str())).json(&body)?).await?;
            show(&answer, output, |answer| {
                words(answer.read()?)?;
                reveal(answer)
            })
        }
        Clients::RotateSecret { id, yes, output } => {
            let client = context.client()?;
            if !confirm::really(&format!("Draw a new secret for {id}? The old one counts no more."), yes)? {
                return Ok(());
            }
            let answer = client.call(Call::new(Method::POST, format!("{}/secret", path(id.as_str())))).await?;
            show(&answer, output, reveal)
        }
        Clients::Delete(delete) => remove(context, delete).await,
    }
}

fn path(id: &str) -> String {
    format!("/v1/clients/{}", segment(id))
}

async fn all(context: &Context, list: ListClients) -> Result<()> {
    let filters = [("origin", list.origin.as_deref())];
    let listed = pages::all(&context.client()?, "/v1/clients", &filters, list.limit).await?;
    if list.output.json {
        return out::json(&listed.items);
    }
    if listed.items.is_empty() {
        out::note("No clients. They register themselves, or `tokenkeep clients create` makes one.");
        return Ok(());
    }
    let shown = listed.items.len();
    table(listed.items)?;
    if listed.more {
        out::note(format_args!("There are more than these {shown}."));
    }
    Ok(())
}

fn table(items: Vec<Value>) -> Result<()> {
    let rows = items.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    out::table(["CLIENT", "NAME", "ORIGIN", "GRANTS", "PROVES ITSELF BY", "MADE", "USED", "FORGOTTEN"], rows)
}

fn row(item: Value) -> Result<[String; 8]> {
    let body: Body = serde_json::from_value(item)?;
    Ok([
        body.client_id,
        body.client_name.unwrap_or_else(|| "-".to_owned()),
        body.origin,
        body.grant_types.join(", "),
        body.token_endpoint_auth_method,
        relative(body.created_at),
        relative(body.used_at),
        relative(body.expires_at),
    ])
}

fn words(body: Body) -> Result<()> {
    let listed = |values: Vec<String>| if values.is_empty() { "-".to_owned() } else { values.join(", ") };
    out::line(out::printable(match &body.client_name {
        Some(name) => format!("{} ({name})", body.client_id),
        None => body.client_id.clone(),
    }))?;
    let proof = if body.has_secret { " (it has a secret)" } else { "" };
    for (name, value) in [
        ("origin", body.origin),
        ("proves itself", format!("{}{proof}", body.token_endpoint_auth_method)),
        ("grant types", listed(body.grant_types)),
        ("redirect URIs", listed(body.redirect_uris)),
        ("scope", body.scope.unwrap_or_else(|| "whatever the resource knows".to_owned())),
        ("resources", body.resources.map_or_else(|| "all".to_owned(), listed)),
        ("made", relative(body.created_at)),
        ("used", relative(body.used_at)),
        ("forgotten", relative(body.expires_at)),
    ] {
        out::line(format_args!("  {name:<13} {}", out::printable(value)))?;
    }
    Ok(())
}

async fn make(context: &Context, create: CreateClient) -> Result<()> {
    let client = context.client()?;
    let said = create.client;
    let secret = match (&create.secret_file, &create.secret_env) {
        (Some(file), _) => Some(read_secret_file(file).context("--secret-file cannot be used")?),
        (None, Some(name)) => {
            let value = context.environment.text(name)?;
            Some(value.ok_or_else(|| anyhow!("the environment variable {name} is not set"))?.into())
        }
        (None, None) => None,
    };
    let mut body = members(&said)?;
    let has_keys = said.jwks_file.is_some() || said.jwks_uri.is_some();
    let default_method = if has_keys { "private_key_jwt" } else { "client_secret_basic" };
    body.entry("token_endpoint_auth_method").or_insert_with(|| default_method.into());
    let default_grants = if said.redirect_uris.is_empty() {
        json!(["client_credentials"])
    } else {
        json!(["authorization_code", "refresh_token"])
    };
    body.entry("grant_types").or_insert(default_grants);
    body.insert("client_id".to_owned(), json!(create.id));
    body.insert("client_secret".to_owned(), json!(secret.as_ref().map(Secret::expose_secret)));
    let answer = client.call(Call::new(Method::POST, "/v1/clients").json(&body)?).await?;
    show(&answer, create.output, reveal)
}

/// What was said of a client, in the words of RFC 7591; what was not said is not in it.
fn members(said: &ClientMetadata) -> Result<Map<String, Value>> {
    let keys = match &said.jwks_file {
        None => None,
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
            Some(serde_json::from_slice::<Value>(&text).with_context(|| format!("{} is no JSON", file.display()))?)
        }
    };
    let list = |values: &Vec<String>| (!values.is_empty()).then(|| json!(values));
    let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
    let members = [
        ("client_name", text(&said.name)),
        ("redirect_uris", list(&said.redirect_uris)),
        ("grant_types", list(&said.grant_types)),
        ("token_endpoint_auth_method", text(&said.auth_method)),
        ("scope", text(&said.scope)),
        ("resources", list(&said.resources)),
        ("jwks", keys),
        ("jwks_uri", text(&said.jwks_uri)),
    ];
    Ok(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// The id, and the secret if one was drawn: one line each, in the order in which they are put to use.
fn reveal(answer: &Answer) -> Result<()> {
    let Drawn { client_id, client_secret } = answer.read()?;
    out::line(format_args!("client_id      {}", out::printable(client_id)))?;
    if let Some(secret) = client_secret {
        out::line(format_args!("client_secret  {}", secret.expose_secret()))?;
        out::note("This secret is shown once.");
    }
    Ok(())
}

async fn remove(context: &Context, delete: DeleteClients) -> Result<()> {
    let client = context.client()?;
    let meant = match (&delete.id, &delete.name) {
        (Some(id), _) => vec![client.fetch(Call::get(path(id.as_str()))).await?],
        (None, pattern) => of_name(&client, pattern.as_deref().unwrap_or_default()).await?,
    };
    if meant.is_empty() {
        if delete.output.json {
            return out::json(&json!([]));
        }
        out::note("No client has such a name.");
        return Ok(());
    }
    let ids: Vec<String> = meant.iter().filter_map(|body| Some(body["client_id"].as_str()?.to_owned())).collect();
    if delete.dry_run {
        return if delete.output.json { out::json(&meant) } else { table(meant) };
    }
    let whom = match ids.as_slice() {
        [one] => format!("the client {one}"),
        many => format!("{} clients ({})", many.len(), many.join(", ")),
    };
    if !confirm::really(&format!("Remove {whom} and end all that was granted to them?"), delete.yes)? {
        return Ok(());
    }
    let mut done = Vec::new();
    for id in ids {
        let Deleted { grants_revoked } = client.fetch(Call::new(Method::DELETE, path(&id))).await?;
        if !delete.output.json {
            let ended = grants::counted(grants_revoked);
            out::line(format_args!("{}: removed, {ended} ended", out::printable(id.clone())))?;
        }
        done.push(json!({"client_id": id, "grants_revoked": grants_revoked}));
    }
    if delete.output.json { out::json(&done) } else { Ok(()) }
}

/// The clients whose name is like that. Those of the configuration file are removed there.
async fn of_name(client: &Client, pattern: &str) -> Result<Vec<Value>> {
    let listed = pages::all(client, "/v1/clients", &[], None).await?;
    let is_meant = |body: &Value| {
        body["origin"] != "config" && body["client_name"].as_str().is_some_and(|name| is_like(name, pattern))
    };
    Ok(listed.items.into_iter().filter(is_meant).collect())
}

/// Whether `name` is `pattern`, in whatever case; `*` stands for anything.
fn is_like(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_lowercase(), pattern.to_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_like_patterns() {
        for (name, pattern) in
            [("TEST one", "test*"), ("a test b", "*test*"), ("x", "X"), ("x", "*"), ("abcabc", "*b*c"), ("aa", "a*a")]
        {
            assert!(is_like(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in
            [("contest", "test*"), ("tests", "test"), ("x", ""), ("ab", "b*a"), ("a", "a*a"), ("abc", "*b")]
        {
            assert!(!is_like(name, pattern), "{name} {pattern}");
        }
    }
}
