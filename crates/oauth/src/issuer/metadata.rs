//! What we say of ourselves (RFC 8414, OpenID Connect Discovery 1.0) and of what we protect (RFC 9728).
//!
//! One document serves OAuth and OpenID clients alike: the latter want a few members more, and get no id_token.

use std::fmt;

use serde::Serialize;
use url::Url;

use super::{
    client::{AuthMethod, GrantType},
    jwks::ALGORITHMS,
    jws::Algorithm,
    resource::Resource,
    scope::ScopeSet,
};
use crate::endpoint;

/// Our own name. Kept byte for byte: that is how clients compare it (RFC 8414 3.3, RFC 9207 2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    /// Without the slash at the end.
    path: String,
}

/// Why a text is no issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an issuer is an https URL (or http on this machine) without query and fragment: {0}")]
pub struct InvalidIssuer(&'static str);

/// What clients speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// RFC 6749 3.1.
    Authorize,
    /// RFC 6749 3.2.
    Token,
    /// RFC 7591 3.
    Register,
    /// RFC 7009 2.
    Revoke,
    /// RFC 7662 2.
    Introspect,
    /// RFC 7517 5.
    Jwks,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 6] =
        [Self::Authorize, Self::Token, Self::Register, Self::Revoke, Self::Introspect, Self::Jwks];

    /// Its path below the issuer's. Clients of the time before discovery know the first three by heart.
    pub fn path(self) -> &'static str {
        match self {
            Self::Authorize => "/authorize",
            Self::Token => "/token",
            Self::Register => "/register",
            Self::Revoke => "/revoke",
            Self::Introspect => "/introspect",
            Self::Jwks => "/jwks",
        }
    }
}

impl Issuer {
    /// Reads an issuer identifier (RFC 8414 2).
    pub fn parse(text: &str) -> Result<Self, InvalidIssuer> {
        let url = endpoint::parse(text).map_err(InvalidIssuer)?;
        if text.contains(['?', '#']) {
            return Err(InvalidIssuer("it has a query or a fragment"));
        }
        // What the parser tidies up would have two spellings, and clients compare bytes.
        let is_tidy = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
        if !is_tidy {
            return Err(InvalidIssuer("write it as browsers do: lower case, no default port, nothing to be resolved"));
        }
        Ok(Self { text: text.to_owned(), path: url.path().trim_end_matches('/').to_owned() })
    }

    /// As it was configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path that all endpoints stand below: empty, or `/a/b`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL of an endpoint.
    pub fn endpoint(&self, endpoint: Endpoint) -> String {
        format!("{}{}", self.text.trim_end_matches('/'), endpoint.path())
    }

