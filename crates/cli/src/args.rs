//! What can be typed. Nothing here does anything; `commands` does.

mod credentials;
mod issuing;
mod protect;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokenkeep_core::{ConnectionId, IntegrationId, Subject, Tenant};

pub(crate) use self::credentials::{Credentials, TryCredentials, TryOut};
pub(crate) use self::issuing::{
    ClientMetadata, Clients, CreateClient, DeleteClients, Grants, ListClients, ListGrants, ListSessions, Sessions,
    SigningKeys, WhichGrant, WhichGrants, WhichSessions,
};
pub(crate) use self::protect::Protect;

/// Keeps, refreshes and serves the OAuth tokens an application lives on.
#[derive(Debug, Parser)]
#[command(name = "tokenkeep", version, propagate_version = true, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where to look.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Configuration file [default: tokenkeep.toml in the working directory, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
    /// Where the server keeps its files, and its local socket
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Server to talk to, with the key in TOKENKEEP_KEY or the file TOKENKEEP_KEY_FILE [env: TOKENKEEP_URL] [default: the
    /// local socket]
    #[arg(long, global = true, value_name = "URL", help_heading = "Everywhere")]
    pub(crate) url: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Serve),
    /// Run the server, in front of an MCP server that has no login of its own
    Protect(Protect),
    /// Have a user consent, and wait until the connection is there
    Connect(Connect),
    /// Print an access token that is fresh
    Token(Token),
    /// Show how a connection stands
    Status(Status),
    /// List connections
    List(List),
    /// Refresh a token now
    Refresh(Refresh),
    /// Store tokens obtained elsewhere, or what is logged in with
    Put(Put),
    /// Try a password or an API key, without storing it
    Credentials {
        #[command(subcommand)]
        command: TryCredentials,
    },
    /// Forget a connection and revoke it at the provider
    Revoke(Delete),
    /// Forget a connection
    Delete(Delete),
    /// Forget a person: all connections they have
    Forget(Forget),
    /// Run a command with fresh tokens in its environment
    Exec(Exec),
    /// Our clients at providers
    #[command(args_conflicts_with_subcommands = true)]
    Integrations {
        #[command(subcommand)]
        command: Option<Integrations>,
        #[command(flatten)]
        list: Output,
    },
    /// The catalogue
    #[command(args_conflicts_with_subcommands = true)]
    Providers {
        #[command(subcommand)]
        command: Option<Providers>,
        #[command(flatten)]
        list: Output,
    },
    /// Keys to the API
    #[command(args_conflicts_with_subcommands = true)]
    Keys {
        #[command(subcommand)]
        command: Option<Keys>,
        #[command(flatten)]
        list: Output,
    },
    /// Who may ask our authorization server for tokens
    #[command(args_conflicts_with_subcommands = true)]
    Clients {
        #[command(subcommand)]
        command: Option<Clients>,
        #[command(flatten)]
        list: ListClients,
    },
    /// What people allowed those clients
    #[command(args_conflicts_with_subcommands = true)]
    Grants {
        #[command(subcommand)]
        command: Option<Grants>,
        #[command(flatten)]
        list: ListGrants,
    },
    /// What backends issued to their users
    #[command(args_conflicts_with_subcommands = true)]
    Sessions {
        #[command(subcommand)]
        command: Option<Sessions>,
        #[command(flatten)]
        list: ListSessions,
    },
    /// The processes that serve from one store
    #[command(args_conflicts_with_subcommands = true)]
    Instances {
        #[command(subcommand)]
        command: Option<Instances>,
        #[command(flatten)]
        list: Output,
    },
    /// Counts by status and provider, cache hits, refresh outcomes
    Stats(Output),
    /// Remove what expired and nothing can renew, now
    Cleanup(Output),
    /// Whether the server can serve; for container checks
    Health(Output),
    /// The store behind the server, and the Redis that is the store, or the cache in front of it
    #[command(subcommand)]
    Store(Store),
    /// The configuration
    #[command(subcommand)]
    Config(Config),
    /// Find what is wrong with an installation
    Doctor(Output),
    /// Make a secret
    Secret {
        /// What for
        #[arg(value_enum)]
        kind: SecretKind,
    },
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Log level (error, warn, info, debug, trace) or filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}

/// Names a connection: `google --subject alice` or `google/_default/alice`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Which {
    /// The integration's id, or the whole name: PROVIDER/TENANT/SUBJECT
    #[arg(value_name = "CONNECTION")]
    name: String,
    /// Whose workspace [default: _default]
    #[arg(long)]
    tenant: Option<Tenant>,
    /// Whose account [default: _default]
    #[arg(long, allow_hyphen_values = true)]
    subject: Option<Subject>,
}

