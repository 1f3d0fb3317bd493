//! What a client says of itself (RFC 7591 2), in a registration or in a document (Client ID Metadata Documents).

use std::collections::BTreeSet;

use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::{error::OAuthError, jwks::read_jwks, redirect_uri::RedirectUri, scope::ScopeSet};

/// How a client proves itself at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Not at all: it runs where it could keep no secret.
    None,
    /// With its secret, by HTTP Basic.
    ClientSecretBasic,
    /// With its secret, in the body.
    ClientSecretPost,
    /// With an assertion signed by its key (RFC 7523).
    PrivateKeyJwt,
}

impl AuthMethod {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::None, Self::ClientSecretBasic, Self::ClientSecretPost, Self::PrivateKeyJwt];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// The method of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == word)
    }

    /// Whether it needs a secret.
    pub fn has_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost)
    }
}

/// What a client may ask the token endpoint for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// RFC 6749 4.1.
    AuthorizationCode,
    /// RFC 6749 6.
    RefreshToken,
    /// RFC 6749 4.4.
    ClientCredentials,
    /// RFC 8693 2.1. Only operators give it: no client claims it for itself.
    #[serde(rename = "urn:ietf:params:oauth:grant-type:token-exchange")]
    TokenExchange,
}

impl GrantType {
    /// Every type.
    pub const ALL: [Self; 4] =
        [Self::AuthorizationCode, Self::RefreshToken, Self::ClientCredentials, Self::TokenExchange];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
        }
    }

    /// The type of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.as_str() == word)
    }
}

/// What a client says of itself. What is not here was not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientMetadata {
    /// Where answers may be sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirect_uris: Vec<RedirectUri>,
    /// How it proves itself.
    pub token_endpoint_auth_method: AuthMethod,
    /// What it may ask for.
    pub grant_types: BTreeSet<GrantType>,
    /// Its name, for people. Anybody may claim any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// Its home page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_uri: Option<Url>,
    /// Its picture. Nobody here fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logo_uri: Option<Url>,
    /// Its terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos_uri: Option<Url>,
    /// Its privacy policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_uri: Option<Url>,
    /// Whom to write to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<String>,
    /// The most it may ask for; `None` = whatever the resource knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeSet>,
    /// The keys it signs assertions with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwkSet>,
    /// Where those keys are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<Url>,
    /// Which software it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
    /// Which version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// `web` or `native`; it changes nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_type: Option<String>,
}

/// The longest text that is kept.
const MAX_TEXT: usize = 256;
/// The longest address that is kept.
const MAX_URL: usize = 2048;
/// The most redirect URIs of one client.
pub const MAX_REDIRECT_URIS: usize = 16;
const MAX_CONTACTS: usize = 8;

impl ClientMetadata {
    /// A client without anything but a way to prove itself.
    pub fn new(token_endpoint_auth_method: AuthMethod, grant_types: impl IntoIterator<Item = GrantType>) -> Self {
        Self {
            redirect_uris: Vec::new(),
            token_endpoint_auth_method,
            grant_types: grant_types.into_iter().collect(),
            client_name: None,
            client_uri: None,
            logo_uri: None,
            tos_uri: None,
            policy_uri: None,
            contacts: Vec::new(),
            scope: None,
            jwks: None,
            jwks_uri: None,
            software_id: None,
            software_version: None,
            application_type: None,
        }
    }

    /// Whether it may use this grant.
    pub fn allows(&self, grant: GrantType) -> bool {
        self.grant_types.contains(&grant)
    }

    /// The registered redirect URI that admits `presented`.
    pub fn admits(&self, presented: &str) -> Option<&RedirectUri> {
        self.redirect_uris.iter().find(|registered| registered.admits(presented))
    }

    /// Whether what is said fits together; whoever made it by hand asks.
    pub fn check(&self) -> Result<(), OAuthError> {
        let invalid = |text: &'static str| Err(OAuthError::invalid_client_metadata(text));
        if self.redirect_uris.len() > MAX_REDIRECT_URIS {
            return Err(OAuthError::invalid_redirect_uri("there may be 16 redirect_uris at most"));
        }
        if self.allows(GrantType::AuthorizationCode) && self.redirect_uris.is_empty() {
            return Err(OAuthError::invalid_redirect_uri("the authorization_code grant needs redirect_uris"));
        }
        if self.grant_types.is_empty() {
            return invalid("none of the grant_types is known here");
        }
        let proves_nothing = self.token_endpoint_auth_method == AuthMethod::None;
        if self.allows(GrantType::ClientCredentials) && proves_nothing {
            return invalid("the client_credentials grant needs a client that proves itself");
        }
        if self.allows(GrantType::TokenExchange) && proves_nothing {
            return invalid("the token exchange grant needs a client that proves itself");
        }
        let has_keys = self.jwks.is_some() || self.jwks_uri.is_some();
        if self.jwks.is_some() && self.jwks_uri.is_some() {
            return invalid("jwks and jwks_uri exclude each other");
        }
        if self.token_endpoint_auth_method == AuthMethod::PrivateKeyJwt && !has_keys {
            return invalid("private_key_jwt needs jwks or jwks_uri");
        }
        Ok(())
    }
}

