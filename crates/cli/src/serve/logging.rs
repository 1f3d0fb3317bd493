//! The log, on standard error: for people on a terminal, for machines elsewhere.

use std::io::{self, IsTerminal as _};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::{Format, Log};

/// Starts logging. Once per process.
pub(super) fn start(log: &Log) -> Result<()> {
    let filter = filter(&log.level)?;
    let json = match log.format {
        Format::Json => true,
        Format::Pretty => false,
        Format::Auto => !io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

/// Audit events are not a matter of level: they are there as long as there is a log at all.
fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(format!("audit=info,{level}")).with_context(
        || "`log.level` must be a level (error, warn, info, debug, trace) or a filter such as `info,hyper=warn`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_understood() {
        for good in ["info", "trace", "warn,tokenkeep_engine=debug", "off"] {
            assert!(filter(good).unwrap().to_string().contains("audit=info"), "{good}");
        }
        assert!(filter("info,=x=").is_err());
    }
}
