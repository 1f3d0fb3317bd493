//! `/register` (RFC 7591) and `/register/{client_id}` (RFC 7592).

use std::net::IpAddr;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use tokenkeep_core::Boot;
use tokenkeep_engine::{
    Error,
    issuer::{ManagementRefused, Refused, Registered},
};
use tokenkeep_oauth::{Secret, issuer::error::OAuthError};
use zeroize::Zeroizing;

use super::{
    bearer::{presented, refused},
    errors::{Failure, json},
    issuing::Issuing,
};
use crate::{AppState, body, peer::Peer};

/// The largest registration that is read, in bytes.
const MAX_BODY: usize = 16 * 1024;

pub(crate) async fn register(
    State(state): State<AppState>,
    issuing: Issuing,
    request: Request,
) -> Result<Response, Failure> {
    let from = issuing.origin_of(request.headers(), Peer::of(request.extensions()));
    let now = || state.clock().now().boot;
    held_back(&issuing, from, now())?;
    let (headers, body) = read(&state, request).await?;
    let token = presented(&headers)?;
    let may_be_new = || new_client(&issuing, from, now());
    let registered = issuing.issuer.register(&body, token.as_ref(), may_be_new).await.map_err(|why| match why {
        Refused::Protocol(error) if error.code.as_str() == "invalid_token" => refused(error, token.as_ref()),
        why => why.into(),
    })?;
    Ok(told(StatusCode::CREATED, &registered))
}

pub(crate) async fn get(issuing: Issuing, path: Named, request: Request) -> Result<Response, Failure> {
    let token = presented(request.headers())?;
    let registered = issuing.issuer.registered(&id(path), &brought(token.as_ref())).await;
    Ok(told(StatusCode::OK, &registered.map_err(|why| failure(why, token.as_ref()))?))
}

pub(crate) async fn put(
    State(state): State<AppState>,
    issuing: Issuing,
    path: Named,
    request: Request,
) -> Result<Response, Failure> {
    let from = issuing.origin_of(request.headers(), Peer::of(request.extensions()));
    held_back(&issuing, from, state.clock().now().boot)?;
    let (headers, body) = read(&state, request).await?;
    let token = presented(&headers)?;
    let registered = issuing.issuer.update_registration(&id(path), &brought(token.as_ref()), &body).await;
    Ok(told(StatusCode::OK, &registered.map_err(|why| failure(why, token.as_ref()))?))
}

pub(crate) async fn delete(
    State(state): State<AppState>,
    issuing: Issuing,
    path: Named,
    request: Request,
) -> Result<StatusCode, Failure> {
    let from = issuing.origin_of(request.headers(), Peer::of(request.extensions()));
    held_back(&issuing, from, state.clock().now().boot)?;
    let token = presented(request.headers())?;
    let deleted = issuing.issuer.delete_registration(&id(path), &brought(token.as_ref())).await;
    deleted.map_err(|why| failure(why, token.as_ref()))?;
    Ok(StatusCode::NO_CONTENT)
}

type Named = Result<Path<String>, PathRejection>;

/// What cannot be decoded is nobody's id.
fn id(path: Named) -> String {
    path.map(|Path(id)| id).unwrap_or_default()
}

fn brought(token: Option<&Secret>) -> Secret {
    token.cloned().unwrap_or_else(|| Secret::from(""))
}

async fn read(state: &AppState, request: Request) -> Result<(HeaderMap, Zeroizing<Vec<u8>>), Failure> {
    if !body::is_json(request.headers()) {
        let error = OAuthError::invalid_client_metadata("send the body as `Content-Type: application/json`");
        return Err(Failure::from(error).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let (parts, body) = request.into_parts();
    Ok((parts.headers, body::read_within(body, MAX_BODY, state).await?))
}

fn told(status: StatusCode, registered: &Registered) -> Response {
    json(status, Bytes::copy_from_slice(registered.to_json().expose_secret().as_bytes()))
}

fn failure(why: ManagementRefused, token: Option<&Secret>) -> Failure {
    match why {
        ManagementRefused::Refused(refused) => refused.into(),
        why => refused(why.told(), token).with_status(why.status()),
    }
}

/// Counts a registration, or a change of one, and holds it back where there are too many of that network.
fn held_back(issuing: &Issuing, from: Option<IpAddr>, now: Boot) -> Result<(), Failure> {
    let ceiling = &issuing.ceilings.registrations;
    let name = ceiling.name(&from);
    ceiling.check(name, now).map_err(Failure::too_many)?;
    ceiling.count(name, now);
    Ok(())
}

/// The same for a client that would be a new one. Programs that register at every start mostly are known already, and
/// leave nothing behind.
fn new_client(issuing: &Issuing, from: Option<IpAddr>, now: Boot) -> Result<(), Error> {
    let ceiling = &issuing.ceilings.new_clients;
    let name = ceiling.name(&from);
    let too_many = |retry_after| Error::TooMany { what: "too many clients register in your network", retry_after };
    ceiling.check(name, now).map_err(too_many)?;
    ceiling.count(name, now);
    Ok(())
}
