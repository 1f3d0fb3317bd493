use std::{collections::BTreeSet, fmt::Debug};

use proptest::{collection, option, prelude::*};
use secrecy::ExposeSecret;
use tokenkeep_core::{
    AccessToken, Alternate, ApiKey, ApiKeyHash, ApiKeyId, Attempt, AttemptId, AuthorizationRequest, ClientSigningKey,
    ConnectGrant, ConnectId, Connection, ConnectionId, Credentials, Deleted, Fingerprint, Generation, Health,
    Incarnation, InstanceId, Integration, IntegrationId, LastError, LoginGrant, ManagedBy, Phase, ProviderId,
    Rejection, RenewBy, Renewal, Role, Spent, Subject, Tenant, TokenSet,
    authorization_request::{DevicePoll, Obtained, Outbound, ProofHash, Stage},
    id::Ulid,
    refresh::Held,
};
use tokenkeep_oauth::Secret;
use tokenkeep_store::Memory;
use tokenkeep_testkit::{ManualClock, SeededEntropy};
use url::Url;

use super::*;
use crate::barrier::RootKey;

const MARGIN: Duration = Duration::from_mins(1);

fn secret() -> impl Strategy<Value = Secret> {
    // With everything that JSON escapes.
    "[ -~\"\\\\\n\u{e9}]{0,30}".prop_map(Secret::from)
}

fn text() -> impl Strategy<Value = String> {
    "[ -~\"\\\\]{0,20}"
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_000_000_i64).prop_map(|us| Timestamp::from_microsecond(us).unwrap())
}

fn ulid() -> impl Strategy<Value = Ulid> {
    any::<[u8; 16]>().prop_map(Ulid::from_bytes)
}

fn tenant() -> impl Strategy<Value = Tenant> {
    "[!-~]{3,10}".prop_map(|t| Tenant::new(&t).unwrap())
}

fn integration_id() -> impl Strategy<Value = IntegrationId> {
    "[a-z][a-z0-9-]{0,10}".prop_map(|i| IntegrationId::new(&i).unwrap())
}

fn connection_id() -> impl Strategy<Value = ConnectionId> {
    (integration_id(), tenant(), "[!-~/]{3,10}").prop_map(|(integration, tenant, subject)| ConnectionId {
        integration,
        tenant,
        subject: Subject::new(&subject).unwrap(),
    })
}

fn url() -> impl Strategy<Value = Url> {
    "[a-z]{1,8}".prop_map(|path| Url::parse(&format!("https://example.com/{path}?a=b")).unwrap())
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    any::<[u8; 16]>().prop_map(Fingerprint)
}

fn credentials() -> impl Strategy<Value = Credentials> {
    prop_oneof![
        (".{1,20}", secret()).prop_map(|(username, password)| Credentials::Password { username, password }),
        secret().prop_map(Credentials::ApiKey),
    ]
}

fn renewal() -> impl Strategy<Value = Renewal> {
    let by = prop_oneof![
        secret().prop_map(RenewBy::RefreshToken),
        Just(RenewBy::ClientCredentials),
        Just(RenewBy::JwtBearer),
        Just(RenewBy::AccessToken),
        (credentials(), any::<Option<u32>>()).prop_map(|(credentials, ttl)| {
            RenewBy::Login(LoginGrant { credentials, ttl: ttl.map(|s| Duration::from_secs(s.into())) })
        }),
    ];
    (by, fingerprint()).prop_map(|(by, fingerprint)| Renewal { by, fingerprint })
}

