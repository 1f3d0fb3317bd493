//! `config`, `secret`: nobody is asked.

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use tokenkeep_core::ports::Entropy as _;
use tokenkeep_engine::{barrier::RootKey, system::SystemEntropy};
use zeroize::Zeroizing;

use super::Context;
use crate::{
    args::{self, SecretKind},
    config::example_toml,
    out,
    serve::{installation::Installation, store::Choice},
};

pub(super) fn config(context: &Context, command: args::Config) -> Result<()> {
    let output = match command {
        args::Config::Example => return out::line(example_toml().trim_end()),
        args::Config::Check(output) => output,
    };
    let (config, dir) = context.config()?;
    let choice = Choice::make(&config, &context.environment, &dir)?;
    // Reads what it names, so that a missing secret file is found here and not at the next start.
    Installation::read(&config, &context.environment)?;
    let public_url = config.public_url(config.server.listen)?;
    let file = config.file.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    let issuer = config.issuer.as_ref().map(|issuer| match &issuer.url {
        Some(url) => url.clone(),
        None => public_url.as_str().trim_end_matches('/').to_owned(),
    });
    let integrations: Vec<_> =
        config.integrations.iter().filter_map(|i| i.id.as_deref().or(i.provider.as_deref())).collect();
    let keys: Vec<_> = config.keys.iter().filter_map(|key| key.name.as_deref()).collect();
    if output.json {
        return out::json(&json!({
            "file": config.file,
            "listen": config.server.listen,
            "public_url": public_url.as_str(),
            "data_dir": dir.path(),
            "store": choice.place.to_string(),
            "store_chosen_by": choice.chosen_by,
            "issuer": issuer,
            "integrations": integrations,
            "keys": keys,
        }));
    }
    for (name, value) in [
        ("file", file),
        ("listen", config.server.listen.to_string()),
        ("public URL", public_url.to_string()),
        ("data", dir.path().display().to_string()),
        ("store", format!("{} ({})", choice.place, choice.chosen_by)),
        ("issuer", issuer.unwrap_or_default()),
        ("integrations", integrations.join(", ")),
        ("keys", keys.join(", ")),
    ] {
        out::line(format_args!("{name:<13} {}", if value.is_empty() { "-" } else { &value }))?;
    }
    out::line("The configuration is valid.")
}

pub(super) fn secret(kind: SecretKind) -> Result<()> {
    let random = || BASE64_URL_SAFE_NO_PAD.encode(SystemEntropy.bytes32());
    let text = Zeroizing::new(match kind {
        SecretKind::Random => random(),
        SecretKind::ApiKey => format!("tk_{}", random()),
        SecretKind::SealingKey => RootKey::generate(&SystemEntropy).to_base64().to_string(),
    });
    out::line(&*text)
}
