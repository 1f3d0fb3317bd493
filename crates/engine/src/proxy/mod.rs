//! Calls to providers' APIs with a fresh token, made for whoever may not, or would rather not, hold it.
//!
//! A call is the caller's own request with three things changed: it goes to one of the integration's API hosts and
//! nowhere else (`target`), it carries the connection's token instead of whatever proved the caller to us
//! (`headers`), and where the provider says that this token is no good, the token is refreshed once for all who heard
//! that, and the request is sent once more (`replay`). Everything else is passed on as it is, redirects and errors
//! included, in both directions as it comes and no faster than it is taken.

mod api;
mod circuit;
mod counted;
mod headers;
pub(crate) mod limits;
mod replay;
mod settings;
mod target;

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, Uri, request::Parts};
use tokenkeep_core::{Action, Boot, ConnectionId, ports::Peers};

pub(crate) use self::{api::ApiOf, circuit::Circuit};
pub use self::{
    circuit::CircuitSettings,
    headers::{X_TOKENKEEP_ERROR, strip_hop_by_hop},
    settings::ProxySettings,
    target::path_and_query,
};
use self::{
    circuit::{Pass, is_failure},
    counted::Counted,
    limits::Entered,
    replay::{Replay, Room},
    target::{ApiHost, Refusal, X_TOKENKEEP_HOST},
};
use crate::{
    Caller, Connections, Error, Ready,
    connections::PROVIDER_RETRY,
    integrations::Party,
    shared::Shared,
    transport::{OutboundBody, OutboundError},
};

/// Calls to providers' APIs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy {
    connections: Connections,
    counted: Counted,
    room: Room,
}

/// A token lives for this long when a call goes out, if the provider's tokens live that long at all.
const MIN_TTL: Duration = Duration::from_secs(60);

/// How long connecting may take, and how long the provider may think about its reply.
const REPLY_WITHIN: Duration = Duration::from_secs(120);

impl Proxy {
    pub(crate) fn new(connections: Connections) -> Self {
        Self { counted: Counted::new(&connections.shared.metrics), connections, room: Room::default() }
    }

    /// Sends `request` to the API of the connection's provider, with the connection's token, and answers with the
    /// reply's head as soon as it is there. A URI with a host must name one of the integration's API hosts; a path
    /// alone goes to the first of them, or to the one that the header `x-tokenkeep-host` names.
    ///
    /// Every reply of the provider is answered as it is, redirects and errors included. Where it says that the token
    /// is no good, the token is refreshed and the request sent once more, if no more than 1 MiB of its body had gone and
    /// there was room to keep that: else the reply is answered, and the next call finds a new token.
    pub async fn call(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        request: Request<OutboundBody>,
    ) -> Result<Response<OutboundBody>, Error> {
        caller.may_at(Action::CallProxy, &id.integration, &id.tenant)?;
        let (head, body) = request.into_parts();
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Err(Error::invalid("CONNECT and TRACE go no further than here"));
        }
        let integration = &id.integration;
        let party = self.connections.party_of(id).await?;
        let party = party.ok_or_else(|| Error::IntegrationMissing(integration.clone()))?;
        let api = party.api();
        let picked = head.headers.get_all(&X_TOKENKEEP_HOST);
        let (host, url) = target::target(&api.hosts, &head.uri, picked).map_err(|refusal| match refusal {
            Refusal::NoHost => Error::NoApiHost(integration.clone()),
            Refusal::Host => Error::ApiHostNotAllowed(integration.clone()),
            Refusal::Path(problem) => Error::InvalidPath(problem),
        })?;
        let call =
            Call { proxy: self, id, party: &party, api: &api, host, url, head, body: Replay::of(body, &self.room) };
        call.run().await
    }

    async fn token(&self, id: &ConnectionId) -> Result<Arc<Ready>, Error> {
        let (integration, tenant, subject) = (id.integration.as_str(), id.tenant.as_str(), id.subject.as_str());
        match self.connections.cached(integration, tenant, subject, MIN_TTL) {
            Some(ready) => Ok(ready),
            // Who may call need not be allowed to read: what they get is the reply, never the token.
            None => Box::pin(self.connections.token(&Caller::Local, id, MIN_TTL)).await,
        }
    }
}

