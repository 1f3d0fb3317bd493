//! The commands of the issuing side.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokenkeep_core::{ClientId, ConnectionId, GrantId, Subject};

use super::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Clients {
    /// List them
    List(ListClients),
    /// Show one
    Show {
        /// Its id
        id: ClientId,
        #[command(flatten)]
        output: Output,
    },
    /// Make one; a secret that is drawn is shown this once
    Create(Box<CreateClient>),
    /// Change one; what is not named stays as it is
    Update {
        /// Its id
        id: ClientId,
        #[command(flatten)]
        client: Box<ClientMetadata>,
        #[command(flatten)]
        output: Output,
    },
    /// Draw a new secret, which is shown this once; the old one counts no more
    RotateSecret {
        /// Its id
        id: ClientId,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Remove one, or those of a name, and end whatever was granted to them
    Delete(DeleteClients),
}

#[derive(Debug, Args)]
pub(crate) struct ListClients {
    /// Only those that came to be known so: api, config, registered
    #[arg(long)]
    pub(crate) origin: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CreateClient {
    /// Its id [default: one is drawn]
    #[arg(long)]
    pub(crate) id: Option<ClientId>,
    #[command(flatten)]
    pub(crate) client: ClientMetadata,
    /// A file that holds its secret [default: one is drawn]
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// A variable that holds its secret
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    pub(crate) secret_env: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What a client is.
#[derive(Debug, Args)]
pub(crate) struct ClientMetadata {
    /// For people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where answers may be sent; as often as needed
    #[arg(long = "redirect-uri", value_name = "URI")]
    pub(crate) redirect_uris: Vec<String>,
    /// authorization_code, refresh_token, client_credentials; as often as needed [default: the first two with a redirect
    /// URI, else the last]
    #[arg(long = "grant-type", value_name = "TYPE")]
    pub(crate) grant_types: Vec<String>,
    /// none, client_secret_basic, client_secret_post or private_key_jwt [default: a secret, or its key if it has one]
    #[arg(long, value_name = "METHOD")]
    pub(crate) auth_method: Option<String>,
    /// The most it may ask for, separated by spaces [default: whatever the resource knows]
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// A resource it may ask for; as often as needed [default: all]
    #[arg(long = "resource", value_name = "URL")]
    pub(crate) resources: Vec<String>,
    /// A file with the public keys that it signs assertions with: a JWK set
    #[arg(long, value_name = "FILE")]
    pub(crate) jwks_file: Option<PathBuf>,
    /// Where those keys are
    #[arg(long, value_name = "URL", conflicts_with = "jwks_file")]
    pub(crate) jwks_uri: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteClients {
    /// Its id
    #[arg(required_unless_present = "name")]
    pub(crate) id: Option<ClientId>,
    /// Those whose name is this, in whatever case; * stands for anything: `TEST*`
    #[arg(long, value_name = "PATTERN", conflicts_with = "id")]
    pub(crate) name: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Grants {
    /// List them
    List(ListGrants),
    /// Show one
    Show {
        #[command(flatten)]
        which: WhichGrant,
        #[command(flatten)]
        output: Output,
    },
    /// End them, or one access token: what was granted counts no more, anywhere
    Revoke {
        #[command(flatten)]
        which: WhichGrants,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Count clients, grants, tokens and users; reads every record
    Stats(Output),
    /// Remove what expired, now
    Purge {
        /// Only count it
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListGrants {
    /// Only this client's
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<ClientId>,
    /// Only this person's
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) subject: Option<Subject>,
    /// Only those that rest on this connection: PROVIDER/TENANT/SUBJECT
    #[arg(long)]
    pub(crate) connection: Option<ConnectionId>,
    /// At most so many [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// One grant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichGrant {
    /// Its id
    pub(crate) id: Option<GrantId>,
    /// The jti of one of its access tokens
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) jti: Option<String>,
}

/// What is to be ended.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichGrants {
    /// The grant of this id
    pub(crate) id: Option<GrantId>,
    /// This one access token
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) jti: Option<String>,
    /// Whatever this person allowed
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) subject: Option<Subject>,
    /// Whatever this client was allowed
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<ClientId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List them
    List(ListSessions),
    /// Show one
    Show {
        /// Its id
        id: GrantId,
        #[command(flatten)]
        output: Output,
    },
    /// End them: their tokens count no more, anywhere
    Revoke {
        #[command(flatten)]
        which: WhichSessions,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Count their access tokens; reads every record
    Stats(Output),
    /// Forget access tokens that are dead, now
    Cleanup(Output),
}

#[derive(Debug, Args)]
pub(crate) struct ListSessions {
    /// Only this person's
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) subject: Option<Subject>,
    /// Only those that rest on this connection: PROVIDER/TENANT/SUBJECT
    #[arg(long)]
    pub(crate) connection: Option<ConnectionId>,
    /// At most so many [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Which sessions are to be ended.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichSessions {
    /// The session of this id
    pub(crate) id: Option<GrantId>,
    /// All of this person's
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) subject: Option<Subject>,
    /// All that rest on this connection: PROVIDER/TENANT/SUBJECT
    #[arg(long)]
    pub(crate) connection: Option<ConnectionId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeys {
    /// List them
    List(Output),
    /// Sign with the key that was announced from now on, and announce another; what was signed stays good
    Rotate {
        /// Only keys of this kind: ES256, EdDSA, RS256 [default: all that are in use]
        #[arg(long)]
        algorithm: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}
