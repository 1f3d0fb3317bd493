//! `[[integration]]`

use std::{collections::BTreeMap, path::PathBuf};

use tokenkeep_oauth::Secret;

use super::section::section;

section! {
    /// Our client at a provider. Others are set with `tokenkeep integrations set`.
    MANY "integration" Integration {
        /// Stands as `{provider}` in paths. By default the provider's id.
        id: Option<String> = None, Text "\"google\"";
        /// A provider of the catalogue (`tokenkeep providers list`) or of `[[provider]]`.
        provider: Option<String> = None, Text "\"google\"";
        /// An OpenID Connect issuer to discover, instead of a provider of the catalogue.
        issuer: Option<String> = None, Text "\"https://id.example.com\"";
        /// The only tenant that may use it. Left out: all.
        tenant: Option<String> = None, Text "\"acme\"";
        /// Our client id at the provider.
        client_id: Option<String> = None, Text "\"1234.apps.googleusercontent.com\"";
        /// Our client secret there. Public clients have none.
        client_secret: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        client_secret_file: Option<PathBuf> = None, Text "\"/run/secrets/google-client-secret\"";
        /// How `connect` obtains tokens: `authorization_code`, `client_credentials`, `jwt_bearer` or `device_code`.
        grant: Option<String> = None, Text "\"authorization_code\"";
        /// Scopes to ask for, separated by spaces. By default the provider's.
        scope: Option<String> = None, Text "\"https://www.googleapis.com/auth/gmail.send\"";
        /// Where the provider sends browsers back to. By default `{public_url}/oauth/callback`.
        redirect_uri: Option<String> = None, Text "\"https://tokens.example.com/oauth/callback\"";
        /// Hosts its tokens may be sent to. By default the provider's own.
        api_hosts: Vec<String> = Vec::new(), List "[\"gmail.googleapis.com\"]";
        /// A private key the provider knows us by: PEM, or the JSON file of the provider's console.
        signing_key: Option<Secret> = None, Text "\"...\"";
        /// A file that holds it.
        signing_key_file: Option<PathBuf> = None, Text "\"/run/secrets/service-account.json\"";
        /// The `kid` under which the provider knows that key.
        signing_key_id: Option<String> = None, Text "\"2026-01\"";
        /// The `iss` of what we sign where it is not the client id: Apple's team, a service account's address.
        signing_key_issuer: Option<String> = None, Text "\"TEAM123456\"";
        /// Fills in the provider's templates (Microsoft's `tenant`).
        params: BTreeMap<String, String> = BTreeMap::new(), Table "{ tenant = \"contoso.onmicrosoft.com\" }";
    }
}
