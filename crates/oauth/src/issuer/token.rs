//! The token endpoint, from its own side (RFC 6749 3.2, 4.1.3, 4.4.2, 5.1, 6, RFC 7521 4.2, RFC 8693 2).

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use secrecy::ExposeSecret;
use serde::Serialize;

use super::{
    authorize::{requested_resource, requested_scope},
    client::GrantType,
    error::OAuthError,
    form::Form,
    resource::Resource,
    scope::ScopeSet,
    token_exchange::{TokenExchange, parse_token_exchange},
};
use crate::{Secret, client_assertion::ASSERTION_TYPE};

/// What a client brings to prove itself, as it came.
#[derive(Debug)]
pub enum Credential {
    /// Only its name.
    Public {
        /// Who it says it is.
        client_id: String,
    },
    /// A secret in the header (RFC 6749 2.3.1).
    Basic {
        /// Who it says it is.
        client_id: String,
        /// Its secret.
        secret: Secret,
        /// Both as they were sent, where that differs: not everybody encodes them.
        as_sent: Option<(String, Secret)>,
    },
    /// A secret in the body.
    Post {
        /// Who it says it is.
        client_id: String,
        /// Its secret.
        secret: Secret,
    },
    /// A signed assertion (RFC 7523 2.2).
    Assertion {
        /// Who it says it is, if it says so outside of the assertion.
        client_id: Option<String>,
        /// The JWT.
        assertion: Secret,
    },
}

/// Reads what a client proves itself with.
pub fn parse_credential(headers: &HeaderMap, form: &Form) -> Result<Credential, OAuthError> {
    let in_body = form.get("client_id").map(str::to_owned);
    let basic = basic(headers)?;
    let assertion = assertion(form)?;
    let post = form.secret("client_secret").cloned();
    if usize::from(basic.is_some()) + usize::from(assertion.is_some()) + usize::from(post.is_some()) > 1 {
        return Err(OAuthError::invalid_request("a client proves itself in one way at a time"));
    }
    if let Some(Basic { client_id, secret, as_sent }) = basic {
        let is_in_header = |id: &str| id == client_id || as_sent.as_ref().is_some_and(|(sent, _)| sent == id);
        if in_body.is_some_and(|other| !is_in_header(&other)) {
            return Err(OAuthError::invalid_request("the header and the body name two clients"));
        }
        return Ok(Credential::Basic { client_id, secret, as_sent });
    }
    if let Some(assertion) = assertion {
        return Ok(Credential::Assertion { client_id: in_body, assertion });
    }
    let client_id = in_body.ok_or_else(|| OAuthError::invalid_client("no client names itself"))?;
    Ok(match post {
        Some(secret) => Credential::Post { client_id, secret },
        None => Credential::Public { client_id },
    })
}

/// What stands in the header.
struct Basic {
    client_id: String,
    secret: Secret,
    as_sent: Option<(String, Secret)>,
}

fn basic(headers: &HeaderMap) -> Result<Option<Basic>, OAuthError> {
    let malformed = || OAuthError::invalid_client("the Authorization header is no well-formed Basic");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed());
    }
    let (scheme, encoded) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(OAuthError::invalid_client(
            "clients prove themselves with Basic, in the body, or with an assertion",
        ));
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).map(zeroize::Zeroizing::new).map_err(|_| malformed())?;
    let text = std::str::from_utf8(&decoded).map_err(|_| malformed())?;
    let (id, secret) = text.split_once(':').ok_or_else(malformed)?;
    if id.is_empty() {
        return Err(malformed());
    }
    let sent = || (id.to_owned(), Secret::from(secret));
    Ok(Some(match (unescape(id), unescape(secret)) {
        (Some(client_id), Some(plain)) => {
            let as_sent = (client_id != id || plain != secret).then(sent);
            Basic { client_id, secret: plain.into(), as_sent }
        }
        _ => Basic { client_id: id.to_owned(), secret: secret.into(), as_sent: None },
    }))
}

