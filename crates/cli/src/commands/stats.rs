//! `stats`.

use anyhow::Result;
use serde_json::Value;

use super::{Context, show};
use crate::{args::Output, client::Call, out};

pub(super) async fn run(context: &Context, output: Output) -> Result<()> {
    let answer = context.client()?.call(Call::get("/v1/stats")).await?;
    show(&answer, output, |answer| lines("", &answer.read()?))
}

/// Every number under its path: what is counted may grow without this command knowing.
pub(super) fn lines(prefix: &str, value: &Value) -> Result<()> {
    match value {
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            lines(&path, value)
        }),
        other => out::line(format_args!("{prefix:<32} {other}")),
    }
}
