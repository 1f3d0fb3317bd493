//! `exec`: a command with fresh tokens in its environment. It takes this process's place, so its exit code, its signals
//! and its terminal are its own.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, anyhow};
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ConnectionId, Subject, Tenant};

use super::{
    Context,
    connections::{TokenBody, fetch},
    route,
};
use crate::args;

pub(super) async fn run(context: &Context, exec: args::Exec) -> Result<()> {
    if exec.connections.len() != exec.variables.len() {
        return Err(args::wrong("every --connection needs its --env, and every --env its --connection").into());
    }
    let (program, arguments) = exec.command.split_first().context("clap asks for a command")?;
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let client = context.client()?;
    for (name, variable) in exec.connections.iter().zip(&exec.variables) {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            return Err(args::wrong("--env takes the name of a variable").into());
        }
        let id = connection(name)?;
        let token: TokenBody = fetch(&client, &route(&id), exec.min_ttl).await?.read()?;
        command.env(variable, token.access_token.expose_secret());
    }
    // Comes back only where the program could not be started.
    let error = command.exec();
    Err(anyhow!("{} cannot be run: {error}", program.display()))
}

fn connection(name: &str) -> Result<ConnectionId, clap::Error> {
    if name.contains('/') {
        return name.parse().map_err(args::wrong);
    }
    let integration = name.parse().map_err(args::wrong)?;
    Ok(ConnectionId { integration, tenant: Tenant::default_tenant(), subject: Subject::default_subject() })
}
