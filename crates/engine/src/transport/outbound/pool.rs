//! Connections that wait for their next request.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{
    HeaderValue,
    uri::{Authority, Scheme},
};
use tokenkeep_core::{
    Boot,
    ports::{Clock, Peers},
};
use url::Url;

use super::{Line, OutboundError};

/// How long a connection waits. Most servers let it wait for longer; the rest close it, which is seen.
const WAITS: Duration = Duration::from_secs(30);

/// So many wait per origin; what comes beyond them is closed.
const WAITING: usize = 256;

/// Whom a connection leads to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    tls: bool,
    peers: Peers,
    authority: Authority,
}

impl Origin {
    pub(super) fn of(
        scheme: Option<Scheme>,
        authority: Option<Authority>,
        peers: Peers,
    ) -> Result<Self, OutboundError> {
        let forbidden = |host: &str| Err(OutboundError::Forbidden { host: host.to_owned() });
        let Some(authority) = authority else { return forbidden("a URL without a host") };
        let tls = match scheme {
            Some(scheme) if scheme == Scheme::HTTPS => true,
            Some(scheme) if scheme == Scheme::HTTP => false,
            _ => return forbidden(authority.host()),
        };
        if authority.as_str().contains('@') {
            return forbidden(authority.host());
        }
        Ok(Self { tls, peers, authority })
    }

    pub(super) fn host(&self) -> &str {
        self.authority.host()
    }

    pub(super) fn peers(&self) -> Peers {
        self.peers
    }

    /// For the dialler. What it reads there must be what stands here.
    pub(super) fn url(&self) -> Result<Url, OutboundError> {
        let scheme = if self.tls { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://{}/", self.authority)).ok();
        url.filter(|url| url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(self.host())))
            .ok_or_else(|| OutboundError::Forbidden { host: self.host().to_owned() })
    }

    /// Host and port (RFC 9110 7.2).
    pub(super) fn host_header(&self) -> Result<HeaderValue, OutboundError> {
        HeaderValue::from_str(self.authority.as_str())
            .map_err(|_| OutboundError::Forbidden { host: self.host().to_owned() })
    }
}

/// The connections that wait.
pub(super) struct Pool {
    clock: Arc<dyn Clock>,
    waiting: Mutex<HashMap<Origin, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    /// The youngest last: it is used first.
    lines: Vec<(Line, Boot)>,
    /// Whether somebody closes those that have waited too long.
    swept: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting();
        f.debug_struct("Pool").field("waiting", &waiting.values().map(|w| w.lines.len()).sum::<usize>()).finish()
    }
}

impl Pool {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Origin, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to `origin` that is alive, as far as can be seen.
    pub(super) fn take(&self, origin: &Origin) -> Option<Line> {
        let now = self.clock.now().boot;
        let mut waiting = self.waiting();
        let lines = &mut waiting.get_mut(origin)?.lines;
        while let Some((line, since)) = lines.pop() {
            if now.since(since) >= WAITS {
                lines.clear(); // the others have waited for longer
            } else if line.is_ready() {
                return Some(line);
            }
        }
        None
    }

    /// Keeps `line` for the next request; one whose exchange is not quite over, once it is.
    pub(super) fn give_back(self: &Arc<Self>, origin: Origin, mut line: Line) {
        if line.is_ready() {
            self.keep(origin, line);
        } else if !line.is_closed() && tokio::runtime::Handle::try_current().is_ok() {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if line.ready().await.is_ok() {
                    this.keep(origin, line);
                }
            });
        }
    }

    fn keep(self: &Arc<Self>, origin: Origin, line: Line) {
        let now = self.clock.now().boot;
        let mut waiting = self.waiting();
        let here = match waiting.get_mut(&origin) {
            Some(here) => here,
            None => waiting.entry(origin.clone()).or_default(),
        };
        if here.lines.len() < WAITING {
            here.lines.push((line, now));
        }
        if !std::mem::replace(&mut here.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), Arc::clone(&self.clock), origin));
        }
    }

    /// Closes what has waited too long; answers whether anything still waits.
    fn close_old(&self, origin: &Origin) -> bool {
        let now = self.clock.now().boot;
        let mut waiting = self.waiting();
        let Some(here) = waiting.get_mut(origin) else { return false };
        here.lines.retain(|(line, since)| !line.is_closed() && now.since(*since) < WAITS);
        if here.lines.is_empty() {
            waiting.remove(origin);
            return false;
        }
        true
    }
}

async fn sweep(pool: std::sync::Weak<Pool>, clock: Arc<dyn Clock>, origin: Origin) {
    loop {
        clock.sleep(WAITS).await;
        if !pool.upgrade().is_some_and(|pool| pool.close_old(&origin)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peers: Peers) -> Origin {
        Origin::of(Some(Scheme::HTTP), Some(Authority::from_static("10.0.0.7:3000")), peers).unwrap()
    }

    #[test]
    fn whom_a_connection_may_lead_to_is_kept_and_nobody_else_gets_it() {
        let all = [Peers::Any, Peers::Near, Peers::Public];
        for peers in all {
            assert_eq!(origin(peers).peers(), peers);
            assert_eq!(all.into_iter().filter(|other| origin(*other) == origin(peers)).count(), 1, "{peers:?}");
        }
    }
}
