//! What is long, and how much memory it takes.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{Method, Request, Response, body::Frame};
use tokenkeep_testkit::{ApiBody, FakeApi};

use super::{Arguments, Caller, connect, service};
use crate::{report::Report, service::Service};

const CHUNK: usize = 64 * 1024;
/// How much more memory a stream of any length may take, in KiB.
const MORE: u64 = 16 * 1024;
/// One event each so often, and how many.
const EVENTS: (Duration, u32) = (Duration::from_millis(10), 2_000);

type Body = BoxBody<Bytes, Infallible>;

pub async fn run(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let chunks = arguments.mebibytes << 20 >> CHUNK.trailing_zeros();
    let api = api(chunks).await;
    let ours = service(arguments, "http://127.0.0.1:1", &api.host(), None)?;
    connect(&ours, "a-token", None, 86_400).await?;
    let mut caller = Caller::<Body>::connect(&ours).await?;
    // What the first call allocates is not the stream's.
    through(caller.call(Method::GET, "/down?few", empty()).await?, &ours).await?;

    let memory = Memory::before(&ours)?;
    let began = Instant::now();
    let (length, peak) = through(caller.call(Method::GET, "/down", empty()).await?, &ours).await?;
    let took = began.elapsed();
    judge("a download", arguments, &memory, length, peak, took, report);

    let memory = Memory::before(&ours)?;
    let began = Instant::now();
    let body = StreamBody::new(pieces(chunks).map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let watching = Memory::before(&ours)?;
    let calling = caller.call(Method::PUT, "/up", Body::new(body));
    let (reply, peak) = watched(calling, &watching).await;
    let reply = reply?;
    let told = reply.into_body().collect().await?.to_bytes();
    let length: u64 = std::str::from_utf8(&told)?.parse().context("the API says how much came")?;
    judge("an upload", arguments, &memory, length, peak, began.elapsed(), report);

    let memory = Memory::before(&ours)?;
    let mut reply = caller.call(Method::GET, "/events", empty()).await?;
    let (mut events, mut slowest, mut peak) = (0, Duration::ZERO, 0);
    while let Some(frame) = reply.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let now = since_the_epoch();
        for event in std::str::from_utf8(&data)?.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            events += 1;
            slowest = slowest.max(now.saturating_sub(Duration::from_nanos(event.parse()?)));
        }
        peak = peak.max(memory.now()?);
    }
    let more = peak.saturating_sub(memory.before);
    let seen = format!("{events} events, the slowest after {slowest:?}, {more} KiB more than {} KiB", memory.before);
    report.promise(
        "events pass one by one, with flat memory",
        events == EVENTS.1 && more < MORE && slowest < Duration::from_millis(500),
        seen,
    );
    Ok(())
}

fn judge(
    what: &str,
    arguments: &Arguments,
    memory: &Memory,
    length: u64,
    peak: u64,
    took: Duration,
    report: &mut Report,
) {
    let whole = length == arguments.mebibytes << 20;
    let more = peak.saturating_sub(memory.before);
    let rate = length as f64 / f64::from(1 << 20) / took.as_secs_f64();
    let seen = format!("{length} bytes, {rate:.0} MiB/s, {more} KiB more than {} KiB", memory.before);
    let promise = format!("{what} of {} MiB passes with flat memory", arguments.mebibytes);
    report.promise(&promise, whole && more < MORE, seen);
}

/// Reads all of it; its length, and the most memory that the service had meanwhile.
async fn through(mut reply: Response<hyper::body::Incoming>, ours: &Service) -> anyhow::Result<(u64, u64)> {
    anyhow::ensure!(reply.status().is_success(), "{}", reply.status());
    let memory = Memory::before(ours)?;
    let (mut length, mut peak, mut frames) = (0, 0, 0_u64);
    while let Some(frame) = reply.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
        }
        frames += 1;
        if frames % 256 == 0 {
            peak = peak.max(memory.now()?);
        }
    }
    Ok((length, peak))
}

async fn watched<T>(what: impl Future<Output = T>, memory: &Memory) -> (T, u64) {
    let mut what = std::pin::pin!(what);
    let mut peak = 0;
    loop {
        tokio::select! {
            done = &mut what => return (done, peak),
            () = tokio::time::sleep(Duration::from_millis(20)) => peak = peak.max(memory.now().unwrap_or(u64::MAX)),
        }
    }
}

/// Resident memory, in KiB.
struct Memory {
    file: String,
    before: u64,
}

impl Memory {
    fn before(service: &Service) -> anyhow::Result<Self> {
        let mut memory = Self { file: format!("/proc/{}/status", service.pid()), before: 0 };
        memory.before = memory.now()?;
        Ok(memory)
    }

    fn now(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(&self.file)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().context("VmRSS")
    }
}

fn empty() -> Body {
    Body::new(http_body_util::Empty::new())
}

fn pieces(count: u64) -> impl futures_util::Stream<Item = Bytes> + Send + Sync {
    let piece = Bytes::from(vec![b'x'; CHUNK]);
    stream::iter(0..count).map(move |_| piece.clone())
}

fn since_the_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

async fn api(chunks: u64) -> FakeApi {
    FakeApi::start(move |request: Request<ApiBody>| async move {
        match (request.uri().path(), request.uri().query()) {
            ("/down", few) => {
                let chunks = if few.is_some() { 64 } else { chunks };
                Response::new(ApiBody::from_stream(pieces(chunks).map(Ok::<_, Infallible>)))
            }
            ("/up", _) => {
                let length = AtomicU64::new(0);
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    length.fetch_add(frame.data_ref().map_or(0, |data| data.len() as u64), Relaxed);
                }
                Response::new(ApiBody::from(length.into_inner().to_string()))
            }
            _ => {
                let (every, count) = EVENTS;
                let events = stream::iter(0..count).then(move |_| async move {
                    tokio::time::sleep(every).await;
                    Ok::<_, Infallible>(format!("data: {}\n\n", since_the_epoch().as_nanos()))
                });
                let mut reply = Response::new(ApiBody::from_stream(events));
                let kind = hyper::header::HeaderValue::from_static("text/event-stream");
                reply.headers_mut().insert("content-type", kind);
                reply
            }
        }
    })
    .await
}
