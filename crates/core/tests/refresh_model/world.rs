//! The world: it carries out what happens, keeps its own books, and compares.

use std::{collections::BTreeMap, time::Duration};

use tokenkeep_core::{
    AccessToken, AttemptId, ConnectionId, Fingerprint, Generation, Health, Incarnation, InstanceId, IntegrationId,
    RefreshPolicy, RenewBy, Renewal, Rotation, Subject, Tenant,
    change::{self, NewRenewal, NewTokens},
    id::Ulid,
    ports::Version,
    refresh::{Answer, Cause, Effect, Fault, Flight, Held, Input, Local, Outcome, Received, Refused, Seen, Written},
    time::after,
};

use crate::{
    instance::{Entry, Instance, Journal, Pending},
    provider::{Provider, Token, WINDOW, fingerprint},
    schedule::{Action, How},
    store::{Content, Store},
};

/// How long access tokens live here.
pub const LIFE: Duration = Duration::from_secs(300);
const MARGIN: Duration = Duration::from_secs(60);

/// A defect put into the world on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoiltBy {
    IntentSkipped,
    CasOnGenerationAlone,
    LateReplyDropped,
    JournalRemovedAtCommit,
    TimeoutReadAsRefusal,
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub instances: usize,
    pub rotation: Rotation,
    pub rollbacks: bool,
    pub users: bool,
    pub jumps: bool,
    pub spoilt_by: Option<SpoiltBy>,
}

/// A reply that reached a process of ours: the books of invariant 1, kept apart from the code under test.
#[derive(Debug)]
struct Reached {
    /// Who spent for it.
    owner: InstanceId,
    /// Whose journal it is or will be in.
    holder: InstanceId,
    spent: Token,
    brought: Token,
    in_memory: bool,
    in_journal: bool,
    in_store: bool,
}

/// A request that somebody still waits for.
#[derive(Debug)]
struct InFlight {
    owner: InstanceId,
    token: Token,
}

/// What happened in a run, so that it can be seen that the schedules reach what they are meant to reach.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reach {
    pub commits: u32,
    pub takeovers: u32,
    pub alternates: u32,
    pub unanswered: u32,
    pub reauth: u32,
    pub resumed: u32,
    pub excepted: u32,
    pub checked: u32,
}

#[derive(Debug)]
pub struct World {
    pub setting: Setting,
    pub reach: Reach,
    pub time: Duration,
    pub store: Store,
    pub instances: Vec<Instance>,
    pub lost_for_good: Vec<bool>,
    /// Writes whose answer was lost before they were done: they may still be done.
    pub ghosts: Vec<(Box<tokenkeep_core::Connection>, Option<Version>)>,
    provider: Provider,
    policy: RefreshPolicy,
    id: ConnectionId,
    reached: Vec<Reached>,
    in_flight: Vec<InFlight>,
    rolled_back: bool,
    /// When each instance last showed itself in the record, in true time.
    shown: BTreeMap<InstanceId, Duration>,
    /// Whether a refresh token was spent a second time by one of the stated exceptions (an owner silent for too long,
    /// a clock that jumped in a grace window, a store that rolled back under an instance that could not know
    /// better). A provider may answer that by ending the grant.
    excepted: bool,
    /// The refresh token of the last consent that was not undone.
    consented: Option<Token>,
    ids: u128,
    violation: Option<String>,
    story: Vec<String>,
}

impl World {
    pub fn new(setting: Setting) -> Self {
        let mut world = Self {
            setting,
            reach: Reach::default(),
            time: Duration::from_secs(1000),
            store: Store::new(),
            instances: vec![],
            lost_for_good: vec![false; setting.instances],
            ghosts: vec![],
            provider: Provider::new(setting.rotation),
            policy: RefreshPolicy::new(setting.rotation, MARGIN),
            id: ConnectionId {
                integration: IntegrationId::new("fake").expect("valid"),
                tenant: Tenant::default_tenant(),
                subject: Subject::default_subject(),
            },
            reached: vec![],
            in_flight: vec![],
            rolled_back: false,
            shown: BTreeMap::new(),
            excepted: false,
            consented: None,
            ids: 1,
            violation: None,
            story: vec![format!("{setting:?}")],
        };
        world.store.generation_alone = setting.spoilt_by == Some(SpoiltBy::CasOnGenerationAlone);
        for _ in 0..setting.instances {
            let id = InstanceId(world.ulid());
            world.instances.push(Instance::new(id));
        }
        world.consent();
        world
    }

