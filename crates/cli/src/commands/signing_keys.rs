//! `keys signing`: the keys that sign access tokens.

use anyhow::Result;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, times::relative};
use crate::{
    args::{Output, SigningKeys},
    client::{Answer, Call},
    out,
};

#[derive(Deserialize)]
struct Key {
    kid: String,
    algorithm: String,
    resource: Option<String>,
    phase: String,
    until: Option<Timestamp>,
    created_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Key>,
}

pub(super) async fn run(context: &Context, command: SigningKeys) -> Result<()> {
    let client = context.client()?;
    match command {
        SigningKeys::List(output) => show(&client.call(Call::get("/v1/signing-keys")).await?, output),
        SigningKeys::Rotate { algorithm, output } => {
            let call = Call::new(Method::POST, "/v1/signing-keys/rotate").json(&json!({"algorithm": algorithm}))?;
            show(&client.call(call).await?, output)
        }
    }
}

fn show(answer: &Answer, output: Output) -> Result<()> {
    if output.json {
        return out::json(&answer.read::<Value>()?["items"]);
    }
    let List { items } = answer.read()?;
    if items.is_empty() {
        out::note("No keys: the store has not answered yet.");
        return Ok(());
    }
    let rows = items.into_iter().map(|key| {
        let phase = match key.until {
            None => key.phase,
            until @ Some(_) => format!("{}, gone {}", key.phase, relative(until)),
        };
        let made = if key.created_at.is_none() { "configured".to_owned() } else { relative(key.created_at) };
        [key.kid, key.algorithm, key.resource.unwrap_or_else(|| "all".to_owned()), phase, made]
    });
    out::table(["KEY", "ALGORITHM", "RESOURCE", "PHASE", "MADE"], rows)
}