fn token_set() -> impl Strategy<Value = TokenSet> {
    let access =
        (secret(), text(), time(), option::of(time())).prop_map(|(token, token_type, issued_at, expires_at)| {
            AccessToken { token, token_type, issued_at, expires_at }
        });
    (option::of(access), option::of(renewal()), option::of(text())).prop_map(|(access, renewal, scope)| TokenSet {
        access,
        renewal,
        scope,
    })
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let phase = prop_oneof![Just(Phase::Running), Just(Phase::Unanswered)];
    (ulid(), ulid(), any::<u32>(), fingerprint(), time(), any::<u32>(), phase).prop_map(
        |(id, owner, renewal, fingerprint, first_spend_at, replays, phase)| Attempt {
            id: AttemptId(id),
            owner: InstanceId(owner),
            renewal,
            fingerprint,
            first_spend_at,
            replays,
            phase,
        },
    )
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        Just(Health::Healthy),
        (any::<u32>(), time()).prop_map(|(failures, retry_at)| Health::Failing { failures, retry_at }),
        (text(), time()).prop_map(|(reason, since)| Health::ReauthRequired { reason, since }),
    ]
}

fn connection() -> impl Strategy<Value = Connection> {
    let names = (connection_id(), ulid(), any::<u64>(), option::of(ulid()), option::of(text()));
    let alternate = (renewal(), time()).prop_map(|(renewal, received_at)| Alternate { renewal, received_at });
    let spent = collection::vec(fingerprint(), 0..4);
    let error = (text(), text(), time()).prop_map(|(code, detail, at)| LastError { code, detail, at });
    let state = (token_set(), spent, option::of(attempt()), option::of(alternate), health(), option::of(error));
    (names, state, time(), time(), option::of(time())).prop_map(|(names, state, created_at, updated_at, refreshed)| {
        let (id, incarnation, generation, committed_by, display_name) = names;
        let (tokens, all_spent, attempt, alternate, health, last_error) = state;
        let mut spent = Spent::default();
        for fingerprint in all_spent {
            spent.push(fingerprint);
        }
        Connection {
            id,
            incarnation: Incarnation(incarnation),
            generation: Generation(generation),
            tokens,
            committed_by: committed_by.map(AttemptId),
            spent,
            attempt,
            alternate,
            health,
            last_error,
            display_name,
            created_at,
            updated_at,
            last_refreshed_at: refreshed,
        }
    })
}

fn managed_by() -> impl Strategy<Value = ManagedBy> {
    prop_oneof![Just(ManagedBy::Config), Just(ManagedBy::Api)]
}

fn integration() -> impl Strategy<Value = Integration> {
    let grant = prop_oneof![
        Just(ConnectGrant::AuthorizationCode),
        Just(ConnectGrant::ClientCredentials),
        Just(ConnectGrant::JwtBearer),
        Just(ConnectGrant::DeviceCode),
    ];
    let key = (secret(), option::of(text()), option::of(text())).prop_map(|(key, key_id, issuer)| ClientSigningKey {
        key,
        key_id,
        issuer,
    });
    let names = (integration_id(), "[a-z]{1,9}", option::of(text()), option::of(tenant()), text());
    let secrets = (option::of(secret()), grant, option::of(key));
    let ways = (
        option::of(text()),
        collection::btree_map(text(), text(), 0..3),
        collection::vec(text(), 0..3),
        option::of(url()),
    );
    let rejection = (text(), time()).prop_map(|(code, since)| Rejection { code, since });
    (names, secrets, ways, managed_by(), option::of(rejection), time(), time()).prop_map(
        |(names, (client_secret, grant, signing_key), ways, managed_by, rejection, created_at, updated_at)| {
            let (id, provider, issuer, tenant, client_id) = names;
            let (scope, params, api_hosts, redirect_uri) = ways;
            Integration {
                id,
                provider: ProviderId::new(&provider).unwrap(),
                issuer,
                tenant,
                client_id,
                client_secret,
                grant,
                signing_key,
                scope,
                params,
                api_hosts,
                redirect_uri,
                managed_by,
                rejection,
                created_at,
                updated_at,
            }
        },
    )
}

