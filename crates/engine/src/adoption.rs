//! Taking over the replies that processes which are gone could not commit: at start, and while we run, from siblings
//! that used the same journal directory.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokenkeep_core::{AttemptId, ConnectionId, Generation, Incarnation, InstanceId, refresh::Held, time::after};
use tokio::sync::{Notify, watch};

use crate::{
    barrier::Barrier,
    connections::{
        Connections,
        flight::{Progress, Route},
    },
    journal::{Abandoned, AdoptError, Entry, Journal, adopt},
    records::{TOMBSTONE_LIFE, decode_held, encode_held},
    shared::Shared,
    upkeep::landed,
};

/// How often a directory that is shared is looked through.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Adopts the journals of processes that are gone.
#[derive(Debug)]
pub(crate) struct Heir {
    dir: PathBuf,
    barrier: Arc<Barrier>,
    shared: Arc<Shared>,
    connections: Connections,
    wanted: Notify,
    /// Whose journals cannot be read to the end. They stay for whoever has the key, and are not taken over again and
    /// again.
    unreadable: Mutex<HashSet<InstanceId>>,
    /// The replies we took over from each, until they are settled and the dead is buried.
    estates: Mutex<HashMap<InstanceId, Vec<(ConnectionId, AttemptId)>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heir {
    /// `dir` is where `connections` keep their journal.
    pub(crate) fn new(dir: PathBuf, barrier: Arc<Barrier>, shared: Arc<Shared>, connections: Connections) -> Self {
        Self {
            dir,
            barrier,
            shared,
            connections,
            wanted: Notify::new(),
            unreadable: Mutex::default(),
            estates: Mutex::default(),
        }
    }

    /// Looks now rather than at its time.
    pub(crate) fn look_now(&self) {
        self.wanted.notify_one();
    }

    /// Adopts what is abandoned, for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut failed = false;
        loop {
            tokio::select! {
                () = self.shared.clock.sleep(LOOK_EVERY) => {}
                () = self.wanted.notified() => {}
            }
            self.press_on().await;
            match self.adopt().await {
                Ok(()) => failed = false,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(%error, "an abandoned journal cannot be taken over; this is tried again");
                    }
                }
            }
        }
    }

    /// Adopts what is abandoned. The replies are durable in our own journal before the file they came from is
    /// removed, and are committed one by one behind.
    pub(crate) async fn adopt(self: &Arc<Self>) -> Result<(), AdoptError> {
        let Some(journal) = self.connections.flights.kept.journal() else { return Ok(()) };
        let (dir, barrier, own) = (self.dir.clone(), self.barrier.clone(), self.shared.instance);
        let passed_over = lock(&self.unreadable).clone();
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for mut abandoned in adopt(&dir, own, &barrier)?.abandoned {
                if !passed_over.contains(&abandoned.instance()) {
                    let entries = newest_entries(&mut abandoned)?;
                    found.push((abandoned, entries));
                }
            }
            Ok::<_, AdoptError>(found)
        })
        .await;
        // The runtime is ending.
        let Ok(found) = found else { return Ok(()) };
        for (abandoned, entries) in found? {
            self.take_over(journal, abandoned, entries).await?;
        }
        Ok(())
    }

    async fn take_over(
        self: &Arc<Self>,
        journal: &Journal,
        abandoned: Abandoned,
        entries: Vec<Entry>,
    ) -> Result<(), AdoptError> {
        let instance = abandoned.instance();
        let ours = self.younger_than(&entries).await;
        match abandoned.carry_over(journal, &entries).await {
            Err(error @ AdoptError::Unreadable { .. }) => {
                // Its readable entries are safe in ours by now; the file stays for whoever has the key.
                tracing::error!(%error, "a journal was taken over in part");
                lock(&self.unreadable).insert(instance);
                keep_last(journal, ours).await;
                return Ok(());
            }
            carried => carried?,
        }
        keep_last(journal, ours).await;
        self.connections.flights.is_gone(instance);
        tracing::info!(%instance, replies = entries.len(), "took over the journal of a process that is gone");
        let estate = entries.iter().map(|entry| (entry.connection.clone(), entry.attempt)).collect();
        lock(&self.estates).insert(instance, estate);
        let heir = self.clone();
        tokio::spawn(async move { heir.commit(entries).await });
        Ok(())
    }

    async fn commit(&self, entries: Vec<Entry>) {
        for entry in entries {
            // The tombstone that would tell what was deleted meanwhile may be gone: what is that old stays gone, too.
            if after(entry.recorded_at, TOMBSTONE_LIFE) < self.shared.now().wall {
                tracing::warn!(integration = %entry.connection.integration, "a kept reply is too old to be committed");
                self.connections.flights.kept.forget(&entry.connection);
                continue;
            }
            let held: Held = match decode_held(&entry.payload) {
                Ok(held) => held,
                Err(error) => {
                    tracing::error!(integration = %entry.connection.integration, %error, "a kept reply cannot be read");
                    continue;
                }
            };
            let progress = self.resume(held).await;
            // One after the other, but none waits for a store that is down: its flight goes on by itself.
            tokio::select! {
                () = landed(progress) => {}
                () = self.shared.clock.sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn resume(&self, held: Held) -> watch::Receiver<Progress> {
        let id = &held.successor.id;
        let policy = self.connections.policy(&id.integration).await;
        let party = self.connections.party_of(id).await.ok().flatten();
        self.connections.flights.resume(held, Route { policy, party })
    }

    /// Tries again with what is not settled: a flight that was under way for something else may have been joined.
    async fn press_on(&self) {
        let outstanding: Vec<_> = lock(&self.estates).values().flatten().cloned().collect();
        let kept = &self.connections.flights.kept;
        for (id, attempt) in outstanding {
            if kept.is_unsettled(&id, attempt)
                && let Some(held) = kept.newest_of(&id).await
            {
                self.resume(held).await;
            }
        }
    }

    /// What our own journal holds that is younger than an entry it is about to take over: the dead may have lagged
    /// behind us. With it, whether the store has it.
    async fn younger_than(&self, entries: &[Entry]) -> Vec<(Held, bool)> {
        let kept = &self.connections.flights.kept;
        let mut younger = Vec::new();
        for entry in entries {
            let Some(ours) = kept.newest_of(&entry.connection).await else { continue };
            let is_younger = age(entry).is_some_and(|theirs| theirs < age_of(&ours));
            if is_younger {
                let settled = !kept.is_unsettled(&entry.connection, ours.attempt);
                younger.push((ours, settled));
            }
        }
        younger
    }

    /// Whose replies are all settled: nothing of them is left anywhere.
    pub(crate) fn settled(&self) -> Vec<InstanceId> {
        let kept = &self.connections.flights.kept;
        let is_settled = |estate: &Vec<(ConnectionId, AttemptId)>| {
            estate.iter().all(|(id, attempt)| !kept.is_unsettled(id, *attempt))
        };
        lock(&self.estates).iter().filter(|(_, estate)| is_settled(estate)).map(|(instance, _)| *instance).collect()
    }

    /// Everybody can know that `instance` is gone.
    pub(crate) fn is_buried(&self, instance: InstanceId) {
        lock(&self.estates).remove(&instance);
    }
}

/// A journal takes what was appended last for the newest: so it must be.
async fn keep_last(journal: &Journal, ours: Vec<(Held, bool)>) {
    for (held, settled) in ours {
        let (id, attempt) = (&held.successor.id, held.attempt);
        match journal.append(id, attempt, &encode_held(&held)).await {
            Ok(()) if settled => journal.settle(id, attempt),
            Ok(()) => {}
            // It is there once already; only its rank is lost.
            Err(error) => tracing::warn!(integration = %id.integration, %error, "a reply could not be journaled again"),
        }
    }
}

/// The youngest entry of each connection: the others are what it was spent from.
fn newest_entries(abandoned: &mut Abandoned) -> Result<Vec<Entry>, AdoptError> {
    let mut newest: HashMap<ConnectionId, Entry> = HashMap::new();
    while let Some(entry) = abandoned.next_entry()? {
        let before = newest.get(&entry.connection);
        // An heir's journal holds what it took over from others, too: that may have been written late.
        if before.is_none_or(|before| age(before) <= age(&entry)) {
            newest.insert(entry.connection.clone(), entry);
        }
    }
    Ok(newest.into_values().collect())
}

/// What orders the replies of one connection: its life, then the generation. `None` = it cannot be read.
fn age(entry: &Entry) -> Option<(Incarnation, Generation)> {
    decode_held(&entry.payload).ok().as_ref().map(age_of)
}

fn age_of(held: &Held) -> (Incarnation, Generation) {
    (held.successor.incarnation, held.successor.generation)
}
