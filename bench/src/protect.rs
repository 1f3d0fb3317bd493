//! `tokenkeep protect` as somebody runs it who wrote an MCP server: in front of the official "everything" server, which
//! has no login, and of one that guards itself; the official client signs its user in at a certified server.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use hyper::{Method, StatusCode};
use tokenkeep_services::free_port;
use url::Url;

use crate::{
    http,
    peer::{Peer, Process},
    real_clients::sign_in,
    report::Report,
    service::{ADMIN_KEY, binary, end, listening},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The program that runs servers and clients.
    #[arg(long, default_value = "node")]
    node: PathBuf,
    /// A folder with the scripts of `bench/peers`, those of its `clients` below, and the packages that they import.
    #[arg(long)]
    folder: PathBuf,
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
}

const SECRET: &str = "a-secret-of-the-harness-0123456789";
/// What `protect` calls an integration that it is given as a URL.
const INTEGRATION: &str = "oidc";

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let folder = std::fs::canonicalize(&arguments.folder).context("the folder of the clients is not there")?;
    let arguments = Arguments { folder, ..arguments };
    let everything = Ground::start(&arguments, "everything.mjs", &[])?;
    report.note("a request without a token", everything.without_a_token().await);
    report.note("the everything server of MCP", everything.client(&arguments, "everything").await);
    drop(everything);
    let guarded = Ground::start(&arguments, "mcp-guarded.mjs", &["--forward-token"])?;
    report.note("a server that is handed tokens", guarded.client(&arguments, "guarded").await);
    report.finish("protect")
}

/// A server, with tokenkeep in front of it.
struct Ground {
    url: Url,
    _provider: Peer,
    _behind: Peer,
    _protect: Protect,
    _dir: tempfile::TempDir,
}

/// Ends with the harness.
struct Protect(Child);

impl Drop for Protect {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

impl Ground {
    fn start(arguments: &Arguments, server: &str, flags: &[&str]) -> anyhow::Result<Self> {
        // Whoever must know of the others before it starts gets an address beforehand.
        let (own, port) = (free_port(), free_port());
        let node = |script: &str| {
            let mut command = Command::new(&arguments.node);
            command.arg(arguments.folder.join(script));
            command
        };
        let provider = Peer::start(
            node("oidc-provider.mjs")
                .env("PORT", "0")
                .env("CLIENT_ID", "tokenkeep")
                .env("CLIENT_SECRET", SECRET)
                .env("REDIRECT_URI", format!("http://localhost:{own}/oauth/callback")),
        )?;
        let issuer = provider.said("issuer")?.to_owned();
        let behind =
            Peer::start(node(&format!("clients/{server}")).env("PORT", port.to_string()).env("PROVIDER", &issuer))?;
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(binary(arguments.tokenkeep.as_ref())?);
        command
            .current_dir(dir.path())
            .args(["protect", "--upstream", behind.said("url")?, "--provider", &issuer])
            .args(["--provider-scope", "openid email profile offline_access", "--data-dir", "data"])
            .args(["--listen", &format!("127.0.0.1:{own}")])
            .args(flags)
            .env("OIDC_CLIENT_ID", "tokenkeep")
            .env("OIDC_CLIENT_SECRET", SECRET)
            .env("TOKENKEEP_ADMIN_KEY", ADMIN_KEY)
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("BENCH_LOGS").is_some() { Stdio::inherit() } else { Stdio::null() });
        let mut protect = Protect(command.spawn().context("tokenkeep protect cannot be started")?);
        listening(&mut protect.0)?;
        let url = format!("http://localhost:{own}/mcp").parse()?;
        Ok(Self { url, _provider: provider, _behind: behind, _protect: protect, _dir: dir })
    }

    /// It is told where to get one, and what is there leads to somebody who has them.
    async fn without_a_token(&self) -> anyhow::Result<String> {
        let answer = http::send(Method::POST, &self.url, &[], Vec::new()).await?;
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "it got {}", answer.status);
        let challenge = answer.headers.get("www-authenticate").context("no challenge")?.to_str()?;
        let metadata = challenge.split("resource_metadata=\"").nth(1).and_then(|rest| rest.split('"').next());
        let metadata: Url = metadata.with_context(|| format!("no metadata in {challenge}"))?.parse()?;
        let described = http::send(Method::GET, &metadata, &[], Vec::new()).await?.json()?;
        ensure!(described["resource"] == self.url.as_str(), "{metadata} describes {described}");
        let issuer = described["authorization_servers"][0].as_str().context("no authorization server")?;
        let issuer: Url = format!("{issuer}/.well-known/oauth-authorization-server").parse()?;
        let server = http::send(Method::GET, &issuer, &[], Vec::new()).await?.json()?;
        ensure!(server["registration_endpoint"].is_string(), "nobody can register: {server}");
        Ok(format!("401, {metadata}, {issuer}"))
    }

    /// Runs the client to its end, and does what its user would.
    async fn client(&self, arguments: &Arguments, works_with: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&arguments.node);
        command.arg(arguments.folder.join("clients/mcp-protected.mjs"));
        command.env("MCP_URL", self.url.as_str()).env("WORKS_WITH", works_with);
        let mut client = Process::start(&mut command)?;
        let mut steps = Vec::new();
        while let Some(said) = client.next()? {
            match said["event"].as_str() {
                Some("open") => sign_in(said["url"].as_str().context("no url")?.parse()?, INTEGRATION).await?,
                Some("step") => steps.push(said["name"].as_str().unwrap_or_default().to_owned()),
                Some("done") => return Ok(steps.join(", ")),
                _ => {}
            }
        }
        bail!("it gave up after: {}", if steps.is_empty() { "nothing".to_owned() } else { steps.join(", ") })
    }
}
