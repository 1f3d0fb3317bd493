//! A connection of a certified server, made through its real login and consent pages, served through many rotations
//! while it is read all the time.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokenkeep_services::free_port;
use url::Url;

use crate::{
    browser::Browser,
    http::api,
    service::{Service, binary, end},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The program that runs the server.
    #[arg(long, default_value = "node")]
    node: PathBuf,
    /// The server: `bench/peers/oidc-provider.mjs`, in a folder in which `oidc-provider` is installed.
    #[arg(long)]
    peer: PathBuf,
    /// How many rotations.
    #[arg(long, default_value_t = 100)]
    rotations: u64,
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
}

const PROVIDER: &str = "real";

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // The service's address must be known to both sides before either starts.
    let port = free_port();
    let public = Url::parse(&format!("http://localhost:{port}/"))?;
    let peer = Peer::start(&arguments, &public.join("oauth/callback")?)?;
    let config = format!(
        "[server]\npublic_url = \"{public}\"\n\n[[integration]]\nid = \"{PROVIDER}\"\nissuer = \"{}\"\n\
         client_id = \"tokenkeep\"\nclient_secret = \"{}\"\nscope = \"openid offline_access\"\n",
        peer.issuer, peer.secret
    );
    let service =
        Service::start_at(&binary(arguments.tokenkeep.as_ref())?, &config, None, &format!("127.0.0.1:{port}"))?;
    let base = Url::parse(&format!("http://{}/", service.addr))?;

    connect(&base).await.context("connecting")?;
    println!("connected through the provider's own login and consent pages");
    let began = Instant::now();
    let reads = Arc::new(Reads::default());
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(read_for_ever(base.clone(), reads.clone()))).collect();
    let reported = rotate(&base, &peer, arguments.rotations).await?;
    reads.enough.store(true, SeqCst);
    for reader in readers {
        reader.await??;
    }
    let (spends, twice) = peer.spends();
    println!(
        "{spends} rotations in {:.0} s ({reported} of them reported with if_generation, the rest by expiry of one-second tokens)",
        began.elapsed().as_secs_f64()
    );
    println!("{} reads, {} failed", reads.good.load(SeqCst), reads.failed.load(SeqCst));
    println!("refresh tokens that the provider saw twice: {}", twice.len());
    ensure!(spends >= arguments.rotations, "only {spends} rotations");
    ensure!(reads.failed.load(SeqCst) == 0, "reads failed; the last said: {:?}", reads.last_failure.lock());
    ensure!(twice.is_empty(), "a refresh token was presented twice");
    println!("1 passed, 0 failed");
    Ok(())
}

/// The person's part: opens the link, signs in, consents, comes back, confirms.
async fn connect(base: &Url) -> anyhow::Result<()> {
    let body = json!({ "provider": PROVIDER, "tenant": "_default", "subject": "alice", "confirm": false });
    let started = api(Method::POST, base, "/v1/connect", Some(&body)).await?;
    ensure!(started.status.is_success(), "POST /v1/connect: {} {}", started.status, started.text());
    let link = started.json()?["authorize_url"].as_str().context("no authorize_url")?.parse::<Url>()?;
    let mut browser = Browser::default();
    let page = browser.open(link).await?;
    ensure!(page.answer.status == StatusCode::OK, "our page: {} {}", page.answer.status, page.answer.text());
    let login = browser.submit(page.form()?, &[]).await?;
    ensure!(login.answer.text().contains("password"), "no login page at {}: {}", login.url, login.answer.text());
    let consent = browser.submit(login.form()?, &[("login", "alice"), ("password", "secret")]).await?;
    let back = browser.submit(consent.form()?, &[]).await?;
    ensure!(
        back.url.host_str() == Some("localhost") && back.answer.status.is_success(),
        "the consent ended at {}: {} {}",
        back.url,
        back.answer.status,
        back.answer.text()
    );
    let path = format!("/v1/connections/{PROVIDER}/_default/alice");
    let status = api(Method::GET, base, &path, None).await?.json()?;
    ensure!(
        status["status"] == "active" || status["status"] == "expiring" || status["status"] == "expired",
        "{status}"
    );
    ensure!(status["has_refresh_token"] == true, "the provider gave no refresh token: {status}");
    Ok(())
}

