//! Files that are written by the code they describe, and compared with it on every merge.

use std::fs;

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
const FILES: &[Generated] = &[
    Generated {
        path: "docs/openapi.json",
        by: &["run", "--quiet", "--locked", "--package", "tokenkeep-server", "--example", "openapi"],
    },
    Generated {
        path: "tokenkeep.example.toml",
        by: &["run", "--quiet", "--locked", "--package", "tokenkeep", "--", "config", "example"],
    },
];

pub(crate) fn run(workspace: &Workspace, check: bool) -> Report {
    let mut report = Report::default();
    report.step("generated files", || all(workspace, check));
    report
}

fn all(workspace: &Workspace, check: bool) -> Result<Outcome> {
    let mut good = true;
    for Generated { path, by } in FILES {
        let wanted = process::output_of(&mut workspace.cargo(by))?;
        let file = workspace.path(path);
        match decide(fs::read(&file).ok().as_deref(), &wanted, check) {
            Decision::Leave => {}
            Decision::Complain => {
                println!("{path} is not what the code says: run `cargo xtask generate`");
                good = false;
            }
            Decision::Write => {
                fs::write(&file, wanted).with_context(|| format!("cannot write {}", file.display()))?;
                println!("{path} written");
            }
        }
    }
    Ok(Outcome::one(good))
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Leave,
    Complain,
    Write,
}

/// What to do about a file that is `there`, or is not.
fn decide(there: Option<&[u8]>, wanted: &[u8], check: bool) -> Decision {
    match there {
        Some(there) if there == wanted => Decision::Leave,
        _ if check => Decision::Complain,
        _ => Decision::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_writes_nothing() {
        assert_eq!(decide(Some(b"new"), b"new", true), Decision::Leave);
        assert_eq!(decide(Some(b"old"), b"new", true), Decision::Complain);
        assert_eq!(decide(None, b"new", true), Decision::Complain);
    }

    #[test]
    fn only_what_differs_is_written() {
        assert_eq!(decide(Some(b"new"), b"new", false), Decision::Leave);
        assert_eq!(decide(Some(b"old"), b"new", false), Decision::Write);
        assert_eq!(decide(None, b"new", false), Decision::Write);
    }
}
