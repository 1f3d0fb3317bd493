//! What an application does after its user came back, and what is done where it does not.

use jiff::Timestamp;
use tokenkeep_core::{
    Action, AuthorizationRequest, ConnectId, Subject, Tenant,
    authorization_request::{ProofHash, Stage, StepError},
    ports::{Expect, Filter, Put, Scope},
};
use tokenkeep_oauth::Secret;

use super::{ATTEMPTS, Connect, EXPIRED, audit, misstep};
use crate::{Caller, ConnectionView, Error, records::Loaded};

impl Connect {
    /// Attaches what a consent brought, because the application says so: `subject` is who is signed in to it, `code`
    /// what that user's browser brought to `return_to`. Confirming once more what failed half-way is fine.
    pub async fn confirm(
        &self,
        caller: &Caller,
        id: &ConnectId,
        subject: &Subject,
        code: &Secret,
    ) -> Result<ConnectionView, Error> {
        caller.may(Action::Connect)?;
        let hash = ProofHash(self.shared.records.barrier().hashes().confirmation(code));
        for _ in 0..ATTEMPTS {
            let stored = self.load(id).await?;
            let connection = stored.value.connection.clone();
            caller.may_at(Action::Connect, &connection.integration, &connection.tenant)?;
            let now = self.shared.now().wall;
            let expect = Expect::Version(&stored.version);
            match stored.value.clone().confirm(subject, hash, now) {
                Ok(confirmed) => {
                    let attached = self.attach(&connection, &confirmed.obtained, false).await?;
                    // The tokens are safe: whether this is noted as well matters little.
                    if let Ok(Put::Committed(_)) = self.shared.records.save(&confirmed.request, (), expect).await {
                        audit("connect_confirmed", &caller.name(), &confirmed.request);
                    }
                    let policy = self.connections.policy(&connection.integration).await;
                    return Ok(ConnectionView::new(&attached, &policy, self.shared.now().wall));
                }
                Err(error @ (StepError::WrongCode | StepError::WrongSubject)) => {
                    let step = stored.value.refuse_confirmation().map_err(|error| misstep(id, error))?;
                    let (next, given_back) = step;
                    if let Put::Committed(_) = self.shared.records.save(&next, (), expect).await? {
                        audit("connect_refused", &caller.name(), &next);
                        if let Some(obtained) = given_back {
                            self.give_back(&connection, &obtained).await;
                        }
                        return Err(misstep(id, error));
                    }
                }
                Err(StepError::OutOfTurn { .. }) => return Err(Error::Conflict { what: "connect" }),
                Err(error) => return Err(misstep(id, error)),
            }
        }
        Err(Error::Conflict { what: "connect" })
    }

    /// Gives back what nobody confirmed in time. Answers how many connects there were.
    pub(crate) async fn drop_unconfirmed(&self) -> Result<u64, Error> {
        let now = self.shared.now().wall;
        let mut dropped = 0;
        let mut cursor = None;
        loop {
            let scope = Scope::Tenant(Tenant::system());
            let over = Filter::ExpiresBetween(Timestamp::UNIX_EPOCH, now);
            let page = self.shared.records.list::<AuthorizationRequest>(scope, over, 200, cursor).await?;
            for item in page.items {
                let Ok(Loaded::Live(stored)) = item.content else { continue };
                let request = stored.value;
                let Stage::AwaitingConfirmation { obtained, .. } = request.stage.clone() else { continue };
                let Ok(next) = request.failed(EXPIRED) else { continue };
                // First it is noted, so that no confirmation can come in between.
                let put = self.shared.records.save(&next, (), Expect::Version(&stored.version)).await?;
                if let Put::Committed(_) = put {
                    self.give_back(&next.connection, &obtained).await;
                    audit("connect_unconfirmed", "clean-up", &next);
                    dropped += 1;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(dropped);
            }
        }
    }
}
