//! `[issuer]`, with what stands below it: where people sign in, and what is protected.

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// The authorization server: tokens of our own, for MCP clients, browsers and backends. It is on as soon as anything
    /// is said here, and needs one `[[issuer.resource]]` at least. docs/issuer.md goes through it.
    ONE "issuer" Issuer {
        /// Our name, as clients compare it, byte for byte: where this server is reached, with a path or without. By default
        /// `server.public_url`.
        url: Option<String> = None, Text "\"https://auth.example.com\"";
        /// Who may register a client (RFC 7591): `open` (anybody, as MCP clients expect it), `token` (who shows
        /// `registration_token`) or `off`.
        registration: String = "open".to_owned(), Text "\"open\"";
        /// What must be shown to register where `registration` is `token`.
        registration_token: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        registration_token_file: Option<PathBuf> = None, Text "\"/run/secrets/registration-token\"";
        /// Seconds an access token lives: 60 to 2592000 (30 days).
        access_token_ttl: u64 = 3600, Number "3600";
        /// Seconds a refresh token lives that nobody presents: 300 to 31536000 (a year). Each use begins them anew.
        refresh_token_ttl: u64 = 2_592_000, Number "2592000";
        /// What signs access tokens: `ES256`, `EdDSA` or `RS256`; `HS256` where the resource has a `signing_secret`.
        algorithm: String = "ES256".to_owned(), Text "\"ES256\"";
        /// Who of those who signed in may go on: subjects (`github|42`), addresses, or user names where there is one
        /// provider only. Who is named by any of these three lists may. A list that is there and empty names nobody; where
        /// none is there, everybody may.
        allowed_users: Option<Vec<String>> = None, List "[\"octocat\"]";
        /// Domains of e-mail addresses that the provider has verified.
        allowed_email_domains: Option<Vec<String>> = None, List "[\"example.com\"]";
        /// Organisations at the provider; where there are several, with the integration before: `github|acme`.
        allowed_organizations: Option<Vec<String>> = None, List "[\"acme\"]";
        /// An application's own pages for signing in and consenting, opened with `?interaction={id}`; it answers over
        /// `/v1/interactions/{id}/accept` or `/reject`.
        interaction_url: Option<String> = None, Text "\"https://app.example.com/sign-in\"";
        /// Hosts in private networks from which the documents of clients may be fetched all the same.
        document_hosts: Vec<String> = Vec::new(), List "[\"clients.internal.example\"]";
        /// Addresses or networks of the proxies in front: only their `X-Forwarded-For` says who asks, which is what limits are
        /// counted by, and only theirs and `X-Original-URL` count at `/verify`. Behind a TLS proxy, name it.
        trusted_proxies: Vec<String> = Vec::new(), List "[\"127.0.0.1\", \"10.0.0.0/8\"]";
        /// Allows the upstream `local` although others can reach this server: whoever has an admin key signs in with it.
        allow_local_sign_in: bool = false, Flag "false";
        /// Where people sign in: `[[issuer.upstream]]`.
        upstream: Vec<IssuerUpstream> = Vec::new(), Tables "";
        /// What is protected: `[[issuer.resource]]`.
        resource: Vec<IssuerResource> = Vec::new(), Tables "";
    }
}

section! {
    /// Where people sign in; several make a page to choose from. Left out: at the only `[[integration]]` there is.
    MANY "issuer.upstream" IssuerUpstream {
        /// An integration's id, or `local`: here, with an admin key, for development.
        provider: Option<String> = None, Text "\"google\"";
    }
}

section! {
    /// What access tokens are for: an MCP server, an API.
    MANY "issuer.resource" IssuerResource {
        /// Its address, as clients name it (RFC 8707): what stands in a token's `aud`.
        url: Option<String> = None, Text "\"https://mcp.example.com/mcp\"";
        /// For people, on the consent page.
        name: Option<String> = None, Text "\"Example MCP\"";
        /// The scopes it knows. Left out: tokens carry none.
        scopes: Vec<String> = Vec::new(), List "[\"mcp\"]";
        /// What signs its tokens. By default `issuer.algorithm`.
        algorithm: Option<String> = None, Text "\"HS256\"";
        /// The key it checks HS256 with: at least 32 bytes that no other resource has. Others ask the JWKS.
        signing_secret: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        signing_secret_file: Option<PathBuf> = None, Text "\"/run/secrets/mcp-signing-secret\"";
        /// The ids of clients that speak for it: they may introspect its tokens.
        introspectors: Vec<String> = Vec::new(), List "[\"mcp-server\"]";
        /// The ids of clients that speak for it and may exchange its users' access tokens for those of the provider
        /// (RFC 8693), each with a secret or a key and the grant type `urn:ietf:params:oauth:grant-type:token-exchange`.
        /// Users are asked.
        exchangers: Vec<String> = Vec::new(), List "[\"mcp-server\"]";
        /// Whether its tokens end when the user's connection at the provider does.
        needs_upstream: bool = false, Flag "false";
    }
}
