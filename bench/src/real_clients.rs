//! Clients that none of us wrote sign their user in at tokenkeep: discovery, registration or a metadata document, our
//! consent page, the pages of a certified server upstream, tokens, refresh, step-up, revocation.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use hyper::StatusCode;
use tokenkeep_services::free_port;
use url::Url;

use crate::{
    browser::Browser,
    peer::{Peer, Process},
    report::Report,
    service::{Service, binary},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The program that runs the clients.
    #[arg(long, default_value = "node")]
    node: PathBuf,
    /// The program that runs those in Python; without it they are left out.
    #[arg(long)]
    python: Option<PathBuf>,
    /// A folder with the scripts of `bench/peers`, those of its `clients` below, and the packages that they import.
    #[arg(long)]
    folder: PathBuf,
    /// Only the client of this name.
    #[arg(long)]
    only: Option<String>,
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
}

/// Where people sign in.
const UPSTREAM: &str = "real";
/// The resource's own client.
const EXCHANGER: &str = "mcp-server";
const SECRET: &str = "a-secret-of-the-harness-0123456789";
/// The conformance suite calls back here.
const CONFORMANCE_CALLBACK: &str = "http://127.0.0.1:3199/callback";

/// Its name, its script, what it is told beside the common.
type Client = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CLIENTS: [Client; 5] = [
    ("the TypeScript SDK of MCP, registered", "mcp-sdk.mjs", &[]),
    ("the TypeScript SDK of MCP, with a document", "mcp-sdk.mjs", &[("CLIENT_METADATA_URL", "DOCUMENT")]),
    ("the Python SDK of MCP", "mcp_sdk.py", &[]),
    ("openid-client", "openid-client.mjs", &[]),
    ("oauth4webapi", "oauth4webapi.mjs", &[]),
];

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let ground = Ground::start(&arguments)?;
    for (name, script, told) in CLIENTS {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        report.note(name, ground.client(&arguments, script, told).await);
    }
    if arguments.only.is_none() || arguments.only.as_deref() == Some("conformance") {
        report.note("the conformance suite of MCP", ground.conformance(&arguments).await);
    }
    report.finish("the clients")
}

/// Everything that a client meets.
struct Ground {
    folder: PathBuf,
    issuer: String,
    resource: String,
    document: String,
    upstream: String,
    _upstream: Peer,
    _documents: Peer,
    _server: Peer,
    _service: Service,
    _certificates: tempfile::TempDir,
}

