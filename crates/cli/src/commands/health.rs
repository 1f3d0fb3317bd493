//! `health`, `store ping`: exit code 0 or 1, for container checks and scripts.

use std::process::ExitCode;

use anyhow::Result;
use serde::Deserialize;

use super::{Context, show};
use crate::{args::Output, client::Call, out};

#[derive(Deserialize)]
struct Ready {
    status: String,
    store: String,
    bus: String,
    cache: String,
    journal: String,
}

/// Whether the server can serve. `degraded` still can.
pub(super) async fn run(context: &Context, output: Output) -> Result<ExitCode> {
    let answer = context.client()?.ask(Call::get("/readyz")).await?;
    show(&answer, output, |answer| {
        let Ready { status, store, bus, cache, journal } = answer.read()?;
        out::line(format_args!("{status} (store {store}, bus {bus}, cache {cache}, journal {journal})"))
    })?;
    Ok(if answer.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the store answers.
pub(super) async fn ping(context: &Context) -> Result<ExitCode> {
    let Ready { store, .. } = context.client()?.ask(Call::get("/readyz")).await?.read()?;
    let answers = store != "unavailable";
    out::line(if answers { "the store answers" } else { "the store does not answer" })?;
    Ok(if answers { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