fn api_key() -> impl Strategy<Value = ApiKey> {
    let role = prop_oneof![Just(Role::Admin), Just(Role::Operator), Just(Role::Application), Just(Role::Reader)];
    let tenants = option::of(collection::btree_set(tenant(), 0..3));
    let providers = option::of(collection::btree_set(integration_id(), 0..3));
    (ulid(), text(), role, tenants, providers, any::<[u8; 32]>(), managed_by(), time()).prop_map(
        |(id, name, role, tenants, providers, hash, managed_by, created_at)| ApiKey {
            id: ApiKeyId(id),
            name,
            role,
            tenants,
            providers,
            hash: ApiKeyHash(hash),
            managed_by,
            created_at,
        },
    )
}

fn proof() -> impl Strategy<Value = ProofHash> {
    any::<[u8; 32]>().prop_map(ProofHash)
}

fn stage() -> impl Strategy<Value = Stage> {
    let outbound = || {
        (proof(), proof(), option::of(secret()), option::of(secret()))
            .prop_map(|(ticket, state, pkce_verifier, nonce)| Outbound { ticket, state, pkce_verifier, nonce })
    };
    let obtained = (option::of(token_set()), option::of(token_set()), option::of(text()))
        .prop_map(|(tokens, companion, display_name)| Obtained { tokens, companion, display_name });
    let poll = (secret(), secret(), text(), 0..1000_u64, time()).prop_map(
        |(device_code, user_code, verification_uri, interval, next_poll_at)| DevicePoll {
            device_code,
            user_code,
            verification_uri,
            interval: Duration::from_secs(interval),
            next_poll_at,
        },
    );
    prop_oneof![
        outbound().prop_map(Stage::Pending),
        (outbound(), proof()).prop_map(|(outbound, browser)| Stage::Redirected { outbound, browser }),
        Just(Stage::Exchanging),
        (obtained, proof(), any::<u8>()).prop_map(|(obtained, code, refused)| Stage::AwaitingConfirmation {
            obtained: Box::new(obtained),
            code,
            refused
        }),
        poll.prop_map(Stage::DevicePolling),
        Just(Stage::Connected),
        Just(Stage::Denied),
        text().prop_map(|code| Stage::Failed { code }),
    ]
}

fn request() -> impl Strategy<Value = AuthorizationRequest> {
    let ways = (option::of(text()), option::of(url()), any::<bool>(), any::<bool>(), url());
    (ulid(), connection_id(), ways, time(), time(), stage()).prop_map(
        |(id, connection, (scope, return_to, confirm, same_account, redirect_uri), created_at, expires_at, stage)| {
            AuthorizationRequest {
                id: ConnectId(id),
                connection,
                scope,
                return_to,
                confirm,
                same_account,
                redirect_uri,
                created_at,
                expires_at,
                stage,
            }
        },
    )
}

/// A value with what its `Debug` leaves out. The rest, present and future fields alike, is in its derived `Debug`: a
/// field that a codec forgets shows up there.
trait Hidden: Debug {
    fn hidden(&self) -> Vec<String>;

    fn whole(&self) -> (String, Vec<String>) {
        (format!("{self:?}"), self.hidden())
    }
}

fn plain(secret: Option<&Secret>) -> String {
    format!("{:?}", secret.map(ExposeSecret::expose_secret))
}

impl Hidden for TokenSet {
    fn hidden(&self) -> Vec<String> {
        let access = self.access.as_ref().map(|access| &access.token);
        let renewal = self.renewal.as_ref();
        vec![
            plain(access),
            plain(renewal.and_then(Renewal::refresh_token)),
            plain(renewal.and_then(Renewal::login).map(|login| login.credentials.fingerprinted()).as_ref()),
            format!("{:?}", renewal.map(|renewal| renewal.fingerprint.0)),
        ]
    }
}

