use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    AccessToken, Alternate, Attempt, AttemptId, Connection, ConnectionId, Credentials, Deleted, Fingerprint,
    Generation, Health, Incarnation, LastError, LoginGrant, RenewBy, Renewal, Spent, TokenSet,
    connection::Phase,
    ports::{Kind, LabelName, RecordKey},
    refresh::Seen,
    time::after,
};
use zeroize::Zeroizing;

use super::{
    Aggregate, DecodeError, Labels, Loaded,
    wire::{self, Exposed},
};

/// A connection that is due is handed to one instance, and to no other for so long.
pub(crate) const CLAIM: Duration = Duration::from_mins(1);

impl Aggregate for Connection {
    const KIND: Kind = Kind::Connection;
    type Id = ConnectionId;
    type Remembered = Deleted;
    /// The provider's early-refresh margin.
    type Timing = Duration;

    fn key_of(id: &ConnectionId) -> RecordKey {
        // An integration's id holds no slash, so this reads back one way only.
        RecordKey { tenant: id.tenant.clone(), kind: Self::KIND, id: format!("{}/{}", id.integration, id.subject) }
    }

    fn id(&self) -> &ConnectionId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        wire::encode(&ConnectionDto::from(self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        wire::decode::<ConnectionDto<'_>>(bytes).map(Connection::from)
    }

    fn labels(&self, labels: &Labels<'_>) -> Vec<(LabelName, String)> {
        vec![
            (LabelName::Provider, self.id.integration.to_string()),
            (LabelName::Subject, labels.subject(&self.id.subject)),
        ]
    }

    /// Never while anything in it can bring a token; else when its access token dies.
    fn expires_at(&self) -> Option<Timestamp> {
        if self.tokens.renewal.is_some() || self.alternate.is_some() || self.attempt.is_some() {
            return None;
        }
        match &self.tokens.access {
            Some(access) => access.expires_at,
            None => Some(self.updated_at),
        }
    }

    fn due_at(&self, margin: Duration) -> Option<Timestamp> {
        let due = self.next_refresh_at(margin, jitter(&self.id))?;
        // Somebody is at it: writing that down must not undo the preloader's claim, or all of them would come at once.
        let running = self.attempt.as_ref().is_some_and(|attempt| attempt.phase == Phase::Running);
        Some(if running { due.max(after(self.updated_at, CLAIM)) } else { due })
    }
}

impl From<Loaded<Connection>> for Seen {
    fn from(loaded: Loaded<Connection>) -> Self {
        match loaded {
            Loaded::Absent => Seen::Absent,
            Loaded::Deleted(tombstone) => Seen::Deleted(tombstone.remembered, tombstone.version),
            Loaded::Live(stored) => Seen::Live(Box::new(stored.value), stored.version),
        }
    }
}

/// Spreads connections over `0.0..1.0`, each to the same point in every process: FNV-1a, then a mix, because FNV
/// barely moves its upper bits for ids that differ at their end.
fn jitter(id: &ConnectionId) -> f64 {
    let text = id.to_string();
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from(u32::try_from(mixed >> 32).expect("half of 64 bits are 32")) / (f64::from(u32::MAX) + 1.0)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionDto<'a> {
    id: ConnectionId,
    incarnation: Incarnation,
    generation: Generation,
    #[serde(borrow)]
    tokens: TokenSetDto<'a>,
    committed_by: Option<AttemptId>,
    spent: Spent,
    attempt: Option<Attempt>,
    alternate: Option<AlternateDto<'a>>,
    health: Health,
    last_error: Option<LastError>,
    display_name: Option<Cow<'a, str>>,
    created_at: Timestamp,
    updated_at: Timestamp,
    last_refreshed_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenSetDto<'a> {
    #[serde(borrow)]
    access: Option<AccessTokenDto<'a>>,
    renewal: Option<RenewalDto<'a>>,
    scope: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessTokenDto<'a> {
    #[serde(borrow)]
    token: Exposed<'a>,
    token_type: Cow<'a, str>,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewalDto<'a> {
    #[serde(borrow)]
    by: RenewByDto<'a>,
    fingerprint: Fingerprint,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RenewByDto<'a> {
    #[serde(borrow)]
    RefreshToken(Exposed<'a>),
    ClientCredentials,
    JwtBearer,
    AccessToken,
    #[serde(borrow)]
    Login(LoginDto<'a>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginDto<'a> {
    #[serde(borrow)]
    credentials: CredentialsDto<'a>,
    /// Seconds.
    ttl: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum CredentialsDto<'a> {
    Password {
        username: Cow<'a, str>,
        #[serde(borrow)]
        password: Exposed<'a>,
    },
    #[serde(borrow)]
    ApiKey(Exposed<'a>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlternateDto<'a> {
    #[serde(borrow)]
    renewal: RenewalDto<'a>,
    received_at: Timestamp,
}

impl<'a> From<&'a Connection> for ConnectionDto<'a> {
    fn from(connection: &'a Connection) -> Self {
        // Every field by name, and no `..`: a field that is forgotten here does not compile.
        let Connection {
            id,
            incarnation,
            generation,
            tokens,
            committed_by,
            spent,
            attempt,
            alternate,
            health,
            last_error,
            display_name,
            created_at,
            updated_at,
            last_refreshed_at,
        } = connection;
        Self {
            id: id.clone(),
            incarnation: *incarnation,
            generation: *generation,
            tokens: tokens.into(),
            committed_by: *committed_by,
            spent: spent.clone(),
            attempt: attempt.clone(),
            alternate: alternate.as_ref().map(|Alternate { renewal, received_at }| AlternateDto {
                renewal: renewal.into(),
                received_at: *received_at,
            }),
            health: health.clone(),
            last_error: last_error.clone(),
            display_name: display_name.as_deref().map(Cow::Borrowed),
            created_at: *created_at,
            updated_at: *updated_at,
            last_refreshed_at: *last_refreshed_at,
        }
    }
}

impl From<ConnectionDto<'_>> for Connection {
    fn from(dto: ConnectionDto<'_>) -> Self {
        Self {
            id: dto.id,
            incarnation: dto.incarnation,
            generation: dto.generation,
            tokens: dto.tokens.into(),
            committed_by: dto.committed_by,
            spent: dto.spent,
            attempt: dto.attempt,
            alternate: dto.alternate.map(|a| Alternate { renewal: a.renewal.into(), received_at: a.received_at }),
            health: dto.health,
            last_error: dto.last_error,
            display_name: dto.display_name.map(Cow::into_owned),
            created_at: dto.created_at,
            updated_at: dto.updated_at,
            last_refreshed_at: dto.last_refreshed_at,
        }
    }
}

impl<'a> From<&'a TokenSet> for TokenSetDto<'a> {
    fn from(TokenSet { access, renewal, scope }: &'a TokenSet) -> Self {
        Self {
            access: access.as_ref().map(Into::into),
            renewal: renewal.as_ref().map(Into::into),
            scope: scope.as_deref().map(Cow::Borrowed),
        }
    }
}

impl From<TokenSetDto<'_>> for TokenSet {
    fn from(dto: TokenSetDto<'_>) -> Self {
        Self {
            access: dto.access.map(Into::into),
            renewal: dto.renewal.map(Into::into),
            scope: dto.scope.map(Cow::into_owned),
        }
    }
}

impl<'a> From<&'a AccessToken> for AccessTokenDto<'a> {
    fn from(AccessToken { token, token_type, issued_at, expires_at }: &'a AccessToken) -> Self {
        Self {
            token: token.into(),
            token_type: Cow::Borrowed(token_type),
            issued_at: *issued_at,
            expires_at: *expires_at,
        }
    }
}

impl From<AccessTokenDto<'_>> for AccessToken {
    fn from(dto: AccessTokenDto<'_>) -> Self {
        Self {
            token: dto.token.into(),
            token_type: dto.token_type.into_owned(),
            issued_at: dto.issued_at,
            expires_at: dto.expires_at,
        }
    }
}

impl<'a> From<&'a Renewal> for RenewalDto<'a> {
    fn from(Renewal { by, fingerprint }: &'a Renewal) -> Self {
        let by = match by {
            RenewBy::RefreshToken(token) => RenewByDto::RefreshToken(token.into()),
            RenewBy::ClientCredentials => RenewByDto::ClientCredentials,
            RenewBy::JwtBearer => RenewByDto::JwtBearer,
            RenewBy::AccessToken => RenewByDto::AccessToken,
            RenewBy::Login(login) => RenewByDto::Login(login.into()),
        };
        Self { by, fingerprint: *fingerprint }
    }
}

