use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    ClientId, ConnectionId, Grant, GrantId, Incarnation, Subject, Tenant,
    grant::{Code, Family, GrantSeed, GrantStage, LiveToken, Revoked, User},
    ports::{Kind, LabelName, RecordKey},
    session::{Session, SessionToken, Successor, Terms},
};
use tokenkeep_oauth::issuer::{authorize::CodeChallenge, resource::Resource, scope::ScopeSet};
use zeroize::Zeroizing;

use super::{
    Aggregate, DecodeError, Labels,
    wire::{self, Exposed, malformed},
};

impl Aggregate for Grant {
    const KIND: Kind = Kind::Grant;
    type Id = GrantId;
    type Remembered = ();
    type Timing = ();

    fn key_of(id: &GrantId) -> RecordKey {
        RecordKey { tenant: Tenant::default_tenant(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &GrantId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Grant {
            id,
            client,
            subject,
            user,
            scope,
            resource,
            connection,
            exchangers,
            seed,
            created_at,
            stage,
            live,
            session,
        } = self;
        let seed = Zeroizing::new(BASE64_STANDARD_NO_PAD.encode(seed.expose()));
        wire::encode(&GrantDto {
            id: *id,
            client: client.clone(),
            subject: subject.clone(),
            name: user.name.as_deref().map(Cow::Borrowed),
            email: user.email.as_deref().map(Cow::Borrowed),
            scope: scope.clone(),
            resource: resource.clone(),
            connection: connection.clone(),
            exchangers: exchangers.clone(),
            seed: Exposed::from(seed.as_str()),
            created_at: *created_at,
            stage: stage.into(),
            live: live.iter().map(|token| (Cow::Borrowed(token.jti.as_str()), token.expires_at)).collect(),
            session: session.as_ref().map(Into::into),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: GrantDto<'_> = wire::decode(bytes)?;
        let seed = Zeroizing::new(BASE64_STANDARD_NO_PAD.decode(dto.seed.text()).map_err(|_| malformed(0))?);
        let live = dto.live.into_iter();
        Ok(Self {
            id: dto.id,
            client: dto.client,
            subject: dto.subject,
            user: User { name: dto.name.map(Cow::into_owned), email: dto.email.map(Cow::into_owned) },
            scope: dto.scope,
            resource: dto.resource,
            connection: dto.connection,
            exchangers: dto.exchangers,
            seed: GrantSeed::new(seed.as_slice().try_into().map_err(|_| malformed(0))?),
            created_at: dto.created_at,
            stage: dto.stage.try_into()?,
            live: live.map(|(jti, expires_at)| LiveToken { jti: jti.into_owned(), expires_at }).collect(),
            session: dto.session.map(Into::into),
        })
    }

    fn labels(&self, labels: &Labels<'_>) -> Vec<(LabelName, String)> {
        let connection = self.connection.as_ref().map(|id| (LabelName::Connection, labels.connection(id)));
        let own =
            [(LabelName::Provider, labels.client(&self.client)), (LabelName::Subject, labels.subject(&self.subject))];
        own.into_iter().chain(connection).collect()
    }

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.expires_at())
    }

    fn due_at(&self, (): ()) -> Option<Timestamp> {
        None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantDto<'a> {
    id: GrantId,
    client: ClientId,
    subject: Subject,
    name: Option<Cow<'a, str>>,
    email: Option<Cow<'a, str>>,
    scope: ScopeSet,
    resource: Resource,
    connection: Option<ConnectionId>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    exchangers: BTreeSet<ClientId>,
    #[serde(borrow)]
    seed: Exposed<'a>,
    created_at: Timestamp,
    stage: StageDto<'a>,
    live: Vec<(Cow<'a, str>, Timestamp)>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionDto<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionDto<'a> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ttl: Option<u64>,
    coordinated: bool,
    incarnation: Incarnation,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    successors: Vec<SuccessorDto<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SuccessorDto<'a> {
    of: Cow<'a, str>,
    jti: Cow<'a, str>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    upstream_expires_at: Option<Timestamp>,
    until: Timestamp,
}

impl<'a> From<&'a Session> for SessionDto<'a> {
    fn from(session: &'a Session) -> Self {
        let successor = |successor: &'a Successor| {
            let Successor { of, token, until } = successor;
            let SessionToken { jti, issued_at, expires_at, upstream_expires_at } = token;
            SuccessorDto {
                of: Cow::Borrowed(of),
                jti: Cow::Borrowed(jti),
                issued_at: *issued_at,
                expires_at: *expires_at,
                upstream_expires_at: *upstream_expires_at,
                until: *until,
            }
        };
        Self {
            ttl: session.terms.ttl.map(|ttl| ttl.as_secs()),
            coordinated: session.terms.coordinated,
            incarnation: session.incarnation,
            successors: session.successors.iter().map(successor).collect(),
        }
    }
}

impl From<SessionDto<'_>> for Session {
    fn from(dto: SessionDto<'_>) -> Self {
        let successor = |dto: SuccessorDto<'_>| Successor {
            of: dto.of.into_owned(),
            token: SessionToken {
                jti: dto.jti.into_owned(),
                issued_at: dto.issued_at,
                expires_at: dto.expires_at,
                upstream_expires_at: dto.upstream_expires_at,
            },
            until: dto.until,
        };
        Self {
            terms: Terms { ttl: dto.ttl.map(Duration::from_secs), coordinated: dto.coordinated },
            incarnation: dto.incarnation,
            successors: dto.successors.into_iter().map(successor).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StageDto<'a> {
    Coded { redirect_uri: Cow<'a, str>, challenge: Cow<'a, str>, expires_at: Timestamp },
    Active { newest: u64, rotated_at: Timestamp, expires_at: Timestamp },
    Revoked { reason: Cow<'a, str>, at: Timestamp },
}

impl<'a> From<&'a GrantStage> for StageDto<'a> {
    fn from(stage: &'a GrantStage) -> Self {
        match stage {
            GrantStage::Coded(Code { redirect_uri, challenge, expires_at }) => Self::Coded {
                redirect_uri: Cow::Borrowed(redirect_uri),
                challenge: Cow::Borrowed(challenge.as_str()),
                expires_at: *expires_at,
            },
            GrantStage::Active(Family { newest, rotated_at, expires_at }) => {
                Self::Active { newest: *newest, rotated_at: *rotated_at, expires_at: *expires_at }
            }
            GrantStage::Revoked { reason, at } => Self::Revoked { reason: Cow::Borrowed(reason.as_str()), at: *at },
        }
    }
}

impl TryFrom<StageDto<'_>> for GrantStage {
    type Error = DecodeError;

    fn try_from(dto: StageDto<'_>) -> Result<Self, DecodeError> {
        Ok(match dto {
            StageDto::Coded { redirect_uri, challenge, expires_at } => Self::Coded(Code {
                redirect_uri: redirect_uri.into_owned(),
                challenge: CodeChallenge::parse(&challenge).map_err(|_| malformed(0))?,
                expires_at,
            }),
            StageDto::Active { newest, rotated_at, expires_at } => {
                Self::Active(Family { newest, rotated_at, expires_at })
            }
            StageDto::Revoked { reason, at } => {
                Self::Revoked { reason: Revoked::from_stored(&reason).ok_or_else(|| malformed(0))?, at }
            }
        })
    }
}
