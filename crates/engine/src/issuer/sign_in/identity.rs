//! Who signed in, as the provider says it: in the ID token, or at an endpoint that describes the holder of the token.

use serde_json::Value;
use tokenkeep_core::{
    Subject, TokenSet,
    provider::{EmailSource, Identity, IdentitySource, OrganizationSource},
};
use tokenkeep_oauth::Secret;
use url::Url;

use super::Who;
use crate::{
    connect::{
        Failure,
        account::{Api, id_of, identity_of, text},
    },
    integrations::Party,
    issuer::{Issuer, interactions::is_sane},
};

/// So many pages of somebody's organisations are read.
const PAGES: usize = 10;

/// Somebody who signed in.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// Never changes, and is never given to somebody else at that provider.
    pub(super) id: String,
    /// What to call them.
    pub(super) name: Option<String>,
    /// Whether nobody else there has that name.
    pub(super) unique_name: bool,
    /// An address that the provider vouches for.
    pub(super) email: Option<String>,
    /// Looked up only where a rule asks for them.
    pub(super) organizations: Vec<String>,
}

impl Person {
    pub(super) fn who<'a>(&'a self, subject: &'a Subject) -> Who<'a> {
        Who {
            subject,
            unique_name: self.name.as_deref().filter(|_| self.unique_name),
            email: self.email.as_deref(),
            organizations: &self.organizations,
        }
    }
}

impl Issuer {
    /// Who it is whose tokens these are.
    pub(super) async fn identify(
        &self,
        party: &Party,
        tokens: Option<&TokenSet>,
        id_token: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Person, Failure> {
        let identity = identity_of(party).map_err(|error| Failure::Misconfigured(error.to_string()))?;
        let api = self.connect.api_of(party, tokens)?;
        let claims = api.account(&identity, id_token, nonce).await?;
        let claims = match identity.source {
            IdentitySource::IdToken => self.completed(&api, &identity, claims).await?,
            IdentitySource::Userinfo => claims,
        };
        let id = id_of(&identity, &claims).ok_or_else(|| Failure::Refused("identity_missing".to_owned()))?;
        Ok(Person {
            id,
            name: name_of(&identity, &claims),
            unique_name: identity.unique_name,
            email: self.email(&api, identity.email.as_ref(), &claims).await?,
            organizations: self.organizations(&api, identity.organizations.as_ref(), &claims).await?,
        })
    }

    /// Many providers say in the ID token no more than who it is, and the rest at their userinfo endpoint. What it says
    /// counts if it is of the same person (OIDC Core 5.3.2), and only where the ID token says nothing.
    async fn completed(&self, api: &Api<'_>, identity: &Identity<Url>, mut claims: Value) -> Result<Value, Failure> {
        let lacks_email =
            identity.email.as_ref().is_some_and(|e| e.url.is_none() && text(&claims, &e.address).is_none());
        let is_complete = !lacks_email && name_of(identity, &claims).is_some();
        if is_complete || api.party.provider.userinfo_url.is_none() {
            return Ok(claims);
        }
        let said = match api.userinfo().await {
            Ok(said) => said,
            Err(failure) if lacks_email && self.settings.admitted.looks_at_email() => return Err(failure),
            // It would only have been nicer to know.
            Err(_) => return Ok(claims),
        };
        if said["sub"] != claims["sub"] {
            return Err(Failure::Refused("userinfo_mismatch".to_owned()));
        }
        if let (Value::Object(claims), Value::Object(said)) = (&mut claims, said) {
            // An address and the word for it come from one place.
            let address_is_told = claims.contains_key("email");
            for (name, value) in said {
                if !(address_is_told && name == "email_verified") {
                    claims.entry(name).or_insert(value);
                }
            }
        }
        Ok(claims)
    }

    /// Their address, if the provider vouches for it.
    async fn email(
        &self,
        api: &Api<'_>,
        source: Option<&EmailSource<Url>>,
        claims: &Value,
    ) -> Result<Option<String>, Failure> {
        let Some(source) = source else { return Ok(None) };
        let Some(url) = &source.url else { return Ok(verified_email(source, claims)) };
        let list = match api.get(url).await {
            Ok(list) => list,
            // "It could not be found out" must not read as "they have none" where a rule asks for it.
            Err(failure) if self.settings.admitted.looks_at_email() => return Err(failure),
            Err(_) => return Ok(None),
        };
        let is_primary = |entry: &&Value| source.primary.as_ref().is_none_or(|pointer| is_true(entry, pointer));
        let mut own = list.as_array().into_iter().flatten().filter(is_primary);
        Ok(own.find_map(|entry| verified_email(source, entry)))
    }

    async fn organizations(
        &self,
        api: &Api<'_>,
        source: Option<&OrganizationSource<Url>>,
        claims: &Value,
    ) -> Result<Vec<String>, Failure> {
        let Some(source) = source.filter(|_| self.settings.admitted.organizations.is_some()) else {
            return Ok(Vec::new());
        };
        let Some(url) = &source.url else {
            return Ok(match claims.pointer(&source.name) {
                Some(Value::Array(all)) => all.iter().filter_map(|one| text(one, "")).collect(),
                Some(one) => text(one, "").into_iter().collect(),
                None => Vec::new(),
            });
        };
        let mut names = Vec::new();
        let mut next = Some(url.clone());
        for _ in 0..PAGES {
            let Some(url) = next else { break };
            let (list, more) = api.page(&url).await?;
            names.extend(list.as_array().into_iter().flatten().filter_map(|entry| text(entry, &source.name)));
            next = more;
        }
        if next.is_some() {
            tracing::warn!(integration = %api.party.integration.id, "somebody is in more organisations than are read");
        }
        Ok(names)
    }
}

/// Providers write it in several ways.
fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|found| *found == true || *found == "true" || *found == 1 || *found == "1")
}

fn name_of(identity: &Identity<Url>, claims: &Value) -> Option<String> {
    identity.name.iter().find_map(|pointer| text(claims, pointer)).filter(|name| is_sane(name))
}

fn verified_email(source: &EmailSource<Url>, value: &Value) -> Option<String> {
    let email = text(value, &source.address).filter(|email| is_sane(email) && email.contains('@'));
    email.filter(|_| is_true(value, &source.verified))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_counts_if_the_provider_vouches_for_it() {
        let source = Identity::oidc().email.unwrap();
        let email = |verified: Value| verified_email(&source, &json!({"email": "a@b.c", "email_verified": verified}));
        for yes in [json!(true), json!("true"), json!(1), json!("1")] {
            assert_eq!(email(yes).as_deref(), Some("a@b.c"));
        }
        for no in [json!(false), json!("false"), json!(0), json!(null), json!("yes"), json!([true])] {
            assert_eq!(email(no), None);
        }
        for odd in ["", "nobody", "a@b\n.c"] {
            assert_eq!(verified_email(&source, &json!({"email": odd, "email_verified": true})), None);
        }
    }
}
