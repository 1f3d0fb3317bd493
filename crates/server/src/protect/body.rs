//! Bodies on their way through: as they come, no faster than they are taken, and over when either side is gone.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokenkeep_engine::transport::{BodyError, OutboundBody};

use crate::line::Hold;

/// An answer of the server behind.
pub(super) struct Passing {
    body: OutboundBody,
    held: Held,
}

/// How the line to the client is held meanwhile.
enum Held {
    /// To the end of the answer.
    Throughout { _hold: Option<Hold> },
    /// Until we go down.
    UntilClosing(Pin<Box<dyn Future<Output = Hold> + Send>>),
    /// It is over.
    No,
}

impl Passing {
    /// An answer that ends by itself.
    pub(super) fn throughout(body: OutboundBody, hold: Option<Hold>) -> Self {
        Self { body, held: Held::Throughout { _hold: hold } }
    }

    /// One that would go on for ever. It is ended when we go down: the client comes back, and goes on where it was.
    pub(super) fn until_closing(body: OutboundBody, hold: Option<Hold>) -> Self {
        match hold {
            Some(hold) => Self { body, held: Held::UntilClosing(Box::pin(hold.closing())) },
            None => Self::throughout(body, None),
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Held::UntilClosing(closing) = &mut self.held
            && closing.as_mut().poll(context).is_ready()
        {
            self.held = Held::No;
        }
        if let Held::No = self.held {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
