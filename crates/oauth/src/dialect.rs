//! How one provider departs from the RFCs, as closed enums: a new provider is new data, never a new branch.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A provider's way of speaking OAuth 2. The default is the plain RFC 6749 dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dialect {
    /// How several scopes are joined in one parameter (RFC 6749 3.3 says: by a space).
    pub scope_separator: ScopeSeparator,
    /// How the client proves itself at the token endpoint.
    pub client_auth: ClientAuth,
    /// The name under which the client id is sent, where it is not `client_id`.
    pub client_id_param: Option<String>,
    /// The name under which the callback carries the code, where it is not `code`.
    pub code_param: Option<String>,
    /// Whether the provider takes PKCE (RFC 7636) parameters.
    pub pkce: Pkce,
    /// How the parameters of a token request are encoded.
    pub body: BodyFormat,
    /// How a refresh is asked for, where it is not `grant_type=refresh_token` by POST.
    pub refresh: RefreshRequest,
    /// Where the token that a code brings must be swapped for one that lasts, before anything else is done with it.
    pub long_lived: Option<LongLivedSwap>,
    /// How the callback comes back to us.
    pub callback: Callback,
    /// Parameters added to the authorization URL; `{name}` is filled in from the integration's `params`.
    pub authorize_params: BTreeMap<String, String>,
    /// Parameters added to every token request that is not a refresh; `{name}` as above, and `{redirect_uri}` and
    /// `{client_id}` are known. One named like a standard parameter replaces it; one that comes out empty is not sent.
    pub token_params: BTreeMap<String, String>,
    /// The same for refreshes. `redirect_uri = "{redirect_uri}"` sends ours again.
    pub refresh_params: BTreeMap<String, String>,
    /// Headers added to every token, device and revocation request, templates too.
    pub token_headers: BTreeMap<String, String>,
    /// Where the tokens stand in the reply.
    pub reply: ReplyShape,
    /// A second set of tokens that the same consent brings in the same reply.
    pub companion: Option<Companion>,
    /// How the reply says when the access token expires.
    pub expiry: Expiry,
    /// How a failure is told apart from a success.
    pub errors: ErrorShape,
}

/// What stands between two scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeSeparator {
    /// RFC 6749.
    #[default]
    Space,
    /// `a,b`.
    Comma,
    /// The provider has no scope parameter: none is sent.
    None,
}

/// How the client proves itself at the token endpoint (RFC 6749 2.3, RFC 7523 2.2). An integration that has no
/// secret is a public client, whatever stands here: its `client_id` goes into the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `client_id` and `client_secret` in the body.
    #[default]
    Post,
    /// HTTP Basic.
    Basic,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
    /// Apple: the `client_secret` is an ES256 JWT signed with the team's key.
    AppleJwt,
    /// A public client: `client_id` only.
    None,
    /// Not at all, not even by `client_id` (Qontak CRM; Supabase Auth, which knows its project by a header).
    Omitted,
}

/// Whether the provider takes PKCE parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// S256 is sent; a server that does not know it ignores it (RFC 6749 3.1).
    #[default]
    Sent,
    /// None are sent: the provider answers them with an error, or is said not to know them.
    Refused,
}

/// How the parameters of a token request are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749).
    #[default]
    Form,
    /// A JSON object.
    Json,
}

/// How a new access token is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshRequest {
    /// RFC 6749 6.
    #[default]
    Standard,
    /// Standard but for the `grant_type`: the named parameter carries the named value instead
    /// (Basecamp's `type=refresh`, with the token still in `refresh_token`).
    Renamed {
        /// The parameter's name.
        param: String,
        /// Its value.
        value: String,
    },
    /// The access token is swapped for a younger one by GET (Instagram, Threads) with this `grant_type`.
    AccessTokenByGet {
        /// The value of `grant_type`.
        grant_type: String,
    },
    /// The access token is swapped at the token endpoint (Facebook's `fb_exchange_token`).
    AccessTokenExchange {
        /// The value of `grant_type`, which is also the name of the parameter that carries the token.
        grant_type: String,
    },
    /// `refresh_token` and nothing else: the grant type stands in the URL's query (Supabase Auth), to which a form
    /// body must not add another.
    TokenOnly,
}

/// A swap that follows the exchange of the code (Instagram, Threads): GET `url` with `grant_type`, `client_secret`
/// and `access_token`. The reply is read like any other and takes the first one's place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongLivedSwap {
    /// Where; a template like the provider's other URLs.
    pub url: String,
    /// The value of `grant_type`.
    pub grant_type: String,
}

/// A second set of tokens in the reply to a code (Slack: beside the bot's, the user's). It is refreshed on its own,
/// so it is a connection of its own, at the same integration and tenant. What refreshes it brings is read as
/// [`ReplyShape::Plain`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Companion {
    /// The member that holds it; it has the members of RFC 6749 5.1. Either set may be absent from a reply.
    pub under: String,
    /// The parameter of the authorization URL that carries its scopes, joined like the others.
    pub scope_param: String,
    /// What is added to the first connection's subject to make the second's.
    pub subject_suffix: String,
}

/// How the callback comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Callback {
    /// A redirect with a query string.
    #[default]
    Query,
    /// A cross-site POST (`response_mode=form_post`).
    FormPost,
}

/// Where the tokens stand in the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyShape {
    /// At the top, as RFC 6749 5.1 says. A form-encoded reply is understood as well.
    #[default]
    Plain,
    /// One level down, under this member (Withings: `body`). A reply without the member is read as
    /// [`ReplyShape::Plain`]; one that has it without tokens in it holds none.
    Under(String),
}

/// How the reply says when the access token expires. What the named member does not say, `expires_in` may; what
/// neither says is taken from the provider's default lifetime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// `expires_in`, seconds.
    #[default]
    ExpiresIn,
    /// This member, seconds since 1970.
    EpochSeconds(String),
    /// This member, an RFC 3339 time.
    Rfc3339(String),
    /// The access token does not expire, whatever the reply says (Mailchimp says `expires_in=0`).
    Never,
}

/// How a failure is told apart from a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorShape {
    /// Status 400 or 401 with `{"error": code}` (RFC 6749 5.2). A 200 that carries `error` is one too.
    #[default]
    Rfc6749,
    /// `{"ok": false, "error": code}` with status 200 (Slack).
    OkFalse,
    /// `{"status": n}`, where only 0 is success, with HTTP status 200 (Withings).
    StatusNonZero,
    /// `{"error": {"code": n}}` (Meta's Graph API), where 190 is a dead token.
    Graph,
    /// RFC 6749, but the code of a dead refresh token is this one, or one of these, separated by spaces (Supabase's
    /// `refresh_token_not_found refresh_token_already_used`; GitHub's `bad_refresh_token` is known anyway).
    DeadRefreshToken(String),
}
