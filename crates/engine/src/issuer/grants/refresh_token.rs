//! The refresh token grant (RFC 6749 6, RFC 9700 4.14.2).

use tokenkeep_core::{
    Client, Grant,
    grant::{GrantError, Presented, Revoked},
};
use tokenkeep_oauth::{
    Secret,
    issuer::{error::OAuthError, resource::Resource, scope::ScopeSet},
};

use super::{Allowed, no_such_token};
use crate::{
    Caller, Error,
    issuer::{Issuer, Refused},
};

impl Issuer {
    pub(super) async fn by_refresh_token(
        &self,
        client: &Client,
        refresh_token: &Secret,
        scope: Option<ScopeSet>,
        resource: Option<Resource>,
    ) -> Result<Allowed, Refused> {
        let presented = Presented::parse(refresh_token).ok_or_else(no_such_token)?;
        let Some(stored) = self.load_grant(&presented.grant).await? else { return Err(no_such_token().into()) };
        if stored.value.belongs(&presented, &client.id) {
            self.check_upstream(&stored.value).await?;
            self.check_admitted(&stored.value).await?;
        }
        let birth = self.birth(Some(presented.grant));
        let life = self.settings.refresh_token_ttl;
        let step = |grant: Grant| {
            let now = self.shared.now().wall;
            let refreshed = grant.refresh(&presented, &client.id, life, now)?;
            // What is asked for is checked before anything is handed out, and so before anything is spent.
            let narrowed = refreshed.grant.narrowed(scope.as_ref(), resource.as_ref())?;
            Ok::<_, GrantError>((refreshed.grant.remember(birth.live(), now), (refreshed.number, narrowed)))
        };
        let (grant, (number, scope)) = self.advance(&presented.grant, &birth.jti, step).await?;
        Ok(Allowed {
            refresh_token: Some(grant.token(number)),
            subject: grant.subject.to_string(),
            username: grant.user.name,
            scope,
            resource: grant.resource,
            birth,
            grant: Some(grant.id),
        })
    }

    /// Where the resource works with the user's tokens at the provider, a grant does not outlive them. A provider that
    /// does not answer has ended nothing.
    async fn check_upstream(&self, grant: &Grant) -> Result<(), Refused> {
        let needed = self.settings.resource(&grant.resource).is_some_and(|resource| resource.needs_upstream);
        let Some(connection) = grant.connection.as_ref().filter(|_| needed) else { return Ok(()) };
        let ended = match self.connections.status(&Caller::Local, connection).await {
            Ok(view) => view.status == tokenkeep_core::Status::ReauthRequired,
            Err(Error::NotFound { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        if !ended {
            return Ok(());
        }
        self.end_grant(&grant.id, Revoked::UpstreamEnded).await?;
        Err(OAuthError::invalid_grant("the user must sign in again: the provider ended its authorization").into())
    }

    /// Who was taken off the list since does not go on for as long as they keep refreshing.
    async fn check_admitted(&self, grant: &Grant) -> Result<(), Refused> {
        if self.is_still_admitted(grant).await? {
            return Ok(());
        }
        self.end_grant(&grant.id, Revoked::NotAdmitted).await?;
        Err(OAuthError::invalid_grant("the user may no longer sign in here").into())
    }
}
