//! The papers (ARCHITECTURE.md and its like) name files. A name that leads nowhere is a paper that is no longer true.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{report::Outcome, workspace::Workspace};

/// What a path in a paper begins with.
const FOLDERS: [&str; 6] = ["crates/", "xtask/", "bench/", "providers/", "docs/", ".ci/"];

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let mut good = true;
    for paper in papers(workspace)? {
        let text = fs::read_to_string(&paper).with_context(|| format!("cannot read {}", paper.display()))?;
        for path in paths_in(&text).filter(|path| !workspace.path(path).exists()) {
            println!("{} names {path}, which is not there", paper.display());
            good = false;
        }
    }
    Ok(Outcome::one(good))
}

/// The papers in the root. (Decisions may name what is still to come.)
fn papers(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut papers = Vec::new();
    for entry in fs::read_dir(workspace.path("")).context("cannot read the workspace's root")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            papers.push(path);
        }
    }
    Ok(papers)
}

/// Paths in `code spans`, and in the addresses of [links](...).
fn paths_in(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.split(['`', '(', ')']);
    spans
        .map(|span| span.split('#').next().unwrap_or_default())
        .filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_code_and_in_links() {
        let text = "Look at `crates/core/src/lib.rs` and [the list](docs/adr/README.md#top), not at crates/ or `get`.";
        assert_eq!(paths_in(text).collect::<Vec<_>>(), ["crates/core/src/lib.rs", "docs/adr/README.md"]);
    }
}