impl Ground {
    fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let folder = std::fs::canonicalize(&arguments.folder).context("the folder of the clients is not there")?;
        // Whoever must know of the others before it starts gets an address beforehand.
        let (own, server) = (free_port(), free_port());
        let issuer = format!("http://localhost:{own}");
        let node = |script: &str| {
            let mut command = Command::new(&arguments.node);
            command.arg(folder.join(script));
            command
        };
        let upstream = Peer::start(
            node("oidc-provider.mjs")
                .env("PORT", "0")
                .env("CLIENT_ID", "tokenkeep")
                .env("CLIENT_SECRET", SECRET)
                .env("REDIRECT_URI", format!("{issuer}/oauth/callback")),
        )?;
        let certificates = tempfile::tempdir()?;
        let documents = Peer::start(node("clients/client-document.mjs").env("FOLDER", certificates.path()))?;
        let resource = format!("http://127.0.0.1:{server}/mcp");
        let config = format!(
            "[server]\npublic_url = \"{issuer}\"\n[transport]\nextra_ca_file = \"{authority}\"\n\
             [issuer]\nurl = \"{issuer}\"\ndocument_hosts = [\"localhost\"]\n\
             [[issuer.resource]]\nurl = \"{resource}\"\nname = \"The peer's tools\"\n\
             scopes = [\"mcp:read\", \"mcp:write\"]\nexchangers = [\"{EXCHANGER}\"]\n\
             [[integration]]\nid = \"{UPSTREAM}\"\nissuer = \"{upstream}\"\nclient_id = \"tokenkeep\"\n\
             client_secret = \"{SECRET}\"\nscope = \"openid email profile offline_access\"\n\
             [[client]]\nclient_id = \"backend\"\nclient_secret = \"{SECRET}\"\nauth_method = \"client_secret_post\"\n\
             grant_types = [\"client_credentials\"]\n\
             [[client]]\nclient_id = \"{EXCHANGER}\"\nname = \"The peer's server\"\nclient_secret = \"{SECRET}\"\n\
             grant_types = [\"urn:ietf:params:oauth:grant-type:token-exchange\"]\n\
             [[client]]\nclient_id = \"conformance\"\nauth_method = \"none\"\n\
             grant_types = [\"authorization_code\", \"refresh_token\"]\nredirect_uris = [\"{CONFORMANCE_CALLBACK}\"]\n",
            authority = documents.said("authority")?,
            upstream = upstream.said("issuer")?,
        );
        let service =
            Service::start_at(&binary(arguments.tokenkeep.as_ref())?, &config, None, &format!("127.0.0.1:{own}"))?;
        let mcp = Peer::start(node("clients/mcp-server.mjs").env("ISSUER", &issuer).env("PORT", server.to_string()))?;
        Ok(Self {
            folder,
            issuer,
            resource,
            document: documents.said("url")?.to_owned(),
            upstream: upstream.said("issuer")?.to_owned(),
            _upstream: upstream,
            _documents: documents,
            _server: mcp,
            _service: service,
            _certificates: certificates,
        })
    }

    /// Runs a client to its end, and does what its user would.
    async fn client(&self, arguments: &Arguments, script: &str, told: &[(&str, &str)]) -> anyhow::Result<String> {
        let is_python = Path::new(script).extension().is_some_and(|extension| extension == "py");
        let program = if is_python {
            arguments.python.as_ref().context("no Python was named (--python)")?
        } else {
            &arguments.node
        };
        let mut command = Command::new(program);
        command.arg(self.folder.join("clients").join(script));
        command.env("ISSUER", &self.issuer).env("RESOURCE", &self.resource).env("MCP_URL", &self.resource);
        command.env("CLIENT_ID", "backend").env("CLIENT_SECRET", SECRET);
        command.env("UPSTREAM", &self.upstream).env("AUDIENCE", UPSTREAM).env("EXCHANGER", EXCHANGER);
        for (name, value) in told {
            command.env(name, if *value == "DOCUMENT" { &self.document } else { *value });
        }
        let mut client = Process::start(&mut command)?;
        let mut steps = Vec::new();
        while let Some(said) = client.next()? {
            match said["event"].as_str() {
                Some("open") => sign_in(said["url"].as_str().context("no url")?.parse()?, UPSTREAM).await?,
                Some("step") => steps.push(said["name"].as_str().unwrap_or_default().to_owned()),
                Some("done") => {
                    ensure!(!steps.is_empty(), "it did nothing");
                    return Ok(steps.join(", "));
                }
                _ => {}
            }
        }
        bail!("it gave up after: {}", if steps.is_empty() { "nothing".to_owned() } else { steps.join(", ") })
    }

    /// Its scenarios for authorization servers. Where a server takes public clients, the suite is one, secret or not, so
    /// it is configured as one. The page that the user is to open stands in what it prints.
    async fn conformance(&self, arguments: &Arguments) -> anyhow::Result<String> {
        let mut command = Command::new(&arguments.node);
        command.arg(self.folder.join("node_modules/.bin/conformance")).arg("authorization");
        command.args(["--url", &self.issuer, "--client-id", "conformance", "--client-secret", SECRET]);
        command.args(["--resource", &self.resource, "-p", "3199"]);
        let mut suite = Process::start(&mut command)?;
        let mut said = String::new();
        while let Some(line) = suite.line()? {
            if let Some(at) = line.find(&format!("{}/authorize?", self.issuer)) {
                let url = line[at..].split(|c: char| c.is_whitespace() || c == '"' || c == '\u{1b}').next();
                sign_in(url.unwrap_or_default().parse()?, UPSTREAM).await?;
            }
            said.push_str(&line);
            said.push('\n');
        }
        let status = suite.wait()?;
        ensure!(status.success(), "it failed:\n{said}");
        let troubled = said.lines().any(|line| line.contains("WARNING") || line.contains("FAILURE"));
        ensure!(!troubled, "it is not content:\n{said}");
        let summary: Vec<&str> = said.lines().filter(|line| line.contains("assed")).collect();
        ensure!(!summary.is_empty(), "it checked nothing:\n{said}");
        Ok(summary.join("; "))
    }
}

/// The person's part: consents on our page, signs in and consents at `upstream`, and is brought back to the client.
pub async fn sign_in(page: Url, upstream: &str) -> anyhow::Result<()> {
    let mut browser = Browser::default();
    let consent = browser.open(page).await?;
    ensure!(
        consent.answer.status == StatusCode::OK,
        "our page {}: {} {}",
        consent.url,
        consent.answer.status,
        consent.answer.text()
    );
    let login = browser.submit(consent.form()?, &[("decision", "approve"), ("upstream", upstream)]).await?;
    ensure!(login.answer.text().contains("password"), "no login page at {}: {}", login.url, login.answer.text());
    let asked = browser.submit(login.form()?, &[("login", "alice"), ("password", "secret")]).await?;
    let back = browser.submit(asked.form()?, &[]).await?;
    ensure!(back.answer.status.is_success(), "it ended at {}: {} {}", back.url, back.answer.status, back.answer.text());
    Ok(())
}
