//! API keys: who may call us.
//!
//! A key is looked at on every request, so all of them lie in one table in memory, found by their keyed hash; the
//! store is asked in the background only. Another instance's change shows as soon as the bus tells of it, and after
//! `RELOAD_EVERY` at the latest.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use tokenkeep_core::{
    Action, ApiKey, ApiKeyHash, ApiKeyId, IntegrationId, ManagedBy, Role, Tenant,
    id::Ulid,
    ports::{Expect, Filter, Put, Scope},
};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

use crate::{
    Caller, Error,
    bus::Event,
    error::STORE_RETRY,
    records::{Loaded, Stored},
    shared::Shared,
    uniform::Uniform,
};

/// How often the table is read anew.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// What a key of ours looks like, so that leaked ones are found by scanners.
const PREFIX: &str = "tk_";
/// A key somebody chose must be at least this long: there is no default password, and no short one either.
const MIN_GIVEN: usize = 20;
const MAX_NAME: usize = 100;
const ATTEMPTS: usize = 8;

/// The use cases of API keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    shared: Arc<Shared>,
    table: Arc<ArcSwap<Table>>,
    /// Held from reading the store to replacing the table, and while a change is put into it: an older reading must
    /// not take the place of a newer one.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose tokens; `None` = everybody's.
    pub tenants: Option<BTreeSet<Tenant>>,
    /// At which integrations; `None` = all.
    pub providers: Option<BTreeSet<IntegrationId>>,
}

/// A key of the configuration file. Its name is what it is known by: it must be there once only.
#[derive(Clone, Debug)]
pub struct ConfigKey {
    /// What it may do, and its name.
    pub key: NewKey,
    /// The key itself, as the caller will present it.
    pub secret: Secret,
}

type Table = HashMap<[u8; 32], Arc<ApiKey>, Uniform>;

