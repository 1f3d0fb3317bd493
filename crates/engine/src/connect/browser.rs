//! What a browser does: it looks at the page, goes to the provider, comes back.

use secrecy::ExposeSecret;
use tokenkeep_core::{
    AuthorizationRequest, ConnectId,
    authorization_request::{Obtained, ProofHash, Stage, StepError},
    ports::{Expect, Put},
};
use tokenkeep_oauth::Secret;
use url::Url;

use super::{
    ATTEMPTS, Connect, ConnectPage, Returned, audit, is_drawn, misstep,
    obtain::{Failure, named},
    provider_page::{self, Leaving, code_of, parse_callback, state_of_callback},
    split, text_of,
};
use crate::{Error, error::STORE_RETRY, integrations::Party};

/// How often storing what was obtained is tried again while the store does not answer.
const STORE_ATTEMPTS: usize = 10;

impl Connect {
    /// What the page behind a link says. Looking at it binds nothing: programs that preview links do it, too.
    pub async fn page(&self, ticket: &str) -> Result<ConnectPage, Error> {
        let (request, _) = self.opened(ticket).await?;
        let party = self.party(&request.connection).await?;
        Ok(ConnectPage {
            provider_name: party.provider_name.clone(),
            integration: request.connection.integration,
            tenant: request.connection.tenant,
            subject: request.connection.subject,
            scope: request.scope,
            return_to_host: request.return_to.and_then(|url| url.host_str().map(str::to_owned)),
        })
    }

    /// Binds the link to the browser, and answers where to send it and the cookie value that proves it again.
    /// `browser` is the cookie it has from an earlier link, if any.
    pub async fn redirect(&self, ticket: &str, browser: Option<Secret>) -> Result<(Url, Secret), Error> {
        let browser = browser.filter(is_drawn).unwrap_or_else(|| self.draw());
        let proof = self.browser_hash(&browser);
        for _ in 0..ATTEMPTS {
            let (request, version) = self.opened(ticket).await?;
            let party = self.party(&request.connection).await?;
            let id = request.id;
            let was_opened = matches!(request.stage, Stage::Redirected { .. });
            let ticket = Secret::from(ticket);
            let now = self.shared.now().wall;
            let next = request.redirect(self.ticket_hash(&ticket), proof, now).map_err(|e| misstep(&id, e))?;
            let url = authorize_url(&next, &party, &self.state_of(id, &ticket))?;
            if was_opened {
                return Ok((url, browser));
            }
            if let Put::Committed(_) = self.shared.records.save(&next, (), Expect::Version(&version)).await? {
                return Ok((url, browser));
            }
        }
        Err(Error::Conflict { what: "connect" })
    }