    fn ulid(&mut self) -> Ulid {
        // Far apart: a flight counts its own attempts up from the id it was given.
        self.ids += 1 << 20;
        Ulid::from(self.ids)
    }

    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub fn story(&self) -> String {
        self.story.join("\n")
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.story.len() < 5_000 {
            let seconds = self.time.as_secs_f64();
            self.story.push(format!("{seconds:9.1} {}", line()));
        }
    }

    fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Does one of the things that may happen.
    pub fn act(&mut self, choice: u16) {
        if self.violation.is_some() {
            return;
        }
        let possible = self.possible();
        let total: u32 = possible.iter().map(|(weight, _)| weight).sum();
        let mut pick = u32::from(choice) % total;
        let chosen = possible.into_iter().find(|(weight, _)| {
            let here = pick < *weight;
            pick = pick.saturating_sub(*weight);
            here
        });
        let Some((_, action)) = chosen else { return };
        self.carry_out(action);
    }

    fn carry_out(&mut self, action: Action) {
        if !matches!(action, Action::Progress { .. }) {
            self.tell(|| format!("{action:?}"));
        }
        match action {
            Action::Begin { instance, cause } => self.begin(instance, cause),
            Action::Progress { instance, pending, how } => self.progress(instance, pending, how),
            Action::Advance(by) => self.time += by,
            Action::Freeze(i) => self.instances[i].frozen = true,
            Action::Thaw(i) => self.instances[i].frozen = false,
            Action::Kill { instance, written, for_good } => self.kill(instance, written, for_good),
            Action::Restart(i) => self.restart(i),
            Action::Jump { instance, millis } => self.instances[instance].skew += millis,
            Action::StoreDown => self.store.down = true,
            Action::StoreUp => self.store.down = false,
            Action::RollBack(by) => {
                self.store.roll_back(by);
                self.rolled_back = true;
                for reached in &mut self.reached {
                    reached.in_store = false;
                }
            }
            Action::Consent => self.consent(),
            Action::PutAccessOnly => self.put_access_only(),
            Action::Delete => self.delete(),
            Action::Ghost(ghost) => {
                let (connection, expect) = self.ghosts.remove(ghost);
                self.write(&connection, expect.as_ref());
            }
        }
    }

    // --- users ---

    fn consent(&mut self) {
        let token = self.provider.consent();
        self.tell(|| format!("consent brings token {token}"));
        let renewal = NewRenewal::Replace(renewal(token));
        if self.change(renewal) {
            self.consented = Some(token);
        }
    }

    fn put_access_only(&mut self) {
        if matches!(self.store.content(), Content::Live(_)) {
            self.change(NewRenewal::Keep);
        }
    }

    fn change(&mut self, renewal: NewRenewal) -> bool {
        let now = self.instances.first().map(|i| i.now(self.time)).expect("there are instances");
        let new = NewTokens { access: Some(self.access(now.wall)), renewal, scope: None, display_name: None };
        let fresh = Incarnation(self.ulid());
        match change::replace(&self.id, &self.store.seen(), new, fresh, false, now.wall) {
            Ok(connection) => {
                self.store.change(Content::Live(Box::new(connection)));
                true
            }
            Err(_) => false,
        }
    }

    fn delete(&mut self) {
        if let Content::Live(connection) = self.store.content() {
            let deleted = change::delete(connection);
            self.store.change(Content::Tombstone(deleted));
            self.consented = None;
        }
    }

    fn access(&self, wall: jiff::Timestamp) -> AccessToken {
        AccessToken {
            token: format!("access at {:?}", self.time).into(),
            token_type: "Bearer".into(),
            issued_at: wall,
            expires_at: Some(after(wall, LIFE)),
        }
    }

    // --- processes ---

    fn begin(&mut self, i: usize, cause: Cause) {
        let attempt = AttemptId(self.ulid());
        let local = self.local(i);
        self.instances[i].saw_nothing = false;
        self.instances[i].flight = Some(Flight::new(cause, local, attempt));
        self.feed(i, Input::Start);
    }

