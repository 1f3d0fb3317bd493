//! `/jwks` (RFC 7517 5): the keys that others check our tokens with.

use axum::response::Response;
use tokenkeep_engine::issuer::Refused;

use super::{errors::Failure, issuing::Issuing, metadata::published};

pub(crate) async fn jwks(issuing: Issuing) -> Result<Response, Failure> {
    let keys = issuing.issuer.jwks();
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
