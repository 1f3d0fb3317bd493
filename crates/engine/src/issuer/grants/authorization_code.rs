//! The authorization code grant (RFC 6749 4.1.3, RFC 7636 4.5).

use std::{collections::BTreeSet, sync::Arc};

use tokenkeep_core::{
    Client, ConnectionId, Grant, GrantId, Interaction, Subject,
    grant::{CODE_LIFE, Code, GrantSeed, GrantStage, Presented, Redemption, User},
    time::after,
};
use tokenkeep_oauth::{
    Secret,
    issuer::{client::GrantType, resource::Resource},
};
use zeroize::Zeroizing;

use super::{Allowed, no_such_token};
use crate::{
    Error,
    issuer::{Issuer, Refused},
};

/// What the client says beside the code.
pub(super) struct Said {
    pub(super) redirect_uri: Option<String>,
    pub(super) verifier: Option<Secret>,
    pub(super) resource: Option<Resource>,
}

impl Issuer {
    pub(super) async fn by_authorization_code(
        &self,
        client: &Client,
        code: &Secret,
        said: Said,
    ) -> Result<Allowed, Refused> {
        let presented = Presented::parse(code).ok_or_else(no_such_token)?;
        let birth = self.birth(Some(presented.grant));
        let refreshable = client.metadata.allows(GrantType::RefreshToken);
        let refresh_life = refreshable.then_some(self.settings.refresh_token_ttl);
        let redemption = Redemption {
            client: &client.id,
            redirect_uri: said.redirect_uri.as_deref(),
            verifier: said.verifier.as_ref(),
            resource: said.resource.as_ref(),
        };
        let step = |grant: Grant| {
            let now = self.shared.now().wall;
            let grant = grant.redeem(&presented, redemption, refresh_life, now)?;
            Ok((grant.remember(birth.live(), now), ()))
        };
        let (grant, ()) = self.advance(&presented.grant, &birth.jti, step).await?;
        Ok(Allowed {
            refresh_token: refreshable.then(|| grant.token(1)),
            subject: grant.subject.to_string(),
            username: grant.user.name,
            scope: grant.scope,
            resource: grant.resource,
            birth,
            grant: Some(grant.id),
        })
    }

    /// Makes the grant that a subject gave, and its code.
    pub(in crate::issuer) async fn grant_code(
        &self,
        interaction: &Interaction,
        subject: Subject,
        user: User,
        connection: Option<ConnectionId>,
    ) -> Result<(GrantId, Secret), Error> {
        let now = self.shared.now().wall;
        // Who signed in here has no account elsewhere that anybody could use.
        let exchangers = if connection.is_some() { interaction.exchangers.clone() } else { BTreeSet::new() };
        let grant = Arc::new(Grant {
            id: GrantId(self.shared.ulid()),
            client: interaction.client.clone(),
            subject,
            user,
            scope: interaction.scope.clone(),
            resource: interaction.resource.clone(),
            connection,
            exchangers,
            seed: GrantSeed::new(*Zeroizing::new(self.shared.entropy.bytes32())),
            created_at: now,
            stage: GrantStage::Coded(Code {
                redirect_uri: interaction.redirect_uri.clone(),
                challenge: interaction.challenge.clone(),
                expires_at: after(now, CODE_LIFE),
            }),
            live: Vec::new(),
            session: None,
        });
        self.make_grant(&grant).await?;
        Ok((grant.id, grant.token(0)))
    }
}
