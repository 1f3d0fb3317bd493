//! Fetching what strangers point at: client documents, and keys.
//!
//! Whoever names an address here makes this server knock at it. So it is a public one (or a host that the operator
//! allows), reached by https; no redirect is followed; little is read, and not for long; only so many fetches go on at
//! once, and only so many fail within a minute: fewer at one host than in all, so that nobody uses up the room of
//! others. What was fetched is kept as long as its publisher says, within bounds.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared as SharedFuture},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokenkeep_core::{
    Boot,
    ports::{Endpoint, Peers, Request, SendError, TransportError},
};
use url::Url;
use zeroize::Zeroizing;

use crate::shared::{FetchError, Shared};

/// How long one fetch may take, from name lookup to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many fetches go on at once.
const AT_ONCE: Room = Room { in_all: 64, of_host: 16 };
/// So many may fail within a minute.
const FAILURES: Room = Room { in_all: 3_000, of_host: 60 };
const MINUTE: Duration = Duration::from_mins(1);
/// So many documents are kept; one is some KiB.
const CAPACITY: u64 = 1_000;
/// How long something is kept whose publisher does not say.
const DEFAULT_LIFE: Duration = Duration::from_mins(5);
/// It is kept so long even if its publisher says less, short of `no-store`.
const MIN_LIFE: Duration = MINUTE;
/// And no longer than this.
const MAX_LIFE: Duration = Duration::from_hours(24);

/// How much there may be of something.
struct Room {
    in_all: usize,
    of_host: usize,
}

impl Room {
    /// Whether there is some left for `host`, where it is taken by fetches from these.
    fn is_left_for<'h>(&self, host: Option<&str>, taken: impl Iterator<Item = Option<&'h str>>) -> bool {
        let (mut in_all, mut of_host) = (0, 0);
        for other in taken {
            in_all += 1;
            of_host += usize::from(other == host);
        }
        in_all < self.in_all && of_host < self.of_host
    }
}

/// Why there is nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// What is there is of no use: an answer.
    #[error("{0}")]
    Useless(Cow<'static, str>),
    /// Nobody knows what is there: no answer. Why stands in the log alone, for it says what this server can reach.
    #[error("it cannot be fetched at present")]
    Unknown,
}

/// Nobody was asked, and so nobody was bothered.
const FORBIDDEN: Failure = Failure::Useless(Cow::Borrowed("its address is not a public one"));

/// What to fetch.
#[derive(Clone, Copy)]
pub(super) struct What<'a> {
    pub(super) url: &'a Url,
    pub(super) peers: Peers,
    /// The most that is read of it, in bytes.
    pub(super) max_len: usize,
    /// Whether what is kept does beyond its life, where there is no room to fetch it anew.
    pub(super) or_stale: bool,
}

/// What was fetched, by its address.
pub(super) struct Fetched<T> {
    kept: moka::sync::Cache<Url, Kept<T>>,
    flights: Mutex<HashMap<Url, Flight<T>>>,
    failures: Mutex<VecDeque<(Boot, Url)>>,
}

type Outcome<T> = Result<Arc<T>, Failure>;
type Flight<T> = SharedFuture<BoxFuture<'static, Outcome<T>>>;

struct Kept<T> {
    value: Arc<T>,
    seen: Boot,
    life: Duration,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

impl<T> fmt::Debug for Fetched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetched")
    }
}

impl<T: Send + Sync + 'static> Default for Fetched<T> {
    fn default() -> Self {
        let kept = moka::sync::Cache::builder().max_capacity(CAPACITY).build();
        Self { kept, flights: Mutex::default(), failures: Mutex::default() }
    }
}

