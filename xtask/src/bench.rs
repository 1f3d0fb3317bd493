//! The measurements: one function per step.

use anyhow::Result;

use crate::{
    process, provision,
    report::{Outcome, Report},
    workspace::{Profile, Workspace},
};

pub(crate) fn run(workspace: &Workspace) -> Report {
    let mut report = Report::default();
    report.step("engine calls (criterion)", || engine_calls(workspace));
    report.step("token endpoint beside the ceiling", || token_endpoint(workspace));
    report.step("tokens issued and checked, beside others", || issuing(workspace));
    report.step("calls to APIs, beside nginx", || api_calls(workspace));
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

/// Without nginx the rest is measured, and the step is not passed.
fn api_calls(workspace: &Workspace) -> Result<Outcome> {
    let missing = provision::nginx().err();
    let mut harness = workspace.program("tokenkeep-bench", Profile::Release)?;
    let succeeded = process::run(harness.arg("proxy"))?;
    Ok(match missing {
        Some(why) if succeeded => Outcome::Missing(why.0),
        _ => Outcome::one(succeeded),
    })
}

/// Beside node-oidc-provider, workers-oauth-provider and mcp-oauth-dynamicclient. Whatever could not be installed is left
/// out, and the step is not passed.
fn issuing(workspace: &Workspace) -> Result<Outcome> {
    let mut harness = workspace.program("tokenkeep-bench", Profile::Release)?;
    harness.arg("issuing");
    let mut missing = None;
    match provision::measured_peers(workspace) {
        Ok(peers) => {
            harness.arg("--folder").arg(peers.folder).arg("--node").arg(peers.node);
            match peers.python {
                Ok(python) => drop(harness.arg("--python").arg(python)),
                Err(why) => missing = Some(why.0),
            }
        }
        Err(why) => missing = Some(why.0),
    }
    let succeeded = process::run(&mut harness)?;
    Ok(match missing {
        Some(why) if succeeded => Outcome::Missing(why),
        _ => Outcome::one(succeeded),
    })
}
