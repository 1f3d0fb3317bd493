//! The workspace, as cargo sees it.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process;

/// What we read of `cargo metadata`.
#[derive(Deserialize)]
pub(crate) struct Workspace {
    /// The crates of the workspace.
    pub(crate) packages: Vec<Package>,
    #[serde(rename = "workspace_root")]
    root: PathBuf,
    #[serde(rename = "target_directory")]
    target: PathBuf,
}

/// One crate of the workspace.
#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// What a crate's manifest says it needs.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` = an ordinary dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// How programs are built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .output()
            .context("cannot run `cargo metadata`")?;
        ensure!(output.status.success(), "`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("`cargo metadata` answered something unexpected")
    }

    /// A path below the workspace's root.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A folder below the target folder for what chores fetch; survives until `cargo clean`.
    pub(crate) fn cache(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(name)
    }

    /// A path below the target folder.
    pub(crate) fn target(&self, relative: &str) -> PathBuf {
        self.target.join(relative)
    }

    /// Builds every program and answers the one called `name`; all of them, because the harness starts the others.
    pub(crate) fn program(&self, name: &str, profile: Profile) -> Result<Command> {
        let mut build = self.cargo(&["build", "--workspace", "--bins", "--locked"]);
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => {
                build.arg("--release");
                "release"
            }
        };
        ensure!(process::run(&mut build)?, "the programs cannot be built");
        let mut command = Command::new(self.target.join(folder).join(name));
        command.current_dir(&self.root);
        Ok(command)
    }

    /// A cargo command at the root.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root).args(args);
        command
    }
}
