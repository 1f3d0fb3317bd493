use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::BoxFuture;
use crate::id::Tenant;

/// Where records are kept: narrow, untrusted, linearizable per record.
///
/// A store sees sealed bytes and a few things in the clear; what they mean is none of its business. It must keep
/// three promises, and the conformance suite holds it to them: a `put` whose expectation fails changes nothing; a
/// `put` it answered with [`Put::Committed`] is there for every later reader; and "I cannot say" is never answered
/// as "there is none". It judges no expiry by itself: `expires_at` only tells [`Store::sweep`] what is garbage, and
/// the time comes with the call.
///
/// Times are kept to the microsecond; what is finer is cut off, in records and in filters alike.
pub trait Store: fmt::Debug + Send + Sync {
    /// What this store is and what it can promise.
    fn describe(&self) -> StoreDescription;

    /// The record, a tombstone included (see [`Record::deleted`]); `None` if there is neither. An expired record is
    /// there until it is swept.
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Writes the whole record if what is there matches `expect`. `record.version` and `record.deleted` are ignored:
    /// the new version is in the answer, and what is written is alive. A caller that stops waiting learns nothing:
    /// the write may still happen.
    fn put<'a>(&'a self, record: &'a Record, expect: Expect<'a>) -> BoxFuture<'a, Result<Put, StoreError>>;

    /// Puts a tombstone in the place of the record, or tombstone, whose version still is `version`. Of `tombstone`
    /// it keeps the key, `changed_at`, `sealed` (what its owner wants remembered of the deleted) and `sealed_by`;
    /// it has no labels and is never due. It appears in no list but [`Filter::ChangedSince`] and
    /// [`Filter::SealedBy`], and is swept once `keep_until`, its `expires_at`, has come.
    fn delete<'a>(
        &'a self,
        tombstone: &'a Record,
        version: &'a Version,
        keep_until: Timestamp,
    ) -> BoxFuture<'a, Result<Put, StoreError>>;

    /// One page of records, ordered by a key that the cursor continues from: a record that is there throughout is
    /// listed once, whatever else changes meanwhile. The order means nothing else; only [`Store::claim`] goes by
    /// time. A cursor that this store did not make gives an empty last page, not an error.
    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Hands out up to `limit` records due at or before `due_before`, earliest first, and moves their `due_at` to
    /// `until`, so that nobody else is handed them before. Versions stay as they are: a write that expects the
    /// version read before the claim still succeeds. The records come as they now stand, `due_at` = `until`.
    /// After an error some may have been moved: they come up again at `until`.
    fn claim(
        &self,
        kind: Kind,
        due_before: Timestamp,
        limit: u32,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;

    /// How many records [`Store::list`] would list for `query`, over all pages; its page size and cursor are ignored.
    fn count<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Count, StoreError>>;

    /// Removes records and tombstones of every kind and tenant whose `expires_at` is at or before `now`; answers how
    /// many. After an error some may be gone already; the next sweep takes the rest.
    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Whether the store answers reads at present. It says nothing about room for writes.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What a record is, in the clear. The name is stored: never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A connection.
    Connection,
    /// A pending connect or sign-in.
    AuthorizationRequest,
    /// Our client at a provider.
    Integration,
    /// An API key.
    ApiKey,
    /// A process that serves, or served.
    Instance,
    /// A client of our authorization server.
    Client,
    /// What a subject allowed a client.
    Grant,
    /// A pending authorization at our own server.
    Interaction,
    /// The keys that sign access tokens.
    SigningKeys,
    /// That one access token, which nothing else keeps, counts no more; or that one assertion was used.
    Voided,
    /// What the installation keeps about itself (the proof that the root key is the right one).
    Meta,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 11] = [
        Kind::Connection,
        Kind::AuthorizationRequest,
        Kind::Integration,
        Kind::ApiKey,
        Kind::Instance,
        Kind::Client,
        Kind::Grant,
        Kind::Interaction,
        Kind::SigningKeys,
        Kind::Voided,
        Kind::Meta,
    ];

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Connection => "connection",
            Kind::AuthorizationRequest => "authorization_request",
            Kind::Integration => "integration",
            Kind::ApiKey => "api_key",
            Kind::Instance => "instance",
            Kind::Client => "client",
            Kind::Grant => "grant",
            Kind::Interaction => "interaction",
            Kind::SigningKeys => "signing_keys",
            Kind::Voided => "voided",
            Kind::Meta => "meta",
        }
    }

    /// The kind of that stored name.
    pub fn from_stored(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.as_str() == name)
    }
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Whose it is.
    pub tenant: Tenant,
    /// What it is.
    pub kind: Kind,
    /// Which one: 1 to 512 bytes of any text without NUL, compared byte by byte. Never a secret.
    pub id: String,
}

