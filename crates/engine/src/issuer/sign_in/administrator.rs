//! Signing in here, with an admin key: for development, and where there is no provider to sign in at.

use secrecy::ExposeSecret as _;
use tokenkeep_core::{ApiKey, InteractionId, Role, Subject, Tenant, grant::User};
use tokenkeep_oauth::Secret;

use crate::{
    Error,
    issuer::{Issuer, Upstream},
};

impl Issuer {
    /// The form with the key came back. Answers where the browser goes. The rules for who may sign in are for people at
    /// providers: a key of the role admin may do everything as it is.
    pub async fn sign_in_administrator(
        &self,
        id: &InteractionId,
        browser: Option<Secret>,
        csrf: &str,
        key: &Secret,
    ) -> Result<Secret, Error> {
        self.check_form(id, browser, csrf)?;
        let interaction = self.open_here(id).await?;
        if !self.settings.upstreams_of(&interaction.resource).contains(&Upstream::LocalAdministrator) {
            return Err(Error::Forbidden("nobody signs in here with a key: `[[issuer.upstream]]` says where".into()));
        }
        let may = |key: &ApiKey| key.role == Role::Admin && key.allows_tenant(&Tenant::default_tenant());
        let Some(key) = self.keys.authenticate(key.expose_secret()).filter(|key| may(key)) else {
            tracing::warn!(target: "audit", action = "sign_in_refused", interaction = %id, reason = "no admin key");
            return Err(Error::Forbidden("this is no key of the role admin".into()));
        };
        let subject = Subject::new(&format!("local|{}", key.id))?;
        let user = User { name: Some(key.name.clone()), email: None };
        self.grant_and_answer(&interaction, subject, user, None, &format!("key:{}", key.id)).await
    }
}
