//! A request's body that can be sent twice, if it is short and there is room.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::{BodyError, OutboundBody, empty_body};

/// Bodies are kept up to this size, in bytes.
pub(super) const KEPT: usize = 1 << 20;

/// What one that is begun takes at least.
const LEAST: usize = 4 << 10;

/// What was kept goes again in pieces of this size at most.
const PIECE: usize = 64 << 10;

/// Room for what is kept of all bodies together. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    /// So many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }
}

impl Default for Room {
    /// Of one engine.
    fn default() -> Self {
        Self::of(64 << 20)
    }
}

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
    /// What has gone; `None` = it cannot go again.
    kept: Option<Kept>,
    /// How much of that the sending that goes on has had.
    played: usize,
    /// Which sending goes on. An earlier one that is still asked for more is told that it is over.
    take: u32,
}

/// A copy: what came is a part of a far larger buffer, which must not stay for it.
struct Kept {
    bytes: Vec<u8>,
    room: Room,
    /// For all that `bytes` can hold.
    taken: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Keeps `data` as well; `None` if it is too much by now.
    fn and(mut self, data: &[u8]) -> Option<Self> {
        let (held, size) = (self.bytes.capacity(), self.bytes.len() + data.len());
        if size > KEPT {
            return None;
        }
        if size > held {
            let wanted = size.next_power_of_two().max(LEAST);
            let more = Arc::clone(&self.room.0).try_acquire_many_owned(u32::try_from(wanted - held).ok()?).ok()?;
            match &mut self.taken {
                Some(taken) => taken.merge(more),
                taken => *taken = Some(more),
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Some(self)
    }
}

impl Tape {
    fn kept(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], |kept| &kept.bytes)
    }

    /// What the sending that goes on has yet to get of what was kept.
    fn waiting(&self) -> &[u8] {
        self.kept().get(self.played..).unwrap_or_default()
    }
}

impl Replay {
    pub(super) fn of(body: OutboundBody, room: &Room) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let kept = Some(Kept { bytes: Vec::new(), room: room.clone(), taken: None });
        Self::Kept(Arc::new(Mutex::new(Tape { body, kept, played: 0, take: 0 })))
    }

    /// The body for the first sending.
    pub(super) fn first(&self) -> OutboundBody {
        match self {
            Self::Empty => empty_body(),
            Self::Kept(tape) => OutboundBody::new(Playing { tape: Arc::clone(tape), take: 0 }),
        }
    }

    /// Whether it could be sent once more, as things stand.
    pub(super) fn may_go_again(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Kept(tape) => locked(tape).kept.is_some(),
        }
    }

    /// The body for one more; `None` if too much has gone. The sending before it ends.
    pub(super) fn again(&self) -> Option<OutboundBody> {
        let Self::Kept(tape) = self else { return Some(empty_body()) };
        let mut state = locked(tape);
        state.kept.as_ref()?;
        state.take += 1;
        state.played = 0;
        Some(OutboundBody::new(Playing { tape: Arc::clone(tape), take: state.take }))
    }
}

impl Drop for Replay {
    /// It is not sent again: what has gone need not stay for as long as the rest takes.
    fn drop(&mut self) {
        if let Self::Kept(tape) = self {
            let mut tape = locked(tape);
            if tape.waiting().is_empty() {
                tape.kept = None;
            }
        }
    }
}

fn locked(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One sending.
struct Playing {
    tape: Arc<Mutex<Tape>>,
    take: u32,
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
        let waiting = tape.waiting();
        if !waiting.is_empty() {
            let data = Bytes::copy_from_slice(&waiting[..waiting.len().min(PIECE)]);
            tape.played += data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let polled = Pin::new(&mut tape.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            tape.kept = tape.kept.take().and_then(|kept| kept.and(data));
            tape.played = tape.kept().len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let tape = locked(&self.tape);
        tape.take == self.take && tape.waiting().is_empty() && tape.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let tape = locked(&self.tape);
        let (rest, mut hint) = (tape.body.size_hint(), SizeHint::new());
        let waiting = tape.waiting().len() as u64;
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + waiting);
        }
        hint.set_lower(rest.lower() + waiting);
        hint
    }
}

#[cfg(test)]
mod tests;
