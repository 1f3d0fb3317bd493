//! Processes: they begin, die, come back, and do what their flights ask for.

use tokenkeep_core::{
    AttemptId, Health, InstanceId,
    refresh::{Cause, Effect, Flight, Heard, Held, Input, Listening, Local, Obstacle, Outcome},
};

use super::{Durable, Reached, SpoiltBy, World, story::brief_outcome, token_of};
use crate::{
    instance::{Entry, Instance, Journal, Pending},
    provider::fingerprint,
};

impl World {
    pub(super) fn begin(&mut self, i: usize, cause: Cause) {
        let attempt = AttemptId(self.ulid());
        let local = self.local(i);
        self.instances[i].saw_nothing = false;
        self.instances[i].began = self.time;
        self.instances[i].flight = Some(Flight::new(cause, local, attempt));
        self.feed(i, Input::Start);
    }

    pub(super) fn local(&self, i: usize) -> Local {
        let instance = &self.instances[i];
        Local {
            instance: instance.id,
            policy: self.policy,
            watch: instance.watch,
            gone: instance.gone.clone(),
            served: instance
                .served
                .filter(|(_, _, dies)| *dies > instance.now(self.time).wall)
                .map(|(incarnation, generation, _)| (incarnation, generation)),
            held: instance.newest_kept().cloned().map(Box::new),
            heard: self.heard(i),
            sought: None,
        }
    }

    pub(super) fn heard(&self, i: usize) -> Heard {
        let listening = match self.instances[i].listening {
            Listening::Deaf if self.setting.spoilt_by == Some(SpoiltBy::DeafnessTakenForSilence) => Listening::NoBus,
            listening => listening,
        };
        Heard { beacon: self.instances[i].beacon, listening }
    }

    /// Listens from now on, if there is anything to hear.
    pub(super) fn listen(&mut self, i: usize) {
        let boot = self.instances[i].now(self.time).boot;
        self.instances[i].listening = match &self.bus {
            None => Listening::NoBus,
            Some(bus) if bus.down => Listening::Deaf,
            Some(_) => Listening::Since(boot),
        };
    }

    pub(super) fn listen_all(&mut self) {
        for i in 0..self.instances.len() {
            self.listen(i);
        }
    }