/// Reads what an operator says of a client, in the words of a registration (RFC 7591 3.1). What is unknown is left out,
/// as the RFC has it; so is a grant type that is unknown here, as long as another is left.
pub fn parse_client_metadata(body: &[u8]) -> Result<ClientMetadata, OAuthError> {
    let metadata = Members::parse(body)?.metadata(AuthMethod::ClientSecretBasic)?;
    metadata.check()?;
    Ok(metadata)
}

/// Reads what a client says of itself in a registration request (RFC 7591 3.1).
pub fn parse_registration(body: &[u8]) -> Result<ClientMetadata, OAuthError> {
    claimed(Members::parse(body)?.metadata(AuthMethod::ClientSecretBasic)?)
}

/// Without what a client cannot claim for itself.
fn claimed(mut metadata: ClientMetadata) -> Result<ClientMetadata, OAuthError> {
    metadata.grant_types.remove(&GrantType::TokenExchange);
    metadata.check()?;
    Ok(metadata)
}

/// Checks the address of a client's document: it is the client's id (Client ID Metadata Documents 3).
pub fn check_document_url(client_id: &str) -> Option<Url> {
    let url = Url::parse(client_id).ok()?;
    // The parser tidies up: what it changed was not in the one form that is compared.
    let is_tidy = url.as_str() == client_id;
    let has_dots = client_id.split('/').any(|segment| matches!(segment, "." | ".."));
    let plain = url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
        && url.query().is_none()
        && url.path() != "/"
        && url.host_str().is_some();
    (is_tidy && plain && !has_dots && client_id.len() <= 255).then_some(url)
}

/// Reads the document that stands at `client_id` (Client ID Metadata Documents 4).
pub fn parse_client_document(client_id: &str, body: &[u8]) -> Result<ClientMetadata, OAuthError> {
    let members = Members::parse(body)?;
    if members.0.get("client_id").and_then(Value::as_str) != Some(client_id) {
        return Err(OAuthError::invalid_client_metadata("the document's client_id is not its address"));
    }
    if ["client_secret", "client_secret_expires_at"].iter().any(|name| members.0.contains_key(*name)) {
        return Err(OAuthError::invalid_client_metadata("a document that everybody can read holds a secret"));
    }
    let metadata = members.metadata(AuthMethod::None)?;
    if metadata.token_endpoint_auth_method.has_secret() {
        return Err(OAuthError::invalid_client_metadata("a client with a document has no shared secret"));
    }
    claimed(metadata)
}

struct Members(Map<String, Value>);