impl Which {
    /// The connection it names.
    pub(crate) fn id(&self) -> Result<ConnectionId, clap::Error> {
        if !self.name.contains('/') {
            return Ok(ConnectionId {
                integration: self.name.parse().map_err(wrong)?,
                tenant: self.tenant.clone().unwrap_or_else(Tenant::default_tenant),
                subject: self.subject.clone().unwrap_or_else(Subject::default_subject),
            });
        }
        if self.tenant.is_some() || self.subject.is_some() {
            return Err(wrong(
                "the whole name PROVIDER/TENANT/SUBJECT leaves nothing for --tenant and --subject to say",
            ));
        }
        self.name.parse().map_err(wrong)
    }
}

/// Wrong usage that clap's own rules do not see.
pub(crate) fn wrong(problem: impl std::fmt::Display) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{problem}\n"))
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Scopes to ask for, separated by spaces [default: the integration's]
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// Only print the link
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Seconds to wait; 0 returns at once [default: as long as the link lives]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Seconds the token must still live
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) min_ttl: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this integration's
    pub(crate) provider: Option<IntegrationId>,
    /// Only this workspace's
    #[arg(long)]
    pub(crate) tenant: Option<Tenant>,
    /// Only this account's
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) subject: Option<Subject>,
    /// Only those that stand so: pending, active, expiring, expired, unresolved, reauth_required
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Refresh {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Only if the token is still this generation
    #[arg(long, value_name = "N")]
    pub(crate) if_generation: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Tokens come on standard input as JSON, `{"access_token": .., "refresh_token": .., "expires_in": ..}`, or from files
/// and variables; never as arguments, which every user of the machine can see. Where there is no OAuth, --username or an
/// API key takes their place.
#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) which: Which,
    /// A file that holds the access token
    #[arg(long, value_name = "FILE")]
    pub(crate) access_token_file: Option<PathBuf>,
    /// A variable that holds the access token
    #[arg(long, value_name = "NAME", conflicts_with = "access_token_file")]
    pub(crate) access_token_env: Option<String>,
    /// A file that holds the refresh token
    #[arg(long, value_name = "FILE")]
    pub(crate) refresh_token_file: Option<PathBuf>,
    /// A variable that holds the refresh token
    #[arg(long, value_name = "NAME", conflicts_with = "refresh_token_file")]
    pub(crate) refresh_token_env: Option<String>,
    /// Seconds the access token lives from now on
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in: Option<u64>,
    /// What was granted, separated by spaces
    #[arg(long)]
    pub(crate) scope: Option<String>,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// With credentials: seconds a token lives, where a login's reply does not say less
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    /// With credentials: store them only if a login succeeds
    #[arg(long)]
    pub(crate) login: bool,
    /// For people
    #[arg(long, value_name = "NAME")]
    pub(crate) display_name: Option<String>,
    /// Store only where nothing is
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Store even a refresh token that is known to be spent
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// TENANT/SUBJECT
    #[arg(value_name = "TENANT/SUBJECT")]
    pub(crate) person: String,
    /// Revoke everything at the providers as well
    #[arg(long)]
    pub(crate) revoke: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// PROVIDER/TENANT/SUBJECT, or an integration's id; with its --env, as often as needed
    #[arg(long = "connection", value_name = "CONNECTION", required = true)]
    pub(crate) connections: Vec<String>,
    /// The variable that gets the token of the --connection before it
    #[arg(long = "env", value_name = "NAME", required = true)]
    pub(crate) variables: Vec<String>,
    /// Seconds each token must still live
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) min_ttl: u32,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Integrations {
    /// List them
    List(Output),
    /// Show one
    Show {
        /// Its id
        id: IntegrationId,
        #[command(flatten)]
        output: Output,
    },
    /// Name or change one; the secret is asked for where neither file nor variable is given
    Set(Box<SetIntegration>),
    /// Remove one; its connections stay until their tokens expire
    Delete {
        /// Its id
        id: IntegrationId,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetIntegration {
    /// Its id; by default also the provider's
    pub(crate) id: IntegrationId,
    /// A provider of the catalogue
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// An OpenID Connect issuer to discover, instead of a provider of the catalogue
    #[arg(long, value_name = "URL", conflicts_with = "provider")]
    pub(crate) issuer: Option<String>,
    /// Our client id there
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) client_id: String,
    /// A file that holds our client secret
    #[arg(long, value_name = "FILE")]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// A variable that holds our client secret
    #[arg(long, value_name = "NAME", conflicts_with = "client_secret_file")]
    pub(crate) client_secret_env: Option<String>,
    /// We have no secret there (or keep the one that is stored)
    #[arg(long, conflicts_with_all = ["client_secret_file", "client_secret_env"])]
    pub(crate) no_client_secret: bool,
    /// authorization_code, client_credentials, jwt_bearer or device_code
    #[arg(long)]
    pub(crate) grant: Option<String>,
    /// Scopes to ask for, separated by spaces
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// A parameter of the provider, such as Microsoft's tenant
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    /// A host its tokens may be sent to
    #[arg(long = "api-host", value_name = "HOST")]
    pub(crate) api_hosts: Vec<String>,
    /// Where the provider sends browsers back to
    #[arg(long, value_name = "URL")]
    pub(crate) redirect_uri: Option<String>,
    /// The only tenant that may use it
    #[arg(long)]
    pub(crate) only_tenant: Option<Tenant>,
    /// A file with the private key the provider knows us by: PEM, or the JSON of its console
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key_file: Option<PathBuf>,
    /// The kid under which the provider knows that key
    #[arg(long, value_name = "KID", requires = "signing_key_file", allow_hyphen_values = true)]
    pub(crate) signing_key_id: Option<String>,
    /// The iss of what we sign, where it is not the client id
    #[arg(long, value_name = "ISSUER", requires = "signing_key_file")]
    pub(crate) signing_key_issuer: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Providers {
    /// List them
    List {
        /// Only those whose id or name holds this
        filter: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show what is known of one, and which of it nobody has verified
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// List them
    List(Output),
    /// Make one; it is shown this once
    Create {
        /// For people
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: Role,
        /// A tenant it may name; as often as needed [default: all]
        #[arg(long = "tenant", value_name = "TENANT")]
        tenants: Vec<Tenant>,
        /// An integration it may name; as often as needed [default: all]
        #[arg(long = "provider", value_name = "ID")]
        providers: Vec<IntegrationId>,
        #[command(flatten)]
        output: Output,
    },
    /// Remove one
    Delete {
        /// Its id, as `keys list` shows it
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// The keys that sign the access tokens we issue
    #[command(args_conflicts_with_subcommands = true)]
    Signing {
        #[command(subcommand)]
        command: Option<SigningKeys>,
        #[command(flatten)]
        list: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Instances {
    /// List them
    List(Output),
    /// Say that one never comes back with its disk, so that nobody waits for it
    Forget {
        /// Its id, as `instances list` shows it
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Also one that was seen in the last 30 s
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    /// Everything
    Admin,
    /// Everything except reading secrets, deciding where they are sent, and managing keys
    Operator,
    /// Connect, put, token, refresh, delete
    Application,
    /// Token and status
    Reader,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Whether it answers
    Ping,
    /// What Redis says of itself: its version, memory, clients, and what it keeps
    Info(Output),
    /// How many keys of each kind are in Redis; walks over all of them
    Keys(Output),
    /// Who is connected to Redis
    Clients(Output),
    /// The commands that took Redis long, without what they were given
    Slowlog {
        /// At most so many from each server
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Config {
    /// Read it and say what it means
    Check(Output),
    /// Print tokenkeep.example.toml
    Example,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SecretKind {
    /// 32 random bytes
    Random,
    /// A key for `[sealing]`
    SealingKey,
    /// A key for `[[key]]` or TOKENKEEP_ADMIN_KEY
    ApiKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_or_chance_made_may_begin_with_a_hyphen() {
        let understood = |arguments: &str| {
            let words = ["tokenkeep"].into_iter().chain(arguments.split(' '));
            Arguments::try_parse_from(words).map(|typed| format!("{typed:?}")).map_err(|error| error.to_string())
        };
        for typed in [
            "token github --subject -name",
            "list --subject -name",
            "grants --subject -name",
            "grants show --jti -name",
            "grants revoke --jti -name",
            "grants revoke --subject -name",
            "sessions --subject -name",
            "sessions revoke --subject -name",
            "integrations set github --client-id -name",
            "integrations set a --client-id b --signing-key-file k --signing-key-id -name",
            "protect --upstream http://localhost:3000/mcp --provider github --client-id -name",
        ] {
            assert!(understood(typed).unwrap().contains("-name"), "{typed}");
        }
    }
}