    pub(super) fn replies_with<'a>(&'a mut self, held: &Held) -> impl Iterator<Item = &'a mut Reached> + use<'a> {
        let brought = held.successor.fingerprint();
        self.reached.iter_mut().filter(move |r| Some(fingerprint(r.brought)) == brought)
    }

    pub(super) fn kill(&mut self, i: usize, written: bool, for_good: bool) {
        let pending = std::mem::take(&mut self.instances[i].pending);
        let unreachable = self.store.down || self.instances[i].cut_off;
        for pending in pending {
            match pending {
                Pending::Write { connection, expect } if written && !unreachable => {
                    self.write(&connection, expect.as_ref());
                }
                Pending::Keep(held) | Pending::LateKeep(held) if written => self.kept(i, &held),
                _ => {}
            }
        }
        let id = self.instances[i].id;
        self.in_flight.retain(|f| f.owner != id);
        for reached in &mut self.reached {
            reached.holders.retain(|holder, durable| *holder != id || (durable.0 && !for_good));
        }
        let instance = &mut self.instances[i];
        instance.dead = true;
        instance.journal.entries.retain(|e| e.durable);
        instance.frozen = false;
        instance.flight = None;
        instance.served = None;
        instance.watch = None;
        self.lost_for_good[i] = for_good;
    }

    /// A new process on the same disk: it adopts the journals it finds.
    pub(super) fn restart(&mut self, i: usize) {
        let id = InstanceId(self.ulid());
        let old = std::mem::replace(&mut self.instances[i], Instance::new(id));
        let newest = old.newest_kept().cloned();
        for reached in &mut self.reached {
            if let Some(durable) = reached.holders.remove(&old.id) {
                reached.holders.insert(id, durable);
            }
        }
        let instance = &mut self.instances[i];
        instance.skew = old.skew;
        instance.gone = old.gone;
        instance.gone.push(old.id);
        instance.adopted = newest.into_iter().collect();
        instance.journal = Journal { entries: old.journal.entries };
        self.listen(i);
        self.resume(i);
    }

    pub(super) fn resume(&mut self, i: usize) {
        if self.instances[i].flight.is_none()
            && let Some(held) = self.instances[i].adopted.pop()
        {
            self.reach.resumed += 1;
            let attempt = AttemptId(self.ulid());
            let local = self.local(i);
            self.instances[i].began = self.time;
            self.instances[i].flight = Some(Flight::resume(held, local, attempt));
            self.feed(i, Input::Start);
        }
    }

    /// A process knows a reply from the moment it keeps it.
    pub(super) fn keep(&mut self, i: usize, held: Held) {
        let id = self.instances[i].id;
        for reached in self.replies_with(&held) {
            reached.holders.entry(id).or_insert(Durable(false));
        }
        self.instances[i].journal.entries.push(Entry { held, durable: false });
    }

    /// The journal has it on disk. Older entries of the same life are no longer needed.
    pub(super) fn kept(&mut self, i: usize, held: &Held) {
        let id = self.instances[i].id;
        for reached in self.replies_with(held) {
            reached.holders.insert(id, Durable(true));
        }
        let (incarnation, generation) = (held.successor.incarnation, held.successor.generation);
        let entries = &mut self.instances[i].journal.entries;
        entries.retain(|e| e.held.successor.incarnation != incarnation || e.held.successor.generation >= generation);
        for entry in entries.iter_mut().filter(|e| e.held.attempt == held.attempt) {
            entry.durable = true;
        }
    }

    pub(super) fn feed(&mut self, i: usize, input: Input) {
        let now = self.instances[i].now(self.time);
        let Some(mut flight) = self.instances[i].flight.take() else { return };
        flight.hear(self.heard(i));
        let effects = flight.step(now, input);
        self.instances[i].flight = Some(flight);
        for effect in effects {
            self.take_up(i, effect);
        }
    }

    pub(super) fn take_up(&mut self, i: usize, effect: Effect) {
        let pending = match effect {
            Effect::Read => Pending::Read,
            Effect::Write { connection, expect } => Pending::Write { connection, expect },
            Effect::Connect { .. } => Pending::Connect,
            Effect::Spend { renewal, not_after, .. } => {
                Pending::Spend { token: token_of(renewal.fingerprint), not_after, told: self.told() }
            }
            Effect::Keep(held) => {
                let us = self.instances[i].id;
                let of_another = self.replies_with(&held).any(|r| r.owner != us);
                self.reach.found += u32::from(of_another);
                self.keep(i, held.as_ref().clone());
                Pending::Keep(held)
            }
            Effect::Share(held) => {
                let waiting = self.instances[i].pending.iter().any(|p| matches!(p, Pending::Share(_)));
                if !waiting {
                    self.instances[i].pending.push(Pending::Share(held.clone()));
                }
                Pending::Beacon(held)
            }
            Effect::Withdraw(held) => Pending::Withdraw(held),
            Effect::Seek => Pending::Seek,
            Effect::Timer(timer, wait) => Pending::Timer { timer, at: self.time + wait },
            Effect::Publish(connection) => {
                self.check_durable(&connection);
                return self.publish(i, &connection);
            }
            Effect::Revoke(_) => return,
            Effect::Settled(held) => {
                if self.setting.spoilt_by == Some(SpoiltBy::JournalRemovedAtCommit) {
                    self.instances[i].journal.entries.retain(|e| e.held.attempt != held.attempt);
                }
                return;
            }
            Effect::Finish(outcome) => return self.finish(i, *outcome),
        };
        self.instances[i].pending.push(pending);
    }

    pub(super) fn publish(&mut self, i: usize, connection: &tokenkeep_core::Connection) {
        let dies = connection.tokens.access.as_ref().and_then(|a| a.expires_at).unwrap_or(jiff::Timestamp::MIN);
        let served = (connection.incarnation, connection.generation, dies);
        let instance = &mut self.instances[i];
        if instance.served.is_none_or(|(incarnation, generation, _)| incarnation != served.0 || generation <= served.1)
        {
            instance.served = Some(served);
        }
    }

    pub(super) fn finish(&mut self, i: usize, outcome: Outcome) {
        self.tell(|| format!("{i}: ends with {}", brief_outcome(&outcome)));
        let instance = &mut self.instances[i];
        instance.flight = None;
        let pending = std::mem::take(&mut instance.pending);
        instance.pending.extend(pending.into_iter().filter_map(|p| match p {
            Pending::Keep(held) => Some(Pending::LateKeep(held)),
            late @ (Pending::LateKeep(_) | Pending::Share(_) | Pending::Beacon(_) | Pending::Withdraw(_)) => Some(late),
            _ => None,
        }));
        match outcome {
            Outcome::Current(connection) | Outcome::Refreshed(connection) => self.publish(i, &connection),
            Outcome::Blocked { watch, obstacle, .. } => {
                instance.watch = watch;
                self.reach.told_in_time += u32::from(obstacle == Obstacle::ReplyElsewhere);
                self.reach.cache_unreadable += u32::from(obstacle == Obstacle::CopyUnknown);
            }
            Outcome::Absent if !instance.saw_nothing => self.violate("6: absent, though nobody saw it missing"),
            Outcome::Dead { connection, .. } if !matches!(connection.health, Health::ReauthRequired { .. }) => {
                self.violate("6: dead, though the record does not say so");
            }
            _ => {}
        }
        self.resume(i);
    }
}
