//! A network that can be cut at the moment that matters.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU16, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What happens to the next statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It passes, like those after it.
    Nothing,
    /// It never arrives, and its connection breaks.
    Request,
    /// It is carried out, and its connection breaks instead of bringing the reply.
    Reply,
}

/// Stands before a server on a port of its own.
pub struct Proxy {
    pub port: u16,
    next: Arc<AtomicU8>,
    leads_to: Arc<AtomicU16>,
    moved: Arc<Notify>,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(AtomicU8::new(Cut::Nothing as u8));
        let leads_to = Arc::new(AtomicU16::new(server));
        let moved = Arc::new(Notify::new());
        let (cut, to, elsewhere) = (next.clone(), leads_to.clone(), moved.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, cut, elsewhere) = (to.load(Ordering::SeqCst), cut.clone(), elsewhere.clone());
                tokio::spawn(async move {
                    let moved = elsewhere.notified();
                    tokio::select! {
                        () = carry(client, to, cut) => {}
                        () = moved => {}
                    }
                });
            }
        });
        Self { port, next, leads_to, moved }
    }

    /// From now on it leads to another server, and what led to the old one is cut.
    pub fn lead_to(&self, server: u16) {
        self.leads_to.store(server, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    pub fn cut(&self, cut: Cut) {
        self.next.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether what was to be cut has been.
    pub fn has_cut(&self) -> bool {
        self.next.load(Ordering::SeqCst) == Cut::Nothing as u8
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the network")]
async fn carry(mut client: TcpStream, server: u16, next: Arc<AtomicU8>) {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let (mut sent, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut swallow = false;
    loop {
        tokio::select! {
            Ok(length @ 1..) = client.read(&mut sent) => {
                if is_statement(&sent[..length]) {
                    let cut = next.swap(Cut::Nothing as u8, Ordering::SeqCst);
                    if cut == Cut::Request as u8 {
                        return;
                    }
                    swallow = cut == Cut::Reply as u8;
                }
                server.write_all(&sent[..length]).await.unwrap();
            }
            Ok(length @ 1..) = server.read(&mut answered) => {
                // The server answers all at once, when it has committed.
                if swallow {
                    return;
                }
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

/// A prepared statement with its values, or one sent whole; neither its preparation nor a ping.
fn is_statement(bytes: &[u8]) -> bool {
    let names_records = || bytes.windows(17).any(|text| text == b"tokenkeep.records");
    match bytes.first() {
        Some(b'B') => true,
        Some(b'Q') => names_records(),
        _ => false,
    }
}
