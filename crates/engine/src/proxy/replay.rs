//! A request's body that can be sent twice, if it is short.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::transport::{BodyError, OutboundBody, empty_body};

/// Bodies are kept up to this size, in bytes.
pub(super) const KEPT: usize = 1 << 20;

/// A body that goes out, and what of it has gone so far.
///
/// It streams from the first moment: nothing is waited for in order to be kept. Sending it again means what was kept
/// first, and then the rest as it comes.
pub(super) enum Replay {
    /// There is none.
    Empty,
    Kept(Arc<Mutex<Tape>>),
}

pub(super) struct Tape {
    body: OutboundBody,
    kept: Vec<Bytes>,
    size: usize,
    /// Which sending goes on. An earlier one that is still asked for more is told that it is over.
    take: u32,
}

impl Replay {
    pub(super) fn of(body: OutboundBody) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Kept(Arc::new(Mutex::new(Tape { body, kept: Vec::new(), size: 0, take: 0 })))
    }

    /// The body for the first sending.
    pub(super) fn first(&self) -> OutboundBody {
        match self {
            Self::Empty => empty_body(),
            Self::Kept(tape) => OutboundBody::new(Playing { tape: Arc::clone(tape), take: 0, next: 0 }),
        }
    }

    /// Whether it could be sent once more, as things stand.
    pub(super) fn may_go_again(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Kept(tape) => locked(tape).size <= KEPT,
        }
    }

    /// The body for one more; `None` if too much has gone. The sending before it ends.
    pub(super) fn again(&self) -> Option<OutboundBody> {
        let Self::Kept(tape) = self else { return Some(empty_body()) };
        let mut state = locked(tape);
        if state.size > KEPT {
            return None;
        }
        state.take += 1;
        Some(OutboundBody::new(Playing { tape: Arc::clone(tape), take: state.take, next: 0 }))
    }
}

fn locked(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One sending.
struct Playing {
    tape: Arc<Mutex<Tape>>,
    take: u32,
    /// The next of what was kept.
    next: usize,
}

impl Body for Playing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut tape = locked(&this.tape);
        if tape.take != this.take {
            return Poll::Ready(Some(Err("the request is sent again".into())));
        }
        if let Some(kept) = tape.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        let polled = Pin::new(&mut tape.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            tape.size = tape.size.saturating_add(data.len());
            if tape.size > KEPT {
                tape.kept = Vec::new();
            } else {
                tape.kept.push(data.clone());
                this.next += 1;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let tape = locked(&self.tape);
        tape.take == self.take && self.next >= tape.kept.len() && tape.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let tape = locked(&self.tape);
        let (rest, mut hint) = (tape.body.size_hint(), SizeHint::new());
        let waiting: u64 = tape.kept.iter().skip(self.next).map(|kept| kept.len() as u64).sum();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + waiting);
        }
        hint.set_lower(rest.lower() + waiting);
        hint
    }
}

#[cfg(test)]
mod tests;
