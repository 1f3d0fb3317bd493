//! An API on a loopback port that answers as the test says and remembers what it was asked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::body::Body;
use http::{HeaderMap, Method, Request, Response};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Notify};

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// The request target, byte for byte.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Asked {
    /// What stands in a header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The API. It goes on until the runtime ends.
#[derive(Clone, Debug)]
pub struct FakeApi {
    address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    asked: Mutex<Vec<Asked>>,
    opened: AtomicUsize,
    closed: AtomicUsize,
    changed: Notify,
}

impl Log {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeApi {
    /// Answers every request by `answer`.
    ///
    /// # Panics
    /// Without a free port.
    pub async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (log, answer) = (Arc::new(Log::default()), Arc::new(answer));
        let api = Self { address, log: Arc::clone(&log) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                tokio::spawn(async move {
                    log.opened.fetch_add(1, SeqCst);
                    let service = service_fn(|request: Request<hyper::body::Incoming>| {
                        log.asked().push(Asked {
                            method: request.method().clone(),
                            target: request.uri().to_string(),
                            headers: request.headers().clone(),
                        });
                        log.changed.notify_waiters();
                        let answered = answer(request.map(Body::new));
                        async move { Ok::<_, Infallible>(answered.await) }
                    });
                    // Callers that hang up are part of what is tested.
                    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    log.closed.fetch_add(1, SeqCst);
                    log.changed.notify_waiters();
                });
            }
        });
        api
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// As it stands in `api_hosts`.
    pub fn host(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.asked().clone()
    }

    /// How many connections there were.
    pub fn opened(&self) -> usize {
        self.log.opened.load(SeqCst)
    }

    /// Waits until so many requests came.
    pub async fn was_asked(&self, times: usize) {
        self.until(|log| log.asked().len() >= times).await;
    }

    /// Waits until so many connections ended.
    pub async fn was_left(&self, times: usize) {
        self.until(|log| log.closed.load(SeqCst) >= times).await;
    }

    async fn until(&self, reached: impl Fn(&Log) -> bool) {
        loop {
            let changed = self.log.changed.notified();
            if reached(&self.log) {
                return;
            }
            changed.await;
        }
    }
}
