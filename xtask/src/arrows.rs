//! The arrows between crates (ARCHITECTURE.md, "The crates"): an arrow that is not drawn here needs an ADR first.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    report::Outcome,
    workspace::{Package, Workspace},
};

/// A crate, and the crates of ours it may use.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room { name: "tokenkeep-oauth", may_use: &[] },
    Room { name: "tokenkeep-core", may_use: &["tokenkeep-oauth"] },
    Room { name: "tokenkeep-store", may_use: &["tokenkeep-core"] },
    Room { name: "tokenkeep-engine", may_use: &["tokenkeep-core", "tokenkeep-oauth"] },
    Room { name: "tokenkeep-server", may_use: &["tokenkeep-engine", "tokenkeep-core", "tokenkeep-oauth"] },
    Room {
        name: "tokenkeep",
        may_use: &["tokenkeep-server", "tokenkeep-engine", "tokenkeep-store", "tokenkeep-core", "tokenkeep-oauth"],
    },
    // Beside the house: nothing that is shipped uses these.
    Room { name: "tokenkeep-testkit", may_use: &["tokenkeep-core", "tokenkeep-oauth"] },
    Room { name: "tokenkeep-services", may_use: &[] },
    Room {
        name: "tokenkeep-bench",
        may_use: &[
            "tokenkeep-services",
            "tokenkeep-testkit",
            "tokenkeep-server",
            "tokenkeep-engine",
            "tokenkeep-store",
            "tokenkeep-core",
            "tokenkeep-oauth",
        ],
    },
    Room { name: "xtask", may_use: &["tokenkeep-services"] },
];

/// What tests may use anywhere: a fake provider, a store to stand on, and the servers it stands on.
const FOR_TESTS: &[&str] = &["tokenkeep-testkit", "tokenkeep-store", "tokenkeep-services"];

/// A library that only some crates may know, and why.
struct Kept {
    library: &'static str,
    to: &'static [&'static str],
    because: &'static str,
}

const KEPT: &[Kept] = &[
    Kept { library: "sqlx", to: &["tokenkeep-store", "tokenkeep-bench"], because: "only stores know databases" },
    Kept { library: "redis", to: &["tokenkeep-store", "tokenkeep-bench"], because: "only stores know databases" },
    Kept { library: "reqwest", to: &["tokenkeep-store", "tokenkeep-bench"], because: "it is for Vault alone" },
    Kept {
        library: "axum",
        to: &["tokenkeep-server", "tokenkeep-testkit", "tokenkeep-bench"],
        because: "only the server knows axum (the harness measures a bare one)",
    },
    Kept { library: "tower-http", to: &["tokenkeep-server"], because: "only the server answers HTTP" },
    Kept { library: "utoipa", to: &["tokenkeep-server"], because: "only the server describes HTTP" },
    Kept {
        library: "hyper",
        to: &["tokenkeep-engine", "tokenkeep-server", "tokenkeep", "tokenkeep-bench", "tokenkeep-testkit"],
        because: "HTTP is spoken by engine::transport, the server and its clients",
    },
    Kept { library: "clap", to: &["tokenkeep", "tokenkeep-bench", "xtask"], because: "only programs read arguments" },
    Kept { library: "figment", to: &["tokenkeep"], because: "only the cli reads configuration and the environment" },
    Kept {
        library: "anyhow",
        to: &["tokenkeep", "tokenkeep-bench", "xtask"],
        because: "libraries have errors of their own",
    },
    Kept { library: "async-trait", to: &[], because: "ports return BoxFuture" },
];

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let mut broken = broken(&workspace.packages);
    broken.extend(hyper_outside_transport(&workspace.path("crates/engine/src"))?);
    for line in &broken {
        println!("{line}");
    }
    if !broken.is_empty() {
        println!("The map is in xtask/src/arrows.rs and ARCHITECTURE.md; a new arrow needs an ADR.");
    }
    Ok(Outcome::one(broken.is_empty()))
}

/// Every arrow that is not on the map.
fn broken(packages: &[Package]) -> Vec<String> {
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let mut broken = Vec::new();
    for package in packages {
        let name = &package.name;
        let Some(room) = ROOMS.iter().find(|room| room.name == *name) else {
            broken.push(format!("{name} is not on the map"));
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let in_tests = dependency.kind.as_deref() == Some("dev");
            let tests_may = in_tests && FOR_TESTS.contains(&used);
            if ours(used) && !room.may_use.contains(&used) && !tests_may && used != name {
                let how = if in_tests { "in its tests " } else { "" };
                broken.push(format!("{name} {how}uses {used}: no such arrow"));
            }
            if let Some(kept) = KEPT.iter().find(|kept| kept.library == used)
                && !kept.to.contains(&name.as_str())
            {
                broken.push(format!("{name} uses {used}: {}", kept.because));
            }
        }
    }
    broken
}

/// The engine speaks HTTP in one module only.
fn hyper_outside_transport(engine: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let mut folders = vec![engine.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && path != engine.join("transport") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && names_hyper(&fs::read_to_string(&path)?) {
                broken.push(format!("{} names hyper: only engine::transport may", path.display()));
            }
        }
    }
    Ok(broken)
}

fn names_hyper(source: &str) -> bool {
    source.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("hyper::") || code.contains("hyper_util::")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency =
            |(name, kind): &(&str, Option<&str>)| Dependency { name: (*name).into(), kind: kind.map(Into::into) };
        Package { name: name.into(), dependencies: dependencies.iter().map(dependency).collect() }
    }

    /// The house, with `dependency` added to `name`.
    fn with(name: &str, dependency: (&str, Option<&str>)) -> Vec<String> {
        let house = ROOMS.iter().map(|room| {
            let mut all: Vec<_> = room.may_use.iter().map(|used| (*used, None)).collect();
            all.extend((room.name == name).then_some(dependency));
            package(room.name, &all)
        });
        broken(&house.collect::<Vec<_>>())
    }

    #[test]
    fn the_house_as_drawn_stands() {
        assert_eq!(with("", ("", None)), Vec::<String>::new());
    }

    #[test]
    fn tests_may_use_the_testkit() {
        assert_eq!(with("tokenkeep-engine", ("tokenkeep-testkit", Some("dev"))), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_are_not_drawn_are_found() {
        for (name, used, kind) in [
            ("tokenkeep-engine", "tokenkeep-store", None),
            ("tokenkeep-core", "tokenkeep-engine", None),
            ("tokenkeep-core", "tokenkeep-engine", Some("dev")),
            ("tokenkeep-server", "tokenkeep-testkit", None),
            ("tokenkeep-server", "tokenkeep-store", Some("build")),
            ("tokenkeep-engine", "sqlx", None),
            ("tokenkeep-engine", "axum", Some("dev")),
            ("tokenkeep-core", "reqwest", None),
        ] {
            let found = with(name, (used, kind));
            assert!(found.len() == 1 && found[0].contains(name) && found[0].contains(used), "{found:?}");
        }
    }

    #[test]
    fn a_crate_nobody_placed_is_found() {
        assert_eq!(broken(&[package("tokenkeep-mcp", &[])]), ["tokenkeep-mcp is not on the map"]);
    }

    #[test]
    fn hyper_in_prose_is_no_use_of_it() {
        assert!(names_hyper("use hyper::body::Incoming;"));
        assert!(!names_hyper("//! Built on [`hyper::client`]."));
    }
}