impl Keys {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, table: Arc::default(), changing: Arc::default() }
    }

    /// The key that was presented, if it is one. Takes no lock, does no I/O. What is compared is a keyed hash, which
    /// nobody can steer: how long the comparison takes says nothing about the key.
    pub fn authenticate(&self, presented: &str) -> Option<Arc<ApiKey>> {
        let hash = self.shared.records.barrier().hashes().api_key(presented);
        self.table.load().get(&hash).cloned()
    }

    /// Makes a key. The secret is shown here and never again.
    pub async fn create(&self, caller: &Caller, new: NewKey) -> Result<(ApiKey, Secret), Error> {
        caller.may(Action::ManageKeys)?;
        let secret = self.draw();
        let id = ApiKeyId(self.shared.ulid());
        let key = self.key(id, new, &secret, ManagedBy::Api)?;
        if !may_manage(caller, &key) {
            return Err(Error::Forbidden("a key cannot make one with more rights than its own".into()));
        }
        // Its id was drawn just now: whatever is there under it is our own write.
        self.write(&key, |_| true).await?;
        audit("key_created", caller, &key);
        Ok((key, secret))
    }

    /// Every key the caller could have made, oldest first.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<ApiKey>, Error> {
        caller.may(Action::ManageKeys)?;
        let mut keys = self.read().await?;
        keys.retain(|key| may_manage(caller, key));
        keys.sort_by_key(|key| (key.created_at, key.id));
        Ok(keys)
    }

    /// Removes a key. It is refused here at once, and by other instances within `RELOAD_EVERY`.
    pub async fn delete(&self, caller: &Caller, id: &ApiKeyId) -> Result<(), Error> {
        caller.may(Action::ManageKeys)?;
        let stored = self.load(id).await?.filter(|stored| may_manage(caller, &stored.value));
        let key = stored.ok_or_else(|| Error::not_found("key", id))?.value;
        if key.managed_by == ManagedBy::Config {
            return Err(Error::ManagedByConfig { what: "key", id: id.to_string() });
        }
        self.remove(&key).await?;
        audit("key_deleted", caller, &key);
        Ok(())
    }

    /// Makes the keys of the configuration file those of the store: new ones are added, changed ones changed, and
    /// those that are no longer in the file removed. Keys made over the API stay as they are.
    pub async fn sync_config(&self, wanted: Vec<ConfigKey>) -> Result<(), Error> {
        let present = self.read().await?;
        let mut keys: Vec<ApiKey> = Vec::with_capacity(wanted.len());
        for ConfigKey { key, secret } in wanted {
            let id = self.known_as(&format!("configuration key {}", key.name));
            check_given(&secret).map_err(|problem| Error::invalid(format!("the key `{}` {problem}", key.name)))?;
            let key = self.key(id, key, &secret, ManagedBy::Config)?;
            if keys.iter().any(|other| other.name == key.name) {
                return Err(Error::invalid(format!("there are two keys named `{}`", key.name)));
            }
            let others = present.iter().filter(|other| other.managed_by == ManagedBy::Api).chain(&keys);
            if let Some(same) = others.into_iter().find(|other| other.hash == key.hash) {
                let text = format!("the keys `{}` and `{}` have the same secret", key.name, same.name);
                return Err(Error::invalid(text));
            }
            keys.push(key);
        }
        let is_wanted = |id: ApiKeyId| keys.iter().any(|key| key.id == id);
        for old in present.iter().filter(|old| old.managed_by == ManagedBy::Config && !is_wanted(old.id)) {
            self.remove(old).await?;
            audit("key_deleted", &Caller::Local, old);
        }
        for mut key in keys {
            let old = present.iter().find(|old| old.id == key.id);
            if let Some(old) = old {
                key.created_at = old.created_at;
                if same_key(old, &key) {
                    continue;
                }
            }
            self.write(&key, |present| same_key(present, &key)).await?;
            audit(if old.is_some() { "key_changed" } else { "key_created" }, &Caller::Local, &key);
        }
        // Secrets may have changed places, which one change after the other does not show.
        self.reload().await
    }

    /// Makes the first admin key, unless there is an admin key already: `given`, or one that is drawn here and
    /// answered, to be shown once. Of several instances that start together, one makes it.
    pub async fn ensure_first_admin(&self, given: Option<Secret>) -> Result<Option<Secret>, Error> {
        self.reload().await?;
        if self.table.load().values().any(|key| key.role == Role::Admin) {
            if given.is_some_and(|given| self.authenticate(given.expose_secret()).is_none()) {
                tracing::warn!("the admin key that was given is ignored: there is another one already");
            }
            return Ok(None);
        }
        if let Some(given) = &given {
            check_given(given).map_err(|problem| Error::invalid(format!("the given admin key {problem}")))?;
        }
        let (secret, drawn) = match given {
            Some(given) => (given, false),
            None => (self.draw(), true),
        };
        let new = NewKey { name: "first admin".to_owned(), role: Role::Admin, tenants: None, providers: None };
        let key = self.key(self.known_as("first admin key"), new, &secret, ManagedBy::Api)?;
        let made = self.make_first(&key).await?;
        if made {
            audit("key_created", &Caller::Local, &key);
        }
        Ok((made && drawn).then_some(secret))
    }

    /// Reads the table anew, for ever.
    pub(crate) async fn follow(self) {
        loop {
            self.shared.clock.sleep(RELOAD_EVERY).await;
            if let Err(error) = self.reload().await {
                tracing::warn!(%error, "the API keys could not be read; those known stay");
            }
        }
    }

    /// Reads the table anew. If the store does not answer, it stays as it is.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let table = self.read().await?.into_iter().map(|key| (key.hash.0, Arc::new(key))).collect();
        self.table.store(Arc::new(table));
        Ok(())
    }

    async fn read(&self) -> Result<Vec<ApiKey>, Error> {
        let mut keys = Vec::new();
        let mut cursor = None;
        loop {
            let scope = Scope::Tenant(Tenant::system());
            let page = self.shared.records.list::<ApiKey>(scope, Filter::All, 200, cursor).await?;
            for item in page.items {
                match item.content {
                    Ok(Loaded::Live(stored)) => keys.push(stored.value),
                    Ok(_) => {}
                    Err(error) => tracing::error!(key = item.key.id, %error, "an API key cannot be read"),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    async fn load(&self, id: &ApiKeyId) -> Result<Option<Stored<ApiKey>>, Error> {
        match self.shared.records.load::<ApiKey>(id).await.map_err(Error::reading("key"))? {
            Loaded::Live(stored) => Ok(Some(stored)),
            Loaded::Absent | Loaded::Deleted(_) => Ok(None),
        }
    }

    /// Writes `key` over whatever is there; `done` recognises it where the answer to the write was lost.
    async fn write(&self, key: &ApiKey, done: impl Fn(&ApiKey) -> bool) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let mut unknown = false;
        for _ in 0..ATTEMPTS {
            let present = self.load(&key.id).await?;
            let written = present.as_ref().filter(|present| unknown && done(&present.value));
            let put = match (written, &present) {
                (Some(stored), _) => Put::Committed(stored.version.clone()),
                (None, Some(stored)) => self.shared.records.save(key, (), Expect::Version(&stored.version)).await?,
                (None, None) => self.shared.records.save(key, (), Expect::Absent).await?,
            };
            match put {
                Put::Committed(_) => {
                    self.replace(present.map(|stored| stored.value.hash), Some(key));
                    self.shared.bus.send(Event::KeysChanged);
                    return Ok(());
                }
                Put::Conflict => {}
                Put::Unknown => unknown = true,
            }
        }
        Err(Error::Conflict { what: "key" })
    }

    /// Writes `key` if nothing is there; whether it was we who made it.
    async fn make_first(&self, key: &ApiKey) -> Result<bool, Error> {
        let _changing = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            match self.shared.records.save(key, (), Expect::Absent).await? {
                Put::Committed(_) => {
                    self.replace(None, Some(key));
                    self.shared.bus.send(Event::KeysChanged);
                    return Ok(true);
                }
                Put::Conflict | Put::Unknown => match self.load(&key.id).await? {
                    Some(stored) if stored.value.hash == key.hash => {
                        self.replace(None, Some(key));
                        return Ok(true);
                    }
                    Some(other) => {
                        self.replace(None, Some(&other.value));
                        return Ok(false);
                    }
                    None => {}
                },
            }
        }
        Err(Error::StoreUnavailable { retry_after: STORE_RETRY, source: None })
    }

    async fn remove(&self, key: &ApiKey) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.load(&key.id).await? else {
                self.replace(Some(key.hash), None);
                return Ok(());
            };
            if let Put::Committed(_) = self.shared.records.delete::<ApiKey>(&key.id, &stored.version, &()).await? {
                self.replace(Some(stored.value.hash), None);
                self.shared.bus.send(Event::KeysChanged);
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "key" })
    }

    /// Changes the table as the store was changed.
    fn replace(&self, old: Option<ApiKeyHash>, new: Option<&ApiKey>) {
        let mut table = Table::clone(&self.table.load());
        if let Some(old) = old {
            table.remove(&old.0);
        }
        if let Some(new) = new {
            table.insert(new.hash.0, Arc::new(new.clone()));
        }
        self.table.store(Arc::new(table));
    }

    fn key(&self, id: ApiKeyId, new: NewKey, secret: &Secret, managed_by: ManagedBy) -> Result<ApiKey, Error> {
        let NewKey { name, role, tenants, providers } = new;
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::invalid("a key needs a `name` of 1 to 100 printable characters"));
        }
        if tenants.as_ref().is_some_and(BTreeSet::is_empty) || providers.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(Error::invalid("an empty list of `tenants` or `providers` would allow nothing: leave it out"));
        }
        let hash = ApiKeyHash(self.shared.records.barrier().hashes().api_key(secret.expose_secret()));
        Ok(ApiKey { id, name, role, tenants, providers, hash, managed_by, created_at: self.shared.now().wall })
    }

    fn draw(&self) -> Secret {
        let random = Zeroizing::new(self.shared.entropy.bytes32());
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random.as_slice())).into()
    }

    /// An id that every instance finds for the same words.
    fn known_as(&self, words: &str) -> ApiKeyId {
        let digits = self.shared.records.barrier().hashes().label(words);
        ApiKeyId(Ulid::from(u128::from_str_radix(&digits, 16).expect("a label is 32 hex digits")))
    }
}

fn may_manage(caller: &Caller, key: &ApiKey) -> bool {
    match caller {
        Caller::Key(own) => own.may_manage(key),
        Caller::Local => true,
    }
}

fn same_key(a: &ApiKey, b: &ApiKey) -> bool {
    (a.hash, a.role, &a.name, a.managed_by) == (b.hash, b.role, &b.name, b.managed_by)
        && a.tenants == b.tenants
        && a.providers == b.providers
}

/// Whether a secret that somebody chose can be one: it must survive a header and not be guessed.
pub(crate) fn check_given(secret: &Secret) -> Result<(), String> {
    let text = secret.expose_secret();
    if text.len() < MIN_GIVEN {
        return Err(format!("is too short: give it at least {MIN_GIVEN} random characters"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("holds something else than printable ASCII without spaces".to_owned());
    }
    Ok(())
}

fn audit(action: &'static str, caller: &Caller, key: &ApiKey) {
    let (by, managed_by) = (caller.name(), key.managed_by);
    tracing::info!(target: "audit", action, %by, key = %key.id, name = key.name, role = key.role.as_str(), ?managed_by);
}
