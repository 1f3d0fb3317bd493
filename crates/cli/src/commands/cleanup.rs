//! `cleanup`.

use anyhow::Result;
use http::Method;
use serde::Deserialize;

use super::{Context, show};
use crate::{args::Output, client::Call, out};

#[derive(Deserialize)]
struct Cleaned {
    removed: u64,
    tokens_dropped: u64,
}

pub(super) async fn run(context: &Context, output: Output) -> Result<()> {
    let answer = context.client()?.call(Call::new(Method::POST, "/v1/cleanup")).await?;
    show(&answer, output, |answer| {
        let Cleaned { removed, tokens_dropped } = answer.read()?;
        out::line(format_args!("{removed} connections removed, {tokens_dropped} dead access tokens dropped"))
    })
}
