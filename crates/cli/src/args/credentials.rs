//! What is typed to log in where there is no OAuth.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokenkeep_core::{IntegrationId, Tenant};

use super::Output;

/// A username and a password, or an API key; the secrets never as arguments, which every user of the machine can see.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// Whose password it is; the password is asked for, unseen
    #[arg(long, value_name = "NAME", conflicts_with_all = ["api_key_stdin", "api_key_file"])]
    pub(crate) username: Option<String>,
    /// The password comes on standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// A file that holds the password
    #[arg(long, value_name = "FILE", requires = "username", conflicts_with = "password_stdin")]
    pub(crate) password_file: Option<PathBuf>,
    /// An API key comes on standard input
    #[arg(long)]
    pub(crate) api_key_stdin: bool,
    /// A file that holds an API key
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_stdin")]
    pub(crate) api_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TryCredentials {
    /// Try credentials at their provider; nothing is stored
    Test(TryOut),
    /// Log in and print the token; nothing is stored
    Login(TryOut),
}

#[derive(Debug, Args)]
pub(crate) struct TryOut {
    /// The provider's id, or the integration's
    pub(crate) provider: IntegrationId,
    /// Whose workspace [default: _default]
    #[arg(long)]
    pub(crate) tenant: Option<Tenant>,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    #[command(flatten)]
    pub(crate) output: Output,
}
