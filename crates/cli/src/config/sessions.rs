//! `[sessions]`

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// Backend sessions: tokens of ours for an application's own users, with a provider's tokens behind them. They are on
    /// as soon as anything is said here; `enabled = true` will do. docs/sessions.md goes through it.
    ONE "sessions" Sessions {
        /// Whether there are any.
        enabled: bool = true, Flag "true";
        /// What signs their tokens: `ES256`, `EdDSA` or `RS256` (others check them with `/jwks`), or `HS256` with a
        /// `signing_secret`.
        alg: String = "ES256".to_owned(), Text "\"ES256\"";
        /// The key of HS256: at least 32 bytes that stand nowhere else. There is no default; `tokenkeep secret random`
        /// makes one. A provider's public key is refused.
        signing_secret: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        signing_secret_file: Option<PathBuf> = None, Text "\"/run/secrets/session-signing-secret\"";
        /// What stands in their `aud`: a URL, which need not lead anywhere. By default `{server.public_url}/v1/sessions`.
        audience: Option<String> = None, Text "\"https://api.example.com\"";
        /// What stands in their `iss` where there is no `[issuer]`. By default `server.public_url`.
        issuer: Option<String> = None, Text "\"https://tokens.example.com\"";
        /// Seconds an access token lives where neither the session nor the provider's token says so: 60 to 604800 (7 days).
        ttl: u64 = 14_400, Number "14400";
        /// Seconds one that was refreshed lives on: 0 to 600. Whoever sends it meanwhile gets the same new one.
        grace: u64 = 60, Number "60";
        /// Seconds one for opening a WebSocket lives: 10 to 3600.
        websocket_ttl: u64 = 300, Number "300";
        /// Seconds a session's refresh token lives that nobody presents: 300 to 31536000 (a year); 0 = none are given out.
        refresh_token_ttl: u64 = 2_592_000, Number "2592000";
        /// Origins whose pages may look at their session, refresh, reissue and end it. None by default: the backend does.
        allowed_origins: Vec<String> = Vec::new(), List "[\"https://app.example.com\"]";
        /// The ids of clients that may exchange a session's token for the provider's (RFC 8693), where there is an
        /// `[issuer]`.
        exchangers: Vec<String> = Vec::new(), List "[\"reports\"]";
    }
}
