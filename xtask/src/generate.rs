//! Files that are written by the code they describe, and compared with it on every merge.

use anyhow::{Context, Result};

use crate::{
    process,
    report::{Outcome, Report},
    workspace::Workspace,
};

/// A file and the cargo command that prints it.
struct Generated {
    path: &'static str,
    by: &'static [&'static str],
}

/// Every generated file; add one here, and nowhere else.
const FILES: &[Generated] = &[];

pub(crate) fn run(workspace: &Workspace, check: bool) -> Report {
    let mut report = Report::default();
    report
        .step("generated files", || if FILES.is_empty() { Ok(Outcome::NotWrittenYet) } else { all(workspace, check) });
    report
}

fn all(workspace: &Workspace, check: bool) -> Result<Outcome> {
    let mut good = true;
    for Generated { path, by } in FILES {
        let wanted = process::output_of(&mut workspace.cargo(by))?;
        let file = workspace.path(path);
        if std::fs::read(&file).is_ok_and(|there| there == wanted) {
            continue;
        }
        if check {
            println!("{path} is not what the code says: run `cargo xtask generate`");
            good = false;
        } else {
            std::fs::write(&file, wanted).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{path} written");
        }
    }
    Ok(Outcome::one(good))
}
