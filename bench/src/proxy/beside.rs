//! Beside nginx.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{Arguments, PREFIX, connect, service};
use crate::{
    load::{self, Shape},
    report::{Report, median},
    service::{ADMIN_KEY, end, listening, pin_to_another_core, pinned},
};

/// As large providers make them.
const TOKEN: &str =
    "ya29.a0Ae4lvC0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/// What must be there of nginx's throughput.
const AT_LEAST: f64 = 0.7;
/// What a call may take longer than without us, at the median.
const ADDED: Duration = Duration::from_micros(300);

struct Side {
    who: &'static str,
    addr: SocketAddr,
    request: Vec<u8>,
    rates: Vec<f64>,
    /// Microseconds at the median, one call at a time.
    alone: Vec<f64>,
}

impl Side {
    fn new(who: &'static str, addr: SocketAddr, path: &str) -> Self {
        let request = load::request(path, Some(ADMIN_KEY));
        Self { who, addr, request, rates: Vec::new(), alone: Vec::new() }
    }

    fn measure(&mut self, shape: Shape) -> anyhow::Result<()> {
        let loaded = load::measure(self.addr, &self.request, shape).with_context(|| self.who)?;
        let alone = load::measure(self.addr, &self.request, Shape { connections: 1, ..shape })?;
        self.rates.push(loaded.per_second);
        self.alone.push(alone.latency.value_at_quantile(0.5) as f64);
        Ok(())
    }

    /// Over all rounds but the first, which warms up.
    fn medians(&mut self) -> (f64, f64) {
        (median(&mut self.rates[1..]), median(&mut self.alone[1..]))
    }
}

pub fn run(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    pin_to_another_core(arguments.core);
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let mut process = command.arg("ceiling").stdout(Stdio::piped()).spawn().context("the API")?;
    let api = Process(&mut process);
    let addr = listening(api.0)?;

    let ours = service(arguments, "http://127.0.0.1:1", &format!("http://{addr}"), Some(arguments.core))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(connect(&ours, TOKEN, None, 86_400))?;
    let mut sides = vec![
        Side::new("the API itself", addr, "/static"),
        Side::new("tokenkeep", ours.addr, &format!("{PREFIX}/static")),
    ];
    let nginx = if arguments.nginx.is_file() { Some(Nginx::start(arguments, addr)?) } else { None };
    if let Some(nginx) = &nginx {
        sides.push(Side::new("nginx", nginx.addr, "/static"));
    }
    let shape = Shape { connections: 16, seconds: arguments.seconds, rate: None };
    for round in 0..=arguments.rounds {
        for side in &mut sides {
            side.measure(shape)?;
        }
        let seen: Vec<_> = sides
            .iter()
            .map(|side| format!("{} {:.0}/s, alone {:.0} us", side.who, side.rates[round], side.alone[round]))
            .collect();
        println!(
            "{}: {}",
            if round == 0 { "warming up".to_owned() } else { format!("round {round}") },
            seen.join("; ")
        );
    }
    judge(sides, report);
    Ok(())
}

fn judge(mut sides: Vec<Side>, report: &mut Report) {
    let seen: Vec<_> = sides.iter_mut().map(Side::medians).collect();
    let ((_, direct), (rate, alone)) = (seen[0], seen[1]);
    let promise = format!("at least {AT_LEAST} of what nginx passes on with a static header");
    match seen.get(2) {
        Some((theirs, theirs_alone)) => {
            let ratio = rate / theirs;
            let seen =
                format!("{rate:.0}/s beside {theirs:.0}/s: {ratio:.2} (alone {alone:.0} us, {theirs_alone:.0} us)");
            report.promise(&promise, ratio >= AT_LEAST, seen);
        }
        None => report.leave_out(&promise, "nginx is not there"),
    }
    let added = Duration::from_secs_f64(((alone - direct) / 1e6).max(0.0));
    report.promise(
        &format!("at most {ADDED:?} more at the median"),
        added < ADDED,
        format!("{added:?} more than {direct:.0} us"),
    );
}

/// A process that ends with us.
struct Process<'a>(&'a mut Child);

impl Drop for Process<'_> {
    fn drop(&mut self) {
        end(self.0);
    }
}

/// nginx with one worker, kept connections on both sides and a static header.
struct Nginx {
    process: Child,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Nginx {
    fn start(arguments: &Arguments, api: SocketAddr) -> anyhow::Result<Self> {
        let addr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().display();
        // Connections are kept for as long as here, and nothing is logged here, either.
        let config = format!(
            "daemon off; worker_processes 1; pid {path}/pid; error_log stderr warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s;\n\
             client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;\n\
             uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n\
             upstream api {{ server {api}; keepalive 64; keepalive_requests 1000000000; }}\n\
             server {{ listen {addr}; location / {{ proxy_pass http://api; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host {api};\n\
             proxy_set_header Authorization \"Bearer {TOKEN}\"; }} }}\n}}\n"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut command = pinned(&arguments.nginx, Some(arguments.core));
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let nginx = Self { process: command.spawn().context("nginx")?, addr, dir };
        let patience = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(addr).is_err() {
            anyhow::ensure!(Instant::now() < patience, "nginx did not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master would leave its worker behind if it was killed.
        let pid = std::fs::read_to_string(Path::new(self.dir.path()).join("pid")).ok();
        let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(pid.trim().parse().ok()?));
        if let Some(pid) = pid
            && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
        {
            let _ended = self.process.wait();
        } else {
            end(&mut self.process);
        }
    }
}
