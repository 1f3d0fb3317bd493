//! A store and a transport that stop at one step of the first refresh, say so, and go on never.

use std::{
    future::pending,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokenkeep_core::{
    Boot,
    ports::{
        BoxFuture, Connected, Count, Endpoint, Expect, Kind, Page, Put, Query, Record, RecordKey, Reply, Request,
        SendError, Store, StoreDescription, StoreError, Transport, TransportError, Version,
    },
};

use super::Step;

/// Where to stop, if anywhere, and how far things are.
#[derive(Debug)]
pub struct Hold {
    at: Option<Step>,
    /// Commits are refused from the first reply on.
    refuse_commits: bool,
    connected: AtomicBool,
    replied: AtomicBool,
}

impl Hold {
    pub fn new(at: Option<Step>, refuse_commits: bool) -> Arc<Self> {
        Arc::new(Self { at, refuse_commits, connected: AtomicBool::new(false), replied: AtomicBool::new(false) })
    }

    async fn here(&self, step: Step) {
        if self.at == Some(step) {
            println!("at {step}");
            let _ = std::io::stdout().flush();
            pending::<()>().await;
        }
    }
}

#[derive(Debug)]
pub struct HoldingStore {
    pub inner: Arc<dyn Store>,
    pub hold: Arc<Hold>,
}

impl Store for HoldingStore {
    fn describe(&self) -> StoreDescription {
        self.inner.describe()
    }

    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.inner.get(key)
    }

    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move {
            if record.key.kind != Kind::Connection || !self.hold.connected.load(SeqCst) {
                return self.inner.put(record, expect).await;
            }
            let commit = self.hold.replied.load(SeqCst);
            if commit && self.hold.refuse_commits {
                return Err(StoreError::Unavailable { reason: "told to refuse".into(), retry_after: None });
            }
            if commit && self.hold.at == Some(Step::Journaled) {
                // The journal is written beside this put. It is durable within milliseconds; a second is plenty.
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.hold.here(Step::Journaled).await;
            }
            if !commit {
                self.hold.here(Step::BeforeClaim).await;
            }
            let put = self.inner.put(record, expect).await;
            self.hold.here(if commit { Step::Committed } else { Step::AfterClaim }).await;
            put
        })
    }

    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        self.inner.delete(tombstone, version, keep_until)
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.inner.list(query)
    }

    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.inner.claim(kind, due_before, limit, until)
    }

    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>> {
        self.inner.count(query)
    }

    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.sweep(now)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.ping()
    }
}

#[derive(Debug)]
pub struct HoldingTransport {
    pub inner: Arc<dyn Transport>,
    pub hold: Arc<Hold>,
}

#[derive(Debug)]
struct HoldingConnection {
    inner: Box<dyn Connected>,
    hold: Arc<Hold>,
}

impl Transport for HoldingTransport {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Box<dyn Connected>, TransportError>> {
        Box::pin(async move {
            self.hold.here(Step::BeforeConnect).await;
            let inner = self.inner.connect(endpoint).await?;
            self.hold.connected.store(true, SeqCst);
            Ok(Box::new(HoldingConnection { inner, hold: self.hold.clone() }) as Box<dyn Connected>)
        })
    }
}

impl Connected for HoldingConnection {
    fn send_for(
        self: Box<Self>,
        request: Request,
        not_after: Option<Boot>,
        max_reply: usize,
    ) -> BoxFuture<'static, Result<Reply, SendError>> {
        Box::pin(async move {
            self.hold.here(Step::BeforeSend).await;
            let reply = self.inner.send_for(request, not_after, max_reply).await;
            if reply.is_ok() {
                self.hold.here(Step::AfterReply).await;
                self.hold.replied.store(true, SeqCst);
            }
            reply
        })
    }
}
