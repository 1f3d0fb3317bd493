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
const RUSTY_VAULT: (&str, &str) = ("rusty_vault", "0.2.1");
const OIDC_PROVIDER: (&str, &str) = ("oidc-provider", "9.13.3");
const WORKERS_OAUTH_PROVIDER: (&str, &str) = ("@cloudflare/workers-oauth-provider", "1.2.3");
const DYNAMIC_CLIENT: (&str, &str) = ("mcp-oauth-dynamicclient", "0.2.0");
/// The clients that sign their users in at us, and a server to stand in front of; the scripts that use them are in `bench/peers/clients`.
const REAL_CLIENTS: [(&str, &str); 5] = [
    ("@modelcontextprotocol/sdk", "1.32.2"),
    ("openid-client", "6.8.9"),
    ("oauth4webapi", "3.8.8"),
    ("@modelcontextprotocol/conformance", "0.2.0-alpha.12"),
    ("@modelcontextprotocol/server-everything", "2026.8.31"),
];
const MCP_PYTHON_SDK: (&str, &str) = ("mcp", "2.3.0");
/// What is fetched where there is only a Node that is too old.
const NODE: &str = "node@22";

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

/// The servers that `tokenkeep-services` starts. Debian may start some of them on their usual ports when it installs
/// them; ours have ports of their own.
pub(crate) fn services(workspace: &Workspace) -> Result<(), Missing> {
    let runs = |program: &str| process::succeeds(Command::new(program).arg("--version"));
    let debian = |folder: &str, program: &str| runs(program) || runs(&format!("{folder}/{program}"));
    let packages = [
        ("postgresql", has_postgres() || runs("initdb")),
        ("pgbouncer", debian("/usr/sbin", "pgbouncer")),
        ("redis-server", runs("redis-server")),
        ("openssl", process::succeeds(Command::new("openssl").arg("version"))),
    ];
    let missing: Vec<&str> = packages.iter().filter(|(_, there)| !there).map(|(package, _)| *package).collect();
    if !missing.is_empty() {
        debian_packages(&missing, "servers that stores are tested on")?;
    }
    rusty_vault(workspace)
}

/// Where Debian puts the server; the client's programs alone may be there too.
fn has_postgres() -> bool {
    let mut versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin/initdb").exists())
}

/// A server that speaks HashiCorp Vault's API.
fn rusty_vault(workspace: &Workspace) -> Result<(), Missing> {
    let (name, version) = RUSTY_VAULT;
    let (root, build) = (workspace.cache(name), workspace.cache("rusty_vault-build"));
    let runs = |program: PathBuf| process::succeeds(Command::new(program).arg("--version"));
    if runs(root.join("bin/rvault")) || runs(PathBuf::from("rvault")) {
        return Ok(());
    }
    if !process::succeeds(Command::new("pkg-config").args(["--exists", "openssl"])) {
        debian_packages(&["libssl-dev", "pkg-config"], "rusty_vault is built with them")?;
    }
    println!("installing {name}@{version} into {} (a Vault-compatible server; about three minutes)", root.display());
    let mut install = workspace.cargo(&["install", name, "--version", version, "--locked", "--quiet", "--root"]);
    let installed = process::run(install.arg(&root).env("CARGO_TARGET_DIR", &build)).is_ok_and(|done| done);
    // As large as our own, and of no use any more.
    let _ = std::fs::remove_dir_all(build);
    let by_hand = format!("{name} could not be installed (`cargo install {name} --version {version} --locked`)");
    if installed { Ok(()) } else { Err(Missing(by_hand)) }
}

/// node-oidc-provider, installed, and the script that runs it.
pub(crate) struct OidcProvider {
    pub(crate) node: PathBuf,
    pub(crate) script: PathBuf,
}

/// node-oidc-provider and a Node that runs it.
pub(crate) fn oidc_provider(workspace: &Workspace) -> Result<OidcProvider, Missing> {
    let folder = peers(workspace, "bench/peers", "")?;
    let node = node(&folder, 20, "node-oidc-provider runs on it")?;
    let (name, version) = OIDC_PROVIDER;
    npm_package(&folder, name, version, "the provider that the tests sign in at")?;
    Ok(OidcProvider { node, script: folder.join("oidc-provider.mjs") })
}

/// The servers that the issuing side is measured beside.
pub(crate) struct MeasuredPeers {
    pub(crate) node: PathBuf,
    /// With the scripts that run them.
    pub(crate) folder: PathBuf,
    /// Runs the one in Python, if that could be installed.
    pub(crate) python: Result<PathBuf, Missing>,
}

/// Those servers, and what runs them.
pub(crate) fn measured_peers(workspace: &Workspace) -> Result<MeasuredPeers, Missing> {
    let folder = peers(workspace, "bench/peers/measured", "measured")?;
    let packages = workspace.cache("peers");
    let node = node(&packages, 22, "workers-oauth-provider runs on it")?;
    for (name, version) in [OIDC_PROVIDER, WORKERS_OAUTH_PROVIDER] {
        npm_package(&packages, name, version, "the issuing side is measured beside it")?;
    }
    Ok(MeasuredPeers { node, folder, python: dynamic_client(workspace) })
}

