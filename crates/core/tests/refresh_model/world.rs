//! The world: it carries out what happens, keeps its own books, and compares.

mod books;
mod processes;
mod progress;
mod recovery;
mod story;
mod users;

use std::{collections::BTreeMap, time::Duration};

use tokenkeep_core::{
    ConnectionId, Credentials, Fingerprint, InstanceId, IntegrationId, LoginGrant, RefreshPolicy, RenewBy, Renewal,
    Rotation, Subject, Tenant, id::Ulid, ports::Version, refresh::Listening,
};

use crate::{
    instance::Instance,
    provider::{Provider, Token, fingerprint},
    schedule::Action,
    sharing::{Bus, SharedCache},
    store::Store,
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
    SeekErrorReadAsNone,
    CopyNotLookedFor,
    BeaconIgnored,
    DeafnessTakenForSilence,
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can be switched off by itself")]
pub struct Setting {
    pub instances: usize,
    pub rotation: Rotation,
    /// Whether credentials are spent, where the provider uses nothing up.
    pub logins: bool,
    pub rollbacks: bool,
    pub users: bool,
    pub jumps: bool,
    pub cache: bool,
    pub bus: bool,
    /// Whether it begins with an instance that holds a reply and cannot reach the store.
    pub held: bool,
    pub spoilt_by: Option<SpoiltBy>,
}

/// A reply that reached a process of ours: the books of invariant 1, kept apart from the code under test.
#[derive(Debug)]
struct Reached {
    /// Who spent for it.
    owner: InstanceId,
    spent: Token,
    brought: Token,
    /// Which processes know it, and whether their journals do.
    holders: BTreeMap<InstanceId, Durable>,
    in_store: bool,
    /// When somebody last told the others that it holds it, in true time.
    told: Option<Duration>,
}

/// Whether it would outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Durable(bool);

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
    pub shared: u32,
    pub found: u32,
    pub told_in_time: u32,
    pub cache_unreadable: u32,
    pub excepted: u32,
    pub checked: u32,
}

#[derive(Debug)]
pub struct World {
    pub setting: Setting,
    pub reach: Reach,
    pub time: Duration,
    pub store: Store,
    pub cache: Option<SharedCache>,
    pub bus: Option<Bus>,
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
            cache: setting.cache.then(SharedCache::default),
            bus: setting.bus.then(Bus::default),
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
        world.listen_all();
        world.consent();
        if setting.held {
            world.begin_with_a_reply_held();
        }
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
            Action::Thaw(i) => {
                self.instances[i].frozen = false;
                self.listen(i);
            }
            Action::CutOff(i) => self.instances[i].cut_off = true,
            Action::Reconnect(i) => self.instances[i].cut_off = false,
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
            Action::CacheDown | Action::CacheUp => {
                self.cache.iter_mut().for_each(|cache| cache.down = matches!(action, Action::CacheDown));
            }
            Action::CacheLost => self.cache.iter_mut().for_each(SharedCache::lose),
            Action::BusDown | Action::BusUp => {
                self.bus.iter_mut().for_each(|bus| bus.down = matches!(action, Action::BusDown));
                self.listen_all();
            }
            Action::Deafen(i) => self.instances[i].listening = Listening::Deaf,
            Action::HearAgain(i) => self.listen(i),
            Action::Ghost(ghost) => {
                let (connection, expect) = self.ghosts.remove(ghost);
                self.write(&connection, expect.as_ref());
            }
        }
    }
}

fn renewal(setting: &Setting, token: Token) -> Renewal {
    let secret = format!("refresh {token}").into();
    let by = if setting.logins && setting.rotation == Rotation::None {
        RenewBy::Login(LoginGrant { credentials: Credentials::ApiKey(secret), ttl: None })
    } else {
        RenewBy::RefreshToken(secret)
    };
    Renewal { by, fingerprint: fingerprint(token) }
}

fn token_of(fingerprint: Fingerprint) -> Token {
    Token::from_be_bytes([fingerprint.0[0], fingerprint.0[1], fingerprint.0[2], fingerprint.0[3]])
}
