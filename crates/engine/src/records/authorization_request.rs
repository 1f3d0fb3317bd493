use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{
    AuthorizationRequest, ConnectId, ConnectionId, Tenant,
    authorization_request::{DevicePoll, Obtained, Outbound, ProofHash, Stage},
    ports::{Kind, LabelName, RecordKey},
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Aggregate, DecodeError, Labels,
    connection::TokenSetDto,
    wire::{self, Exposed, malformed},
};

impl Aggregate for AuthorizationRequest {
    const KIND: Kind = Kind::AuthorizationRequest;
    type Id = ConnectId;
    type Remembered = ();
    type Timing = ();

    /// Under the installation's own tenant: a callback names the request, not whose it is.
    fn key_of(id: &ConnectId) -> RecordKey {
        RecordKey { tenant: Tenant::system(), kind: Self::KIND, id: id.to_string() }
    }

    fn id(&self) -> &ConnectId {
        &self.id
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let AuthorizationRequest {
            id,
            connection,
            scope,
            return_to,
            confirm,
            same_account,
            redirect_uri,
            created_at,
            expires_at,
            stage,
        } = self;
        wire::encode(&RequestDto {
            id: *id,
            connection: connection.clone(),
            scope: scope.as_deref().map(Cow::Borrowed),
            return_to: return_to.as_ref().map(|url| Cow::Borrowed(url.as_str())),
            confirm: *confirm,
            same_account: *same_account,
            redirect_uri: Cow::Borrowed(redirect_uri.as_str()),
            created_at: *created_at,
            expires_at: *expires_at,
            stage: stage.into(),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: RequestDto<'_> = wire::decode(bytes)?;
        let url = |text: Cow<'_, str>| Url::parse(&text).map_err(|_| malformed(0));
        Ok(Self {
            id: dto.id,
            connection: dto.connection,
            scope: dto.scope.map(Cow::into_owned),
            return_to: dto.return_to.map(url).transpose()?,
            confirm: dto.confirm,
            same_account: dto.same_account,
            redirect_uri: url(dto.redirect_uri)?,
            created_at: dto.created_at,
            expires_at: dto.expires_at,
            stage: dto.stage.into(),
        })
    }

    fn labels(&self, labels: &Labels<'_>) -> Vec<(LabelName, String)> {
        vec![(LabelName::Connection, labels.connection(&self.connection))]
    }

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.expires_at)
    }

    fn due_at(&self, (): ()) -> Option<Timestamp> {
        match &self.stage {
            Stage::DevicePolling(poll) => Some(poll.next_poll_at),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestDto<'a> {
    id: ConnectId,
    connection: ConnectionId,
    scope: Option<Cow<'a, str>>,
    return_to: Option<Cow<'a, str>>,
    confirm: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    same_account: bool,
    redirect_uri: Cow<'a, str>,
    created_at: Timestamp,
    expires_at: Timestamp,
    #[serde(borrow)]
    stage: StageDto<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StageDto<'a> {
    #[serde(borrow)]
    Pending(OutboundDto<'a>),
    Redirected {
        outbound: OutboundDto<'a>,
        browser: ProofHash,
    },
    Exchanging,
    AwaitingConfirmation {
        obtained: Box<ObtainedDto<'a>>,
        code: ProofHash,
        refused: u8,
    },
    DevicePolling(DevicePollDto<'a>),
    Connected,
    Denied,
    Failed {
        code: Cow<'a, str>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObtainedDto<'a> {
    #[serde(borrow)]
    tokens: Option<TokenSetDto<'a>>,
    companion: Option<TokenSetDto<'a>>,
    display_name: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundDto<'a> {
    ticket: ProofHash,
    state: ProofHash,
    #[serde(borrow)]
    pkce_verifier: Option<Exposed<'a>>,
    nonce: Option<Exposed<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DevicePollDto<'a> {
    #[serde(borrow)]
    device_code: Exposed<'a>,
    user_code: Exposed<'a>,
    verification_uri: Cow<'a, str>,
    interval: Duration,
    next_poll_at: Timestamp,
}

impl<'a> From<&'a Stage> for StageDto<'a> {
    fn from(stage: &'a Stage) -> Self {
        match stage {
            Stage::Pending(outbound) => Self::Pending(outbound.into()),
            Stage::Redirected { outbound, browser } => {
                Self::Redirected { outbound: outbound.into(), browser: *browser }
            }
            Stage::Exchanging => Self::Exchanging,
            Stage::AwaitingConfirmation { obtained, code, refused } => Self::AwaitingConfirmation {
                obtained: Box::new(obtained.as_ref().into()),
                code: *code,
                refused: *refused,
            },
            Stage::DevicePolling(DevicePoll { device_code, user_code, verification_uri, interval, next_poll_at }) => {
                Self::DevicePolling(DevicePollDto {
                    device_code: device_code.into(),
                    user_code: user_code.into(),
                    verification_uri: Cow::Borrowed(verification_uri),
                    interval: *interval,
                    next_poll_at: *next_poll_at,
                })
            }
            Stage::Connected => Self::Connected,
            Stage::Denied => Self::Denied,
            Stage::Failed { code } => Self::Failed { code: Cow::Borrowed(code) },
        }
    }
}

impl From<StageDto<'_>> for Stage {
    fn from(dto: StageDto<'_>) -> Self {
        match dto {
            StageDto::Pending(outbound) => Self::Pending(outbound.into()),
            StageDto::Redirected { outbound, browser } => Self::Redirected { outbound: outbound.into(), browser },
            StageDto::Exchanging => Self::Exchanging,
            StageDto::AwaitingConfirmation { obtained, code, refused } => {
                Self::AwaitingConfirmation { obtained: Box::new((*obtained).into()), code, refused }
            }
            StageDto::DevicePolling(poll) => Self::DevicePolling(DevicePoll {
                device_code: poll.device_code.into(),
                user_code: poll.user_code.into(),
                verification_uri: poll.verification_uri.into_owned(),
                interval: poll.interval,
                next_poll_at: poll.next_poll_at,
            }),
            StageDto::Connected => Self::Connected,
            StageDto::Denied => Self::Denied,
            StageDto::Failed { code } => Self::Failed { code: code.into_owned() },
        }
    }
}

impl<'a> From<&'a Obtained> for ObtainedDto<'a> {
    fn from(Obtained { tokens, companion, display_name }: &'a Obtained) -> Self {
        Self {
            tokens: tokens.as_ref().map(Into::into),
            companion: companion.as_ref().map(Into::into),
            display_name: display_name.as_deref().map(Cow::Borrowed),
        }
    }
}

impl From<ObtainedDto<'_>> for Obtained {
    fn from(dto: ObtainedDto<'_>) -> Self {
        Self {
            tokens: dto.tokens.map(Into::into),
            companion: dto.companion.map(Into::into),
            display_name: dto.display_name.map(Cow::into_owned),
        }
    }
}

impl<'a> From<&'a Outbound> for OutboundDto<'a> {
    fn from(Outbound { ticket, state, pkce_verifier, nonce }: &'a Outbound) -> Self {
        Self {
            ticket: *ticket,
            state: *state,
            pkce_verifier: pkce_verifier.as_ref().map(Into::into),
            nonce: nonce.as_ref().map(Into::into),
        }
    }
}

impl From<OutboundDto<'_>> for Outbound {
    fn from(dto: OutboundDto<'_>) -> Self {
        Self {
            ticket: dto.ticket,
            state: dto.state,
            pkce_verifier: dto.pkce_verifier.map(Into::into),
            nonce: dto.nonce.map(Into::into),
        }
    }
}
