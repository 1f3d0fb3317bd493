use tokenkeep_core::{AttemptId, ClientId, ConnectionId, Generation, GrantId, Incarnation, InstanceId, IntegrationId};

/// What one instance did, for the others to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection has a new TokenSet, or lost its access token.
    Changed {
        /// Which.
        connection: ConnectionId,
        /// Which life of it.
        incarnation: Incarnation,
        /// The newest generation; what is older must not be served any more.
        generation: Generation,
    },
    /// A connection is gone.
    Deleted {
        /// Which.
        connection: ConnectionId,
        /// Which life of it ended.
        incarnation: Incarnation,
        /// Nothing below this generation may be served any more.
        floor: Generation,
    },
    /// The sender holds a reply that the store does not have yet: the attempt is alive.
    Held {
        /// Whose reply.
        connection: ConnectionId,
        /// To which attempt.
        attempt: AttemptId,
    },
    /// API keys were made, changed or removed.
    KeysChanged,
    /// An integration was made, changed or removed.
    IntegrationChanged(IntegrationId),
    /// A client was changed or removed.
    ClientChanged(ClientId),
    /// A grant, or one of its access tokens, counts no more.
    GrantChanged(GrantId),
    /// An access token without a grant counts no more: its `jti`.
    AccessTokenSpent(String),
    /// The keys that sign access tokens were rotated.
    SigningKeysChanged,
    /// An operator says that an instance will never come back.
    InstanceForgotten(InstanceId),
    /// The sender ends in good order: its silence means nothing.
    Leaving,
}
