//! What tokenkeep is measured with, and what it is broken with.
//!
//! - `chaos`: real processes killed and frozen at every step of a refresh, against a provider that remembers every
//!   token it ever saw.
//! - `real-provider`: a connection made through the real pages of a certified server none of us wrote, served through
//!   a hundred rotations.
//! - `real-clients`: MCP's SDKs, `openid-client` and `oauth4webapi` sign their user in at tokenkeep.
//! - `compat-tour`: the commands of docs/compat.md, run with `curl`.
//! - `protect`: `tokenkeep protect` in front of the official "everything" server of MCP, used by the official client.
//! - `token-endpoint`: the token endpoint beside a bare handler on the same pinned core.
//! - `issuing`: tokens issued, introspected and verified, beside servers that do the same.
//! - `storm`: several processes on one store, every connection expired at once.
//! - `chaos-cluster`: an instance killed and its servers broken during such a storm.
//! - `killed-for-good`: an instance that never comes back, with replies that it could not commit.
//! - `revocation`: how long a deleted connection is served by another instance.
//! - `canary`: whether any server ever sees a secret.
//! - `sessions-tour`: backend sessions from sign-in to logout, on two instances.
//! - `misses`: tokens that are not in memory, beside bare reads of the store.
//! - `proxy`: calls to APIs, beside nginx, across expiries, and long.
//! - `load`: an open-loop load generator.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a harness prints what it sees, takes real time, opens real connections and reckons in rates"
)]

mod browser;
mod ceiling;
mod chaos;
mod cluster;
mod compat_tour;
mod http;
mod issuing;
mod load;
mod misses;
mod peer;
mod protect;
mod proxy;
mod real_clients;
mod real_provider;
mod report;
mod service;
mod sessions_tour;
mod token_endpoint;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "What tokenkeep is measured with, and what it is broken with")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kills and freezes real processes at every step of a refresh.
    Chaos(chaos::Arguments),
    /// The process that is killed.
    #[command(hide = true)]
    Child(chaos::child::Arguments),
    /// Every connection expires at once, and every instance is asked for every one of them.
    Storm(cluster::storm::Arguments),
    /// Kills an instance and breaks its servers during such a storm.
    ChaosCluster(cluster::chaos::Arguments),
    /// An instance with replies that it could not commit is killed, and its disk with it.
    KilledForGood(cluster::killed::Arguments),
    /// Deletes connections at one instance and watches another.
    Revocation(cluster::revocation::Arguments),
    /// Searches the servers for the secrets that went through them.
    Canary(cluster::canary::Arguments),
    /// Measures tokens that are not in memory beside bare reads of the store.
    Misses(misses::Arguments),
    /// The bare handler that reads.
    #[command(hide = true)]
    BareRead(misses::BareArguments),
    /// Goes with a backend's session from sign-in to logout.
    SessionsTour(sessions_tour::Arguments),
    /// Serves a connection of a real provider through many rotations.
    RealProvider(real_provider::Arguments),
    /// Runs the commands of docs/compat.md.
    CompatTour(compat_tour::Arguments),
    /// Lets clients none of us wrote sign their user in.
    RealClients(real_clients::Arguments),
    /// Puts `tokenkeep protect` in front of MCP servers none of us wrote.
    Protect(protect::Arguments),
    /// Measures the token endpoint beside a bare handler on the same core.
    TokenEndpoint(token_endpoint::Arguments),
    /// Measures what the issuing side answers, beside the servers that it replaces, on the same core.
    Issuing(issuing::Arguments),
    /// Measures calls to APIs beside nginx, across expiries, and long.
    Proxy(proxy::Arguments),
    /// The bare signing.
    #[command(hide = true)]
    Sign(issuing::signing::Arguments),
    /// The bare handler.
    #[command(hide = true)]
    Ceiling(ceiling::Arguments),
    /// Loads one URL, open-loop at a rate or closed-loop as fast as it goes.
    Load(load::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ceiling(arguments) => ceiling::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::TokenEndpoint(arguments) => token_endpoint::run(&arguments),
        Command::Issuing(arguments) => issuing::run(&arguments),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::Sign(arguments) => issuing::signing::run(&arguments),
        Command::Chaos(arguments) => block_on(chaos::run(arguments)),
        Command::Child(arguments) => block_on(chaos::child::run(arguments)),
        Command::Storm(arguments) => block_on(cluster::storm::run(arguments)),
        Command::ChaosCluster(arguments) => block_on(cluster::chaos::run(arguments)),
        Command::KilledForGood(arguments) => block_on(cluster::killed::run(arguments)),
        Command::Revocation(arguments) => block_on(cluster::revocation::run(arguments)),
        Command::Canary(arguments) => block_on(cluster::canary::run(arguments)),
        Command::Misses(arguments) => block_on(misses::run(arguments)),
        Command::BareRead(arguments) => block_on(misses::serve_bare(arguments)),
        Command::CompatTour(arguments) => block_on(compat_tour::run(arguments)),
        Command::SessionsTour(arguments) => block_on(sessions_tour::run(arguments)),
        Command::Protect(arguments) => block_on(protect::run(arguments)),
        Command::RealClients(arguments) => block_on(real_clients::run(arguments)),
        Command::RealProvider(arguments) => block_on(real_provider::run(arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