impl Hidden for Connection {
    fn hidden(&self) -> Vec<String> {
        let alternate = self.alternate.as_ref().map(|alternate| &alternate.renewal);
        let mut hidden = self.tokens.hidden();
        hidden.push(plain(alternate.and_then(Renewal::refresh_token)));
        hidden.push(format!("{:?}", alternate.map(|renewal| renewal.fingerprint.0)));
        hidden.push(format!("{:?}", self.attempt.as_ref().map(|attempt| attempt.fingerprint.0)));
        hidden.push(serde_json::to_string(&self.spent).unwrap());
        hidden
    }
}

impl Hidden for Held {
    fn hidden(&self) -> Vec<String> {
        let mut hidden = self.successor.hidden();
        hidden.push(format!("{:?}", self.spent.0));
        hidden
    }
}

impl Hidden for Integration {
    fn hidden(&self) -> Vec<String> {
        vec![plain(self.client_secret.as_ref()), plain(self.signing_key.as_ref().map(|key| &key.key))]
    }
}

impl Hidden for ApiKey {
    fn hidden(&self) -> Vec<String> {
        vec![format!("{:?}", self.hash.0)]
    }
}

impl Hidden for AuthorizationRequest {
    fn hidden(&self) -> Vec<String> {
        let outbound = |outbound: &Outbound| {
            let (ticket, state) = (format!("{:?}", outbound.ticket.0), format!("{:?}", outbound.state.0));
            vec![ticket, state, plain(outbound.pkce_verifier.as_ref()), plain(outbound.nonce.as_ref())]
        };
        match &self.stage {
            Stage::Pending(sent) => outbound(sent),
            Stage::Redirected { outbound: sent, browser } => {
                [outbound(sent), vec![format!("{:?}", browser.0)]].concat()
            }
            Stage::AwaitingConfirmation { obtained, code, .. } => {
                let sets = obtained.tokens.iter().chain(&obtained.companion);
                sets.flat_map(Hidden::hidden).chain([format!("{:?}", code.0)]).collect()
            }
            Stage::DevicePolling(poll) => vec![plain(Some(&poll.device_code)), plain(Some(&poll.user_code))],
            Stage::Exchanging | Stage::Connected | Stage::Denied | Stage::Failed { .. } => Vec::new(),
        }
    }
}

proptest! {
    #[test]
    fn connections_come_back_whole(value in connection()) {
        prop_assert_eq!(Connection::decode(&value.encode()).unwrap().whole(), value.whole());
    }

    #[test]
    fn held_replies_come_back_whole(
        successor in connection(), attempt in ulid(), base: u64, spent in fingerprint(), received_at in time(),
    ) {
        let held = Held { attempt: AttemptId(attempt), base: Generation(base), spent, successor, received_at };
        prop_assert_eq!(decode_held(&encode_held(&held)).unwrap().whole(), held.whole());
    }

    #[test]
    fn integrations_come_back_whole(value in integration()) {
        prop_assert_eq!(Integration::decode(&value.encode()).unwrap().whole(), value.whole());
    }

    #[test]
    fn api_keys_come_back_whole(value in api_key()) {
        prop_assert_eq!(ApiKey::decode(&value.encode()).unwrap().whole(), value.whole());
    }

    #[test]
    fn authorization_requests_come_back_whole(value in request()) {
        prop_assert_eq!(AuthorizationRequest::decode(&value.encode()).unwrap().whole(), value.whole());
    }

    #[test]
    fn a_connection_that_can_bring_a_token_never_becomes_garbage(value in connection()) {
        if value.tokens.renewal.is_some() || value.alternate.is_some() {
            prop_assert_eq!(value.expires_at(), None);
        }
    }
}

struct Fixture {
    store: Arc<Memory>,
    records: Records,
}

fn fixture(hash_subjects: bool) -> Fixture {
    let store = Arc::new(Memory::new());
    let entropy = Arc::new(SeededEntropy::default());
    let barrier = Arc::new(Barrier::new(&RootKey::generate(&*entropy), &[], entropy));
    let records = Records::new(store.clone(), barrier, Arc::new(ManualClock::default()), hash_subjects);
    Fixture { store, records }
}

