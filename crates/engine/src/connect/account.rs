//! Whose account it is, as the provider says it: in the ID token, or at an endpoint that describes the holder of the
//! token.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION},
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokenkeep_core::{
    IntegrationId, Subject, TokenSet,
    ports::Request,
    provider::{Identity, IdentitySource},
};
use tokenkeep_oauth::{
    Secret,
    id_token::{Expected, parse_direct_claims},
};
use url::Url;
use zeroize::Zeroizing;

use super::{Connect, Failure, next_page::next_page};
use crate::{Error, integrations::Party, metrics::UpstreamCall};

/// How it is known who signed in there.
pub(crate) fn identity_of(party: &Party) -> Result<Identity<Url>, Error> {
    let provider = &party.provider;
    let by_issuer = || provider.issuer.is_some().then(Identity::oidc);
    let identity = provider.identity.clone().or_else(by_issuer);
    let name = &party.provider_name;
    identity.ok_or_else(|| {
        Error::invalid(format!("{name} does not say who signed in: it has neither `issuer` nor `[identity]`"))
    })
}

/// `{provider}|{immutable id}`. The integration stands for the provider: two of them may be two installations of it.
pub(crate) fn subject_of(integration: &IntegrationId, id: &str) -> Result<Subject, Failure> {
    Subject::new(&format!("{integration}|{id}")).map_err(|error| {
        tracing::warn!(%integration, %error, "the provider's id of an account cannot be a subject");
        Failure::Refused("identity_unusable".to_owned())
    })
}

impl Connect {
    /// The provider's API, for whoever these tokens belong to.
    pub(crate) fn api_of<'a>(&'a self, party: &'a Party, tokens: Option<&'a TokenSet>) -> Result<Api<'a>, Failure> {
        let access = tokens.and_then(|tokens| tokens.access.as_ref()).map(|access| &access.token);
        let access = access.ok_or_else(|| Failure::Refused("no_access_token".to_owned()))?;
        Ok(Api { connect: self, party, access })
    }
}

/// The provider's API, on behalf of who signed in.
pub(crate) struct Api<'a> {
    connect: &'a Connect,
    pub(crate) party: &'a Party,
    access: &'a Secret,
}

impl Api<'_> {
    /// What the provider says of the account.
    pub(crate) async fn account(
        &self,
        identity: &Identity<Url>,
        id_token: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Value, Failure> {
        match identity.source {
            IdentitySource::IdToken => self.claims(identity, id_token, nonce),
            IdentitySource::Userinfo => self.userinfo().await,
        }
    }

    /// The subject that the account is.
    pub(super) async fn subject(&self, id_token: Option<&Secret>, nonce: Option<&Secret>) -> Result<Subject, Failure> {
        let identity = identity_of(self.party).map_err(|error| Failure::Misconfigured(error.to_string()))?;
        let claims = self.account(&identity, id_token, nonce).await?;
        let id = id_of(&identity, &claims).ok_or_else(|| Failure::Refused("identity_missing".to_owned()))?;
        subject_of(&self.party.integration.id, &id)
    }

    /// What the ID token says. Unlike where only a name is looked for, whatever is wrong with it refuses.
    fn claims(
        &self,
        identity: &Identity<Url>,
        id_token: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Value, Failure> {
        let id_token = id_token.ok_or_else(|| Failure::Refused("id_token_missing".to_owned()))?;
        let issuer = identity.issuer.as_deref().or(self.party.provider.issuer.as_deref());
        let issuer = issuer.ok_or_else(|| Failure::Misconfigured("the provider has no issuer".to_owned()))?;
        // Without one, an ID token of another sign-in would do.
        let nonce = nonce.ok_or_else(|| Failure::Refused("nonce_missing".to_owned()))?;
        let expected = Expected { issuer, client_id: &self.party.client.id, nonce: Some(nonce) };
        parse_direct_claims(id_token, expected, self.connect.shared.now().wall).map_err(|error| {
            tracing::warn!(integration = %self.party.integration.id, %error, "an ID token is not believed");
            Failure::Refused("id_token_invalid".to_owned())
        })
    }

    pub(crate) async fn userinfo(&self) -> Result<Value, Failure> {
        match &self.party.provider.userinfo_url {
            Some(url) => self.get(url).await,
            None => Err(Failure::Misconfigured("the provider has no userinfo endpoint".to_owned())),
        }
    }

    pub(crate) async fn get(&self, url: &Url) -> Result<Value, Failure> {
        self.page(url).await.map(|(said, _)| said)
    }

    /// What is said there, and where it goes on.
    pub(crate) async fn page(&self, url: &Url) -> Result<(Value, Option<Url>), Failure> {
        let bearer = Zeroizing::new(format!("Bearer {}", self.access.expose_secret()));
        let bearer = HeaderValue::try_from(bearer.as_str()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let bearer = bearer.map_err(|_| Failure::Refused("access_token_unusable".to_owned()))?;
        let headers = [(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static("application/json"))];
        let headers = HeaderMap::from_iter(headers);
        self.connect.shared.metrics.called(&self.party.integration.id, UpstreamCall::userinfo);
        let request = Request { method: Method::GET, url: url.clone(), headers, body: Zeroizing::default() };
        let reply = self.connect.fetch(request).await?;
        let status = reply.status;
        if status == StatusCode::OK
            && let Ok(said) = serde_json::from_slice(&reply.body)
        {
            return Ok((said, next_page(url, &reply.headers)));
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
pub(crate) fn text(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// With several parts, none may hold what stands between them: two people must not come out the same.
pub(crate) fn id_of(identity: &Identity<Url>, claims: &Value) -> Option<String> {
    let several = identity.subject.len() > 1;
    let part = |pointer: &String| text(claims, pointer).filter(|part| !(several && part.contains('.')));
    let parts: Option<Vec<String>> = identity.subject.iter().map(part).collect();
    parts.map(|parts| parts.join("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
