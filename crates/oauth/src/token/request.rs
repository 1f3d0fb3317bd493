//! Building a token request.

use std::{borrow::Cow, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    BuildError, Secret,
    client::Client,
    client_assertion::{ASSERTION_TYPE, build_apple_secret, build_client_assertion},
    dialect::{BodyFormat, ClientAuth, Dialect, Pkce, RefreshRequest, ScopeSeparator},
    params::{Params, Vars, fill_with, form_encode},
};

/// What is exchanged for tokens.
#[derive(Clone, Debug)]
pub enum Grant {
    /// RFC 6749 4.1.3.
    AuthorizationCode {
        /// From the callback.
        code: Secret,
        /// The same as in the authorization request.
        redirect_uri: String,
        /// The PKCE verifier (RFC 7636 4.5); not sent where the dialect refuses PKCE.
        verifier: Option<Secret>,
    },
    /// RFC 6749 6.
    RefreshToken {
        /// What is spent.
        refresh_token: Secret,
        /// A narrower scope, separated by spaces.
        scope: Option<String>,
    },
    /// RFC 6749 4.4.
    ClientCredentials {
        /// Separated by spaces.
        scope: Option<String>,
    },
    /// RFC 7523 2.1. The assertion is made by [`crate::client_assertion::build_bearer_assertion`].
    JwtBearer {
        /// The signed JWT.
        assertion: Secret,
        /// Separated by spaces; Google reads it from the assertion instead.
        scope: Option<String>,
    },
    /// RFC 8628 3.4.
    DeviceCode {
        /// From the device authorization response.
        device_code: Secret,
    },
    /// The access token itself is swapped for a younger one, as [`Dialect::refresh`] says.
    AccessToken {
        /// What is swapped.
        access_token: Secret,
    },
    /// RFC 6749 4.3, for providers that have nothing better.
    Password {
        /// Whose.
        username: String,
        /// Theirs.
        password: Secret,
        /// Separated by spaces.
        scope: Option<String>,
    },
}

impl Grant {
    /// Whether it renews what an earlier grant brought: then [`Dialect::refresh_params`] apply, else
    /// [`Dialect::token_params`].
    pub fn is_renewal(&self) -> bool {
        matches!(self, Self::RefreshToken { .. } | Self::AccessToken { .. })
    }
}

/// What a request depends on beside client and grant.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// When assertions are made.
    pub now: Timestamp,
    /// Fresh random bytes: the `jti` of a client assertion.
    pub entropy: [u8; 16],
    /// What `{redirect_uri}` in extra parameters stands for.
    pub redirect_uri: Option<&'a str>,
    /// What other `{name}`s in extra parameters and headers stand for: the integration's `params`. Apple's
    /// `team_id` is read from here.
    pub params: &'a Vars,
    /// Whom a client assertion is addressed to, where that is not the token URL (the issuer, RFC 7523 3).
    pub audience: Option<&'a str>,
}

/// A request to a provider, ready to be sent. Its headers, its body and in one dialect its query hold secrets, so it
/// prints as method, origin and path.
pub struct TokenRequest {
    /// `POST`, but for Instagram's and Threads' refresh.
    pub method: Method,
    /// The full URL.
    pub url: Url,
    /// Headers beside `Host`, `Content-Length` and `User-Agent`. Secret values are marked sensitive.
    pub headers: HeaderMap,
    /// The body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.url.origin().ascii_serialization(), self.url.path())
    }
}

/// Builds the request that exchanges `grant` at `url` (the token endpoint, or the refresh endpoint where a provider
/// has one; a query that stands in it is kept).
pub fn build_token_request(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    grant: &Grant,
    context: &RequestContext<'_>,
) -> Result<TokenRequest, BuildError> {
    let mut params = Params::new();
    set_grant(dialect, grant, &mut params)?;
    let extra = if grant.is_renewal() { &dialect.refresh_params } else { &dialect.token_params };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));

    let by_get =
        matches!((grant, &dialect.refresh), (Grant::AccessToken { .. }, RefreshRequest::AccessTokenByGet { .. }));
    if !by_get {
        authenticate(dialect, url, client, context, &mut params, &mut headers)?;
    }
    for (name, template) in extra {
        let value = context.fill(template, client)?;
        if !value.is_empty() {
            params.set(name.clone(), &value);
        }
    }
    set_headers(dialect, client, context, &mut headers)?;
    Ok(if by_get { get(url, headers, &params) } else { post(dialect.body, url.clone(), headers, &params) })
}

