//! Servers that know nothing of users, with us in front of them (`[[protect]]`).
//!
//! A request is let through if it brings an access token for that server, with all the scopes it asks for. The server
//! is told who it is (`X-User-Id`, `X-User-Name`, `X-Auth-Scope`) and, where it asked for that, given the user's fresh
//! token at the provider. It never sees the token that the client has: that one is ours (MCP, security best practices:
//! token passthrough). Everything else goes through as it comes, both ways.
//!
//! What describes the server to clients (RFC 9728), whom they ask for tokens and how that is consented to, is what holds
//! for every resource of the issuer: `oauth`.

mod body;
mod headers;
mod listeners;
mod target;

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ConnectionId, Generation, ports::Peers};
use tokenkeep_engine::{
    Caller, Error, Ready,
    issuer::{Issuer, VerifiedToken},
    transport::{BodyError, Outbound, OutboundBody, OutboundError},
};
use tokenkeep_oauth::issuer::{error::OAuthError, resource::Resource, scope::ScopeSet};
use url::Url;
use zeroize::Zeroizing;

use self::{
    body::{Passing, Shown},
    listeners::{Listener, Listeners},
};
use crate::{
    AppState,
    line::Line,
    oauth::{
        NO_REFERRER, cors,
        errors::Failure,
        issuing::Issuing,
        verify::{self, Guarded},
    },
    peer::Peer,
    problem::{
        INVALID_PATH, INVALID_REQUEST, METHOD_NOT_ALLOWED, Problem, REQUEST_TIMEOUT, SESSION_NOT_FOUND, UPSTREAM_CUT,
        UPSTREAM_TIMEOUT, UPSTREAM_UNAUTHORIZED, UPSTREAM_UNREACHABLE,
    },
    proxy::ProxiedBody,
};

const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// What may be asked for; others that are no standard's go through, too. Not `TRACE`: an answer to it may hold what only
/// the server is told.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// For connecting to the server behind, and again for the head of its answer: a tool may work for long before it says
/// anything. A client that does not wait so long ends the call by going away.
const PATIENCE: Duration = Duration::from_mins(10);

/// When a client may try again that listens to as many streams as it may.
const LISTEN_AGAIN: Duration = Duration::from_mins(1);

/// How long a token that is handed on must live at least.
const MIN_TTL: Duration = Duration::from_mins(1);

/// A server that we stand in front of.
#[derive(Clone, Debug)]
pub struct Protected {
    /// Where it is reached here, which is what clients name: one of the issuer's resources.
    pub resource: Resource,
    /// Where it is.
    pub upstream: Url,
    /// What becomes of the user's token at the provider.
    pub forward: Forward,
}

/// What becomes of the user's token at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// It stays here.
    Nothing,
    /// The server behind gets it as `Authorization: Bearer`.
    Authorization,
    /// The server behind gets it, bare, in this header.
    Header(HeaderName),
}

/// The same, ready to be asked.
struct Gate {
    issuing: Issuing,
    outbound: Outbound,
    guarded: Guarded,
    /// What a token must have; `None` = any will do.
    needed: Option<ScopeSet>,
    /// Where it is reached here.
    public: Url,
    /// Without the slash at the end.
    path: String,
    upstream: Url,
    forward: Forward,
    listeners: Listeners,
}

/// The routes of all servers that we stand in front of.
pub(crate) fn routes(state: &AppState) -> Router<AppState> {
    // What stands in the configuration is a path, not a pattern.
    let mut router = Router::new().without_v07_checks();
    for server in state.settings.protected.clone() {
        let resource = server.resource.clone();
        let Some(gate) = Gate::new(state, server) else {
            tracing::error!(%resource, "this server cannot be protected: it is no resource of the issuer, or there is no way out");
            continue;
        };
        let path = gate.path.clone();
        let gate = Arc::new(gate);
        let pass = async move |State(state): State<AppState>, request: Request| gate.pass(&state, request).await;
        let route = any(pass).layer(cors::of_gates());
        for path in [path.clone(), format!("{path}/"), format!("{path}/{{*rest}}")] {
            router = router.route(&path, route.clone());
        }
    }
    router
}

/// Why a request goes no further.
enum Stopped {
    /// In the words of OAuth.
    Refused(Failure),
    /// Ours, or the server's behind.
    Failed(Problem),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for Stopped {
    fn into_response(self) -> Response {
        let mut response = match self {
            Self::Refused(failure) => failure.into_response(),
            Self::Failed(problem) => problem.into_response(),
        };
        response.headers_mut().insert(NO_REFERRER.0, NO_REFERRER.1);
        response
    }
}

/// A token of the user's at the provider, and whose it is.
struct Handed {
    connection: ConnectionId,
    ready: Arc<Ready>,
}

impl Gate {
    fn new(state: &AppState, server: Protected) -> Option<Self> {
        let issuing = state.issuing.clone()?;
        let outbound = state.engine.outbound()?.clone();
        let known = issuing.issuer.settings().resource(&server.resource)?;
        let (guarded, scopes) = (Guarded::new(known), known.scopes.clone());
        let public = server.resource.url();
        Some(Self {
            issuing,
            outbound,
            guarded,
            needed: (!scopes.is_empty()).then_some(scopes),
            path: public.path().trim_end_matches('/').to_owned(),
            public,
            upstream: server.upstream,
            forward: server.forward,
            listeners: Listeners::default(),
        })
    }

