//! What cannot be undone is asked about first.

use anyhow::{Result, bail};

use crate::out;

/// Whether to go on. Without a terminal nobody can be asked: then only `--yes` goes on.
pub(super) fn really(question: &str, yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !out::can_ask() {
        bail!("{question} There is no terminal to ask on: say `--yes`");
    }
    let confirmed = out::confirmed(question)?;
    if !confirmed {
        out::note("Nothing was changed.");
    }
    Ok(confirmed)
}
