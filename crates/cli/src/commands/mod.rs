//! What the commands do: ask the server, show what it says. One file per resource.

mod cleanup;
mod clients;
mod confirm;
mod connect;
mod connections;
mod credentials;
mod delete;
mod doctor;
mod exec;
mod grants;
mod health;
mod instances;
mod integrations;
mod keys;
mod list;
mod local;
mod pages;
mod password;
mod protect;
mod providers;
mod put;
mod sessions;
mod signing_keys;
mod stats;
mod store;
mod times;

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;
use tokenkeep_core::ConnectionId;

use crate::{
    args::{Arguments, Clients, Command, Global, Grants, Instances, Integrations, Keys, Output, Providers, Sessions},
    client::{Answer, Client, segment},
    config::Config,
    environment::Environment,
    out,
    serve::{self, data_dir::DataDir},
};

/// What every command may need.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) environment: Environment,
}

impl Context {
    /// The server to ask.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::find(&self.global, &self.environment)
    }

    /// What a server started here would be given.
    pub(crate) fn config(&self) -> Result<(Config, DataDir)> {
        let mut config = Config::load(self.global.config.as_deref(), &self.environment)?;
        if let Some(dir) = &self.global.data_dir {
            config.server.data_dir = Some(dir.clone());
        }
        let dir = DataDir::at(config.data_dir(&self.environment)?);
        Ok((config, dir))
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments, environment: Environment) -> Result<ExitCode> {
    let context = Context { global: arguments.global, environment };
    let context = &context;
    match arguments.command {
        Command::Serve(serve) => Box::pin(serve::run(serve, &context.global, &context.environment)).await?,
        Command::Protect(protect) => Box::pin(protect::run(context, protect)).await?,
        Command::Connect(connect) => connect::run(context, connect).await?,
        Command::Token(token) => connections::token(context, token).await?,
        Command::Status(status) => connections::status(context, status).await?,
        Command::Refresh(refresh) => connections::refresh(context, refresh).await?,
        Command::List(list) => list::run(context, list).await?,
        Command::Put(put) => put::run(context, put).await?,
        Command::Credentials { command } => credentials::run(context, command).await?,
        Command::Revoke(delete) => delete::connection(context, delete, true).await?,
        Command::Delete(delete) => delete::connection(context, delete, false).await?,
        Command::Forget(forget) => delete::person(context, forget).await?,
        Command::Exec(exec) => exec::run(context, exec).await?,
        // Without a verb, they are listed.
        Command::Integrations { command, list } => {
            integrations::run(context, command.unwrap_or(Integrations::List(list))).await?;
        }
        Command::Providers { command, list } => {
            providers::run(context, command.unwrap_or(Providers::List { filter: None, output: list }))?;
        }
        Command::Keys { command, list } => keys::run(context, command.unwrap_or(Keys::List(list))).await?,
        Command::Clients { command, list } => clients::run(context, command.unwrap_or(Clients::List(list))).await?,
        Command::Grants { command, list } => grants::run(context, command.unwrap_or(Grants::List(list))).await?,
        Command::Sessions { command, list } => sessions::run(context, command.unwrap_or(Sessions::List(list))).await?,
        Command::Instances { command, list } => {
            instances::run(context, command.unwrap_or(Instances::List(list))).await?;
        }
        Command::Stats(output) => stats::run(context, output).await?,
        Command::Cleanup(output) => cleanup::run(context, output).await?,
        Command::Health(output) => return health::run(context, output).await,
        Command::Store(store) => return store::run(context, store).await,
        Command::Config(config) => local::config(context, config)?,
        Command::Doctor(output) => return doctor::run(context, output).await,
        Command::Secret { kind } => local::secret(kind)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The route of a connection.
fn route(id: &ConnectionId) -> String {
    let (tenant, subject) = (id.tenant.as_str(), id.subject.as_str());
    format!("/v1/connections/{}/{}/{}", segment(id.integration.as_str()), segment(tenant), segment(subject))
}

/// With `--json` the answer as it is; else what `words` makes of it.
fn show(answer: &Answer, output: Output, words: impl FnOnce(&Answer) -> Result<()>) -> Result<()> {
    if output.json { out::json(&answer.read::<Value>()?) } else { words(answer) }
}
