//! Bodies on their way through: as they come, no faster than they are taken, and over when either side is gone.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokenkeep_core::ports::Clock;
use tokenkeep_engine::{
    issuer::{Issuer, Refused},
    transport::{BodyError, OutboundBody},
};
use tokenkeep_oauth::Secret;

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
    /// Until this comes.
    Until(Pin<Box<dyn Future<Output = Option<Hold>> + Send>>),
    /// It is over.
    No,
}

impl Passing {
    /// An answer that ends by itself.
    pub(super) fn throughout(body: OutboundBody, hold: Option<Hold>) -> Self {
        Self { body, held: Held::Throughout { _hold: hold } }
    }

    /// One that would go on for ever. It is ended when we go down, and when the token that it was asked for with counts no
    /// more: the client comes back, and goes on where it was if it may.
    pub(super) fn while_good(
        body: OutboundBody,
        hold: Option<Hold>,
        token: Secret,
        issuer: Issuer,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let end = async move {
            let closing = async {
                match hold {
                    Some(hold) => Some(hold.closing().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                hold = closing => hold,
                () = taken_back(&token, &issuer, &*clock) => None,
            }
        };
        Self { body, held: Held::Until(Box::pin(end)) }
    }
}

/// How often it is looked whether a token still counts that a stream was opened with.
const LOOK: Duration = Duration::from_secs(30);

/// Waits until the token is expired or revoked. An outage is neither.
async fn taken_back(token: &Secret, issuer: &Issuer, clock: &dyn Clock) {
    loop {
        clock.sleep(LOOK).await;
        if let Err(Refused::Protocol(_)) = issuer.verify(token).await {
            return;
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
        if let Held::Until(end) = &mut self.held
            && end.as_mut().poll(context).is_ready()
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
