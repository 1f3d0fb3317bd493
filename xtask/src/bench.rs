//! The measurements: one function per step.

use anyhow::Result;

use crate::{
    process,
    report::{Outcome, Report},
    workspace::{Profile, Workspace},
};

pub(crate) fn run(workspace: &Workspace) -> Report {
    let mut report = Report::default();
    report.step("engine calls (criterion)", || engine_calls(workspace));
    report.step("token endpoint beside the ceiling", || token_endpoint(workspace));
    report
}

fn engine_calls(workspace: &Workspace) -> Result<Outcome> {
    Ok(Outcome::one(process::run(&mut workspace.cargo(&["bench", "--package", "tokenkeep-engine", "--locked"]))?))
}

/// The harness runs both sides on the same pinned core and prints the ratio.
fn token_endpoint(workspace: &Workspace) -> Result<Outcome> {
    let mut harness = workspace.program("tokenkeep-bench", Profile::Release)?;
    Ok(Outcome::one(process::run(harness.arg("token-endpoint"))?))
}