/// RFC 6749 2.3.1: both halves are form-encoded before they are put together.
fn unescape(text: &str) -> Option<String> {
    let encoded = format!("x={}", text.replace('&', "%26"));
    form_urlencoded::parse(encoded.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .filter(|v| !v.contains('\u{fffd}'))
}

fn assertion(form: &Form) -> Result<Option<Secret>, OAuthError> {
    match (form.get("client_assertion_type"), form.secret("client_assertion")) {
        (None, None) => Ok(None),
        (Some(ASSERTION_TYPE), Some(assertion)) => Ok(Some(assertion.clone())),
        _ => Err(OAuthError::invalid_client("client_assertion and its type, jwt-bearer, go together")),
    }
}

/// What is asked for at the token endpoint.
#[derive(Debug)]
pub enum TokenRequest {
    /// RFC 6749 4.1.3.
    AuthorizationCode {
        /// The code.
        code: Secret,
        /// Where it was sent.
        redirect_uri: Option<String>,
        /// The PKCE verifier.
        verifier: Option<Secret>,
        /// RFC 8707.
        resource: Option<Resource>,
    },
    /// RFC 6749 6.
    RefreshToken {
        /// The refresh token.
        refresh_token: Secret,
        /// The part of the grant that is wanted.
        scope: Option<ScopeSet>,
        /// RFC 8707.
        resource: Option<Resource>,
    },
    /// RFC 6749 4.4.2.
    ClientCredentials {
        /// What is wanted.
        scope: Option<ScopeSet>,
        /// RFC 8707.
        resource: Option<Resource>,
    },
    /// RFC 8693 2.1.
    TokenExchange(TokenExchange),
}

/// Reads the grant that a request brings.
pub fn parse_token_request(form: &Form) -> Result<TokenRequest, OAuthError> {
    let needed = |name: &'static str, missing: &'static str| {
        form.secret(name).cloned().ok_or_else(|| OAuthError::invalid_request(missing))
    };
    let word = form.get("grant_type").ok_or_else(|| OAuthError::invalid_request("grant_type is missing"))?;
    let unknown = || OAuthError::unsupported_grant_type("this grant type is not one of this server's");
    Ok(match GrantType::parse(word).ok_or_else(unknown)? {
        GrantType::AuthorizationCode => TokenRequest::AuthorizationCode {
            code: needed("code", "code is missing")?,
            redirect_uri: form.get("redirect_uri").map(str::to_owned),
            verifier: form.secret("code_verifier").cloned(),
            resource: requested_resource(form)?,
        },
        GrantType::RefreshToken => TokenRequest::RefreshToken {
            refresh_token: needed("refresh_token", "refresh_token is missing")?,
            scope: requested_scope(form)?,
            resource: requested_resource(form)?,
        },
        GrantType::ClientCredentials => {
            TokenRequest::ClientCredentials { scope: requested_scope(form)?, resource: requested_resource(form)? }
        }
        GrantType::TokenExchange => TokenRequest::TokenExchange(parse_token_exchange(form)?),
    })
}

/// What a grant brought (RFC 6749 5.1, RFC 8693 2.2.1).
#[derive(Debug)]
pub struct TokenReply {
    /// The access token.
    pub access_token: Secret,
    /// What it is, where another token was exchanged for it.
    pub issued_token_type: Option<&'static str>,
    /// How it is used.
    pub token_type: Cow<'static, str>,
    /// How long it lives; `None` = it is not known to end.
    pub expires_in: Option<Duration>,
    /// The refresh token, if there is one.
    pub refresh_token: Option<Secret>,
    /// What it is good for, separated by spaces; `None` = nobody knows.
    pub scope: Option<String>,
}

impl TokenReply {
    /// The body. Whoever holds it holds the tokens.
    pub fn to_json(&self) -> Secret {
        let body = Body {
            access_token: self.access_token.expose_secret(),
            issued_token_type: self.issued_token_type,
            token_type: &self.token_type,
            expires_in: self.expires_in.map(|life| life.as_secs()),
            refresh_token: self.refresh_token.as_ref().map(ExposeSecret::expose_secret),
            scope: self.scope.as_deref(),
        };
        serde_json::to_string(&body).expect("it is texts and a number").into()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    token_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

/// A token that somebody asks about (RFC 7662 2.1) or gives back (RFC 7009 2.1). The hint is not needed: tokens tell
/// themselves apart.
pub fn parse_token_parameter(form: &Form) -> Result<Secret, OAuthError> {
    form.secret("token").cloned().ok_or_else(|| OAuthError::invalid_request("token is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(header: Option<&str>, body: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        }
        let form = Form::parse(body.as_bytes()).unwrap();
        parse_credential(&headers, &form).map_err(|error| error.code.to_string()).map(|credential| match credential {
            Credential::Public { client_id } => format!("public {client_id}"),
            Credential::Basic { client_id, secret, as_sent } => {
                let sent = as_sent.map(|(id, secret)| format!(" or {id} {}", secret.expose_secret()));
                format!("basic {client_id} {}{}", secret.expose_secret(), sent.unwrap_or_default())
            }
            Credential::Post { client_id, secret } => format!("post {client_id} {}", secret.expose_secret()),
            Credential::Assertion { client_id, assertion } => {
                format!("assertion {client_id:?} {}", assertion.expose_secret())
            }
        })
    }

    fn b64(text: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(text))
    }

    #[test]
    fn clients_prove_themselves_in_one_way() {
        assert_eq!(credential(None, "client_id=a").unwrap(), "public a");
        assert_eq!(credential(None, "client_id=a&client_secret=s").unwrap(), "post a s");
        assert_eq!(credential(Some(&b64("a:s")), "").unwrap(), "basic a s");
        assert_eq!(credential(Some(&b64("a:s")), "client_id=a").unwrap(), "basic a s");
        assert_eq!(credential(Some(&b64("a%3Ab:s%26+%25")), "").unwrap(), "basic a:b s& % or a%3Ab s%26+%25");
        assert_eq!(credential(Some(&b64("a:+%FF")), "").unwrap(), "basic a +%FF");
        assert_eq!(credential(Some(&b64("a+b:s")), "client_id=a%2Bb").unwrap(), "basic a b s or a+b s");
        assert_eq!(credential(Some(&b64("a:s&t=u")), "").unwrap(), "basic a s&t=u");
        let assertion = format!("client_assertion_type={ASSERTION_TYPE}&client_assertion=x.y.z");
        assert_eq!(credential(None, &assertion).unwrap(), "assertion None x.y.z");
        for (header, body, code) in [
            (None, String::new(), "invalid_client"),
            (Some("Basic !!!".to_owned()), String::new(), "invalid_client"),
            (Some("Basic".to_owned()), String::new(), "invalid_client"),
            (Some(b64("nocolon")), String::new(), "invalid_client"),
            (Some(b64(":s")), String::new(), "invalid_client"),
            (Some("Bearer x".to_owned()), String::new(), "invalid_client"),
            (Some(b64("a:s")), "client_id=b".to_owned(), "invalid_request"),
            (Some(b64("a:s")), "client_id=a&client_secret=s".to_owned(), "invalid_request"),
            (None, format!("{assertion}&client_id=a&client_secret=s"), "invalid_request"),
            (None, "client_assertion=x".to_owned(), "invalid_client"),
            (None, "client_assertion_type=saml&client_assertion=x".to_owned(), "invalid_client"),
        ] {
            assert_eq!(credential(header.as_deref(), &body), Err(code.to_owned()), "{header:?} {body}");
        }
    }

    #[test]
    fn grants_are_told_apart() {
        let parse = |body: &str| {
            let request = Form::parse(body.as_bytes()).and_then(|form| parse_token_request(&form));
            request.map_err(|error| error.code.to_string())
        };
        assert!(matches!(
            parse("grant_type=authorization_code&code=c"),
            Ok(TokenRequest::AuthorizationCode { redirect_uri: None, verifier: None, resource: None, .. })
        ));
        assert!(matches!(
            parse("grant_type=refresh_token&refresh_token=r&scope=a"),
            Ok(TokenRequest::RefreshToken { .. })
        ));
        assert!(matches!(parse("grant_type=client_credentials"), Ok(TokenRequest::ClientCredentials { .. })));
        for (body, code) in [
            ("", "invalid_request"),
            ("grant_type=password&username=a", "unsupported_grant_type"),
            ("grant_type=authorization_code", "invalid_request"),
            ("grant_type=refresh_token", "invalid_request"),
            ("grant_type=client_credentials&resource=x", "invalid_target"),
            ("grant_type=client_credentials&scope=%22", "invalid_scope"),
        ] {
            assert_eq!(parse(body).err().as_deref(), Some(code), "{body}");
        }
    }
}