impl<T: Send + Sync + 'static> Fetched<T> {
    /// What is kept, if it still counts.
    pub(super) fn kept(&self, url: &Url, now: Boot) -> Option<Arc<T>> {
        self.kept.get(url).filter(|kept| now.since(kept.seen) < kept.life).map(|kept| kept.value)
    }

    /// How old what is kept is.
    pub(super) fn age(&self, url: &Url, now: Boot) -> Option<Duration> {
        self.kept.get(url).map(|kept| now.since(kept.seen))
    }

    /// Fetches it, or joins who does. `read` makes of it what is kept, or says what is wrong with it.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        what: What<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, Cow<'static, str>> + Send + 'static,
    ) -> Outcome<T> {
        let flight = {
            let mut flights = lock(&self.flights);
            // One that landed and is still there was torn off.
            flights.retain(|_, flight| flight.peek().is_none());
            match flights.get(what.url) {
                Some(flight) => flight.clone(),
                None if !self.has_room(&flights, what.url, shared.now().boot) => {
                    tracing::warn!(host = what.url.host_str(), "too much is fetched for clients, or too much fails");
                    let stale = self
                        .kept
                        .get(what.url)
                        .filter(|kept| what.or_stale && shared.now().boot.since(kept.seen) < MAX_LIFE);
                    return stale.map(|kept| kept.value).ok_or(Failure::Unknown);
                }
                None => {
                    let url = what.url.clone();
                    let flight = self.take_off(shared.clone(), what, read);
                    flights.insert(url, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// Goes on to its end, whoever waits for it.
    fn take_off(
        self: &Arc<Self>,
        shared: Arc<Shared>,
        what: What<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, Cow<'static, str>> + Send + 'static,
    ) -> Flight<T> {
        let What { url, peers, max_len, .. } = what;
        let (this, of) = (self.clone(), url.clone());
        let task = tokio::spawn(async move {
            let now = shared.now().boot;
            let outcome = get(&shared, &of, peers, max_len).await.and_then(|(body, life)| {
                let value = Arc::new(read(&body).map_err(Failure::Useless)?);
                Ok((value, life))
            });
            let outcome = outcome.map(|(value, life)| {
                if !life.is_zero() {
                    this.kept.insert(of.clone(), Kept { value: value.clone(), seen: now, life });
                }
                value
            });
            if let Err(failure) = &outcome {
                tracing::info!(host = of.host_str(), path = of.path(), %failure, "nothing was fetched for a client");
                if *failure != FORBIDDEN {
                    lock(&this.failures).push_back((now, of.clone()));
                }
            }
            lock(&this.flights).remove(&of);
            outcome
        });
        task.map(|landed| landed.unwrap_or(Err(Failure::Unknown))).boxed().shared()
    }

    fn has_room(&self, flights: &HashMap<Url, Flight<T>>, url: &Url, now: Boot) -> bool {
        let mut failures = lock(&self.failures);
        while failures.front().is_some_and(|(at, _)| now.since(*at) >= MINUTE) {
            failures.pop_front();
        }
        let host = url.host_str();
        AT_ONCE.is_left_for(host, flights.keys().map(Url::host_str))
            && FAILURES.is_left_for(host, failures.iter().map(|(_, failed)| failed.host_str()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is at `url`, and how long it counts.
async fn get(shared: &Shared, url: &Url, peers: Peers, max_len: usize) -> Result<(Bytes, Duration), Failure> {
    let useless = |text: &'static str| Err(Failure::Useless(text.into()));
    let accept = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
    let request = Request { method: Method::GET, url: url.clone(), headers, body: Zeroizing::default() };
    let exchange = async {
        let endpoint = Endpoint { url: url.clone(), timeout: PATIENCE, peers };
        let connected = shared.transport.connect(&endpoint).await?;
        Ok(connected.send_for(request, None, max_len).await?)
    };
    let fetched = tokio::select! {
        biased;
        fetched = exchange => fetched,
        () = shared.clock.sleep(PATIENCE) => return Err(Failure::Unknown),
    };
    let (status, reply) = match fetched {
        Ok(reply) => (reply.status, Some(reply)),
        Err(FetchError::Send(SendError::TooLong { status })) => (status, None),
        Err(FetchError::Connect(TransportError::Forbidden { .. })) => {
            return Err(FORBIDDEN);
        }
        Err(error) => {
            tracing::info!(%error, "what a client points at cannot be fetched");
            return Err(Failure::Unknown);
        }
    };
    match status {
        StatusCode::OK => {}
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => return Err(Failure::Unknown),
        status if status.is_server_error() => return Err(Failure::Unknown),
        status if status.is_redirection() => return useless("its address redirects, which is not followed"),
        _ => return useless("there is nothing at its address"),
    }
    let Some(reply) = reply else { return useless("it is too long") };
    if !is_json(&reply.headers) {
        return useless("its content type is not application/json");
    }
    Ok((reply.body, life(&reply.headers)))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// How long a reply counts (RFC 9111 4.2), within our bounds. Zero: it is not kept.
fn life(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        values.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|word| word == "no-store") {
        return Duration::ZERO;
    }
    let seconds = |name: &str| {
        let word = directives.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        word.trim_matches('"').parse().ok().map(Duration::from_secs)
    };
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or_default();
    let said = if directives.iter().any(|word| word == "no-cache") {
        Some(Duration::ZERO)
    } else {
        seconds("max-age").map(|life| life.saturating_sub(Duration::from_secs(age)))
    };
    said.unwrap_or(DEFAULT_LIFE).clamp(MIN_LIFE, MAX_LIFE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_publisher_says_how_long_it_counts_within_bounds() {
        for (said, seconds) in [
            (&[][..], 300),
            (&[("cache-control", "max-age=600")], 600),
            (&[("cache-control", "public, Max-Age=600")], 600),
            (&[("cache-control", "public"), ("cache-control", "max-age=\"600\"")], 600),
            (&[("cache-control", "max-age=600"), ("age", "100")], 500),
            (&[("cache-control", "max-age=600"), ("age", "700")], 60),
            (&[("cache-control", "max-age=0")], 60),
            (&[("cache-control", "no-cache, max-age=600")], 60),
            (&[("cache-control", "max-age=31536000")], 86_400),
            (&[("cache-control", "max-age=never")], 300),
            (&[("cache-control", "No-Store, max-age=600")], 0),
        ] {
            assert_eq!(life(&headers(said)), Duration::from_secs(seconds), "{said:?}");
        }
    }

    #[test]
    fn json_has_several_names() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jwk-set+json", true),
            ("application/client+json", true),
            ("text/html", false),
            ("text/plain+json", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            assert_eq!(is_json(&headers(&[("content-type", content_type)])), expected, "{content_type}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
