//! What the tests share: a user and a prefix of their own, and how to take the user away.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokenkeep_core::{
    Tenant,
    ports::{Kind, LabelName, Record, RecordKey, SealingKeyId, Version},
};
use tokenkeep_services::{RedisAt, running};
use tokenkeep_store::{
    RedisOptions,
    conformance::{Fixture, Hook, Outage},
};

/// The servers that a test uses: one, or those of a cluster.
#[derive(Clone)]
pub struct Servers(pub Vec<RedisAt>);

impl Servers {
    pub fn one() -> Self {
        Self(vec![RedisAt::clone(&running().redis)])
    }

    pub fn cluster() -> Self {
        Self(running().redis_cluster.nodes().to_vec())
    }

    /// Runs a command on each, whatever it says.
    pub fn command(&self, words: &[&str]) {
        for server in &self.0 {
            server.command(words).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// A user who may do what the documentation says it needs, on keys of its own; gone with this.
pub struct User {
    pub servers: Servers,
    pub name: String,
}

/// What the store's documentation says that its user needs.
pub const NEEDED: [&str; 9] = [
    "+@read",
    "+@write",
    "+@scripting",
    "+@transaction",
    "+@pubsub",
    "+@connection",
    "+time",
    "+cluster|slots",
    "+cluster|keyslot",
];

impl User {
    pub fn new(servers: Servers) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed));
        let user = Self { servers, name: format!("t{number:016x}") };
        user.set(&["on", ">pw", &format!("~{}*", user.prefix()), &format!("&{}*", user.prefix()), "-@all"]);
        user.set(&NEEDED);
        user.set(&["+info", "+config|get", "+wait"]);
        user
    }

    pub fn set(&self, rules: &[&str]) {
        self.servers.command(&[&["ACL", "SETUSER", &self.name], rules].concat());
    }

    pub fn prefix(&self) -> String {
        format!("{}:", self.name)
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.servers.0.iter().map(RedisAt::address).collect();
        format!("redis://{}:pw@{}/", self.name, hosts.join(","))
    }

    pub fn options(&self) -> RedisOptions {
        // Some tests open dozens of connections in the same moment.
        let connect_timeout = Duration::from_secs(20);
        RedisOptions { prefix: self.prefix(), connect_timeout, ..RedisOptions::new(&self.url()).unwrap() }
    }

    /// Nobody by that name is let in any more, and who was in is out.
    pub fn lock_out(&self) {
        self.set(&["off"]);
        self.servers.command(&["CLIENT", "KILL", "USER", &self.name]);
    }

    pub fn let_in(&self) {
        self.set(&["on"]);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for server in &self.servers.0 {
            // What it wrote stays until the server ends, under a prefix that nobody else uses.
            let _ = server.command(&["ACL", "DELUSER", &self.name]);
        }
    }
}

/// An empty store for one case, that can be made unavailable.
pub async fn fixture(servers: Servers) -> Fixture {
    let user = Arc::new(User::new(servers));
    let store = tokenkeep_store::Redis::connect(user.options()).await.unwrap();
    let hook = |act: fn(&User)| -> Hook {
        let user = user.clone();
        Box::new(move || {
            act(&user);
            Box::pin(std::future::ready(()))
        })
    };
    let outage = Outage { begin: hook(User::lock_out), end: hook(User::let_in) };
    Fixture::new(Arc::new(store)).with_outage(outage).keeping(user)
}

/// A record with whatever a store indexes.
pub fn record(id: &str) -> Record {
    Record {
        key: RecordKey { tenant: Tenant::default_tenant(), kind: Kind::Connection, id: id.into() },
        version: Version::default(),
        changed_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        due_at: None,
        labels: vec![(LabelName::Subject, "alice".into())],
        sealed_by: SealingKeyId("k1".into()),
        sealed: id.as_bytes().to_vec(),
        deleted: false,
    }
}

/// Whether the record is read, whoever is the primary at the moment.
pub async fn has(store: &tokenkeep_store::Redis, id: &str) -> bool {
    use tokenkeep_core::ports::Store;
    store.get(&record(id).key).await.is_ok_and(|found| found.is_some())
}
