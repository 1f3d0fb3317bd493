//! `[[client]]`

use std::path::PathBuf;

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// Clients of our authorization server, for infrastructure as code. Others register themselves, or are made with
    /// `tokenkeep clients create`.
    MANY "client" OAuthClient {
        /// Its id.
        client_id: Option<String> = None, Text "\"backend\"";
        /// Its secret, at least 20 characters that nobody can guess. Public clients have none.
        client_secret: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        client_secret_file: Option<PathBuf> = None, Text "\"/run/secrets/backend-client-secret\"";
        /// How it proves itself: `none`, `client_secret_basic`, `client_secret_post` or `private_key_jwt`. By default what
        /// it has: a secret, a key, or nothing.
        auth_method: Option<String> = None, Text "\"client_secret_basic\"";
        /// Where answers may be sent.
        redirect_uris: Vec<String> = Vec::new(), List "[\"https://app.example.com/callback\"]";
        /// `authorization_code`, `refresh_token`, `client_credentials`. By default the first two where there are
        /// redirect URIs, else the last.
        grant_types: Option<Vec<String>> = None, List "[\"client_credentials\"]";
        /// The most it may ask for, separated by spaces. Left out: whatever the resource knows.
        scope: Option<String> = None, Text "\"mcp\"";
        /// The resources it may ask for. Left out: all.
        resources: Option<Vec<String>> = None, List "[\"https://mcp.example.com/mcp\"]";
        /// Its name, for people.
        name: Option<String> = None, Text "\"Backend\"";
        /// A file with the public keys that it signs assertions with (a JWK set).
        jwks_file: Option<PathBuf> = None, Text "\"/etc/tokenkeep/backend-jwks.json\"";
        /// Where those keys are, instead.
        jwks_uri: Option<String> = None, Text "\"https://backend.example.com/jwks\"";
    }
}