    fn issuer(&self) -> &Issuer {
        &self.issuing.issuer
    }

    async fn pass(&self, state: &AppState, request: Request) -> Response {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            let problem = Problem::new(METHOD_NOT_ALLOWED, "CONNECT and TRACE go no further than here");
            return ([(header::ALLOW, ALLOWED)], problem).into_response();
        }
        self.through(state, request).await.unwrap_or_else(Stopped::into_response)
    }

    async fn through(&self, state: &AppState, request: Request) -> Result<Response, Stopped> {
        let line = Line::of(request.extensions());
        let _held = line.clone().map(Line::hold);
        let (token, verified) = self.guarded.admit(self.issuer(), request.headers(), self.needed.as_ref()).await?;
        let Some(uri) = target::target(&self.path, &self.upstream, request.uri()) else {
            return Err(Problem::new(INVALID_PATH, "this path could be read as another than it looks like").into());
        };
        let session = self.session(&verified, request.headers())?;
        let handed = self.token_of(state, &verified).await?;

        let client = Peer::of(request.extensions());
        let proxies = &self.issuer().settings().trusted_proxies;
        let client = client.map(|peer| peer.speaks_for(request.headers(), proxies));
        let (mut head, body) = request.into_parts();
        headers::strip_request(&mut head.headers);
        headers::put_forwarded(&mut head.headers, client, &self.public);
        verify::put_user(&mut head.headers, &verified);
        if let Some(session) = session {
            head.headers.insert(MCP_SESSION_ID, session);
        }
        self.put_token(&mut head.headers, handed.as_ref())?;
        head.uri = uri;
        let is_listening = headers::is_to_listen(&head.method, &head.headers);
        head.extensions.clear();
        let request = http::Request::from_parts(head, outbound_body(body));

        let answer =
            self.outbound.call(request, Peers::Near, PATIENCE).await.map_err(|error| self.unreached(&error))?;
        let (mut head, body) = answer.into_parts();
        if head.status == StatusCode::UNAUTHORIZED {
            return Err(self.turned_away(state, &verified, handed).await);
        }
        headers::strip_response(&mut head.headers);
        self.rename(&verified, &mut head.headers);
        self.put_location(&mut head.headers);
        let body = ProxiedBody::new(body, line.clone());
        let body = if headers::is_event_stream(&mut head.headers) {
            let (counts_until, issuer, clock) =
                (verified.counts_until, self.issuer().clone(), Arc::clone(state.clock()));
            let shown = Shown { token, counts_until, issuer, clock };
            if is_listening {
                Passing::listening(body, shown, line, self.listener(&verified)?)
            } else {
                Passing::events(body, shown)
            }
        } else {
            Passing::whole(body)
        };
        Ok(Response::from_parts(head, Body::new(body)))
    }

    /// Whoever has a token for itself alone is one of the operator's own: it may serve any number of users.
    fn listener(&self, verified: &VerifiedToken) -> Result<Option<Listener>, Error> {
        let Some(grant) = verified.grant else { return Ok(None) };
        let listener = self.listeners.enter(grant);
        let what = "this client listens to as many streams as it may";
        listener.map(Some).ok_or(Error::TooMany { what, retry_after: LISTEN_AGAIN })
    }

    /// The id of the session that is meant, as the server behind knows it.
    fn session(&self, verified: &VerifiedToken, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        let mut named = headers.get_all(MCP_SESSION_ID).iter();
        let (Some(name), another) = (named.next(), named.next()) else { return Ok(None) };
        let id = name.to_str().ok().and_then(|name| self.issuer().session_named(verified, name));
        let id = id.filter(|_| another.is_none()).and_then(|id| HeaderValue::from_str(id).ok());
        // What MCP says to a client whose session is over: it begins a new one.
        id.map(Some).ok_or_else(|| Problem::new(SESSION_NOT_FOUND, "this user has no such session; begin a new one"))
    }

    /// Tells the client a name for the session that works for its user only.
    fn rename(&self, verified: &VerifiedToken, headers: &mut HeaderMap) {
        let Some(id) = headers.remove(MCP_SESSION_ID) else { return };
        let name = id.to_str().ok().map(|id| self.issuer().name_session(verified, id));
        headers.extend(name.and_then(|name| HeaderValue::from_str(&name).ok()).map(|name| (MCP_SESSION_ID, name)));
    }

