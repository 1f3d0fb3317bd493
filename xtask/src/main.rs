//! tokenkeep's chores. `cargo xtask test` is all a newcomer needs; `cargo xtask ci` is what a merge needs.
//!
//! A machine with nothing but a Rust toolchain and a C compiler must be enough: whatever else a chore needs, it fetches
//! by package name, and says so ([`provision`]). Whatever it starts, it ends ([`process`]).
#![expect(clippy::print_stdout, reason = "this tool speaks to people on standard output")]

mod arrows;
mod bench;
mod generate;
mod lint;
mod papers;
mod process;
mod provision;
mod report;
mod services;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use report::Report;
use workspace::Workspace;

/// tokenkeep's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run the tests; installs what they need by package name, and says so.
    Test(TestArgs),
    /// Measure, side by side with what we are measured against.
    Bench,
    /// Write the generated files.
    Generate {
        /// Write nothing; fail if a file is not what it would be.
        #[arg(long)]
        check: bool,
    },
    /// Formatting, the arrows between crates, the papers' references, clippy, cargo-deny.
    Lint(MissingArgs),
    /// Servers for development and tests: PostgreSQL, pgbouncer, Redis, a Redis Cluster, a Vault-compatible one.
    #[command(subcommand)]
    Services(services::Services),
    /// Everything a merge needs, in the order that fails fastest; stops at the first failure.
    Ci(TestArgs),
}

#[derive(Args, Clone, Copy)]
struct TestArgs {
    /// Also what takes long: 100,000 schedules of the refresh model, the chaos harness, 100 rotations at a real provider.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    missing: MissingArgs,
}

#[derive(Args, Clone, Copy)]
struct MissingArgs {
    /// Pass although something could not be installed (no network, say) and its checks were skipped.
    #[arg(long)]
    allow_missing: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    process::end_with_us()?;
    let workspace = Workspace::find()?;
    let (report, missing) = match cli.chore {
        Chore::Test(args) => (test::run(&workspace, args.full), args.missing),
        Chore::Bench => (bench::run(&workspace), MissingArgs { allow_missing: false }),
        Chore::Generate { check } => (generate::run(&workspace, check), MissingArgs { allow_missing: false }),
        Chore::Lint(missing) => (lint::run(&workspace), missing),
        Chore::Services(chore) => return services::run(&workspace, &chore),
        Chore::Ci(args) => (ci(&workspace, args), args.missing),
    };
    Ok(report.finish(missing.allow_missing))
}

fn ci(workspace: &Workspace, args: TestArgs) -> Report {
    let ok = |report: &Report| report.is_good(args.missing.allow_missing);
    let mut report = lint::run_until_failure(workspace);
    if ok(&report) {
        report.append(generate::run(workspace, true));
    }
    if ok(&report) {
        report.append(test::run(workspace, args.full));
    }
    report
}
