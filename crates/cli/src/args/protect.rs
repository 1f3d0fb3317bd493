//! `tokenkeep protect`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// One command gives an MCP server (or any other HTTP server) that has no idea of users all it needs to be on a network:
/// clients find out where to sign in, people sign in and consent, and only who has a token for it gets through. What it
/// is told here can stand in the configuration file instead, as `[[protect]]`, for `tokenkeep serve`.
#[derive(Debug, Args)]
pub(crate) struct Protect {
    /// Where the server is: http://localhost:3000/mcp
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: String,
    /// Where people sign in: a provider of the catalogue, the URL of any OpenID Connect issuer, or the id of an integration
    /// [default: here, with an admin key, for development]
    #[arg(long, value_name = "ID")]
    pub(crate) provider: Option<String>,
    /// Where it is reached here
    #[arg(long, value_name = "PATH", default_value = "/mcp")]
    pub(crate) path: String,
    /// What it is called, on the consent page
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A scope that every request needs; as often as needed
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// Hand it the user's token at the provider, fresh: as `authorization`, or in a header of this name
    #[arg(long, value_name = "WHERE", num_args = 0..=1, default_missing_value = "authorization")]
    pub(crate) forward_token: Option<String>,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where browsers and clients reach us [default: http://localhost:PORT]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Our client id at the provider [env: {PROVIDER}_CLIENT_ID, so GITHUB_CLIENT_ID for github]
    #[arg(
        long,
        value_name = "ID",
        requires = "provider",
        allow_hyphen_values = true,
        help_heading = "Our client at the provider"
    )]
    pub(crate) client_id: Option<String>,
    /// A file that holds our client secret [env: {PROVIDER}_CLIENT_SECRET, or {PROVIDER}_CLIENT_SECRET_FILE]
    #[arg(long, value_name = "FILE", requires = "client_id", help_heading = "Our client at the provider")]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// What to ask the provider for, separated by spaces, where its token is handed on
    #[arg(long, value_name = "SCOPE", requires = "provider", help_heading = "Our client at the provider")]
    pub(crate) provider_scope: Option<String>,
    /// A parameter of the provider, such as Microsoft's tenant
    #[arg(
        long = "param",
        value_name = "NAME=VALUE",
        requires = "provider",
        help_heading = "Our client at the provider"
    )]
    pub(crate) params: Vec<String>,
    /// Who may sign in, by name or subject (octocat, github|583231); as often as needed
    #[arg(long = "allow-user", value_name = "USER", help_heading = "Who may sign in [default: everybody]")]
    pub(crate) allow_users: Vec<String>,
    /// Who has a verified e-mail address there may sign in; as often as needed
    #[arg(long = "allow-email-domain", value_name = "DOMAIN", help_heading = "Who may sign in [default: everybody]")]
    pub(crate) allow_email_domains: Vec<String>,
    /// Who belongs to this organisation at the provider may sign in; as often as needed
    #[arg(long = "allow-organization", value_name = "NAME", help_heading = "Who may sign in [default: everybody]")]
    pub(crate) allow_organizations: Vec<String>,
    /// Log level (error, warn, info, debug, trace) or filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}