impl Members {
    fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            _ => Err(OAuthError::invalid_client_metadata("the body is no JSON object")),
        }
    }

    fn metadata(&self, default_method: AuthMethod) -> Result<ClientMetadata, OAuthError> {
        Ok(ClientMetadata {
            redirect_uris: self.redirect_uris()?,
            token_endpoint_auth_method: self.auth_method(default_method)?,
            grant_types: self.grant_types()?,
            client_name: self.text("client_name")?,
            client_uri: self.url("client_uri")?,
            logo_uri: self.url("logo_uri")?,
            tos_uri: self.url("tos_uri")?,
            policy_uri: self.url("policy_uri")?,
            contacts: self.contacts()?,
            scope: self.scope()?,
            jwks: self.jwks()?,
            jwks_uri: self.url("jwks_uri")?,
            software_id: self.text("software_id")?,
            software_version: self.text("software_version")?,
            application_type: self.text("application_type")?.filter(|kind| matches!(kind.as_str(), "web" | "native")),
        })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, OAuthError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().map(str::trim).filter(|text| text.len() <= MAX_TEXT);
        match text.filter(|text| !text.chars().any(is_deceptive)) {
            Some(text) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
            None => Err(OAuthError::invalid_client_metadata(format!("{name} is no text, or one that cannot be shown"))),
        }
    }

    fn url(&self, name: &'static str) -> Result<Option<Url>, OAuthError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().filter(|text| text.len() <= MAX_URL);
        match text.and_then(|text| crate::endpoint::parse(text).ok()) {
            Some(url) => Ok(Some(url)),
            None if value.as_str() == Some("") => Ok(None),
            None => Err(OAuthError::invalid_client_metadata(format!("{name} is no https address"))),
        }
    }

    fn list(&self, name: &'static str) -> Result<Option<Vec<&str>>, OAuthError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let texts = value.as_array().map(|all| all.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        match texts.flatten() {
            Some(texts) => Ok(Some(texts)),
            None => Err(OAuthError::invalid_client_metadata(format!("{name} is no list of texts"))),
        }
    }

    fn redirect_uris(&self) -> Result<Vec<RedirectUri>, OAuthError> {
        let texts = self.list("redirect_uris")?.unwrap_or_default();
        if texts.len() > MAX_REDIRECT_URIS {
            return Err(OAuthError::invalid_redirect_uri("there may be 16 redirect_uris at most"));
        }
        let read = |text: &str| {
            RedirectUri::register(text).map_err(|error| OAuthError::invalid_redirect_uri(error.to_string()))
        };
        texts.into_iter().map(read).collect()
    }

    fn auth_method(&self, default: AuthMethod) -> Result<AuthMethod, OAuthError> {
        match self.get("token_endpoint_auth_method").map(Value::as_str) {
            None => Ok(default),
            Some(word) => word.and_then(AuthMethod::parse).ok_or_else(|| {
                OAuthError::invalid_client_metadata("token_endpoint_auth_method is not one of this server's")
            }),
        }
    }

    fn grant_types(&self) -> Result<BTreeSet<GrantType>, OAuthError> {
        if let Some(types) = self.list("response_types")?
            && !types.is_empty()
            && !types.contains(&"code")
        {
            return Err(OAuthError::invalid_client_metadata("code is the only response type here"));
        }
        Ok(match self.list("grant_types")? {
            None => [GrantType::AuthorizationCode].into(),
            Some(words) => words.into_iter().filter_map(GrantType::parse).collect(),
        })
    }

    fn contacts(&self) -> Result<Vec<String>, OAuthError> {
        let contacts = self.list("contacts")?.unwrap_or_default();
        let sane = |contact: &&str| contact.len() <= MAX_TEXT && !contact.chars().any(is_deceptive);
        Ok(contacts.into_iter().filter(sane).take(MAX_CONTACTS).map(str::to_owned).collect())
    }

    fn scope(&self) -> Result<Option<ScopeSet>, OAuthError> {
        let Some(value) = self.get("scope") else { return Ok(None) };
        let scope = value.as_str().and_then(|text| ScopeSet::parse(text).ok());
        let scope = scope.ok_or_else(|| OAuthError::invalid_client_metadata("scope is no list of scopes"))?;
        Ok(Some(scope).filter(|scope| !scope.is_empty()))
    }

    fn jwks(&self) -> Result<Option<JwkSet>, OAuthError> {
        let Some(value) = self.get("jwks") else { return Ok(None) };
        read_jwks(value).map(Some).map_err(|error| OAuthError::invalid_client_metadata(error.to_string()))
    }
}

