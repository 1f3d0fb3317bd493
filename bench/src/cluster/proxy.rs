//! A TCP proxy before a server: one instance's way to it, which can be cut while all others keep theirs.

use std::net::SocketAddr;

use anyhow::{Context as _, anyhow};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use url::Url;

pub struct Proxy {
    addr: SocketAddr,
    cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Before `port` of this machine.
    pub async fn before(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (cut, told) = watch::channel(false);
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                tokio::spawn(pass(inbound, port, told.clone()));
            }
        });
        Ok(Self { addr, cut, accepting })
    }

    /// `url`, by way of this.
    pub fn url(&self, url: &str) -> anyhow::Result<String> {
        let mut url = Url::parse(url)?;
        url.set_port(Some(self.addr.port())).map_err(|()| anyhow!("the URL takes no port"))?;
        Ok(url.to_string())
    }

    /// Ends what is connected, and lets nobody through from now on.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn pass(mut inbound: TcpStream, port: u16, mut told: watch::Receiver<bool>) -> anyhow::Result<()> {
    if *told.borrow_and_update() {
        return Ok(());
    }
    let mut outbound = TcpStream::connect(("127.0.0.1", port)).await.context("nobody listens there")?;
    inbound.set_nodelay(true)?;
    outbound.set_nodelay(true)?;
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound) => {}
        _ = told.wait_for(|cut| *cut) => {}
    }
    Ok(())
}
