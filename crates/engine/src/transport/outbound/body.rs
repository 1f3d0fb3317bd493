//! Bodies on their way.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{
    BodyError, Line, OutboundBody,
    pool::{Origin, Pool},
};

/// What became of a request's body so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Option<Arc<Told>>);

#[derive(Debug, Default)]
struct Told {
    frames: AtomicU64,
    stands_still: AtomicBool,
    broke_off: AtomicBool,
}

impl Sent {
    /// How much of it was taken.
    pub(super) fn so_far(&self) -> u64 {
        self.0.as_ref().map_or(0, |told| told.frames.load(Relaxed))
    }

    /// Whether more of it is wanted than there is.
    pub(super) fn stands_still(&self) -> bool {
        self.0.as_ref().is_some_and(|told| told.stands_still.load(Relaxed))
    }

    /// Whether it ended before its end.
    pub(super) fn broke_off(&self) -> bool {
        self.0.as_ref().is_some_and(|told| told.broke_off.load(Relaxed))
    }
}

/// A request's body, counted as it goes out.
pub(super) struct Watched {
    body: OutboundBody,
    told: Arc<Told>,
}

impl Watched {
    pub(super) fn new(body: OutboundBody, sent: &mut Sent) -> Self {
        let told = Arc::clone(sent.0.get_or_insert_default());
        Self { body, told }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        this.told.stands_still.store(polled.is_pending(), Relaxed);
        match &polled {
            Poll::Ready(Some(Err(_))) => this.told.broke_off.store(true, Relaxed),
            Poll::Ready(_) => drop(this.told.frames.fetch_add(1, Relaxed)),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A reply's body, whose connection goes back once it is read.
pub(super) struct Returning {
    body: Incoming,
    way_back: Option<(Line, Arc<Pool>, Origin)>,
}

impl Returning {
    pub(super) fn boxed(body: Incoming, line: Line, pool: Arc<Pool>, origin: Origin) -> OutboundBody {
        let mut this = Self { body, way_back: Some((line, pool, origin)) };
        this.give_back_if_over();
        UnsyncBoxBody::new(this)
    }

    fn give_back_if_over(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some((line, pool, origin)) = self.way_back.take() {
            pool.give_back(origin, line);
        }
    }
}

impl Body for Returning {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Ok(_))) => this.give_back_if_over(),
            Poll::Ready(Some(Err(_))) => this.way_back = None,
            Poll::Pending => {}
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returning {
    /// What nobody reads to its end is cut off, unless it has come in already.
    fn drop(&mut self) {
        if self.way_back.as_ref().is_some_and(|(line, ..)| line.is_ready()) {
            self.give_back();
        }
    }
}