    /// The user's token at the provider, where the server behind is to have it.
    async fn token_of(&self, state: &AppState, verified: &VerifiedToken) -> Result<Option<Handed>, Stopped> {
        if self.forward == Forward::Nothing {
            return Ok(None);
        }
        let Some(connection) = verified.connection.clone() else {
            let error = OAuthError::access_denied(
                "whoever has this access token has no account at the provider, and this server needs one",
            );
            return Err(self.guarded.refusal(error, self.needed.as_ref()).into());
        };
        match state.engine.connections().token(&Caller::Local, &connection, MIN_TTL).await {
            Ok(ready) => Ok(Some(Handed { connection, ready })),
            Err(error) => Err(self.without_token(verified, error).await),
        }
    }

    /// There is no token at the provider any more. Where only the user can help, what they allowed the client ends: it
    /// sends them to sign in again, which brings a new one.
    async fn without_token(&self, verified: &VerifiedToken, error: Error) -> Stopped {
        if !matches!(error, Error::ReauthRequired { .. } | Error::NotFound { .. }) {
            return error.into();
        }
        match self.issuer().upstream_ended(verified).await {
            Ok(()) => {
                let text = "the user must sign in again: the provider ended its authorization";
                self.guarded.refusal(OAuthError::invalid_token(text), self.needed.as_ref()).into()
            }
            Err(error) => error.into(),
        }
    }

    fn put_token(&self, headers: &mut HeaderMap, handed: Option<&Handed>) -> Result<(), Problem> {
        let (name, prefix) = match &self.forward {
            Forward::Nothing => return Ok(()),
            Forward::Authorization => (&header::AUTHORIZATION, "Bearer "),
            Forward::Header(name) => (name, ""),
        };
        headers::remove_alike(headers, name);
        let Some(handed) = handed else { return Ok(()) };
        let text = Zeroizing::new(format!("{prefix}{}", handed.ready.token.expose_secret()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Problem::new(UPSTREAM_UNAUTHORIZED, "the user's token at the provider fits into no header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    /// The server behind says 401. Where it was handed a token, that one is no good: the next will be another, and the
    /// client, which tries again, is told so. Where it was not, it wants something that we do not know of.
    async fn turned_away(&self, state: &AppState, verified: &VerifiedToken, handed: Option<Handed>) -> Stopped {
        let Some(Handed { connection, ready }) = handed else {
            let text = "the server behind asks for credentials of its own: switch that off, it is protected here";
            return Problem::new(UPSTREAM_UNAUTHORIZED, text).into();
        };
        let reported: Option<Generation> = Some(ready.generation);
        match state.engine.connections().refresh(&Caller::Local, &connection, reported).await {
            Ok(_) => {
                let text = "the server behind refused the user's token at the provider; there is a new one: try again";
                self.guarded.refusal(OAuthError::invalid_token(text), self.needed.as_ref()).into()
            }
            // It may be as good as ever, and the server have a reason of its own: nothing ends, and who asks may sign in.
            Err(Error::ReauthRequired { reason, .. }) if reason == "no_refresh_token" => {
                let text = "the server behind refused the user's token at the provider, which cannot be renewed";
                self.guarded.refusal(OAuthError::invalid_token(text), self.needed.as_ref()).into()
            }
            Err(error) => self.without_token(verified, error).await,
        }
    }

    fn put_location(&self, headers: &mut HeaderMap) {
        let said = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let here = said.and_then(|said| target::location(&self.upstream, &self.public, said));
        if let Some(here) = here.and_then(|here| HeaderValue::from_str(&here).ok()) {
            headers.insert(header::LOCATION, here);
        }
    }

    fn unreached(&self, error: &OutboundError) -> Problem {
        tracing::warn!(resource = %self.public, %error, "the server behind cannot be asked");
        match error {
            OutboundError::Unreachable { .. } | OutboundError::Forbidden { .. } => {
                Problem::new(UPSTREAM_UNREACHABLE, "the server behind does not answer; the log says more")
            }
            OutboundError::Cut { .. } => {
                Problem::new(UPSTREAM_CUT, "the server behind broke off; the request may have been acted upon")
            }
            OutboundError::BodyBrokeOff => Problem::new(INVALID_REQUEST, "the request's body broke off before its end"),
            OutboundError::BodyStoodStill => {
                Problem::new(REQUEST_TIMEOUT, "the request's body took too long to arrive")
            }
            OutboundError::TimedOut => {
                Problem::new(UPSTREAM_TIMEOUT, "the server behind took too long; the request may be acted upon yet")
            }
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("path", &self.path).finish_non_exhaustive()
    }
}

fn outbound_body(body: Body) -> OutboundBody {
    OutboundBody::new(body.map_err(BodyError::from))
}
