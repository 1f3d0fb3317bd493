//! `providers`: the catalogue, with the installation's own; no server is asked.

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use tokenkeep_core::{Provider, ProviderId, Rotation};

use super::Context;
use crate::{args::Providers, config::Config, out};

pub(super) fn run(context: &Context, command: Providers) -> Result<()> {
    let catalogue = Config::load(context.global.config.as_deref(), &context.environment)?.catalogue;
    match command {
        Providers::List { filter, output } => {
            let wanted = filter.unwrap_or_default().to_lowercase();
            let holds = |text: &str| text.to_lowercase().contains(&wanted);
            let found: Vec<_> = catalogue.iter().filter(|p| holds(p.id.as_str()) || holds(&p.display_name)).collect();
            if output.json {
                return out::json(&found.iter().map(|provider| value(provider)).collect::<Vec<_>>());
            }
            if found.is_empty() {
                out::note(
                    "No such provider. Any OAuth provider can be added: see `[[provider]]` in tokenkeep.example.toml.",
                );
                return Ok(());
            }
            let rows = found.iter().map(|p| {
                [
                    p.id.to_string(),
                    p.display_name.clone(),
                    p.kind.as_str().to_owned(),
                    rotation(p.rotation),
                    unverified(p),
                ]
            });
            out::table(["ID", "NAME", "KIND", "ROTATION", "UNVERIFIED"], rows)
        }
        Providers::Show { id, output } => {
            let unknown = || anyhow!("there is no provider `{id}`; `tokenkeep providers list` shows those there are");
            let id = ProviderId::new(&id).map_err(|_| unknown())?;
            let provider = catalogue.get(&id).ok_or_else(unknown)?;
            if output.json { out::json(&value(&provider)) } else { words(&provider) }
        }
    }
}

fn rotation(policy: Rotation) -> String {
    match policy {
        Rotation::None => "none".to_owned(),
        Rotation::Overlap => "overlap".to_owned(),
        Rotation::Predecessor => "predecessor".to_owned(),
        Rotation::Grace { window, .. } => format!("grace {} s", window.as_secs()),
        Rotation::Strict => "strict".to_owned(),
    }
}

fn unverified(provider: &Provider) -> String {
    match provider.unverified.len() {
        0 => "-".to_owned(),
        1 => "1 fact".to_owned(),
        n => format!("{n} facts"),
    }
}

fn value(provider: &Provider) -> Value {
    json!({
        "id": provider.id,
        "display_name": provider.display_name,
        "kind": provider.kind.as_str(),
        "authorize_url": provider.authorize_url,
        "token_url": provider.token_url,
        "device_authorization_url": provider.device_authorization_url,
        "issuer": provider.issuer,
        "api_hosts": provider.api_hosts,
        "default_scope": provider.default_scope,
        "params": provider.params.iter().map(|(name, param)| (name, &param.description)).collect::<std::collections::BTreeMap<_, _>>(),
        "rotation": rotation(provider.rotation),
        "default_lifetime": provider.default_lifetime.map(|life| life.as_secs()),
        "margin": provider.margin.map(|margin| margin.as_secs()),
        "notes": provider.notes,
        "unverified": provider.unverified,
        "sources": provider.sources,
    })
}

fn words(provider: &Provider) -> Result<()> {
    out::line(format_args!("{} · {}", provider.id, provider.display_name))?;
    let seconds = |time: Option<std::time::Duration>| time.map(|time| format!("{} s", time.as_secs()));
    let hosts = Some(provider.api_hosts.join(", ")).filter(|hosts| !hosts.is_empty());
    for (key, name, value) in [
        ("kind", "kind", Some(provider.kind.as_str().to_owned())),
        ("authorize_url", "authorize", provider.authorize_url.clone()),
        ("token_url", "token", provider.token_url.clone()),
        ("device_authorization_url", "device", provider.device_authorization_url.clone()),
        ("issuer", "issuer", provider.issuer.clone()),
        ("default_scope", "scope", provider.default_scope.clone()),
        ("api_hosts", "API hosts", hosts),
        ("rotation", "rotation", Some(rotation(provider.rotation))),
        ("default_lifetime", "lifetime", seconds(provider.default_lifetime)),
        ("margin", "margin", seconds(provider.margin)),
    ] {
        let Some(value) = value else { continue };
        let mark = if provider.unverified.iter().any(|field| field == key) { "   (unverified)" } else { "" };
        out::line(format_args!("  {name:<11} {value}{mark}"))?;
    }
    for (name, param) in &provider.params {
        out::line(format_args!("  param       {name}: {}", param.description))?;
    }
    if !provider.notes.is_empty() {
        out::line(format_args!("\n{}", provider.notes.trim()))?;
    }
    if !provider.unverified.is_empty() {
        out::line(format_args!("\nNobody has verified: {}.", provider.unverified.join(", ")))?;
    }
    Ok(())
}
