//! `instances`: the processes that serve from one store.

use anyhow::Result;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, confirm, times::relative};
use crate::{
    args::{Instances, Output},
    client::{Call, segment},
    out,
};

#[derive(Deserialize)]
struct Body {
    id: String,
    state: String,
    is_this: bool,
    host: String,
    version: String,
    address: Option<String>,
    started_at: Option<Timestamp>,
    last_seen_at: Option<Timestamp>,
    uncommitted: u64,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Body>,
}

pub(super) async fn run(context: &Context, command: Instances) -> Result<()> {
    match command {
        Instances::List(output) => list(context, output).await,
        Instances::Forget { id, yes, force, output } => {
            let client = context.client()?;
            let question = format!(
                "Forget the instance {id}? If replies of providers lie on its disk only, their connections are lost."
            );
            if confirm::really(&question, yes)? {
                let query = if force { "?force=true" } else { "" };
                client.call(Call::new(Method::DELETE, format!("/v1/instances/{}{query}", segment(&id)))).await?;
                if output.json {
                    out::json(&json!({"id": id, "forgotten": true}))?;
                } else {
                    out::line(format_args!("{id}: forgotten"))?;
                }
            }
            Ok(())
        }
    }
}

async fn list(context: &Context, output: Output) -> Result<()> {
    let answer = context.client()?.call(Call::get("/v1/instances")).await?;
    if output.json {
        return out::json(&answer.read::<Value>()?["items"]);
    }
    let List { items } = answer.read()?;
    if items.is_empty() {
        out::note("No instances: the one that answers has not been able to write to the store yet.");
        return Ok(());
    }
    let rows = items.into_iter().map(|body| {
        [
            body.id,
            body.host,
            body.version,
            body.address.unwrap_or_else(|| "-".to_owned()),
            relative(body.started_at),
            relative(body.last_seen_at),
            if body.is_this { format!("{}, this one", body.state) } else { body.state },
            body.uncommitted.to_string(),
        ]
    });
    out::table(["ID", "HOST", "VERSION", "ADDRESS", "STARTED", "LAST SEEN", "STATE", "UNCOMMITTED"], rows)
}