pub(crate) fn sample(subject: &str) -> Connection {
    let now = Timestamp::constant(1_767_225_600, 0);
    let token = AccessToken {
        token: "CANARY-access".into(),
        token_type: "Bearer".to_owned(),
        issued_at: now,
        expires_at: Some(after(now, Duration::from_hours(1))),
    };
    let renewal = Renewal { by: RenewBy::RefreshToken("CANARY-refresh".into()), fingerprint: Fingerprint([7; 16]) };
    Connection {
        id: ConnectionId {
            integration: IntegrationId::new("google").unwrap(),
            tenant: Tenant::new("acme").unwrap(),
            subject: Subject::new(subject).unwrap(),
        },
        incarnation: Incarnation(Ulid::nil()),
        generation: Generation(1),
        tokens: TokenSet { access: Some(token), renewal: Some(renewal), scope: None },
        committed_by: None,
        spent: Spent::default(),
        attempt: None,
        alternate: None,
        health: Health::Healthy,
        last_error: None,
        display_name: None,
        created_at: now,
        updated_at: now,
        last_refreshed_at: None,
    }
}

#[tokio::test]
async fn a_connection_through_its_life() {
    let Fixture { records, store } = fixture(false);
    let connection = sample("alice/1");
    let load = || records.load::<Connection>(&connection.id);
    assert!(matches!(load().await, Ok(Loaded::Absent)));

    let Put::Committed(first) = records.save(&connection, MARGIN, Expect::Absent).await.unwrap() else { panic!() };
    assert_eq!(records.save(&connection, MARGIN, Expect::Absent).await.unwrap(), Put::Conflict);
    let Loaded::Live(stored) = load().await.unwrap() else { panic!() };
    assert_eq!(stored.value.whole(), connection.whole());
    assert_eq!(stored.version, first);
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_microsecond);
    assert_eq!(micros(stored.due_at), micros(connection.due_at(MARGIN)), "as exact as stores are");

    let record = store.get(&Connection::key_of(&connection.id)).await.unwrap().unwrap();
    assert_eq!((record.key.tenant.as_str(), record.key.id.as_str()), ("acme", "google/alice/1"));
    assert_eq!(record.expires_at, None);
    assert_eq!(record.sealed_by, records.barrier().key_id());
    let labels = [(LabelName::Provider, "google".to_owned()), (LabelName::Subject, "alice/1".to_owned())];
    assert_eq!(record.labels, labels);
    assert!(!String::from_utf8_lossy(&record.sealed).contains("CANARY"));

    let remembered = Deleted { incarnation: connection.incarnation, generation: connection.generation };
    let Ok(Put::Committed(gone)) = records.delete::<Connection>(&connection.id, &first, &remembered).await else {
        panic!()
    };
    let Loaded::Deleted(tombstone) = load().await.unwrap() else { panic!() };
    assert_eq!((tombstone.remembered, &tombstone.version), (remembered, &gone));
    let record = store.get(&Connection::key_of(&connection.id)).await.unwrap().unwrap();
    assert_eq!(record.expires_at, Some(after(ManualClock::default().now().wall, TOMBSTONE_LIFE)));
    let put = records.save(&connection, MARGIN, Expect::Version(&gone)).await.unwrap();
    assert!(matches!(put, Put::Committed(_)), "it lives again");
}

#[tokio::test]
async fn people_can_be_found_without_being_named() {
    let Fixture { records, store } = fixture(true);
    for subject in ["alice", "bob"] {
        records.save(&sample(subject), MARGIN, Expect::Absent).await.unwrap();
    }
    let alice = sample("alice");
    let record = store.get(&Connection::key_of(&alice.id)).await.unwrap().unwrap();
    assert!(record.labels.iter().all(|(_, value)| !value.contains("alice")), "{:?}", record.labels);
    let found =
        records.list::<Connection>(Scope::Every, records.of_subject(&alice.id.subject), 10, None).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].key, record.key);
}

