//! `/jwks` (RFC 7517 5): the keys that others check our tokens with.

use axum::{extract::State, response::Response};
use tokenkeep_engine::issuer::{Issuer, Refused};

use super::{errors::Failure, metadata::published};
use crate::AppState;

pub(crate) async fn jwks(State(state): State<AppState>) -> Result<Response, Failure> {
    let keys = state.engine.granting().map(Issuer::jwks).unwrap_or_default();
    if keys.is_empty() {
        // Nobody has been able to read them yet: that is not the same as there being none.
        return Err(
            Refused::from(tokenkeep_engine::Error::StoreUnavailable { retry_after: KEYS_RETRY, source: None }).into()
        );
    }
    Ok(published(keys))
}

/// They are read again within half a minute.
const KEYS_RETRY: std::time::Duration = std::time::Duration::from_secs(5);