/// Characters that make a name look like another, or break out of where it stands.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<ClientMetadata, String> {
        parse_registration(body.as_bytes()).map_err(|error| error.code.to_string())
    }

    #[test]
    fn what_mcp_clients_send_is_taken() {
        let metadata = parse(
            r#"{"client_name":"Claude Code (x)","redirect_uris":["http://localhost:51004/callback"],
                "grant_types":["authorization_code","refresh_token","urn:x:other"],"response_types":["code"],
                "token_endpoint_auth_method":"none","application_type":"native","scope":"read write",
                "client_uri":"https://claude.ai","client_secret":"mine","what":{"ever":1}, "logo_uri": null}"#,
        )
        .unwrap();
        assert!(metadata.allows(GrantType::RefreshToken) && !metadata.allows(GrantType::ClientCredentials));
        assert!(metadata.admits("http://localhost:9/callback").is_some());
        assert!(metadata.admits("http://localhost:9/other").is_none());
        let stored = serde_json::to_string(&metadata).unwrap();
        assert!(!stored.contains("mine"));
        assert_eq!(serde_json::from_str::<ClientMetadata>(&stored).unwrap(), metadata);
        let least = parse(r#"{"redirect_uris":["https://a.example/cb"]}"#).unwrap();
        assert_eq!(least.token_endpoint_auth_method, AuthMethod::ClientSecretBasic);
        assert_eq!(least.grant_types, [GrantType::AuthorizationCode].into());
    }

    #[test]
    fn what_cannot_be_registered_is_refused() {
        let uris = format!(r#"{{"redirect_uris":[{}]}}"#, vec![r#""https://a.example/""#; 17].join(","));
        for (body, code) in [
            ("[]", "invalid_client_metadata"),
            ("{", "invalid_client_metadata"),
            ("{}", "invalid_redirect_uri"),
            (&uris, "invalid_redirect_uri"),
            (r#"{"redirect_uris":["javascript:alert(1)"]}"#, "invalid_redirect_uri"),
            (r#"{"redirect_uris":"https://a.example/"}"#, "invalid_client_metadata"),
            (r#"{"redirect_uris":["https://a.example/"],"grant_types":["implicit"]}"#, "invalid_client_metadata"),
            (r#"{"redirect_uris":["https://a.example/"],"response_types":["token"]}"#, "invalid_client_metadata"),
            (
                r#"{"redirect_uris":["https://a.example/"],"token_endpoint_auth_method":"tls_client_auth"}"#,
                "invalid_client_metadata",
            ),
            (
                r#"{"redirect_uris":["https://a.example/"],"token_endpoint_auth_method":"private_key_jwt"}"#,
                "invalid_client_metadata",
            ),
            (
                r#"{"grant_types":["client_credentials"],"token_endpoint_auth_method":"none"}"#,
                "invalid_client_metadata",
            ),
            (r#"{"redirect_uris":["https://a.example/"],"client_name":"a\u202eb"}"#, "invalid_client_metadata"),
            (r#"{"redirect_uris":["https://a.example/"],"client_uri":"javascript:x"}"#, "invalid_client_metadata"),
            (r#"{"redirect_uris":["https://a.example/"],"scope":"a\"b"}"#, "invalid_client_metadata"),
        ] {
            assert_eq!(parse(body), Err(code.to_owned()), "{body}");
        }
    }

    #[test]
    fn only_an_operator_lets_a_client_exchange_tokens() {
        let exchange = GrantType::TokenExchange.as_str();
        let body = |rest: &str| format!(r#"{{"grant_types":["{exchange}"]{rest}}}"#);
        let made = parse_client_metadata(body("").as_bytes()).unwrap();
        assert_eq!(made.grant_types, [GrantType::TokenExchange].into());
        let stored = serde_json::to_string(&made).unwrap();
        assert!(stored.contains(exchange), "{stored}");
        assert_eq!(serde_json::from_str::<ClientMetadata>(&stored).unwrap(), made);
        let public = body(r#","token_endpoint_auth_method":"none""#);
        assert!(parse_client_metadata(public.as_bytes()).is_err());
        assert_eq!(parse(&body("")), Err("invalid_client_metadata".to_owned()), "nothing is left");
    }

    #[test]
    fn a_document_is_its_address_and_keeps_no_secret() {
        let url = "https://app.example/client.json";
        let document = |rest: &str| {
            let body = format!(r#"{{"client_id":"{url}","redirect_uris":["https://app.example/cb"]{rest}}}"#);
            parse_client_document(url, body.as_bytes())
        };
        assert_eq!(document("").unwrap().token_endpoint_auth_method, AuthMethod::None);
        assert!(document(r#","client_secret":"x""#).is_err());
        assert!(document(r#","token_endpoint_auth_method":"client_secret_post""#).is_err());
        let exchanges = format!(r#","grant_types":["authorization_code","{}"]"#, GrantType::TokenExchange.as_str());
        assert_eq!(document(&exchanges).unwrap().grant_types, [GrantType::AuthorizationCode].into());
        let other = br#"{"client_id":"https://app.example/other.json","redirect_uris":["https://app.example/cb"]}"#;
        assert!(parse_client_document(url, other).is_err());
    }

    #[test]
    fn only_plain_https_addresses_are_client_ids() {
        assert!(check_document_url("https://app.example/client.json").is_some());
        assert!(check_document_url("https://app.example:8443/a/b").is_some());
        for bad in [
            "https://app.example",
            "https://app.example/",
            "http://app.example/client.json",
            "https://app.example/a/../client.json",
            "https://app.example/./client.json",
            "https://u:p@app.example/client.json",
            "https://app.example/client.json#f",
            "https://app.example/client.json?x=1",
            "https://APP.example/client.json",
            "https://app.example:443/client.json",
            "client_abc",
        ] {
            assert!(check_document_url(bad).is_none(), "{bad}");
        }
    }
}
