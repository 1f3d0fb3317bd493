//! `tokenkeep`: the server, and the command line that talks to it. The one place where the parts are put together, and
//! the only one that reads arguments and the environment.

mod args;
mod client;
mod commands;
mod config;
mod environment;
mod out;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;

use self::{
    args::{Arguments, Command},
    environment::Environment,
};

/// What is said of wrong usage.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut runtime = match arguments.command {
        Command::Serve(_) | Command::Protect(_) => tokio::runtime::Builder::new_multi_thread(),
        // One question, one answer.
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let done = match runtime.enable_all().build() {
        Ok(runtime) => {
            let done = runtime.block_on(commands::run(arguments, Environment::of_process()));
            // A task that hangs does not keep the process.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(error.into()),
    };
    done.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        out::note(format_args!("{}\nFor more information, try '--help'.", usage.to_string().trim_end()));
        return ExitCode::from(WRONG_USAGE);
    }
    out::note(format_args!("error: {error:#}"));
    ExitCode::FAILURE
}
