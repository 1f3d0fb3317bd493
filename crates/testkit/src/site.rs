use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::RwLock,
};
use tokio_rustls::TlsAcceptor;

/// A web site by https on this machine: `localhost`, with a certificate of the tests' own authority. Clones are the
/// same site.
#[derive(Clone, Debug)]
pub struct Site {
    port: u16,
    pages: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<AtomicUsize>,
    /// Nothing is answered while somebody holds this for writing.
    pub gate: Arc<RwLock<()>>,
}

impl Site {
    /// On a port of its own, with no pages.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback interface has a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let site = Self { port, pages: Arc::default(), asked: Arc::default(), gate: Arc::default() };
        let (this, acceptor) = (site.clone(), Self::acceptor());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, acceptor) = (this.clone(), acceptor.clone());
                tokio::spawn(async move { this.answer(stream, acceptor).await });
            }
        });
        site
    }

    /// The authority (PEM) that vouches for it: from November 2026 on, for a hundred years.
    pub fn ca_file() -> PathBuf {
        data("tls-ca.pem")
    }

    /// Answers TLS as `localhost`.
    pub fn acceptor() -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(data("tls-server.pem")).expect("it lies beside this file");
        let key = PrivateKeyDer::from_pem_file(data("tls-server.key.pem")).expect("it lies beside this file");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("it knows TLS 1.3").with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).expect("they belong together")))
    }

    /// Where `path` is.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Puts `body` there, as JSON that says how long it counts.
    pub fn publish(&self, path: &str, cache_control: &str, body: &str) {
        let head = format!("content-type: application/json\r\ncache-control: {cache_control}");
        self.answer_with(path, "200 OK", &head, body);
    }

    /// Answers requests for `path` so, and hangs up: that is the end of `body`, unless `head` says another.
    pub fn answer_with(&self, path: &str, status: &str, head: &str, body: &str) {
        let reply = format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}");
        lock(&self.pages).insert(path.to_owned(), reply);
    }

    /// How many requests there were, and resets it.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, SeqCst)
    }

    /// Waits for a request.
    pub async fn is_asked(&self) {
        self.is_asked_for(1).await;
    }

    /// Waits for so many.
    pub async fn is_asked_for(&self, count: usize) {
        while self.asked.load(SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&self, stream: TcpStream, acceptor: TlsAcceptor) -> Option<()> {
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            (stream.read_buf(&mut request).await.ok()? > 0).then_some(())?;
        }
        self.asked.fetch_add(1, SeqCst);
        let _open = self.gate.read().await;
        let request = String::from_utf8(request).ok()?;
        let page = lock(&self.pages).get(request.split(' ').nth(1)?).cloned();
        let page = page.unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned());
        stream.write_all(page.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
