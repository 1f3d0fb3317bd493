//! What the endpoints of the authorization server have in common, made once.

use std::{ops::Deref, sync::Arc};

use axum::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use tokenkeep_engine::issuer::Issuer;

use super::{ceilings::Ceilings, lane::Lane, metadata::Documents, verify::Guarded};
use crate::AppState;

/// The authorization server, as its endpoints see it. Cheap to clone; as an extractor it is a 404 where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Issuing(Arc<Desk>);

/// The same, in one place.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) issuer: Issuer,
    pub(crate) documents: Documents,
    pub(crate) guarded: Vec<Guarded>,
    pub(crate) ceilings: Ceilings,
    pub(crate) lane: Lane,
}

impl Issuing {
    pub(crate) fn new(issuer: Issuer) -> Self {
        let settings = issuer.settings();
        let documents = Documents::new(settings, issuer.exchanges_tokens());
        let guarded = settings.resources.iter().map(Guarded::new).collect();
        let lane = Lane::new(settings);
        Self(Arc::new(Desk { lane, documents, guarded, ceilings: Ceilings::default(), issuer }))
    }
}

impl Deref for Issuing {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.0
    }
}

impl FromRequestParts<AppState> for Issuing {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, StatusCode> {
        state.issuing.clone().ok_or(StatusCode::NOT_FOUND)
    }
}
