//! The tests: one function per step.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    process, provision,
    report::{Counts, Outcome, Report},
    services::{self, ForTests},
    workspace::{Profile, Workspace},
};

pub(crate) fn run(workspace: &Workspace, full: bool) -> Report {
    let mut report = Report::default();
    let mut servers = None;
    report.step("servers for the tests", || {
        servers = match services::for_tests(workspace)? {
            Ok(started) => Some(started),
            Err(missing) => return Ok(Outcome::Missing(missing.0)),
        };
        Ok(Outcome::one(true))
    });
    report.step("unit and integration tests", || unit_and_integration_tests(workspace, servers.as_ref()));
    let has_servers = servers.is_some();
    drop(servers);
    report.step("documentation's examples", || doc_tests(workspace));
    report.step("a real provider: node-oidc-provider", || real_provider(workspace, if full { 100 } else { 10 }));
    report.step("the commands of docs/compat.md", || compat_tour(workspace));
    report.step("backend sessions, from sign-in to logout", || sessions_tour(workspace, has_servers));
    report.step("chaos: processes killed and frozen", || chaos(workspace, full));
    if full {
        report.step("clients none of us wrote, and the conformance suite of MCP", || real_clients(workspace));
        report.step("in front of the everything server of MCP", || protect(workspace));
        for (name, words) in SEVERAL_INSTANCES {
            report.step(name, || several_instances(workspace, words));
        }
        report.step("the refresh model, 100,000 schedules", || refresh_model_at_length(workspace));
    }
    report
}

/// Without servers, what does not need them; the profiles are in `.config/nextest.toml`.
fn unit_and_integration_tests(workspace: &Workspace, servers: Option<&ForTests>) -> Result<Outcome> {
    let nextest = process::succeeds(&mut workspace.cargo(&["nextest", "--version"]));
    // Benches are not run here: they measure, and `clippy` has compiled them.
    let kinds = ["--workspace", "--lib", "--bins", "--tests", "--examples", "--locked", "--no-fail-fast"];
    let mut command = workspace.cargo(if nextest { &["nextest", "run"] } else { &["test"] });
    command.args(kinds);
    match servers {
        Some(servers) => servers.told_to(&mut command),
        None if nextest => command.args(["--profile", "without-servers"]),
        None => return Ok(Outcome::Missing("without servers, cargo-nextest is needed to leave tests out".to_owned())),
    };
    counted(&mut command)
}

fn doc_tests(workspace: &Workspace) -> Result<Outcome> {
    counted(&mut workspace.cargo(&["test", "--workspace", "--doc", "--locked", "--no-fail-fast"]))
}

/// A connection is made through node-oidc-provider's own login and consent pages and served through `rotations`.
/// The harness starts the provider (`--node`, `--peer`) and ends it.
fn real_provider(workspace: &Workspace, rotations: u32) -> Result<Outcome> {
    let peer = match provision::oidc_provider(workspace) {
        Ok(peer) => peer,
        Err(missing) => return Ok(Outcome::Missing(missing.0)),
    };
    let mut command = harness(workspace, "real-provider")?;
    command.arg("--rotations").arg(rotations.to_string());
    command.arg("--node").arg(peer.node).arg("--peer").arg(peer.script);
    harness_counted("real-provider", &mut command)
}

/// The harness runs them with `curl` against real servers.
fn compat_tour(workspace: &Workspace) -> Result<Outcome> {
    if !process::succeeds(Command::new("curl").arg("--version")) {
        return Ok(Outcome::Missing("curl is not installed".to_owned()));
    }
    harness_counted("compat-tour", &mut harness(workspace, "compat-tour")?)
}

/// They sign their user in at a tokenkeep whose upstream is node-oidc-provider.
fn real_clients(workspace: &Workspace) -> Result<Outcome> {
    let clients = match provision::real_clients(workspace) {
        Ok(clients) => clients,
        Err(missing) => return Ok(Outcome::Missing(missing.0)),
    };
    let mut command = workspace.program("tokenkeep-bench", Profile::Release)?;
    command.arg("real-clients").arg("--node").arg(clients.node).arg("--python").arg(clients.python);
    command.arg("--folder").arg(clients.folder);
    harness_counted("real-clients", &mut command)
}

