//! `[log]`

use super::section::section;

section! {
    /// The log, on standard error. It never holds a secret.
    ONE "log" Log {
        /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tokenkeep_engine=debug`.
        level: String = "info".to_owned(), Text "\"info\"";
        /// `json`, `pretty`, or `auto`: pretty on a terminal, JSON elsewhere.
        format: Format = Format::Auto, Text "\"auto\"";
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Auto,
    Json,
    Pretty,
}