/// Builds the swap of a code's short-lived access token for one that lasts ([`Dialect::long_lived`]), at the swap's
/// own `url`. Its reply is read by [`crate::token::parse_token_response`] and takes the first one's place.
pub fn build_long_lived_swap(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    access_token: &Secret,
    context: &RequestContext<'_>,
) -> Result<TokenRequest, BuildError> {
    let swap = dialect.long_lived.as_ref().ok_or(BuildError::NoSuchGrant)?;
    let secret = client.secret.as_ref().ok_or(BuildError::MissingSecret)?;
    let mut params = Params::new();
    params.set("grant_type", &swap.grant_type);
    params.set("client_secret", secret.expose_secret());
    params.set("access_token", access_token.expose_secret());
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    set_headers(dialect, client, context, &mut headers)?;
    Ok(get(url, headers, &params))
}

/// A GET with `params` in the query, secrets and all: the providers that want it so leave no choice.
fn get(url: &Url, headers: HeaderMap, params: &Params) -> TokenRequest {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(params.iter());
    TokenRequest { method: Method::GET, url, headers, body: Zeroizing::default() }
}

/// Builds a POST of `params` with the client's proof: what the endpoints beside the token endpoint take.
pub(crate) fn client_request(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    context: &RequestContext<'_>,
    mut params: Params,
) -> Result<TokenRequest, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    authenticate(dialect, url, client, context, &mut params, &mut headers)?;
    set_headers(dialect, client, context, &mut headers)?;
    Ok(post(dialect.body, url.clone(), headers, &params))
}

fn post(format: BodyFormat, url: Url, mut headers: HeaderMap, params: &Params) -> TokenRequest {
    let (content_type, body) = match format {
        BodyFormat::Form => ("application/x-www-form-urlencoded", params.to_form()),
        BodyFormat::Json => ("application/json", params.to_json()),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    TokenRequest { method: Method::POST, url, headers, body }
}

impl<'a> RequestContext<'a> {
    /// A context without a redirect URI, whose assertions are addressed to the token URL.
    pub fn new(now: Timestamp, entropy: [u8; 16], params: &'a Vars) -> Self {
        Self { now, entropy, redirect_uri: None, params, audience: None }
    }

    fn fill<'t>(&self, template: &'t str, client: &Client) -> Result<Cow<'t, str>, BuildError> {
        fill_with(template, |name| match name {
            "redirect_uri" => self.redirect_uri,
            "client_id" => Some(client.id.as_str()),
            _ => self.params.get(name).map(String::as_str),
        })
    }
}