    /// The browser came back from the provider with `raw`, a query or a form body. A code is exchanged at most once,
    /// whether or not the caller waits for the end of it.
    pub async fn callback(&self, raw: &[u8], browser: Option<Secret>) -> Result<Returned, Error> {
        let state = state_of_callback(raw);
        let id =
            state.as_deref().and_then(split).ok_or_else(|| Error::invalid("the callback has no `state` of ours"))?;
        // Without a cookie there is no browser that could be the right one.
        let proof = self.browser_hash(&browser.unwrap_or_else(|| "".into()));
        let party = self.party(&self.load(&id).await?.value.connection).await?;
        let response = parse_callback(&party, raw)?;
        let state = ProofHash(self.shared.records.barrier().hashes().state(&response.state));
        let exchange = self.take(&id, state, proof).await?;
        let request = exchange.request;
        let outcome = code_of(&party, response);
        let (this, verifier, nonce) = (self.clone(), exchange.pkce_verifier, exchange.nonce);
        // In a task of its own: the browser may be gone before the provider has answered.
        let ending = tokio::spawn(async move {
            let obtained = match outcome {
                Ok(code) => this.by_code(&party, &request, code, verifier, nonce.as_ref()).await,
                Err(failure) => Err(failure),
            };
            this.conclude(&request, obtained).await
        });
        match ending.await {
            Ok(returned) => returned,
            Err(_) => Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None }),
        }
    }

    /// Notes what came of the consent.
    pub(super) async fn conclude(
        &self,
        request: &AuthorizationRequest,
        obtained: Result<Obtained, Failure>,
    ) -> Result<Returned, Error> {
        let by = request.id.to_string();
        let (next, code) = match obtained {
            Err(Failure::Denied) => (self.proceed(&request.id, AuthorizationRequest::denied).await?, None),
            Err(failure) => (self.proceed(&request.id, |r| r.failed(&failure.code())).await?, None),
            Ok(obtained) if request.confirm => {
                let code = self.draw();
                let hash = ProofHash(self.shared.records.barrier().hashes().confirmation(&code));
                let now = self.shared.now().wall;
                let step = |r: AuthorizationRequest| r.await_confirmation(obtained.clone(), hash, now);
                (self.patiently(|| self.proceed(&request.id, step)).await?, Some(code))
            }
            Ok(obtained) => match self.patiently(|| self.attach(&request.connection, &obtained, true)).await {
                Ok(_) => (self.patiently(|| self.proceed(&request.id, AuthorizationRequest::connected)).await?, None),
                Err(error) => {
                    tracing::error!(connection = %request.connection, %error, "what a consent brought could not be stored");
                    (self.proceed(&request.id, |r| r.failed(error.code())).await?, None)
                }
            },
        };
        let action = match next.stage {
            Stage::Denied => "connect_denied",
            Stage::Failed { .. } => "connect_failed",
            Stage::AwaitingConfirmation { .. } => "connect_awaits_confirmation",
            _ => "connected",
        };
        audit(action, &by, &next);
        let (status, error) = self.status(&next);
        let return_to = next.return_to.as_ref().map(|url| {
            let mut url = url.clone();
            let ours = ["connect_id", "status", "error", "code"];
            let theirs: Vec<(String, String)> =
                url.query_pairs().into_owned().filter(|(name, _)| !ours.contains(&name.as_str())).collect();
            let mut query = url.query_pairs_mut();
            query.clear().extend_pairs(theirs);
            query.append_pair("connect_id", &next.id.to_string()).append_pair("status", status.as_str());
            if let Some(error) = &error {
                query.append_pair("error", error);
            }
            if let Some(code) = &code {
                query.append_pair("code", code.expose_secret());
            }
            drop(query);
            url
        });
        Ok(Returned { connect_id: next.id, status, error, return_to, connection: next.connection })
    }

    /// Tries again while the store does not answer: what is in our hands cannot be had a second time.
    pub(crate) async fn patiently<T, F: Future<Output = Result<T, Error>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut tried = 0;
        loop {
            tried += 1;
            match step().await {
                Err(Error::StoreUnavailable { retry_after, .. }) if tried < STORE_ATTEMPTS => {
                    self.shared.clock.sleep(retry_after).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes the request's turn to exchange its code: whoever gets it is the only one.
    async fn take(
        &self,
        id: &ConnectId,
        state: ProofHash,
        browser: ProofHash,
    ) -> Result<tokenkeep_core::authorization_request::Exchange, Error> {
        for _ in 0..ATTEMPTS {
            let stored = self.load(id).await?;
            let connection = stored.value.connection.clone();
            let exchange = match stored.value.came_back(state, browser, self.shared.now().wall) {
                Ok(exchange) => exchange,
                Err(error) => {
                    if error == StepError::WrongBrowser {
                        tracing::warn!(target: "audit", action = "connect_refused", connect = %id, %connection, reason = "another browser");
                    }
                    return Err(misstep(id, error));
                }
            };
            match self.shared.records.save(&exchange.request, (), Expect::Version(&stored.version)).await? {
                Put::Committed(_) => return Ok(exchange),
                Put::Conflict => {}
                // It may be our write that stands there, or that of a second callback: the code is not sent.
                Put::Unknown => break,
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    /// The request that `ticket` opens.
    async fn opened(&self, ticket: &str) -> Result<(AuthorizationRequest, tokenkeep_core::ports::Version), Error> {
        // What is no ticket is not repeated: it may be one with a typing error.
        let id = split(ticket).ok_or_else(|| Error::not_found("connect", "link"))?;
        let stored = self.load(&id).await?;
        let now = self.shared.now().wall;
        stored.value.opens_with(self.ticket_hash(&ticket.into()), now).map_err(|error| misstep(&id, error))?;
        Ok((stored.value, stored.version))
    }

    fn ticket_hash(&self, ticket: &Secret) -> ProofHash {
        ProofHash(self.shared.records.barrier().hashes().ticket(ticket))
    }

    pub(super) fn state_of(&self, id: ConnectId, ticket: &Secret) -> Secret {
        named(id, &text_of(&self.shared.records.barrier().hashes().state_of_ticket(ticket)))
    }
}

fn authorize_url(request: &AuthorizationRequest, party: &Party, state: &Secret) -> Result<Url, Error> {
    let Stage::Redirected { outbound, .. } = &request.stage else {
        return Err(Error::Conflict { what: "connect" });
    };
    let leaving = Leaving {
        redirect_uri: &request.redirect_uri,
        scope: request.scope.as_deref(),
        state,
        pkce_verifier: outbound.pkce_verifier.as_ref(),
        nonce: outbound.nonce.as_ref(),
    };
    provider_page::authorize_url(party, &leaving)
}