#[derive(Default)]
struct Reads {
    good: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<Option<String>>,
    enough: AtomicBool,
}

async fn read_for_ever(base: Url, reads: Arc<Reads>) -> anyhow::Result<()> {
    let path = format!("/v1/connections/{PROVIDER}/_default/alice/token");
    while !reads.enough.load(SeqCst) {
        let answer = api(Method::GET, &base, &path, None).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => {
                reads.good.fetch_add(1, SeqCst);
            }
            other => {
                reads.failed.fetch_add(1, SeqCst);
                let text = other.map_or_else(|e| e.to_string(), |a| format!("{} {}", a.status, a.text()));
                *reads.last_failure.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))? = Some(text);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Waits for rotations, and reports a generation now and then; not more often than a well-behaved caller may.
async fn rotate(base: &Url, peer: &Peer, wanted: u64) -> anyhow::Result<u64> {
    let path = format!("/v1/connections/{PROVIDER}/_default/alice/token");
    let (mut reported, mut last) = (0, Instant::now());
    let patience = Duration::from_secs(60 + wanted * 3);
    let began = Instant::now();
    loop {
        if peer.spends().0 >= wanted {
            return Ok(reported);
        }
        ensure!(began.elapsed() < patience, "only {} rotations in {patience:?}", peer.spends().0);
        if last.elapsed() > Duration::from_secs(15) {
            last = Instant::now();
            let generation = api(Method::GET, base, &path, None).await?.json()?["generation"].clone();
            let refresh = format!("{path}/refresh");
            let answer = api(Method::POST, base, &refresh, Some(&json!({ "if_generation": generation }))).await?;
            ensure!(answer.status == StatusCode::OK, "a report: {} {}", answer.status, answer.text());
            let next = answer.json()?["generation"].as_u64();
            ensure!(next > generation.as_u64(), "a report of {generation} brought {next:?}");
            reported += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The server none of us wrote.
struct Peer {
    process: Child,
    issuer: String,
    secret: String,
    /// How often each refresh token was presented, by its hash.
    seen: Arc<Mutex<HashMap<String, u32>>>,
}

impl Peer {
    fn start(arguments: &Arguments, redirect_uri: &Url) -> anyhow::Result<Self> {
        let secret = "a-secret-of-the-harness-0123456789".to_owned();
        let mut process = Command::new(&arguments.node)
            .arg(std::fs::canonicalize(&arguments.peer).context("the peer's script is not there")?)
            .env("PORT", "0")
            .env("ACCESS_TOKEN_TTL", "1")
            .env("CLIENT_ID", "tokenkeep")
            .env("CLIENT_SECRET", &secret)
            .env("REDIRECT_URI", redirect_uri.as_str())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start node")?;
        let stdout = process.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        while let Some(line) = lines.next().transpose()? {
            let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
            if let (Some("listening"), Some(issuer)) = (said["event"].as_str(), said["issuer"].as_str()) {
                let counting = seen.clone();
                std::thread::spawn(move || count(lines, &counting));
                return Ok(Self { process, issuer: issuer.to_owned(), secret, seen });
            }
        }
        bail!("the provider ended without saying where it listens")
    }

    /// How many refreshes there were, and which refresh tokens were presented more than once.
    fn spends(&self) -> (u64, Vec<String>) {
        let seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let twice = seen.iter().filter(|(_, n)| **n > 1).map(|(token, _)| token.clone()).collect();
        (seen.values().map(|n| u64::from(*n)).sum(), twice)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn count(lines: impl Iterator<Item = std::io::Result<String>>, seen: &Mutex<HashMap<String, u32>>) {
    for line in lines.map_while(Result::ok) {
        let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
        if said["event"] == "token"
            && said["grant_type"] == "refresh_token"
            && let Some(hash) = said["presented"].as_str()
        {
            *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(hash.to_owned()).or_default() += 1;
        }
    }
}
