//! Polling for consents that are given on other devices (RFC 8628 3.4). What to poll, and when, lies in the store: a
//! restart, or another instance, goes on with it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokenkeep_core::{
    AuthorizationRequest,
    authorization_request::Stage,
    time::{after, between},
};

use super::{Connect, EXPIRED, audit, obtain::Failure};
use crate::{
    Error,
    records::{Loaded, Stored},
};

/// What is handed to this instance is nobody else's for so long: longer than an exchange can take.
const CLAIM: Duration = Duration::from_mins(3);
const BATCH: u32 = 50;
/// A poll that is due sooner than this is not: providers ask for five seconds.
const SHORTEST: Duration = Duration::from_secs(1);

impl Connect {
    /// Polls what is due, for ever. A consent may be noticed one look later than its interval says.
    pub(crate) async fn poll(self) {
        let idle = self.shared.settings.preload_interval;
        let mut next = idle;
        loop {
            self.shared.clock.sleep(next).await;
            next = match self.poll_once().await {
                Ok(soonest) => soonest.map_or(idle, |wait| wait.clamp(SHORTEST, idle)),
                Err(error) => {
                    tracing::warn!(%error, "the poller cannot see what is due");
                    idle
                }
            };
        }
    }

    /// Polls one batch of what is due; answers when the soonest of it is due again.
    pub(crate) async fn poll_once(&self) -> Result<Option<Duration>, Error> {
        let now = self.shared.now().wall;
        let claimed = self.shared.records.claim::<AuthorizationRequest>(now, BATCH, after(now, CLAIM)).await?;
        let again = stream::iter(claimed).map(|item| async move {
            match item.content {
                Ok(Loaded::Live(stored)) => self.poll_for(stored).await,
                _ => None,
            }
        });
        let again: Vec<Option<Duration>> = again.buffer_unordered(8).collect().await;
        Ok(again.into_iter().flatten().min())
    }

    /// Polls for one; answers when it is due again.
    async fn poll_for(&self, stored: Stored<AuthorizationRequest>) -> Option<Duration> {
        let request = stored.value;
        let Stage::DevicePolling(poll) = &request.stage else { return None };
        if !request.is_open(self.shared.now().wall) {
            let over = self.proceed(&request.id, |r| r.failed(EXPIRED)).await.ok()?;
            audit("connect_failed", "poller", &over);
            return None;
        }
        let obtained = match self.party(&request.connection).await {
            Ok(party) => self.by_device(&party, &request, poll.device_code.clone()).await,
            Err(Error::StoreUnavailable { .. } | Error::ProviderUnavailable { .. }) => Err(Failure::Unavailable),
            Err(error) => Err(Failure::Misconfigured(error.code().to_owned())),
        };
        let slow_down = match &obtained {
            Err(Failure::NotYet { slow_down }) => *slow_down,
            // RFC 8628 3.5: where a poll goes unanswered, the next ones come more slowly.
            Err(Failure::Unavailable) => true,
            _ => {
                if let Err(error) = self.conclude(&request, obtained).await {
                    tracing::error!(connect = %request.id, %error, "the end of a connect could not be noted");
                }
                return None;
            }
        };
        let now = self.shared.now().wall;
        let later = self.proceed(&request.id, |r| r.poll_later(slow_down, now)).await.ok()?;
        match later.stage {
            Stage::DevicePolling(poll) => Some(between(now, poll.next_poll_at)),
            _ => None,
        }
    }
}