#[tokio::test]
async fn a_record_that_does_not_open_is_reported_in_its_place() {
    let Fixture { records, store } = fixture(false);
    for subject in ["alice", "bob", "carol"] {
        records.save(&sample(subject), MARGIN, Expect::Absent).await.unwrap();
    }
    let mut swapped = store.get(&Connection::key_of(&sample("alice").id)).await.unwrap().unwrap();
    swapped.key = Connection::key_of(&sample("bob").id);
    let version = store.get(&swapped.key).await.unwrap().unwrap().version;
    store.put(&swapped, Expect::Version(&version)).await.unwrap();

    let listed = records.list::<Connection>(Scope::Every, Filter::All, 10, None).await.unwrap();
    let readable: Vec<bool> = listed.items.iter().map(|item| item.content.is_ok()).collect();
    assert_eq!(readable, [true, false, true]);
    let bob = records.load::<Connection>(&sample("bob").id).await.unwrap_err();
    let why = Unreadable::Sealed(OpenError::Tampered);
    assert!(matches!(&bob, RecordError::Unreadable { why: found, .. } if *found == why), "{bob:?}");
    assert_eq!(bob.to_string(), "the connection record acme/google/bob cannot be read");
}

#[test]
fn a_value_that_names_another_record_is_refused() {
    let records = fixture(false).records;
    let record = records.seal(Connection::key_of(&sample("bob").id), &sample("alice").encode());
    let read = records.read::<Connection>(record);
    assert!(matches!(read, Err(Unreadable::Content(DecodeError::Misplaced))), "{read:?}");
}

#[tokio::test]
async fn a_tombstone_is_no_connection_and_a_connection_no_tombstone() {
    let Fixture { records, store } = fixture(false);
    let connection = sample("alice");
    records.save(&connection, MARGIN, Expect::Absent).await.unwrap();
    let mut forged = store.get(&Connection::key_of(&connection.id)).await.unwrap().unwrap();
    let version = forged.version.clone();
    forged.deleted = true;
    let read = records.read::<Connection>(forged);
    assert!(matches!(read, Err(Unreadable::Content(DecodeError::Malformed { .. }))), "{read:?}");

    let remembered = Deleted { incarnation: connection.incarnation, generation: connection.generation };
    records.delete::<Connection>(&connection.id, &version, &remembered).await.unwrap();
    let mut forged = store.get(&Connection::key_of(&connection.id)).await.unwrap().unwrap();
    forged.deleted = false;
    let read = records.read::<Connection>(forged);
    assert!(matches!(read, Err(Unreadable::Content(DecodeError::Malformed { .. }))), "{read:?}");
}

#[tokio::test]
async fn what_is_due_is_handed_out_once() {
    let Fixture { records, .. } = fixture(false);
    let connection = sample("alice");
    records.save(&connection, MARGIN, Expect::Absent).await.unwrap();
    let due = connection.due_at(MARGIN).unwrap();
    let until = after(due, MARGIN);
    assert!(
        records.claim::<Connection>(tokenkeep_core::time::before(due, MARGIN), 10, until).await.unwrap().is_empty()
    );
    let claimed = records.claim::<Connection>(due, 10, until).await.unwrap();
    assert!(matches!(&claimed[0].content, Ok(Loaded::Live(stored)) if stored.value.id == connection.id));
    assert!(records.claim::<Connection>(due, 10, until).await.unwrap().is_empty());
}

#[test]
fn jitter_spreads_and_stays() {
    let due = |n: usize| sample(&format!("user-{n}")).due_at(MARGIN).unwrap();
    let all: BTreeSet<_> = (0..1000).map(due).collect();
    assert!(all.len() > 990, "{} of 1000", all.len());
    let spread = all.last().unwrap().duration_since(*all.first().unwrap());
    assert!(spread.as_secs() > 170 && spread.as_secs() <= 180, "a twentieth of an hour: {spread:?}");
    assert_eq!(due(1), due(1));
}
