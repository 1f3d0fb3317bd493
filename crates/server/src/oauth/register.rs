//! `/register` (RFC 7591) and `/register/{client_id}` (RFC 7592).

use std::{net::IpAddr, time::Duration};

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use tokenkeep_core::time::between;
use tokenkeep_engine::issuer::{ManagementRefused, Refused, Registered};
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

/// A client as young as this is one that came to be just now.
const NEW: Duration = Duration::from_secs(1);

pub(crate) async fn register(
    State(state): State<AppState>,
    issuing: Issuing,
    request: Request,
) -> Result<Response, Failure> {
    let from = issuing.origin_of(request.headers(), Peer::of(request.extensions()));
    let place = Place::of(&issuing, from);
    place.check(&issuing, &state).map_err(Failure::too_many)?;
    let (headers, body) = read(&state, request).await?;
    let token = presented(&headers)?;
    let registered = issuing.issuer.register(&body, token.as_ref()).await.map_err(|why| match why {
        Refused::Protocol(error) if error.code.as_str() == "invalid_token" => refused(error, token.as_ref()),
        why => why.into(),
    })?;
    place.count(&issuing, &state, &registered);
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
    let (headers, body) = read(&state, request).await?;
    let token = presented(&headers)?;
    let registered = issuing.issuer.update_registration(&id(path), &brought(token.as_ref()), &body).await;
    Ok(told(StatusCode::OK, &registered.map_err(|why| failure(why, token.as_ref()))?))
}

pub(crate) async fn delete(issuing: Issuing, path: Named, request: Request) -> Result<StatusCode, Failure> {
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

/// Where a registration comes from, and how many more may.
struct Place(u64);

impl Place {
    fn of(issuing: &Issuing, from: Option<IpAddr>) -> Self {
        Self(issuing.ceilings.new_clients.name(&from))
    }

    fn check(&self, issuing: &Issuing, state: &AppState) -> Result<(), Duration> {
        let (now, ceilings) = (state.clock().now().boot, &issuing.ceilings);
        ceilings.new_clients.check(self.0, now)?;
        ceilings.registrations.check(self.0, now)?;
        ceilings.registrations.count(self.0, now);
        Ok(())
    }

    /// Programs that register at every start mostly are known already, and leave nothing behind.
    fn count(&self, issuing: &Issuing, state: &AppState, registered: &Registered) {
        let now = state.clock().now();
        if between(registered.client.created_at, now.wall) < NEW {
            issuing.ceilings.new_clients.count(self.0, now.boot);
        }
    }
}
