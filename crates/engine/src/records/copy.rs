//! What the shared cache holds of a connection: what serving it takes, and nothing that could renew it.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokenkeep_core::{AccessToken, Connection, Generation, Incarnation};
use zeroize::Zeroizing;

use super::{DecodeError, connection::AccessTokenDto, wire};

/// An access token and what is said with it.
#[derive(Clone, Debug)]
pub(crate) struct TokenCopy {
    pub(crate) incarnation: Incarnation,
    pub(crate) generation: Generation,
    pub(crate) access: AccessToken,
    pub(crate) scope: Option<String>,
    /// When the copy was made, by the clock of whoever made it.
    pub(crate) copied_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenCopyDto<'a> {
    incarnation: Incarnation,
    generation: Generation,
    #[serde(borrow)]
    access: AccessTokenDto<'a>,
    scope: Option<Cow<'a, str>>,
    copied_at: Timestamp,
}

impl TokenCopy {
    /// The bytes of the copy of `connection`, its access token included; `None` if it has none.
    pub(crate) fn encode(connection: &Connection, now: Timestamp) -> Option<Zeroizing<Vec<u8>>> {
        Some(wire::encode(&TokenCopyDto {
            incarnation: connection.incarnation,
            generation: connection.generation,
            access: connection.tokens.access.as_ref()?.into(),
            scope: connection.tokens.scope.as_deref().map(Cow::Borrowed),
            copied_at: now,
        }))
    }

    /// Takes back what [`TokenCopy::encode`] gave.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let dto: TokenCopyDto<'_> = wire::decode(bytes)?;
        Ok(Self {
            incarnation: dto.incarnation,
            generation: dto.generation,
            access: dto.access.into(),
            scope: dto.scope.map(Cow::into_owned),
            copied_at: dto.copied_at,
        })
    }
}
