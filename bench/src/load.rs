//! A load generator for one URL. Closed-loop: each connection asks again as soon as it is answered, which shows what a
//! server can do. Open-loop: requests leave at their appointed times whether or not earlier ones were answered, and
//! latency counts from that time, which shows what callers would see.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::Histogram;

#[derive(clap::Args)]
pub struct Arguments {
    /// Host and port.
    #[arg(long)]
    addr: SocketAddr,
    /// Path and query.
    #[arg(long)]
    path: String,
    /// The API key, if one is needed.
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    shape: Shape,
}

/// How the load looks.
#[derive(Clone, Copy, clap::Args)]
pub struct Shape {
    /// How many connections.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Requests a second, over all connections; without it, as many as go.
    #[arg(long)]
    pub rate: Option<f64>,
}

/// What was measured.
pub struct Measured {
    pub per_second: f64,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let request = request(&arguments.path, arguments.key.as_deref());
    let measured = measure(arguments.addr, &request, arguments.shape)?;
    let at = |q| measured.latency.value_at_quantile(q);
    println!(
        "{:.0} requests/s, p50 {} us, p99 {} us, p99.9 {} us, max {} us",
        measured.per_second,
        at(0.5),
        at(0.99),
        at(0.999),
        measured.latency.max()
    );
    Ok(())
}

/// How a good answer begins.
const GOOD: &[u8] = b"HTTP/1.1 200";

/// The same headers for whoever is measured.
pub fn request(path: &str, key: Option<&str>) -> Vec<u8> {
    let key = key.unwrap_or("tk_0000000000000000000000000000000000000000000");
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nAccept: application/json\r\n\r\n")
        .into_bytes()
}

/// A form is posted, with a client's id and secret as HTTP Basic has them, if there are any.
pub fn post(path: &str, basic: Option<(&str, &str)>, form: &str) -> Vec<u8> {
    let authorization = basic.map_or_else(String::new, |(id, secret)| {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
    });
    let length = form.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Accept: application/json\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
    )
    .into_bytes()
}

/// Loads one address from one thread, polling many sockets: a client must cost less than what it measures.
pub fn measure(addr: SocketAddr, request: &[u8], shape: Shape) -> anyhow::Result<Measured> {
    let length = response_length(addr, request)?;
    match shape.rate {
        None => closed(addr, &[request.to_vec()], length, GOOD, shape),
        Some(rate) => open(addr, request, length, shape, rate),
    }
}

/// Loads one address with different requests in turn, as fast as it goes. Their answers are all of one length.
pub fn in_turn(addr: SocketAddr, requests: &[Vec<u8>], shape: Shape) -> anyhow::Result<Measured> {
    let first = requests.first().context("no request")?;
    closed(addr, requests, response_length(addr, first)?, GOOD, shape)
}

/// Asks, to see that the answer is right and how long it is: later ones are as long. The first answer after a
/// pause may come another way than those that follow, so the second counts.
fn response_length(addr: SocketAddr, request: &[u8]) -> anyhow::Result<usize> {
    ask(addr, request)?;
    Ok(ask(addr, request)?.bytes.len())
}

/// A whole answer.
pub struct Answer {
    bytes: Vec<u8>,
    body_at: usize,
}

impl Answer {
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }
}

/// Asks once. Anything but 200 is an error.
pub fn ask(addr: SocketAddr, request: &[u8]) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).context("no answer, or one without content-length")?;
        ensure!(read > 0, "the connection was closed after {} bytes", bytes.len());
        bytes.extend_from_slice(&buffer[..read]);
        let Some(Extent { body_at, end }) = extent(&bytes) else { continue };
        if bytes.len() >= end {
            let status = String::from_utf8_lossy(&bytes[..body_at]).lines().next().unwrap_or_default().to_owned();
            ensure!(bytes.starts_with(GOOD), "not what was asked for: {status}");
            bytes.truncate(end);
            return Ok(Answer { bytes, body_at });
        }
    }
}

/// Where an HTTP answer's body begins and ends.
struct Extent {
    body_at: usize,
    end: usize,
}

/// `None` = its head is not there yet, or is not HTTP's, or does not say how long the body is.
fn extent(bytes: &[u8]) -> Option<Extent> {
    let body_at = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..body_at]).ok()?;
    let body: usize = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    })?;
    Some(Extent { body_at, end: body_at + body })
}

