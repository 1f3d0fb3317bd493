//! Calls to providers' APIs through tokenkeep.
//!
//! - Beside nginx, which proxies with a static header: both on one core, the load and the API on another, in interleaved
//!   rounds.
//! - Across tokens that expire and an API that stops taking one: nobody who calls hears of it.
//! - Long: a download of 1 GiB, an upload of 1 GiB, events for a while, and how much memory that takes.

mod beside;
mod expiry;
mod streams;

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::{
    report::Report,
    service::{self, ADMIN_KEY, Service},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// What to look at; by default everything.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
    /// nginx; without it that is left out.
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// The core that proxies are pinned to. The client and the API run on another.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// How many rounds; each measures every side once. One more warms up.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How many calls are made across the expiries.
    #[arg(long, default_value_t = 10_000)]
    calls: usize,
    /// How many MiB go down, and up.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Beside,
    Expiry,
    Streams,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut report = Report::default();
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Beside) {
        beside::run(arguments, &mut report)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if wanted(Part::Expiry) {
        runtime.block_on(expiry::run(arguments, &mut report))?;
    }
    if wanted(Part::Streams) {
        runtime.block_on(streams::run(arguments, &mut report))?;
    }
    report.finish("the goals")
}

/// Where the calls of the one connection go.
const PREFIX: &str = "/proxy/fake/_default/alice";

/// A service whose provider `fake` has its endpoints at `issuer` and its API at `api`.
fn service(arguments: &Arguments, issuer: &str, api: &str, core: Option<usize>) -> anyhow::Result<Service> {
    let config = format!(
        "[log]\nlevel = \"warn\"\n\
         [[provider]]\nid = \"fake\"\ndisplay_name = \"Fake\"\nauthorize_url = \"{issuer}/authorize\"\n\
         token_url = \"{issuer}/token\"\nrotation = \"strict\"\nmargin = 1\napi_hosts = [\"{api}\"]\n\n\
         [[integration]]\nid = \"fake\"\nprovider = \"fake\"\nclient_id = \"fake-client\"\n\
         client_secret = \"fake-client-secret\"\n"
    );
    Service::start(&service::binary(arguments.tokenkeep.as_ref())?, &config, core)
}

/// Gives the service the tokens of its one connection.
async fn connect(service: &Service, access: &str, refresh: Option<&str>, expires_in: u64) -> anyhow::Result<()> {
    let base = url::Url::parse(&format!("http://{}/", service.addr))?;
    let body = json!({"access_token": access, "refresh_token": refresh, "expires_in": expires_in});
    let stored = crate::http::api(Method::PUT, &base, "/v1/connections/fake/_default/alice", Some(&body)).await?;
    anyhow::ensure!(stored.status.is_success(), "PUT: {} {}", stored.status, stored.text());
    Ok(())
}

/// A connection to the service on which calls are made one after the other.
struct Caller<B> {
    line: http1::SendRequest<B>,
}

impl<B> Caller<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn connect(service: &Service) -> anyhow::Result<Self> {
        let stream = tokio::net::TcpStream::connect(service.addr).await?;
        stream.set_nodelay(true)?;
        let (line, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { line })
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: B,
    ) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
        self.line.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {ADMIN_KEY}"))
            .body(body)?;
        Ok(self.line.send_request(request).await?)
    }
}

fn bytes(body: Bytes) -> Full<Bytes> {
    Full::new(body)
}