    fn local(&self, i: usize) -> Local {
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
        }
    }

    fn kill(&mut self, i: usize, written: bool, for_good: bool) {
        let pending = std::mem::take(&mut self.instances[i].pending);
        for pending in pending {
            match pending {
                Pending::Write { connection, expect } if written && !self.store.down => {
                    self.write(&connection, expect.as_ref());
                }
                Pending::Keep(held) | Pending::LateKeep(held) if written => self.kept(i, &held),
                _ => {}
            }
        }
        let id = self.instances[i].id;
        self.in_flight.retain(|f| f.owner != id);
        for reached in self.reached.iter_mut().filter(|r| r.holder == id) {
            reached.in_memory = false;
            reached.in_journal &= !for_good;
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
    fn restart(&mut self, i: usize) {
        let id = InstanceId(self.ulid());
        let old = std::mem::replace(&mut self.instances[i], Instance::new(id));
        let newest = old.newest_kept().cloned();
        for reached in self.reached.iter_mut().filter(|r| r.holder == old.id) {
            reached.holder = id;
        }
        let instance = &mut self.instances[i];
        instance.skew = old.skew;
        instance.gone = old.gone;
        instance.gone.push(old.id);
        instance.adopted = newest.into_iter().collect();
        instance.journal = Journal { entries: old.journal.entries };
        self.resume(i);
    }

    fn resume(&mut self, i: usize) {
        if self.instances[i].flight.is_none()
            && let Some(held) = self.instances[i].adopted.pop()
        {
            self.reach.resumed += 1;
            let local = self.local(i);
            self.instances[i].flight = Some(Flight::resume(held, local));
            self.feed(i, Input::Start);
        }
    }

    /// A process knows a reply from the moment it keeps it.
    fn keep(&mut self, i: usize, held: Held) {
        self.instances[i].journal.entries.push(Entry { held, durable: false });
    }

    /// The journal has it on disk. Older entries of the same life are no longer needed.
    fn kept(&mut self, i: usize, held: &Held) {
        for reached in self.reached.iter_mut().filter(|r| Some(fingerprint(r.brought)) == held.successor.fingerprint())
        {
            reached.in_journal = true;
        }
        let (incarnation, generation) = (held.successor.incarnation, held.successor.generation);
        let entries = &mut self.instances[i].journal.entries;
        entries.retain(|e| e.held.successor.incarnation != incarnation || e.held.successor.generation >= generation);
        for entry in entries.iter_mut().filter(|e| e.held.attempt == held.attempt) {
            entry.durable = true;
        }
    }

    // --- what is under way ---

    fn progress(&mut self, i: usize, index: usize, how: How) {
        let pending = self.instances[i].pending.remove(index);
        let boot = self.instances[i].now(self.time).boot;
        let down = self.store.down;
        self.tell(|| format!("{i}: {how:?} {}", brief(&pending)));
        let input = match pending {
            Pending::Read => {
                let seen = if down { Err(()) } else { Ok(self.store.seen()) };
                self.instances[i].saw_nothing |= matches!(seen, Ok(Seen::Absent | Seen::Deleted(..)));
                Input::Record(seen)
            }
            Pending::Write { .. } if down => Input::Written(Written::Unavailable),
            Pending::Write { connection, expect } => {
                let skipped = self.setting.spoilt_by == Some(SpoiltBy::IntentSkipped)
                    && connection.attempt.as_ref().is_some_and(|a| a.owner == self.instances[i].id && a.renewal == 0);
                Input::Written(match how {
                    _ if skipped => Written::Committed(Version("never written".into())),
                    How::RequestLost => {
                        self.ghosts.push((connection, expect));
                        Written::Unknown
                    }
                    How::AnswerLost => {
                        self.write(&connection, expect.as_ref());
                        Written::Unknown
                    }
                    _ => self.write(&connection, expect.as_ref()).map_or(Written::Conflict, Written::Committed),
                })
            }
            Pending::Connect if how == How::Failed => {
                Input::Unreachable(Fault::Unreachable { detail: "no route".into() })
            }
            Pending::Connect => Input::Connected,
            Pending::Spend { not_after, .. } if boot >= not_after => Input::Answered(Answer::NotSent),
            Pending::Spend { token, .. } => {
                self.send(i, token);
                self.instances[i].pending.push(Pending::Sent { token, sent_at: self.time });
                return;
            }
            Pending::Sent { token, .. } if how == How::AnswerLost => self.cut(i, token),
            Pending::Sent { token, sent_at } => {
                let reply = self.provider.spend(token, self.time);
                self.instances[i].pending.push(Pending::Replied { token, sent_at, reply });
                return;
            }
            Pending::Replied { token, .. } if how == How::AnswerLost => self.cut(i, token),
            Pending::Replied { token, sent_at, reply } => self.deliver(i, token, sent_at, reply),
            Pending::Keep(_) if how == How::Failed => Input::Journaled(Err(())),
            Pending::LateKeep(_) if how == How::Failed => return,
            Pending::Keep(held) => {
                self.kept(i, &held);
                Input::Journaled(Ok(()))
            }
            Pending::LateKeep(held) => return self.kept(i, &held),
            Pending::Timer { timer, .. } => Input::Timer(timer),
        };
        self.feed(i, input);
    }

    fn write(&mut self, connection: &tokenkeep_core::Connection, expect: Option<&Version>) -> Option<Version> {
        let version = self.store.put(connection, expect)?;
        let reach = &mut self.reach;
        reach.commits += u32::from(connection.committed_by.is_some() && connection.attempt.is_none());
        reach.alternates += u32::from(connection.alternate.is_some());
        reach.reauth += u32::from(matches!(connection.health, Health::ReauthRequired { .. }));
        if let Some(attempt) = &connection.attempt {
            reach.takeovers += u32::from(attempt.replays > 0);
            reach.unanswered += u32::from(attempt.phase == tokenkeep_core::Phase::Unanswered);
        }
        if let Health::ReauthRequired { reason, .. } = &connection.health
            && reason != "no_refresh_token"
            && let Some(held) = connection.fingerprint()
            && !self.provider.refused.iter().any(|t| fingerprint(*t) == held)
        {
            self.violate("6: reauth_required was written though the provider never refused this token");
        }
        for held in [connection.fingerprint(), connection.alternate.as_ref().map(|a| a.renewal.fingerprint)] {
            for reached in self.reached.iter_mut().filter(|r| Some(fingerprint(r.brought)) == held) {
                reached.in_store = true;
            }
        }
        if let Some(attempt) = &connection.attempt {
            self.shown.insert(attempt.owner, self.time);
        }
        Some(version)
    }

    fn send(&mut self, i: usize, token: Token) {
        let owner = self.instances[i].id;
        let unknown = self.reached.iter().filter(|r| r.spent == token && r.brought != token);
        let own = |r: &Reached| r.holder == owner && (r.in_memory || r.in_journal);
        if unknown.clone().any(own) {
            return self.violate(format!("1: {owner} spends token {token}, though it holds its successor"));
        }
        // Others who are spending it, or who hold a reply that nobody else can see.
        let others: Vec<InstanceId> = self
            .in_flight
            .iter()
            .filter(|f| f.token == token)
            .map(|f| f.owner)
            .chain(unknown.filter(|r| r.in_memory || r.in_journal || r.in_store).map(|r| r.owner))
            .collect();
        for other in others {
            match self.may_spend_beside(other) {
                Some(excepted) => self.excepted |= excepted,
                None => self.violate(format!("2: token {token} is spent by {owner} while {other} is spending it")),
            }
        }
        self.shown.insert(owner, self.time);
        self.in_flight.push(InFlight { owner, token });
    }

    /// Whether what `other` spends may be spent by somebody else now, and if so, whether only by an exception.
    fn may_spend_beside(&self, other: InstanceId) -> Option<bool> {
        let silent = self.shown.get(&other).map_or(Duration::MAX, |shown| self.time.saturating_sub(*shown));
        let lease_over = silent >= self.policy.lease;
        match self.setting.rotation {
            _ if self.rolled_back => Some(true),
            Rotation::None | Rotation::Overlap | Rotation::Predecessor if lease_over => Some(false),
            Rotation::Grace { .. } if lease_over && silent <= WINDOW => Some(false),
            Rotation::Grace { .. } if lease_over && self.setting.jumps => Some(true),
            _ => (silent >= self.policy.lease + self.policy.silence).then_some(true),
        }
    }

    fn cut(&mut self, i: usize, token: Token) -> Input {
        self.landed(i, token);
        if self.setting.spoilt_by == Some(SpoiltBy::TimeoutReadAsRefusal) {
            return Input::Answered(Answer::Refused(Refused::Grant { code: "timeout".into() }));
        }
        Input::Answered(Answer::Lost { detail: "cut".into() })
    }

    fn landed(&mut self, i: usize, token: Token) {
        let owner = self.instances[i].id;
        self.in_flight.retain(|f| !(f.owner == owner && f.token == token));
    }

    fn deliver(&mut self, i: usize, token: Token, sent_at: Duration, reply: Option<Token>) -> Input {
        self.landed(i, token);
        let Some(brought) = reply else {
            // What a roll-back brought back was spent by somebody who could not know better.
            self.excepted |= self.rolled_back;
            return Input::Answered(Answer::Refused(Refused::Grant { code: "invalid_grant".into() }));
        };
        let instance = &self.instances[i];
        self.reached.push(Reached {
            owner: instance.id,
            holder: instance.id,
            spent: token,
            brought,
            in_memory: true,
            in_journal: false,
            in_store: false,
        });
        let late = self.time.saturating_sub(sent_at) > self.policy.deadline;
        if late && self.setting.spoilt_by == Some(SpoiltBy::LateReplyDropped) {
            return Input::Answered(Answer::Lost { detail: "too late".into() });
        }
        let wall = instance.now(self.time).wall;
        let reply =
            Received { access: self.access(wall), renewal: (brought != token).then(|| renewal(brought)), scope: None };
        Input::Answered(Answer::Tokens(Box::new(reply)))
    }

    fn feed(&mut self, i: usize, input: Input) {
        let now = self.instances[i].now(self.time);
        let Some(mut flight) = self.instances[i].flight.take() else { return };
        let effects = flight.step(now, input);
        self.instances[i].flight = Some(flight);
        for effect in effects {
            self.take_up(i, effect);
        }
    }

    fn take_up(&mut self, i: usize, effect: Effect) {
        let pending = match effect {
            Effect::Read => Pending::Read,
            Effect::Write { connection, expect } => Pending::Write { connection, expect },
            Effect::Connect => Pending::Connect,
            Effect::Spend { renewal, not_after, .. } => {
                Pending::Spend { token: token_of(renewal.fingerprint), not_after }
            }
            Effect::Keep(held) => {
                self.keep(i, held.as_ref().clone());
                Pending::Keep(held)
            }
            Effect::Timer(timer, wait) => Pending::Timer { timer, at: self.time + wait },
            Effect::Publish(connection) => return self.publish(i, &connection),
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

    fn publish(&mut self, i: usize, connection: &tokenkeep_core::Connection) {
        let dies = connection.tokens.access.as_ref().and_then(|a| a.expires_at).unwrap_or(jiff::Timestamp::MIN);
        let served = (connection.incarnation, connection.generation, dies);
        let instance = &mut self.instances[i];
        if instance.served.is_none_or(|(incarnation, generation, _)| incarnation != served.0 || generation <= served.1)
        {
            instance.served = Some(served);
        }
    }

    fn finish(&mut self, i: usize, outcome: Outcome) {
        self.tell(|| format!("{i}: ends with {}", brief_outcome(&outcome)));
        let instance = &mut self.instances[i];
        instance.flight = None;
        let pending = std::mem::take(&mut instance.pending);
        instance.pending.extend(pending.into_iter().filter_map(|p| match p {
            Pending::Keep(held) => Some(Pending::LateKeep(held)),
            late @ Pending::LateKeep(_) => Some(late),
            _ => None,
        }));
        match outcome {
            Outcome::Current(connection) | Outcome::Refreshed(connection) => self.publish(i, &connection),
            Outcome::Blocked { watch, .. } => instance.watch = watch,
            Outcome::Absent if !instance.saw_nothing => self.violate("6: absent, though nobody saw it missing"),
            Outcome::Dead { connection, .. } if !matches!(connection.health, Health::ReauthRequired { .. }) => {
                self.violate("6: dead, though the record does not say so");
            }
            _ => {}
        }
        self.resume(i);
    }

    // --- the end ---

    /// Everything that can come back comes back, and nothing goes wrong any more.
    pub fn recover(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.tell(|| "recovery".into());
        self.store.down = false;
        self.ghosts.clear();
        let alive: Vec<Token> = self.held_and_live();
        for i in 0..self.instances.len() {
            self.instances[i].frozen = false;
            if self.instances[i].dead && !self.lost_for_good[i] {
                self.restart(i);
            }
        }
        // What is under way ends before anybody begins anew: a journal knows what a record may not.
        for _ in 0..40 {
            for i in 0..self.instances.len() {
                self.run_out(i);
            }
            self.time += Duration::from_secs(20);
        }
        for _ in 0..4 {
            for i in 0..self.instances.len() {
                if self.instances[i].runs() && self.instances[i].flight.is_none() {
                    self.begin(i, Cause::Read { min_ttl: Duration::from_secs(60) });
                }
                for _ in 0..40 {
                    self.run_out(i);
                    self.time += Duration::from_secs(5);
                }
            }
            self.time += LIFE;
        }
        self.check_nothing_lost(&alive);
    }

    /// Carries one instance on until it only waits for time to pass.
    fn run_out(&mut self, i: usize) {
        for _ in 0..200 {
            let time = self.time;
            let ready =
                self.instances[i].pending.iter().position(|p| !matches!(p, Pending::Timer { at, .. } if *at > time));
            match ready {
                Some(index) if self.instances[i].runs() && self.violation.is_none() => {
                    self.progress(i, index, How::Well);
                }
                _ => return,
            }
        }
        self.violate("a flight does not come to an end");
    }

    /// Refresh tokens of the consented grant which reached us, which we are bound to have kept, and which the
    /// provider still takes.
    fn held_and_live(&self) -> Vec<Token> {
        let Some(family) = self.consented.and_then(|c| self.provider.family(c)) else { return vec![] };
        let reached = self.reached.iter().filter(|r| r.in_memory || r.in_journal || r.in_store).map(|r| r.brought);
        let late = self.time + WINDOW * 2;
        reached
            .chain(self.consented)
            .filter(|t| self.provider.family(*t) == Some(family) && self.provider.is_live(*t, late))
            .collect()
    }

    fn check_nothing_lost(&mut self, alive: &[Token]) {
        let Some(family) = self.consented.and_then(|c| self.provider.family(c)) else { return };
        self.reach.excepted = u32::from(self.excepted);
        if alive.is_empty() || self.excepted || self.violation.is_some() {
            return;
        }
        self.reach.checked = 1;
        let Content::Live(connection) = self.store.content() else {
            return self.violate(format!("1: tokens {alive:?} were good, and the connection is gone"));
        };
        let held = connection.fingerprint().map(token_of);
        let good = held.is_some_and(|t| self.provider.family(t) == Some(family) && self.provider.is_live(t, self.time));
        if !good {
            let health = connection.health.clone();
            self.violate(format!("1: tokens {alive:?} were good, the record holds {held:?} ({health:?})"));
        }
        if !self.instances.iter().any(Instance::runs) {
            return;
        }
        let generation = match self.store.content() {
            Content::Live(connection) => connection.generation,
            _ => Generation(0),
        };
        if self.violation.is_none() && generation == Generation(0) {
            self.violate("the generation went back to nothing");
        }
    }
}

fn renewal(token: Token) -> Renewal {
    Renewal { by: RenewBy::RefreshToken(format!("refresh {token}").into()), fingerprint: fingerprint(token) }
}

fn token_of(fingerprint: Fingerprint) -> Token {
    Token::from_be_bytes([fingerprint.0[0], fingerprint.0[1], fingerprint.0[2], fingerprint.0[3]])
}

fn brief(pending: &Pending) -> String {
    match pending {
        Pending::Write { connection, expect } => {
            let expect = expect.as_ref().map(|v| v.0.as_str());
            let attempt = connection.attempt.as_ref().map(|a| (a.owner, a.phase, a.renewal, a.replays));
            let (generation, held) = (connection.generation, connection.fingerprint().map(token_of));
            let alternate = connection.alternate.as_ref().map(|a| token_of(a.renewal.fingerprint));
            let health = &connection.health;
            format!(
                "Write gen {generation} token {held:?} alternate {alternate:?} attempt {attempt:?} {health:?} over {expect:?}"
            )
        }
        Pending::Keep(held) => format!("Keep token {:?}", held.successor.fingerprint().map(token_of)),
        other => format!("{other:?}"),
    }
}

fn brief_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Current(c) => format!("Current gen {}", c.generation),
        Outcome::Refreshed(c) => format!("Refreshed gen {}", c.generation),
        Outcome::Blocked { retry_in, .. } => format!("Blocked for {retry_in:?}"),
        Outcome::BackingOff(_) => "BackingOff".into(),
        Outcome::Dead { reason, .. } => format!("Dead: {reason}"),
        Outcome::Failed { fault, .. } => format!("Failed: {fault:?}"),
        Outcome::Absent => "Absent".into(),
        Outcome::Behind => "Behind".into(),
        Outcome::StoreUnavailable => "StoreUnavailable".into(),
    }
}
