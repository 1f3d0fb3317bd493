//! Who signed in, as the provider says it: in the ID token, or at an endpoint that describes the holder of the token.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION},
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokenkeep_core::{
    Subject, TokenSet,
    ports::Request,
    provider::{EmailSource, Identity, IdentitySource, OrganizationSource},
};
use tokenkeep_oauth::{
    Secret,
    id_token::{Expected, parse_direct_claims},
};
use url::Url;
use zeroize::Zeroizing;

use super::Who;
use crate::{
    Error,
    connect::Failure,
    integrations::Party,
    issuer::{Issuer, interactions::is_sane},
    metrics::UpstreamCall,
};

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

/// How it is known who signed in there.
pub(super) fn identity_of(party: &Party) -> Result<Identity<Url>, Error> {
    let provider = &party.provider;
    let by_issuer = || provider.issuer.is_some().then(Identity::oidc);
    let identity = provider.identity.clone().or_else(by_issuer);
    let name = &party.provider_name;
    identity.ok_or_else(|| {
        Error::invalid(format!("{name} does not say who signed in: it has neither `issuer` nor `[identity]`"))
    })
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
        let access = tokens.and_then(|tokens| tokens.access.as_ref()).map(|access| &access.token);
        let access = access.ok_or_else(|| Failure::Refused("no_access_token".to_owned()))?;
        let api = Api { issuer: self, party, access };
        let claims = match identity.source {
            IdentitySource::IdToken => {
                let claims = self.claims(party, &identity, id_token, nonce)?;
                self.completed(&api, &identity, claims).await?
            }
            IdentitySource::Userinfo => api.userinfo().await?,
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

    /// What the ID token says. Unlike at a connect, whatever is wrong with it refuses: somebody signs in by it.
    fn claims(
        &self,
        party: &Party,
        identity: &Identity<Url>,
        id_token: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Value, Failure> {
        let id_token = id_token.ok_or_else(|| Failure::Refused("id_token_missing".to_owned()))?;
        let issuer = identity.issuer.as_deref().or(party.provider.issuer.as_deref());
        let issuer = issuer.ok_or_else(|| Failure::Misconfigured("the provider has no issuer".to_owned()))?;
        // Without one, an ID token of another sign-in would do.
        let nonce = nonce.ok_or_else(|| Failure::Refused("nonce_missing".to_owned()))?;
        let expected = Expected { issuer, client_id: &party.client.id, nonce: Some(nonce) };
        parse_direct_claims(id_token, expected, self.shared.now().wall).map_err(|error| {
            tracing::warn!(integration = %party.integration.id, %error, "an ID token is not believed");
            Failure::Refused("id_token_invalid".to_owned())
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
        let list = api.get(url).await?;
        Ok(list.as_array().into_iter().flatten().filter_map(|entry| text(entry, &source.name)).collect())
    }
}

/// The provider's API, on behalf of who signed in.
struct Api<'a> {
    issuer: &'a Issuer,
    party: &'a Party,
    access: &'a Secret,
}

impl Api<'_> {
    async fn userinfo(&self) -> Result<Value, Failure> {
        match &self.party.provider.userinfo_url {
            Some(url) => self.get(url).await,
            None => Err(Failure::Misconfigured("the provider has no userinfo endpoint".to_owned())),
        }
    }

    async fn get(&self, url: &Url) -> Result<Value, Failure> {
        let bearer = Zeroizing::new(format!("Bearer {}", self.access.expose_secret()));
        let bearer = HeaderValue::try_from(bearer.as_str()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let bearer = bearer.map_err(|_| Failure::Refused("access_token_unusable".to_owned()))?;
        let headers = [(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static("application/json"))];
        let headers = HeaderMap::from_iter(headers);
        self.issuer.shared.metrics.called(&self.party.integration.id, UpstreamCall::userinfo);
        let request = Request { method: Method::GET, url: url.clone(), headers, body: Zeroizing::default() };
        let reply = self.issuer.connect.fetch(request).await?;
        let status = reply.status;
        if status == StatusCode::OK
            && let Ok(said) = serde_json::from_slice(&reply.body)
        {
            return Ok(said);
        }
        tracing::warn!(integration = %self.party.integration.id, %url, %status, "a provider does not say who signed in");
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            Err(Failure::Refused("identity_refused".to_owned()))
        } else {
            Err(Failure::Unavailable)
        }
    }
}

/// The text or the whole number that stands there.
fn text(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// Providers write it in several ways.
fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|found| *found == true || *found == "true" || *found == 1 || *found == "1")
}

/// With several parts, none may hold what stands between them: two people must not come out the same.
fn id_of(identity: &Identity<Url>, claims: &Value) -> Option<String> {
    let several = identity.subject.len() > 1;
    let part = |pointer: &String| text(claims, pointer).filter(|part| !(several && part.contains('.')));
    let parts: Option<Vec<String>> = identity.subject.iter().map(part).collect();
    parts.map(|parts| parts.join("."))
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

    #[test]
    fn an_id_is_whole_or_there_is_none() {
        let of = |subject: &[&str], claims: Value| {
            let subject = subject.iter().map(|&pointer| pointer.to_owned()).collect();
            id_of(&Identity { subject, ..Identity::oidc() }, &claims)
        };
        assert_eq!(of(&["/id"], json!({"id": 42})).as_deref(), Some("42"));
        assert_eq!(of(&["/tid", "/oid"], json!({"tid": "t", "oid": "o"})).as_deref(), Some("t.o"));
        assert_eq!(of(&["/sub"], json!({"sub": "a.b"})).as_deref(), Some("a.b"));
        for (subject, claims) in [
            (&["/id"][..], json!({})),
            (&["/id"], json!({"id": ""})),
            (&["/id"], json!({"id": 1.5})),
            (&["/id"], json!({"id": null})),
            (&["/id"], json!({"id": {"a": 1}})),
            (&["/tid", "/oid"], json!({"tid": "t"})),
            (&["/tid", "/oid"], json!({"tid": "t.o", "oid": "x"})),
        ] {
            assert_eq!(of(subject, claims), None);
        }
    }
}
