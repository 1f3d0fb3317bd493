//! Across expiries and refusals.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, Response};
use tokenkeep_core::Rotation;
use tokenkeep_engine::system::SystemClock;
use tokenkeep_testkit::{ApiBody, Config, FakeApi, FakeProvider};

use super::{Arguments, Caller, bytes, connect, service};
use crate::report::Report;

/// How long a token lives.
const LIFE: Duration = Duration::from_secs(8);
/// The API stops taking a token that it has taken so often, well before that is refreshed for its age.
const TAKEN: usize = 500;
/// To so many tokens it does that: more reports of new tokens in a minute would not be believed.
const GIVEN_UP: usize = 3;
/// How many call at once.
const CALLERS: usize = 32;
/// What each sends, in bytes.
const BODY: usize = 4096;
/// What is spread over which time: several lives.
const OVER: Duration = Duration::from_secs(40);

/// What the API saw.
#[derive(Default)]
struct Seen {
    /// How often each token was taken.
    taken: HashMap<String, usize>,
    refused: HashSet<String>,
    refusals: usize,
}

pub async fn run(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let config = Config { token_life: LIFE, ..Config::rotating(Rotation::Strict) };
    let provider = Arc::new(FakeProvider::start(Arc::new(SystemClock), config).await);
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let api = api(provider.clone(), seen.clone()).await;
    let ours = service(arguments, &provider.issuer(), &api.host(), None)?;
    let issued = provider.seed("alice");
    connect(&ours, &issued.access_token, issued.refresh_token.as_deref(), LIFE.as_secs()).await?;

    let (next, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::<String>::new())));
    let (began, gap) = (Instant::now(), OVER / u32::try_from(arguments.calls).unwrap_or(u32::MAX));
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let mut caller = Caller::connect(&ours).await?;
        let (next, failed, calls) = (next.clone(), failed.clone(), arguments.calls);
        callers.push(tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= calls {
                    return;
                }
                tokio::time::sleep_until((began + gap * u32::try_from(n).unwrap_or(u32::MAX)).into()).await;
                if let Err(error) = one(&mut caller, n).await {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
                }
            }
        }));
    }
    for caller in callers {
        caller.await?;
    }
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (tokens, refreshes) = (seen.taken.len(), provider.calls());
    let what = format!(
        "{} calls of {CALLERS} callers with {BODY} bytes each, {tokens} tokens, {} given up by the API, {} calls refused",
        arguments.calls,
        seen.refused.len(),
        seen.refusals
    );
    let first = failed.first().map_or_else(String::new, |error| format!(", the first: {error}"));
    report.promise("no error reaches a caller", failed.is_empty(), format!("{what}; {} failed{first}", failed.len()));
    let once = refreshes + 1 == tokens && provider.spent_twice().is_empty();
    report.promise("one refresh for each token that ended", once, format!("{refreshes} for {} that ended", tokens - 1));
    report.promise("tokens did end, in both ways", tokens > 4 && seen.refused.len() > 1 && seen.refusals > 0, what);
    Ok(())
}

async fn one(caller: &mut Caller<http_body_util::Full<Bytes>>, n: usize) -> anyhow::Result<()> {
    let body = Bytes::from(vec![u8::try_from(n % 251).unwrap_or(0); BODY]);
    let reply = caller.call(Method::POST, &format!("/things/{n}"), bytes(body.clone())).await?;
    let status = reply.status();
    let answer = reply.into_body().collect().await.context("the reply broke off")?.to_bytes();
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&answer));
    anyhow::ensure!(answer == body, "not what was sent");
    Ok(())
}

/// Answers with what it was sent, if the token is alive and has not been taken too often.
async fn api(provider: Arc<FakeProvider>, seen: Arc<Mutex<Seen>>) -> FakeApi {
    FakeApi::start(move |request: Request<ApiBody>| {
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = token.strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let alive = provider.is_access_live(&token);
        let good = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let good = alive && !seen.refused.contains(&token);
            if good {
                let taken = seen.taken.entry(token.clone()).or_default();
                *taken += 1;
                let enough = *taken == TAKEN;
                if enough && seen.refused.len() < GIVEN_UP {
                    seen.refused.insert(token);
                }
            } else {
                seen.refusals += 1;
            }
            good
        };
        async move {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let mut reply = Response::new(ApiBody::from(body));
            if !good {
                *reply.status_mut() = hyper::StatusCode::UNAUTHORIZED;
            }
            reply
        }
    })
    .await
}
