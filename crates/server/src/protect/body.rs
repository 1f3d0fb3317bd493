//! Bodies on their way through: as they come, no faster than they are taken, and over when either side is gone.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use tokenkeep_core::{ports::Clock, time::after};
use tokenkeep_engine::issuer::{Issuer, Refused};
use tokenkeep_oauth::Secret;

use super::listeners::Listener;
use crate::{line::Line, proxy::ProxiedBody};

/// An answer of the server behind.
pub(super) struct Passing {
    body: ProxiedBody,
    end: End,
}

/// What ends an answer from our side.
enum End {
    /// Nothing does.
    Never,
    /// This, when it is over.
    With(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It has ended.
    Now,
}

/// For how long the events on the way to an answer may go on once the token is expired: whoever asked was let in, and
/// is not to lose what was worked on meanwhile.
const GRACE: Duration = Duration::from_mins(10);

impl Passing {
    /// An answer that ends by itself.
    pub(super) fn whole(body: ProxiedBody) -> Self {
        Self { body, end: End::Never }
    }

    /// The events on the way to an answer.
    pub(super) fn events(body: ProxiedBody, shown: Shown) -> Self {
        Self { body, end: End::With(Box::pin(shown.counts_no_more(GRACE))) }
    }

    /// A stream that somebody listens to, which would go on for ever. It is ended when we go down, too: the client comes
    /// back, and goes on where it was if it may.
    pub(super) fn listening(body: ProxiedBody, shown: Shown, line: Option<Line>, listener: Option<Listener>) -> Self {
        let end = async move {
            let _until_then = listener;
            let closing = async {
                match line {
                    Some(line) => line.closing().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = closing => {}
                () = shown.counts_no_more(Duration::ZERO) => {}
            }
        };
        Self { body, end: End::With(Box::pin(end)) }
    }
}

/// How often it is looked whether a token still counts that a stream was opened with.
const LOOK: Duration = Duration::from_secs(30);

/// The token that a stream was opened with.
pub(super) struct Shown {
    pub(super) token: Secret,
    pub(super) counts_until: Timestamp,
    pub(super) issuer: Issuer,
    pub(super) clock: Arc<dyn Clock>,
}

impl Shown {
    /// Waits until the token is revoked, or expired for `grace`. An outage is neither.
    async fn counts_no_more(self, grace: Duration) {
        let bearable = self.counts_until..after(self.counts_until, grace);
        loop {
            self.clock.sleep(LOOK).await;
            if let Err(Refused::Protocol(_)) = self.issuer.verify(&self.token).await
                && !bearable.contains(&self.clock.now().wall)
            {
                return;
            }
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let End::With(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            self.end = End::Now;
        }
        if let End::Now = self.end {
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