impl From<RenewalDto<'_>> for Renewal {
    fn from(dto: RenewalDto<'_>) -> Self {
        let by = match dto.by {
            RenewByDto::RefreshToken(token) => RenewBy::RefreshToken(token.into()),
            RenewByDto::ClientCredentials => RenewBy::ClientCredentials,
            RenewByDto::JwtBearer => RenewBy::JwtBearer,
            RenewByDto::AccessToken => RenewBy::AccessToken,
            RenewByDto::Login(login) => RenewBy::Login(login.into()),
        };
        Self { by, fingerprint: dto.fingerprint }
    }
}

impl<'a> From<&'a LoginGrant> for LoginDto<'a> {
    fn from(LoginGrant { credentials, ttl }: &'a LoginGrant) -> Self {
        let credentials = match credentials {
            Credentials::Password { username, password } => {
                CredentialsDto::Password { username: Cow::Borrowed(username), password: password.into() }
            }
            Credentials::ApiKey(key) => CredentialsDto::ApiKey(key.into()),
        };
        Self { credentials, ttl: ttl.map(|ttl| ttl.as_secs()) }
    }
}

impl From<LoginDto<'_>> for LoginGrant {
    fn from(LoginDto { credentials, ttl }: LoginDto<'_>) -> Self {
        let credentials = match credentials {
            CredentialsDto::Password { username, password } => {
                Credentials::Password { username: username.into_owned(), password: password.into() }
            }
            CredentialsDto::ApiKey(key) => Credentials::ApiKey(key.into()),
        };
        Self { credentials, ttl: ttl.map(Duration::from_secs) }
    }
}