/// One write of one record: opaque, unique, never reused, not ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// A label's name. At most one value each; the name is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelName {
    /// Who stands on the other side: the integration of a connection, the provider of an integration, the client of a
    /// grant.
    Provider,
    /// The subject, or its keyed hash.
    Subject,
    /// The connection that an authorization request is for, or that a grant rests on, hashed.
    Connection,
}

impl LabelName {
    /// Every name.
    pub const ALL: [LabelName; 3] = [LabelName::Provider, LabelName::Subject, LabelName::Connection];

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            LabelName::Provider => "provider",
            LabelName::Subject => "subject",
            LabelName::Connection => "connection",
        }
    }

    /// The label of that stored name.
    pub fn from_stored(name: &str) -> Option<LabelName> {
        LabelName::ALL.into_iter().find(|l| l.as_str() == name)
    }
}

/// Which data key sealed a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealingKeyId(pub String);

/// What a store keeps: sealed bytes, and in the clear only what it must search by.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub key: RecordKey,
    /// The write that made it.
    pub version: Version,
    /// When its writer wrote it, by the writer's clock.
    pub changed_at: Timestamp,
    /// When it becomes garbage; `None` = never.
    pub expires_at: Option<Timestamp>,
    /// When somebody should look at it; `None` = never.
    pub due_at: Option<Timestamp>,
    /// What it can be listed by, in the order of [`LabelName::ALL`], one value each.
    pub labels: Vec<(LabelName, String)>,
    /// Which data key sealed it.
    pub sealed_by: SealingKeyId,
    /// The rest.
    pub sealed: Vec<u8>,
    /// Whether this is the tombstone of a deleted record.
    pub deleted: bool,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("version", &self.version)
            .field("deleted", &self.deleted)
            .field("sealed", &format_args!("{} bytes", self.sealed.len()))
            .finish_non_exhaustive()
    }
}

/// What must be there for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Nothing, or a tombstone.
    Absent,
    /// The record, or the tombstone, of this very version.
    Version(&'a Version),
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there, under this version.
    Committed(Version),
    /// Something else was there; nothing changed.
    Conflict,
    /// The answer was lost: it may be there now, or later, or never. Read again.
    Unknown,
}

/// Whose records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One tenant's.
    Tenant(Tenant),
    /// Everybody's: for background work, and for keys without a tenant binding.
    Every,
}

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of the kind.
    All,
    /// Those with this label.
    Label(LabelName, String),
    /// Those due at or before.
    DueBefore(Timestamp),
    /// Those whose `expires_at` is in `[from, to)`.
    ExpiresBetween(Timestamp, Timestamp),
    /// Those changed at or after, tombstones included.
    ChangedSince(Timestamp),
    /// Those sealed by this data key, tombstones included: they need it too.
    SealedBy(SealingKeyId),
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whose.
    pub scope: Scope,
    /// What.
    pub kind: Kind,
    /// Which.
    pub filter: Filter,
    /// At most so many in one page; 0 counts as 1.
    pub limit: u32,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
}

/// Where a page ended. Opaque to everyone but the store that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub String);

/// One page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The records, in the store's order.
    pub records: Vec<Record>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Cursor>,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Counted.
    Exact(u64),
    /// Guessed by the backend.
    Estimated(u64),
    /// This backend cannot say.
    Unsupported,
}

/// What a store is and what it can promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreDescription {
    /// `memory`, `sqlite`, `postgres`, `redis`, `vault`.
    pub name: &'static str,
    /// Where it is, for people; without credentials.
    pub location: String,
    /// Whether a committed write survives the end of the process and the loss of power.
    pub durable: bool,
    /// Who may use it at once.
    pub reach: Reach,
    /// Whether a write it confirmed may be gone after a failover, or after the loss of its machine: then a refresh
    /// token can be spent twice within such a failover, and what was received is healed from the journals.
    pub may_roll_back: bool,
}

/// Who may use a store at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This process.
    Process,
    /// The processes of one machine.
    Machine,
    /// Instances anywhere, but only one of them may write.
    OneWriter,
    /// Instances anywhere.
    Network,
}

/// Why a store did not answer. None of these says anything about whether a record exists.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is full, is read-only or takes too long. No record was written or deleted (for claims
    /// and sweeps see there). Try again later.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// For the log.
        reason: String,
        /// When it makes sense to ask again, if the store said so.
        retry_after: Option<Duration>,
    },
    /// What it returned cannot be a record we wrote. Trying again will not help.
    #[error("the store returned something that is no record: {reason}")]
    Corrupt {
        /// For the log; never the content.
        reason: String,
    },
}