fn set_grant(dialect: &Dialect, grant: &Grant, params: &mut Params) -> Result<(), BuildError> {
    match grant {
        Grant::AuthorizationCode { code, redirect_uri, verifier } => {
            params.set("grant_type", "authorization_code");
            params.set("code", code.expose_secret());
            params.set("redirect_uri", redirect_uri);
            if let Some(verifier) = verifier
                && dialect.pkce == Pkce::Sent
            {
                params.set("code_verifier", verifier.expose_secret());
            }
        }
        Grant::RefreshToken { refresh_token, scope } => {
            match &dialect.refresh {
                RefreshRequest::TokenOnly => {}
                RefreshRequest::Renamed { param, value } => params.set(param.clone(), value),
                _ => params.set("grant_type", "refresh_token"),
            }
            params.set("refresh_token", refresh_token.expose_secret());
            if dialect.refresh != RefreshRequest::TokenOnly {
                set_scope(dialect, "scope", scope.as_deref(), params);
            }
        }
        Grant::ClientCredentials { scope } => {
            params.set("grant_type", "client_credentials");
            set_scope(dialect, "scope", scope.as_deref(), params);
        }
        Grant::JwtBearer { assertion, scope } => {
            params.set("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
            params.set("assertion", assertion.expose_secret());
            set_scope(dialect, "scope", scope.as_deref(), params);
        }
        Grant::DeviceCode { device_code } => {
            params.set("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
            params.set("device_code", device_code.expose_secret());
        }
        Grant::AccessToken { access_token } => match &dialect.refresh {
            RefreshRequest::AccessTokenByGet { grant_type } => {
                params.set("grant_type", grant_type);
                params.set("access_token", access_token.expose_secret());
            }
            RefreshRequest::AccessTokenExchange { grant_type } => {
                params.set("grant_type", grant_type);
                params.set(grant_type.clone(), access_token.expose_secret());
            }
            RefreshRequest::Standard | RefreshRequest::Renamed { .. } | RefreshRequest::TokenOnly => {
                return Err(BuildError::NoSuchGrant);
            }
        },
        Grant::Password { username, password, scope } => {
            params.set("grant_type", "password");
            params.set("username", username);
            params.set("password", password.expose_secret());
            set_scope(dialect, "scope", scope.as_deref(), params);
        }
    }
    Ok(())
}

/// Sets the parameter `name` to the scopes, joined as the provider wants them.
pub(crate) fn set_scope(dialect: &Dialect, name: &str, scope: Option<&str>, params: &mut Params) {
    let separator = match dialect.scope_separator {
        ScopeSeparator::Space => " ",
        ScopeSeparator::Comma => ",",
        ScopeSeparator::None => return,
    };
    let scopes: Vec<&str> = scope.unwrap_or_default().split_whitespace().collect();
    params.set(name.to_owned(), &scopes.join(separator));
}

/// Puts the client's proof where the dialect wants it. A client without a secret is a public one, whatever the
/// dialect says (RFC 6749 2.3: then `client_id` alone identifies it).
fn authenticate(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    context: &RequestContext<'_>,
    params: &mut Params,
    headers: &mut HeaderMap,
) -> Result<(), BuildError> {
    let id_param = dialect.client_id_param.clone().unwrap_or_else(|| "client_id".to_owned());
    match (dialect.client_auth, &client.secret) {
        (ClientAuth::Basic, Some(secret)) => {
            headers.insert(AUTHORIZATION, basic(&client.id, secret));
        }
        (ClientAuth::Post, Some(secret)) => {
            params.set(id_param, &client.id);
            params.set("client_secret", secret.expose_secret());
        }
        (ClientAuth::PrivateKeyJwt, _) => {
            let audience = context.audience.unwrap_or(url.as_str());
            let assertion = build_client_assertion(client, audience, &context.entropy, context.now)?;
            params.set(id_param, &client.id);
            params.set("client_assertion_type", ASSERTION_TYPE);
            params.set("client_assertion", assertion.expose_secret());
        }
        (ClientAuth::AppleJwt, _) => {
            let team = context.params.get("team_id");
            let team = team.ok_or_else(|| BuildError::MissingParam { name: "team_id".to_owned() })?;
            params.set(id_param, &client.id);
            params.set("client_secret", build_apple_secret(client, team, context.now)?.expose_secret());
        }
        (ClientAuth::None, _) | (ClientAuth::Basic | ClientAuth::Post, None) => params.set(id_param, &client.id),
        (ClientAuth::Omitted, _) => {}
    }
    Ok(())
}

/// HTTP Basic as RFC 6749 2.3.1 says: both halves form-encoded first.
pub(crate) fn basic(id: &str, secret: &Secret) -> HeaderValue {
    let secret = secret.expose_secret();
    let mut pair = Zeroizing::new(Vec::with_capacity(3 * (id.len() + secret.len()) + 1));
    form_encode(id, &mut pair);
    pair.push(b':');
    form_encode(secret, &mut pair);
    let text = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(&pair)));
    let mut value = HeaderValue::from_str(&text).expect("base64 is printable ASCII");
    value.set_sensitive(true);
    value
}

/// Sets the dialect's extra headers. Their values may be an integration's secret (Supabase's `apikey`): all are
/// sensitive.
pub(crate) fn set_headers(
    dialect: &Dialect,
    client: &Client,
    context: &RequestContext<'_>,
    headers: &mut HeaderMap,
) -> Result<(), BuildError> {
    for (name, template) in &dialect.token_headers {
        let invalid = || BuildError::InvalidHeader { name: name.clone() };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut value = HeaderValue::from_str(&context.fill(template, client)?).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(())
}
