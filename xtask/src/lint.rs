//! What must hold before anything is run.

use anyhow::Result;

use crate::{
    arrows, papers, process, provision,
    report::{Outcome, Report},
    workspace::Workspace,
};

type Step = (&'static str, fn(&Workspace) -> Result<Outcome>);

/// The quickest first.
const STEPS: [Step; 5] = [
    ("formatting", formatting),
    ("arrows between crates", arrows::check),
    ("files and tests named in papers", papers::check),
    ("clippy", clippy),
    ("cargo-deny", deny),
];

pub(crate) fn run(workspace: &Workspace) -> Report {
    let mut report = Report::default();
    for (name, step) in STEPS {
        report.step(name, || step(workspace));
    }
    report
}

pub(crate) fn run_until_failure(workspace: &Workspace) -> Report {
    let mut report = Report::default();
    for (name, step) in STEPS {
        report.step(name, || step(workspace));
        if !report.is_good(true) {
            break;
        }
    }
    report
}

fn formatting(workspace: &Workspace) -> Result<Outcome> {
    Ok(Outcome::one(process::run(&mut workspace.cargo(&["fmt", "--all", "--check"]))?))
}

fn clippy(workspace: &Workspace) -> Result<Outcome> {
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
    Ok(Outcome::one(process::run(&mut workspace.cargo(&args))?))
}

fn deny(workspace: &Workspace) -> Result<Outcome> {
    let mut deny = match provision::cargo_deny(workspace) {
        Ok(program) => program,
        Err(missing) => return Ok(Outcome::Missing(missing.0)),
    };
    // No advisories: their database is not a package, and its answer changes while ours does not.
    Ok(Outcome::one(process::run(deny.args(["--locked", "check", "bans", "licenses", "sources"]))?))
}