/// Reads the answer to the only request that is on its way. Nearly all are of the `usual` length, and are not looked at
/// any further; one that came another way may have other headers.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8], usual: usize, good: &[u8]) -> anyhow::Result<()> {
    let mut read = 0;
    loop {
        let more = stream.read(&mut buffer[read..])?;
        ensure!(more > 0, "an answer broke off, or is far longer than usual");
        read += more;
        if read == usual || extent(&buffer[..read]).is_some_and(|extent| extent.end == read) {
            ensure!(buffer.starts_with(good), "a request failed under load");
            return Ok(());
        }
    }
}

fn connect(addr: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One thread; each turn writes to every connection, then reads every answer. All connections are always in flight.
pub fn closed(
    addr: SocketAddr,
    requests: &[Vec<u8>],
    length: usize,
    good: &[u8],
    shape: Shape,
) -> anyhow::Result<Measured> {
    let mut requests = requests.iter().cycle();
    let mut next = || requests.next().context("no request");
    let mut streams = (0..shape.connections).map(|_| connect(addr)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut latency = Histogram::new(3)?;
    let mut buffer = vec![0; 2 * length + 1024];
    let mut sent = vec![Instant::now(); streams.len()];
    let warm_up = Instant::now() + Duration::from_millis(500);
    let mut began = None;
    let mut answered = 0u64;
    for (stream, sent) in streams.iter_mut().zip(&mut sent) {
        *sent = Instant::now();
        stream.write_all(next()?)?;
    }
    loop {
        for (stream, sent) in streams.iter_mut().zip(&mut sent) {
            read_answer(stream, &mut buffer, length, good)?;
            let now = Instant::now();
            if began.is_some() {
                answered += 1;
                latency.record(micros(now.duration_since(*sent)))?;
            } else if now > warm_up {
                began = Some(now);
            }
            *sent = now;
            stream.write_all(next()?)?;
        }
        if let Some(began) = began
            && began.elapsed().as_secs_f64() >= shape.seconds
        {
            return Ok(Measured { per_second: answered as f64 / began.elapsed().as_secs_f64(), latency });
        }
    }
}

/// A writer and a reader thread per connection; the writer keeps to the schedule, the reader measures against it.
fn open(addr: SocketAddr, request: &[u8], length: usize, shape: Shape, rate: f64) -> anyhow::Result<Measured> {
    let start = Arc::new(Barrier::new(shape.connections * 2 + 1));
    let gap = Duration::from_secs_f64(shape.connections as f64 / rate);
    let each = (shape.seconds / gap.as_secs_f64()) as u64;
    let late = Arc::new(AtomicU64::new(0));
    let epoch = Instant::now() + Duration::from_millis(300);
    let mut readers = Vec::new();
    for index in 0..shape.connections {
        let mut writing = connect(addr)?;
        let mut reading = writing.try_clone()?;
        let offset = gap.mul_f64(index as f64 / shape.connections as f64);
        let appointed = move |n: u64| epoch + offset + gap.mul_f64(n as f64);
        let (request, start_writer, late) = (request.to_vec(), start.clone(), late.clone());
        std::thread::spawn(move || {
            start_writer.wait();
            for n in 0..each {
                let due = appointed(n);
                let now = Instant::now();
                if now < due {
                    std::thread::sleep(due - now);
                } else if now - due > Duration::from_millis(1) {
                    late.fetch_add(1, Relaxed);
                }
                if writing.write_all(&request).is_err() {
                    return;
                }
            }
        });
        let start_reader = start.clone();
        readers.push(std::thread::spawn(move || -> anyhow::Result<Histogram<u64>> {
            let mut latency = Histogram::new(3)?;
            let mut buffer = vec![0; length];
            start_reader.wait();
            for n in 0..each {
                reading.read_exact(&mut buffer)?;
                ensure!(buffer.starts_with(GOOD), "a request failed under load");
                latency.record(micros(Instant::now().saturating_duration_since(appointed(n))))?;
            }
            Ok(latency)
        }));
    }
    start.wait();
    let mut latency = Histogram::new(3)?;
    for reader in readers {
        match reader.join() {
            Ok(measured) => latency.add(measured?)?,
            Err(_) => bail!("a reader ended early"),
        }
    }
    let elapsed = epoch.elapsed().as_secs_f64();
    Ok(Measured { per_second: latency.len() as f64 / elapsed, latency })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}