/// The official client of MCP uses the official server of MCP, with `tokenkeep protect` in between.
fn protect(workspace: &Workspace) -> Result<Outcome> {
    let peers = match provision::real_clients(workspace) {
        Ok(peers) => peers,
        Err(missing) => return Ok(Outcome::Missing(missing.0)),
    };
    let mut command = workspace.program("tokenkeep-bench", Profile::Release)?;
    command.arg("protect").arg("--node").arg(peers.node).arg("--folder").arg(peers.folder);
    harness_counted("protect", &mut command)
}

/// The refresh protocol against 100,000 random schedules of everything that can go wrong; about a minute of one core.
fn refresh_model_at_length(workspace: &Workspace) -> Result<Outcome> {
    // `--workspace`, so that what the other steps have built is used again.
    let mut command = workspace.cargo(&["test", "--workspace", "--test", "refresh_model", "--locked"]);
    counted(command.env("PROPTEST_CASES", "100000"))
}

/// Real processes, killed at every step of a refresh; at length, frozen across its deadlines as well.
fn chaos(workspace: &Workspace, at_length: bool) -> Result<Outcome> {
    let mut command = harness(workspace, "chaos")?;
    if !at_length {
        command.arg("--quick");
    }
    harness_counted("chaos", &mut command)
}

/// Two instances on PostgreSQL and Redis of the harness's own, with a GoTrue-like server behind them; some seconds.
fn sessions_tour(workspace: &Workspace, has_servers: bool) -> Result<Outcome> {
    if !has_servers {
        return Ok(Outcome::Missing("PostgreSQL and Redis are needed".to_owned()));
    }
    harness_counted("sessions-tour", &mut harness(workspace, "sessions-tour")?)
}

/// Several processes on servers of the harness's own, which it kills; a few hundred connections each.
const SEVERAL_INSTANCES: [(&str, &[&str]); 9] = [
    ("a refresh storm on SQLite", &["storm", "--store", "sqlite"]),
    ("a refresh storm on PostgreSQL and Redis", &["storm", "--store", "postgres"]),
    ("a refresh storm on Redis", &["storm", "--store", "redis"]),
    ("chaos on PostgreSQL and Redis", &["chaos-cluster", "--store", "postgres"]),
    ("chaos with a Sentinel failover", &["chaos-cluster", "--store", "redis-sentinel"]),
    ("chaos with a Cluster primary killed", &["chaos-cluster", "--store", "redis-cluster"]),
    ("an instance killed for good", &["killed-for-good"]),
    ("revocation elsewhere", &["revocation"]),
    ("secrets looked for in every server", &["canary"]),
];

fn several_instances(workspace: &Workspace, words: &[&str]) -> Result<Outcome> {
    let mut command = workspace.program("tokenkeep-bench", Profile::Dev)?;
    harness_counted(words[0], command.args(words).arg("--quick"))
}

fn harness(workspace: &Workspace, what: &str) -> Result<Command> {
    let mut command = workspace.program("tokenkeep-bench", Profile::Dev)?;
    command.arg(what);
    Ok(command)
}

fn harness_counted(what: &str, command: &mut Command) -> Result<Outcome> {
    let (succeeded, counts) = process::run_counting(command)?;
    judge_harness(what, succeeded, counts)
}

/// The harness ends with a line `N passed, N failed`. One that says nothing has checked nothing.
fn judge_harness(what: &str, succeeded: bool, counts: Option<Counts>) -> Result<Outcome> {
    match counts {
        None => bail!("`{what}` did not end with `N passed, N failed`"),
        Some(counts) => Ok(judge(succeeded, counts)),
    }
}

fn counted(command: &mut Command) -> Result<Outcome> {
    let (succeeded, counts) = process::run_counting(command)?;
    Ok(judge(succeeded, counts.unwrap_or_default()))
}

/// A runner that fails without a failed test did not get that far: that is one failure.
fn judge(succeeded: bool, mut counts: Counts) -> Outcome {
    if !succeeded && counts.failed == 0 {
        counts.failed = 1;
    }
    Outcome::Ran(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Counts = Counts { passed: 3, failed: 0 };

    #[test]
    fn a_runner_that_breaks_is_a_failure() {
        assert!(matches!(judge(false, THREE), Outcome::Ran(Counts { passed: 3, failed: 1 })));
        assert!(matches!(judge(true, THREE), Outcome::Ran(THREE)));
    }

    #[test]
    fn a_harness_that_checks_nothing_is_a_failure() {
        assert!(judge_harness("a step that is written", true, None).is_err());
        assert!(judge_harness("a step that is written", true, Some(THREE)).is_ok());
    }
}
