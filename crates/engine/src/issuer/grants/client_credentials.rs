//! The client credentials grant (RFC 6749 4.4). Nothing is stored: the token is all there is, until it is revoked.

use tokenkeep_core::Client;
use tokenkeep_oauth::issuer::{resource::Resource, scope::ScopeSet};

use super::Allowed;
use crate::issuer::{Issuer, Refused};

impl Issuer {
    pub(super) fn by_client_credentials(
        &self,
        client: &Client,
        scope: Option<&ScopeSet>,
        resource: Option<&Resource>,
    ) -> Result<Allowed, Refused> {
        let protected = self.meant(resource)?;
        Ok(Allowed {
            subject: client.id.to_string(),
            username: None,
            scope: Self::granted_scope(client, protected, scope)?,
            resource: protected.resource.clone(),
            birth: self.birth(None),
            refresh_token: None,
            grant: None,
        })
    }
}
