//! The papers (ARCHITECTURE.md and its like) name files, and docs/security.md names tests. A name that leads nowhere is a
//! paper that is no longer true.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{report::Outcome, workspace::Workspace};

/// What a path in a paper begins with.
const FOLDERS: [&str; 6] = ["crates/", "xtask/", "bench/", "providers/", "docs/", ".ci/"];

/// The paper that says which test holds us to what.
const SECURITY: &str = "docs/security.md";

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let mut good = true;
    for paper in papers(workspace)? {
        let text = fs::read_to_string(&paper).with_context(|| format!("cannot read {}", paper.display()))?;
        for path in paths_in(&text).filter(|path| !workspace.path(path).exists()) {
            println!("{} names {path}, which is not there", paper.display());
            good = false;
        }
    }
    let security = fs::read_to_string(workspace.path(SECURITY)).with_context(|| format!("cannot read {SECURITY}"))?;
    for test in tests_in(&security) {
        if !test.exists(workspace)? {
            println!("{SECURITY} names the test {}, which is not there", test.name);
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

/// A test as a paper names it: `crate::file::test`, with as many folders before the file as tell it apart.
#[derive(Debug, PartialEq)]
struct Named<'a> {
    name: &'a str,
    package: &'a str,
    file: String,
    function: &'a str,
}

impl Named<'_> {
    fn exists(&self, workspace: &Workspace) -> Result<bool> {
        any_file(&workspace.path("crates").join(self.package), &|path| {
            // A folder's own file is named like the folder.
            let stem = path.with_extension("");
            let stem = if stem.ends_with("mod") { stem.parent().unwrap_or(&stem) } else { &stem };
            Ok(stem.ends_with(&self.file) && is_test(&fs::read_to_string(path)?, self.function))
        })
    }
}

fn tests_in(text: &str) -> impl Iterator<Item = Named<'_>> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter(|span| span.matches("::").count() > 1).filter_map(|name| {
        let (package, rest) = name.split_once("::")?;
        let (file, function) = rest.rsplit_once("::")?;
        (name != "crate::file::test").then(|| Named { name, package, file: file.replace("::", "/"), function })
    })
}

/// Whether `function` stands in `source`, with a test's attribute before it.
fn is_test(source: &str, function: &str) -> bool {
    let found = source.split_once(&format!("fn {function}("));
    let before = found.map(|(before, _)| before.rsplit("\n\n").next().unwrap_or_default());
    before.is_some_and(|before| before.contains("#[test]") || before.contains("#[tokio::test"))
}

/// Whether it holds of any Rust file below `folder`.
fn any_file(folder: &Path, holds: &impl Fn(&Path) -> Result<bool>) -> Result<bool> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(false) };
    for entry in entries {
        let path = entry?.path();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        if if path.is_dir() { any_file(&path, holds)? } else { is_rust && holds(&path)? } {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_code_and_in_links() {
        let text = "Look at `crates/core/src/lib.rs` and [the list](docs/adr/README.md#top), not at crates/ or `get`.";
        assert_eq!(paths_in(text).collect::<Vec<_>>(), ["crates/core/src/lib.rs", "docs/adr/README.md"]);
    }

    #[test]
    fn tests_are_found_by_name_and_only_if_they_are_tests() {
        let text = "| what `crate::file::test` | `server::issuer::codes::a_code`, `store` and `std::fs` |";
        let (name, file) = ("server::issuer::codes::a_code", "issuer/codes".to_owned());
        let found: Vec<_> = tests_in(text).collect();
        assert_eq!(found, [Named { name, package: "server", file, function: "a_code" }]);
        let source = "#[tokio::test]\nasync fn a_code() {}\n\nfn helper() {}\n\n    #[test]\n    fn inner() {}";
        assert!(is_test(source, "a_code") && is_test(source, "inner"));
        assert!(!is_test(source, "helper") && !is_test(source, "code") && !is_test(source, "absent"));
    }
}
