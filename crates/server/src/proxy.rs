//! `/proxy/{provider}/{tenant}/{subject}/{path}`: the caller's request, sent to the provider's API with a fresh token.
//!
//! The path is taken from the request as it came: no router has decoded or normalised it. Answers of the provider are
//! passed on as they are; those of tokenkeep's own carry `X-Tokenkeep-Error`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokenkeep_core::ConnectionId;
use tokenkeep_engine::{
    Caller, Error,
    proxy::{X_TOKENKEEP_ERROR, path_and_query},
    transport::{BodyError, OutboundBody, empty_body},
};

use crate::{
    AppState,
    auth::Auth,
    extract::decode,
    line::{Hold, Line},
    problem::{INVALID_IDENTIFIER, Problem},
};

/// Where calls come in.
pub(crate) const PROXY_ROUTE: &str = "/proxy/{provider}/{tenant}/{subject}/{*path}";

/// An answer that is somebody else's: nothing is added to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed;

/// Calls the provider's API.
///
/// The rest of the path and the query go there byte for byte. The host is the first of the integration's `api_hosts`,
/// or the one of them that `X-Tokenkeep-Host` names. Method, body and headers are passed on, except for whatever
/// proves the caller to tokenkeep (`Authorization`, `X-API-Key`, cookies), what belongs to one connection only
/// (RFC 9110 7.6.1), and who came from where (`Forwarded`, `X-Forwarded-*`). The provider's answer is passed on as it
/// is, redirects and errors included, without `Set-Cookie` and what else would speak for this origin. An answer of
/// tokenkeep's own carries `X-Tokenkeep-Error` with its code.
#[utoipa::path(
    get, post, put, delete, patch, head, options,
    path = "/proxy/{provider}/{tenant}/{subject}/{path}",
    operation_id = "proxy_call",
    tag = "proxy",
    params(
        ("provider" = String, Path, description = "The integration"),
        ("tenant" = String, Path, description = "`_default` where there are none"),
        ("subject" = String, Path, description = "Whose connection"),
        ("path" = String, Path, description = "The API's own path, slashes and all"),
        ("X-Tokenkeep-Host" = Option<String>, Header, description = "One of the integration's other API hosts"),
    ),
    responses(
        (status = "default", description = "Whatever the provider answers; or, with `X-Tokenkeep-Error`, a problem: \
            `invalid_path`, `api_host_not_allowed` (400), `request_timeout` (408), `no_api_host` (409), \
            `reauth_required` (424), \
            `too_many_requests` (429), `integration_missing` (502), `provider_unavailable` (503)"),
    ),
)]
pub(crate) async fn call(State(state): State<AppState>, auth: Result<Auth, Problem>, request: Request) -> Response {
    let line = Line::of(request.extensions());
    let answer = async {
        let id = connection(request.uri().path())?;
        Ok::<_, Problem>(pass(&state, &auth?.0, &id, request, line).await?)
    };
    match answer.await {
        Ok(answer) => {
            let mut answer = answer.map(Body::new);
            answer.extensions_mut().insert(Passed);
            answer
        }
        Err(problem) => refused(problem),
    }
}

/// An answer of our own.
pub(crate) fn refused(problem: Problem) -> Response {
    let code = HeaderValue::from_static(problem.code());
    let mut answer = problem.into_response();
    answer.headers_mut().insert(X_TOKENKEEP_ERROR, code);
    answer
}

/// Sends the request on, and holds the line for as long as the provider takes its time.
pub(crate) fn pass<B>(
    state: &AppState,
    caller: &Caller,
    id: &ConnectionId,
    request: http::Request<B>,
    line: Option<Line>,
) -> impl Future<Output = Result<http::Response<ProxiedBody>, Error>> + Send
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let request = outbound(request);
    async move {
        let held = line.clone().map(Line::hold);
        let answer = state.engine.proxy().call(caller, id, request?).await?;
        drop(held);
        Ok(answer.map(|body| ProxiedBody::new(body, line)))
    }
}

/// The request without the part of its path that is for us.
fn outbound<B>(request: http::Request<B>) -> Result<http::Request<OutboundBody>, Error>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let (mut head, body) = request.into_parts();
    let rest = path_and_query(rest(head.uri.path()), head.uri.query());
    head.uri = Uri::from(rest.ok_or(Error::InvalidPath("cannot be sent"))?);
    let body = if body.is_end_stream() { empty_body() } else { OutboundBody::new(body.map_err(Into::into)) };
    Ok(http::Request::from_parts(head, body))
}

/// The three names after `/proxy/`, as they came.
pub(crate) fn names(path: &str) -> Option<[&str; 3]> {
    let mut names = path.strip_prefix("/proxy/")?.splitn(4, '/');
    Some([names.next()?, names.next()?, names.next()?])
}

/// What follows them, with its slash.
fn rest(path: &str) -> &str {
    match path.match_indices('/').nth(4) {
        Some((at, _)) => &path[at..],
        None => "",
    }
}

fn connection(path: &str) -> Result<ConnectionId, Problem> {
    let [integration, tenant, subject] =
        names(path).ok_or_else(|| Problem::new(INVALID_IDENTIFIER, "a name in the path is missing"))?;
    let (tenant, subject) = (decode(tenant)?, decode(subject)?);
    Ok(ConnectionId { integration: decode(integration)?.parse()?, tenant: tenant.parse()?, subject: subject.parse()? })
}

/// A provider's answer on its way. While it waits for the provider, it holds the line; whoever does not take what is
/// there is hung up on like anybody else.
#[derive(Debug)]
pub struct ProxiedBody {
    body: OutboundBody,
    line: Option<Line>,
    hold: Option<Hold>,
}

impl ProxiedBody {
    pub(crate) fn new(body: OutboundBody, line: Option<Line>) -> Self {
        Self { body, line, hold: None }
    }
}

impl HttpBody for ProxiedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_ready() {
            this.hold = None;
        } else if this.hold.is_none() {
            this.hold = this.line.clone().map(Line::hold);
        }
        polled.map_err(axum::Error::new)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_taken_apart_as_it_came() {
        assert_eq!(names("/proxy/g/t/s"), Some(["g", "t", "s"]));
        assert_eq!(names("/proxy/g/a%2Fb/s%40x/v1//me"), Some(["g", "a%2Fb", "s%40x"]));
        assert_eq!(names("/proxy/g/t"), None);
        for (path, whole) in [
            ("/proxy/g/t/s", ""),
            ("/proxy/g/t/s/", "/"),
            ("/proxy/g/t/s//evil", "//evil"),
            ("/proxy/g/t/s/a/../b%2Fc/", "/a/../b%2Fc/"),
        ] {
            assert_eq!(rest(path), whole, "{path}");
        }
    }
}
