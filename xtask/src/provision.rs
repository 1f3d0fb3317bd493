//! What the chores need beside the Rust toolchain: found if it is there, else fetched by package name, and said so.
//!
//! What is not a Debian package goes below the target folder, so that nothing is left on the machine.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process, workspace::Workspace};

const CARGO_DENY: &str = "cargo-deny@0.20.2";
const OIDC_PROVIDER: (&str, &str) = ("oidc-provider", "9.13.3");
/// The oldest that runs it, and what is fetched where there is only an older one.
const NODE: (u32, &str) = (20, "node@22");

/// Something is not there and could not be fetched; why, and what to do.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// cargo-deny, ready to be given its arguments at the workspace's root.
pub(crate) fn cargo_deny(workspace: &Workspace) -> Result<Command, Missing> {
    if process::succeeds(&mut workspace.cargo(&["deny", "--version"])) {
        return Ok(workspace.cargo(&["deny"]));
    }
    let root = workspace.cache("cargo-deny");
    let program = root.join("bin/cargo-deny");
    if !process::succeeds(Command::new(&program).arg("--version")) {
        println!("installing {CARGO_DENY} into {} (bans, licences and sources; about three minutes)", root.display());
        let mut install = workspace.cargo(&["install", CARGO_DENY, "--locked", "--quiet", "--root"]);
        install.arg(&root).env("CARGO_TARGET_DIR", workspace.cache("cargo-deny-build"));
        if !process::run(&mut install).is_ok_and(|done| done) {
            return Err(Missing("cargo-deny could not be installed (`cargo install cargo-deny --locked`)".to_owned()));
        }
    }
    let mut command = Command::new(program);
    command.current_dir(workspace.path(""));
    Ok(command)
}

/// node-oidc-provider, installed, and the script that runs it.
pub(crate) struct OidcProvider {
    pub(crate) node: PathBuf,
    pub(crate) script: PathBuf,
}

/// node-oidc-provider and a Node that runs it.
pub(crate) fn oidc_provider(workspace: &Workspace) -> Result<OidcProvider, Missing> {
    let folder = workspace.cache("peers");
    let script = folder.join("oidc-provider.mjs");
    // Node looks for modules beside the script, so the script stands beside them.
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::copy(workspace.path("bench/peers/oidc-provider.mjs"), &script))
        .and_then(|_| write_once(&folder.join("package.json"), "{\"private\": true, \"type\": \"module\"}\n"))
        .map_err(|error| Missing(format!("{} cannot be written: {error}", folder.display())))?;
    let node = node(&folder)?;
    let (name, version) = OIDC_PROVIDER;
    npm_package(&folder, name, version, "the provider that the tests sign in at")?;
    Ok(OidcProvider { node, script })
}

/// npm notes in it what is installed, and removes whatever it does not find there.
fn write_once(file: &Path, text: &str) -> std::io::Result<()> {
    if file.exists() { Ok(()) } else { std::fs::write(file, text) }
}

/// A Node that is young enough.
fn node(folder: &Path) -> Result<PathBuf, Missing> {
    if node_version(Path::new("node")).is_none() {
        debian_packages(&["nodejs", "npm"], "node-oidc-provider runs on it")?;
    }
    let (oldest, package) = NODE;
    if node_version(Path::new("node")).is_some_and(|version| version >= oldest) {
        return Ok(PathBuf::from("node"));
    }
    let own = folder.join("node_modules/.bin/node");
    if node_version(&own).is_none_or(|version| version < oldest) {
        println!("the Node on this machine is older than {oldest}");
        npm_install(folder, package, "node-oidc-provider runs on it")?;
    }
    Ok(own)
}

/// Its major version; `None` = it cannot be run.
fn node_version(node: &Path) -> Option<u32> {
    let version = process::output_of(Command::new(node).arg("--version")).ok()?;
    let version = String::from_utf8(version).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn npm_package(folder: &Path, name: &str, version: &str, why: &str) -> Result<(), Missing> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        version: String,
    }
    let manifest = std::fs::read(folder.join("node_modules").join(name).join("package.json")).ok();
    let manifest = manifest.and_then(|json| serde_json::from_slice::<Manifest>(&json).ok());
    if manifest.is_some_and(|manifest| manifest.version == version) {
        return Ok(());
    }
    npm_install(folder, &format!("{name}@{version}"), why)
}

fn npm_install(folder: &Path, package: &str, why: &str) -> Result<(), Missing> {
    println!("installing the Node package {package} into {} ({why})", folder.display());
    let mut npm = Command::new("npm");
    npm.current_dir(folder).args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]);
    match process::run(npm.arg(package)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Missing(format!("`npm install {package}` failed; is there a network?"))),
    }
}

fn debian_packages(names: &[&str], why: &str) -> Result<(), Missing> {
    let names_shown = names.join(" ");
    let by_hand = format!("install {names_shown} ({why})");
    if !process::succeeds(Command::new("apt-get").arg("--version")) {
        return Err(Missing(format!("{by_hand}; this is not a Debian, so it cannot be done for you")));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Missing(format!("{by_hand}: `apt-get install {names_shown}` as root")));
    }
    println!("installing the Debian packages {names_shown} ({why})");
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "--yes", "--no-install-recommends", "--quiet=2"]).args(names);
    let update = process::run(Command::new("apt-get").args(["update", "--quiet=2"]));
    let done = update.and_then(|_| process::run(&mut install)).is_ok_and(|done| done);
    if done { Ok(()) } else { Err(Missing(format!("`apt-get install {names_shown}` failed; is there a network?"))) }
}
