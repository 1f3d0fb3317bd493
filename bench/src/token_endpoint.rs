//! The token endpoint beside a bare handler: interleaved, on the same pinned core, medians and their ratio.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context as _, ensure};
use hyper::Method;
use serde_json::json;
use url::Url;

use crate::{
    http::api,
    load::{self, Measured, Shape},
    report::median,
    service::{ADMIN_KEY, Service, binary, end, listening, pin_to_another_core, pinned},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The service's program; by default the one beside this.
    #[arg(long)]
    tokenkeep: Option<PathBuf>,
    /// The core that servers are pinned to. The client runs on another.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// How many rounds; each measures every server once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Writes the figures to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

const SUBJECTS: usize = 1000;

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    pin_to_another_core(arguments.core);
    let core = Some(arguments.core);
    let mut ceiling = Ceiling::start(core)?;
    let redis = Redis::start(arguments.core)?;
    let service = Service::start(&binary(arguments.tokenkeep.as_ref())?, "", core)?;
    seed(&service)?;
    let path = "/v1/connections/google/_default/subject-7/token";
    let ours = load::request(path, Some(ADMIN_KEY));
    let bare = load::request("/static", None);
    let shape = Shape { connections: 16, seconds: arguments.seconds, rate: None };

    let (mut of_ceiling, mut of_ours, mut of_redis) = (vec![], vec![], vec![]);
    for round in 1..=arguments.rounds {
        of_ceiling.push(load::measure(ceiling.addr, &bare, shape)?.per_second);
        of_ours.push(load::measure(service.addr, &ours, shape)?.per_second);
        if let Some(redis) = &redis {
            of_redis.push(redis.measure(shape)?);
        }
        println!(
            "round {round}: ceiling {:.0}/s, tokenkeep {:.0}/s{}",
            of_ceiling[round - 1],
            of_ours[round - 1],
            of_redis.last().map_or_else(String::new, |r| format!(", redis GET {r:.0}/s"))
        );
    }
    let (ceiling_rate, our_rate) = (median(&mut of_ceiling), median(&mut of_ours));
    let half = Shape { rate: Some(our_rate / 2.0), connections: 8, ..shape };
    let p99: Measured = load::measure(service.addr, &ours, half)?;
    let p99 = p99.latency.value_at_quantile(0.99);
    println!("median: ceiling {ceiling_rate:.0}/s, tokenkeep {our_rate:.0}/s, ratio {:.2}", our_rate / ceiling_rate);
    let redis_rate = (!of_redis.is_empty()).then(|| median(&mut of_redis));
    if let Some(redis_rate) = redis_rate {
        println!("median: redis GET {redis_rate:.0}/s, ratio {:.2}", our_rate / redis_rate);
    }
    println!("open loop at half load ({:.0}/s): p99 {p99} us", our_rate / 2.0);
    if let Some(file) = &arguments.json {
        let figures = json!({
            "ceiling_per_second": ceiling_rate, "tokenkeep_per_second": our_rate, "redis_get_per_second": redis_rate,
            "ratio_to_ceiling": our_rate / ceiling_rate, "p99_us_at_half_load": p99,
        });
        std::fs::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    end(&mut ceiling.process);
    Ok(())
}

/// Stores a thousand connections, so that the one measured is one of many.
fn seed(service: &Service) -> anyhow::Result<()> {
    let base = Url::parse(&format!("http://{}/", service.addr))?;
    let body = json!({
        "access_token": "ya29.a0Ae4lvC0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
        "expires_in": 86400, "scope": "https://www.googleapis.com/auth/gmail.send",
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        for n in 0..SUBJECTS {
            let path = format!("/v1/connections/google/_default/subject-{n}");
            let answer = api(Method::PUT, &base, &path, Some(&body)).await?;
            ensure!(answer.status.is_success(), "PUT: {} {}", answer.status, answer.text());
        }
        Ok(())
    })
}

struct Ceiling {
    process: Child,
    addr: std::net::SocketAddr,
}

impl Ceiling {
    fn start(core: Option<usize>) -> anyhow::Result<Self> {
        let mut process =
            pinned(&std::env::current_exe()?, core).arg("ceiling").stdout(Stdio::piped()).spawn().context("ceiling")?;
        let addr = listening(&mut process)?;
        Ok(Self { process, addr })
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// A Redis, where one is installed.
struct Redis {
    process: Child,
    addr: std::net::SocketAddr,
    #[expect(dead_code, reason = "kept for as long as the process runs")]
    dir: tempfile::TempDir,
}

impl Redis {
    fn start(core: usize) -> anyhow::Result<Option<Self>> {
        let addr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let dir = tempfile::tempdir()?;
        let mut command = std::process::Command::new("taskset");
        command.args(["-c", &core.to_string(), "redis-server", "--save", "", "--bind", "127.0.0.1", "--port"]);
        command.arg(addr.port().to_string()).arg("--dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        if !std::path::Path::new("/usr/bin/redis-server").exists() {
            println!("redis-server is not installed: left out");
            return Ok(None);
        }
        let redis = Self { process: command.spawn()?, addr, dir };
        for _ in 0..100 {
            if redis.set().is_ok() {
                return Ok(Some(redis));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        anyhow::bail!("redis-server did not come up")
    }

    fn set(&self) -> anyhow::Result<()> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(self.addr)?;
        let body = crate::ceiling::BODY;
        write!(stream, "*3\r\n$3\r\nSET\r\n$5\r\ntoken\r\n${}\r\n{body}\r\n", body.len())?;
        let mut ok = [0; 5];
        stream.read_exact(&mut ok)?;
        ensure!(&ok == b"+OK\r\n", "SET failed");
        Ok(())
    }

    fn measure(&self, shape: Shape) -> anyhow::Result<f64> {
        let length = crate::ceiling::BODY.len();
        let answer = format!("${length}\r\n").len() + length + 2;
        Ok(load::closed(self.addr, &[b"*2\r\n$3\r\nGET\r\n$5\r\ntoken\r\n".to_vec()], answer, b"$", shape)?.per_second)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}