/// One call on its way.
struct Call<'a> {
    proxy: &'a Proxy,
    id: &'a ConnectionId,
    party: &'a Party,
    api: &'a ApiOf,
    host: &'a ApiHost,
    url: Uri,
    head: Parts,
    body: Replay,
}

impl Call<'_> {
    async fn run(&self) -> Result<Response<OutboundBody>, Error> {
        let ready = self.proxy.token(self.id).await?;
        let (pass, ready) = self.wait(ready).await?;
        let reply = self.send(pass, &ready, self.body.first()).await?;
        if !self.api.unauthorized.contains(&reply.status().as_u16()) {
            return Ok(reply);
        }
        // What is rare is kept on the heap: a call's future is made and moved for every call.
        Box::pin(self.unauthorized(&ready, reply)).await
    }

    /// The provider says that the token is no good.
    async fn unauthorized(
        &self,
        ready: &Ready,
        reply: Response<OutboundBody>,
    ) -> Result<Response<OutboundBody>, Error> {
        if !self.body.may_go_again() {
            self.refresh_behind(ready);
            return Ok(reply);
        }
        let began = self.shared().now().boot;
        match self.proxy.connections.refresh(&Caller::Local, self.id, Some(ready.generation)).await {
            Ok(younger) => {
                // Not before: a reply that is passed on may have to do with what is on its way yet.
                let Some(body) = self.body.again() else { return Ok(reply) };
                let status = reply.status();
                drop(reply);
                let (pass, younger) = self.wait(younger).await?;
                self.note_retry(ready, Some(status), began);
                self.send(pass, &younger, body).await
            }
            // It is the provider that says so, and there is nothing better to be had.
            Err(Error::TooMany { .. }) => Ok(reply),
            Err(Error::ReauthRequired { reason, .. }) if reason == "no_refresh_token" => Ok(reply),
            Err(error) => Err(error),
        }
    }

    /// Waits until the provider may be called once more; gives the token to call it with by then.
    async fn wait(&self, ready: Arc<Ready>) -> Result<(Pass, Arc<Ready>), Error> {
        // Before anything is taken that would be lost on who is refused here.
        let pass = self.enter(None)?;
        let entered = self.may_send().await?;
        if !entered.waited {
            return Ok((pass, ready));
        }
        // Whoever waited may find that the provider fails by now, or that the token grew old.
        let still = match self.enter(Some(pass)) {
            Ok(pass) => self.proxy.token(self.id).await.map(|ready| (pass, ready)),
            Err(error) => Err(error),
        };
        if still.is_err() {
            self.shared().limits.give_back(entered).await;
        }
        still
    }

    /// The right to one call, unless the provider is left alone; `pass` = it was there before.
    fn enter(&self, pass: Option<Pass>) -> Result<Pass, Error> {
        let (circuit, origin, now) = (&self.shared().circuit, self.host.origin(), self.shared().now().boot);
        let entered = match pass {
            None => circuit.enter(origin, now),
            Some(pass) => circuit.enter_after(pass, origin, now),
        };
        entered.map_err(|wait| self.left_alone(wait))
    }

    /// Waits until the provider may be sent one more request.
    async fn may_send(&self) -> Result<Entered, Error> {
        let shared = self.shared();
        shared.limits.enter(self.party, self.id, shared.settings.proxy.max_wait).await
    }

    /// Sends it once; once more, if nobody can have acted upon it. The pass is held until it is known how that ended.
    async fn send(&self, _pass: Pass, ready: &Ready, body: OutboundBody) -> Result<Response<OutboundBody>, Error> {
        let origin = self.host.origin();
        let circuit = &self.shared().circuit;
        let began = self.shared().now().boot;
        let sent = match self.try_send(ready, body).await? {
            // The connection was about to be closed. RFC 9110 9.2.2: what may be done twice may be sent again.
            Err(cut @ OutboundError::Cut { reused: true, .. }) if self.head.method.is_idempotent() => {
                match self.body.again() {
                    Some(body) => {
                        self.may_send().await?;
                        self.note_retry(ready, None, began);
                        Box::pin(self.try_send(ready, body)).await?
                    }
                    None => Err(cut),
                }
            }
            sent => sent,
        };
        // The caller's doing: it says nothing of the provider.
        match sent {
            Err(OutboundError::BodyBrokeOff) => {
                return Err(Error::invalid("the request's body broke off before its end"));
            }
            Err(OutboundError::BodyStoodStill) => return Err(Error::BodyTimeout),
            _ => {}
        }
        let now = self.shared().now();
        let counted = self.api.counted.get_or_init(|| self.proxy.counted.of(&self.id.integration));
        counted.count(sent.as_ref().ok().map(Response::status), now.boot.since(began));
        circuit.report(origin, sent.as_ref().is_ok_and(|reply| !is_failure(reply.status())), now.boot);
        let mut reply = sent.map_err(|error| self.unanswered(&error))?;
        self.shared().limits.heard(self.party, self.id, &reply, now);
        headers::incoming(reply.headers_mut(), &ready.token);
        Ok(reply)
    }

    async fn try_send(
        &self,
        ready: &Ready,
        body: OutboundBody,
    ) -> Result<Result<Response<OutboundBody>, OutboundError>, Error> {
        let outbound = self.shared().outbound.as_ref();
        let outbound = outbound.ok_or_else(|| self.unavailable("no call goes out of this engine"))?;
        let token = headers::token(self.api, &ready.token_type, &ready.token)
            .ok_or_else(|| Error::invalid("the token of this connection cannot be sent in a header"))?;
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers::outgoing(&self.head.headers, self.api, token);
        Ok(outbound.call(request, Peers::Any, REPLY_WITHIN).await)
    }

    fn shared(&self) -> &Shared {
        &self.proxy.connections.shared
    }

    /// The caller is told what the provider said; the next one is not to be told it again.
    fn refresh_behind(&self, ready: &Ready) {
        let (connections, id, generation) = (self.proxy.connections.clone(), self.id.clone(), ready.generation);
        tokio::spawn(async move {
            if let Err(error) = connections.refresh(&Caller::Local, &id, Some(generation)).await {
                tracing::debug!(integration = %id.integration, %error, "a token that an API refused is not refreshed");
            }
        });
    }

    /// One line for each request that is sent once more; `status` = what the one before was answered with, if it was.
    fn note_retry(&self, ready: &Ready, status: Option<StatusCode>, since: Boot) {
        let (status, wait) = (status.as_ref().map(StatusCode::as_u16), self.shared().now().boot.since(since));
        tracing::warn!(
            connection = %self.id, generation = ready.generation.0, attempt = 1, status, wait = wait.as_secs(),
            "a call is made once more"
        );
    }

    /// What there is to say of an API that did not answer; why, and at which address, is for the log.
    fn unanswered(&self, error: &OutboundError) -> Error {
        tracing::warn!(connection = %self.id, host = self.host.origin(), %error, "an API did not answer");
        self.unavailable(match error {
            OutboundError::Unreachable { .. } | OutboundError::Forbidden { .. } => "its API cannot be reached",
            OutboundError::TimedOut => "its API did not answer in time",
            OutboundError::Cut { .. } | OutboundError::BodyBrokeOff | OutboundError::BodyStoodStill => {
                "its API broke off before it answered; the request may have been acted upon"
            }
        })
    }

    fn left_alone(&self, retry_after: Duration) -> Error {
        let detail = "its API fails and is left alone for a while".to_owned();
        Error::ProviderUnavailable { integration: self.id.integration.clone(), detail, retry_after }
    }

    fn unavailable(&self, detail: &str) -> Error {
        let (integration, detail) = (self.id.integration.clone(), detail.to_owned());
        Error::ProviderUnavailable { integration, detail, retry_after: PROVIDER_RETRY }
    }
}