    /// Where clients look for [`ServerMetadata`]: RFC 8414's, and OpenID's before and after the path.
    ///
    /// ```
    /// use tokenkeep_oauth::issuer::metadata::Issuer;
    /// let paths = |issuer| Issuer::parse(issuer).unwrap().well_known_paths();
    /// assert_eq!(paths("https://as.example"), [
    ///     "/.well-known/oauth-authorization-server",
    ///     "/.well-known/openid-configuration",
    /// ]);
    /// assert_eq!(paths("https://as.example/a"), [
    ///     "/.well-known/oauth-authorization-server/a",
    ///     "/.well-known/openid-configuration/a",
    ///     "/a/.well-known/openid-configuration",
    /// ]);
    /// ```
    pub fn well_known_paths(&self) -> Vec<String> {
        let path = &self.path;
        let mut paths = vec![
            format!("/.well-known/oauth-authorization-server{path}"),
            format!("/.well-known/openid-configuration{path}"),
            format!("{path}/.well-known/openid-configuration"),
        ];
        paths.dedup();
        paths
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// What the operator decides of [`ServerMetadata`].
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Every scope that is known.
    pub scopes: &'a ScopeSet,
    /// Whether clients may register themselves (RFC 7591).
    pub registration: bool,
    /// Whether the address of a document may be a client's id (Client ID Metadata Documents).
    pub client_documents: bool,
    /// Whether some client may exchange tokens (RFC 8693).
    pub token_exchange: bool,
    /// What tokens are signed with.
    pub signing: &'a [Algorithm],
}

/// What we say of ourselves (RFC 8414 2, OpenID Connect Discovery 1.0 section 3). Only what works is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerMetadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_endpoint: Option<String>,
    revocation_endpoint: String,
    introspection_endpoint: String,
    jwks_uri: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<String>,
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: Vec<&'static str>,
    code_challenge_methods_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    authorization_response_iss_parameter_supported: bool,
    client_id_metadata_document_supported: bool,
    /// OpenID clients do not take the document without it.
    subject_types_supported: [&'static str; 1],
    /// The same; no id_token is ever issued.
    id_token_signing_alg_values_supported: Vec<&'static str>,
    /// OpenID Connect Discovery 1.0 section 3: left out it would mean yes.
    request_uri_parameter_supported: bool,
}

impl ServerMetadata {
    /// Puts it together.
    pub fn new(issuer: &Issuer, offer: Offer<'_>) -> Self {
        let methods = AuthMethod::ALL.map(AuthMethod::as_str).to_vec();
        let proving = AuthMethod::ALL.into_iter().filter(|method| *method != AuthMethod::None);
        let is_offered = |grant: &GrantType| offer.token_exchange || *grant != GrantType::TokenExchange;
        let grants = GrantType::ALL.into_iter().filter(is_offered);
        let is_public = |algorithm: &&Algorithm| **algorithm != Algorithm::Hs256;
        Self {
            issuer: issuer.as_str().to_owned(),
            authorization_endpoint: issuer.endpoint(Endpoint::Authorize),
            token_endpoint: issuer.endpoint(Endpoint::Token),
            registration_endpoint: offer.registration.then(|| issuer.endpoint(Endpoint::Register)),
            revocation_endpoint: issuer.endpoint(Endpoint::Revoke),
            introspection_endpoint: issuer.endpoint(Endpoint::Introspect),
            jwks_uri: issuer.endpoint(Endpoint::Jwks),
            scopes_supported: offer.scopes.iter().map(str::to_owned).collect(),
            response_types_supported: ["code"],
            response_modes_supported: ["query"],
            grant_types_supported: grants.map(GrantType::as_str).collect(),
            code_challenge_methods_supported: ["S256"],
            token_endpoint_auth_methods_supported: methods.clone(),
            token_endpoint_auth_signing_alg_values_supported: ALGORITHMS.to_vec(),
            revocation_endpoint_auth_methods_supported: methods,
            revocation_endpoint_auth_signing_alg_values_supported: ALGORITHMS.to_vec(),
            introspection_endpoint_auth_methods_supported: proving.map(AuthMethod::as_str).collect(),
            introspection_endpoint_auth_signing_alg_values_supported: ALGORITHMS.to_vec(),
            authorization_response_iss_parameter_supported: true,
            client_id_metadata_document_supported: offer.client_documents,
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: offer
                .signing
                .iter()
                .filter(is_public)
                .map(|algorithm| algorithm.as_str())
                .collect(),
            request_uri_parameter_supported: false,
        }
    }
}

/// What we say of something that we protect (RFC 9728 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceMetadata {
    resource: String,
    authorization_servers: [String; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<String>,
    bearer_methods_supported: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_name: Option<String>,
}

impl ResourceMetadata {
    /// Puts it together. `name` is for people.
    pub fn new(resource: &Resource, issuer: &Issuer, scopes: &ScopeSet, name: Option<&str>) -> Self {
        Self {
            resource: resource.as_str().to_owned(),
            authorization_servers: [issuer.as_str().to_owned()],
            scopes_supported: scopes.iter().map(str::to_owned).collect(),
            bearer_methods_supported: ["header"],
            resource_name: name.map(str::to_owned),
        }
    }
}

const RESOURCE_WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Where [`ResourceMetadata`] stands (RFC 9728 3.1), for `resource_metadata` in a challenge: on the resource's own host.
///
/// ```
/// use tokenkeep_oauth::issuer::{metadata::resource_metadata_url, resource::Resource};
/// let url = |resource| resource_metadata_url(&Resource::parse(resource).unwrap()).to_string();
/// assert_eq!(url("https://h.example"), "https://h.example/.well-known/oauth-protected-resource");
/// assert_eq!(url("https://h.example/mcp?a"), "https://h.example/.well-known/oauth-protected-resource/mcp?a");
/// ```
pub fn resource_metadata_url(resource: &Resource) -> Url {
    let mut url = resource.url();
    let path = url.path().to_owned();
    url.set_path(&format!("{RESOURCE_WELL_KNOWN}{}", if path == "/" { "" } else { &path }));
    url
}

/// Every path under which clients look for it: the resource's own, without the slash at its end where there is one, and
/// the root of its host, which several resources may share.
pub fn resource_metadata_paths(resource: &Resource) -> Vec<String> {
    let own = resource_metadata_url(resource).path().to_owned();
    let mut paths = vec![own.trim_end_matches('/').to_owned(), RESOURCE_WELL_KNOWN.to_owned()];
    paths.insert(0, own);
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::discovery;

    fn document(issuer: &str, offer: Offer<'_>) -> Value {
        serde_json::to_value(ServerMetadata::new(&Issuer::parse(issuer).unwrap(), offer)).unwrap()
    }

    #[test]
    fn our_own_reader_takes_it_under_every_issuer() {
        let scopes = ScopeSet::parse("read write").unwrap();
        let offer = Offer {
            scopes: &scopes,
            registration: true,
            client_documents: true,
            token_exchange: true,
            signing: &Algorithm::ALL,
        };
        for issuer in ["https://as.example", "https://as.example/", "https://as.example/a/b", "http://localhost:8080"] {
            let body = document(issuer, offer).to_string();
            let read = discovery::parse_metadata(issuer, StatusCode::OK, body.as_bytes()).unwrap();
            let base = issuer.trim_end_matches('/');
            assert_eq!(read.token_endpoint.unwrap().as_str(), format!("{base}/token"));
            assert_eq!(read.authorization_endpoint.unwrap().as_str(), format!("{base}/authorize"));
            assert_eq!(read.revocation_endpoint.unwrap().as_str(), format!("{base}/revoke"));
            assert_eq!(read.jwks_uri.unwrap().as_str(), format!("{base}/jwks"));
            assert!(read.authorization_response_iss_parameter_supported);
            // Clients that start from the issuer arrive where we serve it.
            let served = Issuer::parse(issuer).unwrap().well_known_paths();
            for url in discovery::build_metadata_urls(issuer).unwrap() {
                assert!(served.contains(&url.path().to_owned()), "{url}");
            }
        }
    }

    #[test]
    fn only_what_works_is_advertised() {
        let none = ScopeSet::default();
        let signing = [Algorithm::Es256, Algorithm::Hs256];
        let offer = Offer {
            scopes: &none,
            registration: false,
            client_documents: false,
            token_exchange: false,
            signing: &signing,
        };
        let least = document("https://as.example", offer);
        assert_eq!(least.get("registration_endpoint"), None);
        assert_eq!(least.get("scopes_supported"), None);
        assert_eq!(least["client_id_metadata_document_supported"], json!(false));
        // A secret key's algorithm is nobody's business but its resource's.
        assert_eq!(least["id_token_signing_alg_values_supported"], json!(["ES256"]));
        assert_eq!(least["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(least["response_types_supported"], json!(["code"]));
        assert_eq!(
            least["grant_types_supported"],
            json!(["authorization_code", "refresh_token", "client_credentials"])
        );
        let methods = json!(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]);
        assert_eq!(least["token_endpoint_auth_methods_supported"], methods);
        assert_eq!(least["introspection_endpoint_auth_methods_supported"].as_array().unwrap().len(), 3);
        for algorithm in least["token_endpoint_auth_signing_alg_values_supported"].as_array().unwrap() {
            let algorithm = algorithm.as_str().unwrap();
            assert!(algorithm != "none" && !algorithm.starts_with("HS"), "{algorithm}");
        }
        let offer = Offer { registration: true, client_documents: true, token_exchange: true, ..offer };
        let most = document("https://as.example", offer);
        assert_eq!(most["registration_endpoint"], "https://as.example/register");
        assert_eq!(most["client_id_metadata_document_supported"], json!(true));
        assert_eq!(most["grant_types_supported"][3], "urn:ietf:params:oauth:grant-type:token-exchange");
    }

    #[test]
    fn an_issuer_has_one_spelling() {
        for good in ["https://as.example", "https://as.example/", "https://as.example/a/", "http://127.0.0.1:1/a"] {
            assert_eq!(Issuer::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "as.example",
            "http://as.example",
            "https://AS.example",
            "HTTPS://as.example",
            "https://as.example:443",
            "https://as.example?",
            "https://as.example/?x",
            "https://as.example#",
            "https://as.example/a/../b",
            "https://u@as.example",
            " https://as.example",
            "https://as.example/a b",
            "javascript:alert(1)",
        ] {
            assert!(Issuer::parse(bad).is_err(), "{bad}");
        }
        let slash = Issuer::parse("https://as.example/a/").unwrap();
        assert_eq!(slash.endpoint(Endpoint::Token), "https://as.example/a/token");
        assert_eq!(slash.well_known_paths()[0], "/.well-known/oauth-authorization-server/a");
    }

    #[test]
    fn a_resource_is_described_beside_itself() {
        let resource = Resource::parse("https://h.example/mcp").unwrap();
        let issuer = Issuer::parse("https://as.example/").unwrap();
        let scopes = ScopeSet::parse("write read").unwrap();
        let document = serde_json::to_value(ResourceMetadata::new(&resource, &issuer, &scopes, Some("Files"))).unwrap();
        assert_eq!(
            document,
            json!({"resource": "https://h.example/mcp", "authorization_servers": ["https://as.example/"],
                "scopes_supported": ["read", "write"], "bearer_methods_supported": ["header"],
                "resource_name": "Files"})
        );
        let paths = |text: &str| resource_metadata_paths(&Resource::parse(text).unwrap());
        let root = "/.well-known/oauth-protected-resource";
        assert_eq!(paths("https://h.example/"), [root]);
        assert_eq!(paths("https://h.example/mcp"), [&format!("{root}/mcp"), root]);
        assert_eq!(paths("https://h.example/mcp/"), [&format!("{root}/mcp/"), &format!("{root}/mcp"), root]);
    }
}