/// A Python that has mcp-oauth-dynamicclient, and a Redis to start for it.
fn dynamic_client(workspace: &Workspace) -> Result<PathBuf, Missing> {
    if !process::succeeds(Command::new("redis-server").arg("--version")) {
        debian_packages(&["redis-server"], "mcp-oauth-dynamicclient needs one")?;
    }
    python_package(workspace, DYNAMIC_CLIENT, "the issuing side is measured beside it")
}

/// A Python of its own that has the package.
fn python_package(workspace: &Workspace, (name, version): (&str, &str), why: &str) -> Result<PathBuf, Missing> {
    let folder = workspace.cache(&format!("python-{name}"));
    let python = folder.join("bin/python");
    let installed = format!("import importlib.metadata as m; assert m.version('{name}') == '{version}'");
    if process::succeeds(Command::new(&python).args(["-c", &installed])) {
        return Ok(python);
    }
    if !process::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        debian_packages(&["python3", "python3-venv"], why)?;
    }
    println!("installing the Python package {name} into {} ({why})", folder.display());
    let done = process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).is_ok_and(|done| done) && {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        process::run(pip.arg(format!("{name}=={version}"))).is_ok_and(|done| done)
    };
    if done { Ok(python) } else { Err(Missing(format!("`pip install {name}=={version}` failed; is there a network?"))) }
}

/// Clients that none of us wrote, and what runs them.
pub(crate) struct RealClients {
    pub(crate) node: PathBuf,
    pub(crate) python: PathBuf,
    /// With the scripts and their packages.
    pub(crate) folder: PathBuf,
}

/// Those clients, and the provider that their users sign in at.
pub(crate) fn real_clients(workspace: &Workspace) -> Result<RealClients, Missing> {
    let why = "clients that sign their users in";
    oidc_provider(workspace)?;
    peers(workspace, "bench/peers/clients", "clients")?;
    let folder = workspace.cache("peers");
    let node = node(&folder, 22, "the conformance suite of MCP runs on it")?;
    for (name, version) in REAL_CLIENTS {
        npm_package(&folder, name, version, why)?;
    }
    if !process::succeeds(Command::new("openssl").arg("version")) {
        debian_packages(&["openssl"], "a client's document is served over TLS")?;
    }
    Ok(RealClients { node, python: python_package(workspace, MCP_PYTHON_SDK, why)?, folder })
}

/// Node looks for modules beside a script and in the folders above, so the scripts of `from` are put `into` (or into
/// a folder in) the folder with the modules.
fn peers(workspace: &Workspace, from: &str, into: &str) -> Result<PathBuf, Missing> {
    let packages = workspace.cache("peers");
    let folder = packages.join(into);
    copy_files(&workspace.path(from), &folder)
        .and_then(|()| write_once(&packages.join("package.json"), "{\"private\": true, \"type\": \"module\"}\n"))
        .map_err(|error| Missing(format!("{} cannot be written: {error}", folder.display())))?;
    Ok(folder)
}

fn copy_files(from: &Path, into: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(into)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), into.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// npm notes in it what is installed, and removes whatever it does not find there.
fn write_once(file: &Path, text: &str) -> std::io::Result<()> {
    if file.exists() { Ok(()) } else { std::fs::write(file, text) }
}

/// A Node that is young enough.
fn node(folder: &Path, oldest: u32, why: &str) -> Result<PathBuf, Missing> {
    if node_version(Path::new("node")).is_none() {
        debian_packages(&["nodejs", "npm"], why)?;
    }
    if node_version(Path::new("node")).is_some_and(|version| version >= oldest) {
        return Ok(PathBuf::from("node"));
    }
    let own = folder.join("node_modules/.bin/node");
    if node_version(&own).is_none_or(|version| version < oldest) {
        println!("the Node on this machine is older than {oldest}");
        npm_install(folder, NODE, why)?;
    }
    Ok(own)
}

/// Its major version; `None` = it cannot be run.
fn node_version(node: &Path) -> Option<u32> {
    let version = process::output_of(Command::new(node).arg("--version")).ok()?;
    let version = String::from_utf8(version).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// What calls to APIs are measured beside. It is started on ports of its own, never as Debian would start it.
pub(crate) fn nginx() -> Result<(), Missing> {
    let there = process::succeeds(Command::new("/usr/sbin/nginx").arg("-v"));
    if there { Ok(()) } else { debian_packages(&["nginx-light"], "calls to APIs are measured beside it") }
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
    // In single-user mode, as it were: servers are installed and not started.
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    install.args(["install", "--yes", "--no-install-recommends", "--quiet=2"]).args(names);
    let update = process::run(Command::new("apt-get").args(["update", "--quiet=2"]));
    let done = update.and_then(|_| process::run(&mut install)).is_ok_and(|done| done);
    if done { Ok(()) } else { Err(Missing(format!("`apt-get install {names_shown}` failed; is there a network?"))) }
}
