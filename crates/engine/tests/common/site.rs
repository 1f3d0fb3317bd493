//! A web site by https on this machine: `localhost`, with a certificate of the tests' own authority.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokenkeep_engine::transport::TransportOptions;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::RwLock,
};

#[derive(Clone)]
pub struct Site {
    port: u16,
    pages: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<AtomicUsize>,
    /// Nothing is answered while somebody holds this for writing.
    pub gate: Arc<RwLock<()>>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let site = Self { port, pages: Arc::default(), asked: Arc::default(), gate: Arc::default() };
        let (this, acceptor) = (site.clone(), acceptor());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, acceptor) = (this.clone(), acceptor.clone());
                tokio::spawn(async move { this.answer(stream, acceptor).await });
            }
        });
        site
    }

    /// What it takes to trust it. Its certificate is good from 2027 on.
    pub fn trusted() -> TransportOptions {
        TransportOptions { extra_ca_file: Some(data("tls-ca.pem")), ..TransportOptions::default() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Puts `body` there, as JSON that says how long it counts.
    pub fn publish(&self, path: &str, cache_control: &str, body: &str) {
        let head = format!("content-type: application/json\r\ncache-control: {cache_control}");
        self.answer_with(path, "200 OK", &head, body);
    }

    pub fn answer_with(&self, path: &str, status: &str, head: &str, body: &str) {
        let reply = format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.pages.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// How many requests there were, and resets it.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, SeqCst)
    }

    pub async fn is_asked(&self) {
        while self.asked.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&self, stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor) -> Option<()> {
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            (stream.read_buf(&mut request).await.ok()? > 0).then_some(())?;
        }
        self.asked.fetch_add(1, SeqCst);
        let _open = self.gate.read().await;
        let request = String::from_utf8(request).ok()?;
        let page = self.pages.lock().unwrap().get(request.split(' ').nth(1)?).cloned();
        let page = page.unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned());
        stream.write_all(page.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn acceptor() -> tokio_rustls::TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(data("tls-server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("tls-server.key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}
