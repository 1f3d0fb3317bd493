//! One instance: its clocks, its journal, and the flight it is on.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use tokenkeep_core::{
    Boot, Connection, Generation, Incarnation, InstanceId, Now,
    ports::Version,
    refresh::{Beacon, Flight, Held, Listening, Timer, Watch},
};

use crate::provider::Token;

/// When each reply was last said to be held, in true time, by the token that it brought.
pub type Told = BTreeMap<Token, Duration>;

/// What the flight waits for.
#[derive(Debug)]
pub enum Pending {
    Read,
    Write {
        connection: Box<Connection>,
        expect: Option<Version>,
    },
    Connect,
    /// Not a byte is out yet. What is `told` from now on comes too late to be heard.
    Spend {
        token: Token,
        not_after: Boot,
        told: Told,
    },
    /// The request is on its way, or with the provider.
    Sent {
        token: Token,
        sent_at: Duration,
    },
    /// The provider has acted; its reply is on the way.
    Replied {
        token: Token,
        sent_at: Duration,
        reply: Option<Token>,
    },
    Keep(Box<Held>),
    /// Still being written when the flight was over already.
    LateKeep(Box<Held>),
    /// A copy for the shared cache, and a beacon.
    Share(Box<Held>),
    Beacon(Box<Held>),
    Withdraw(Box<Held>),
    Seek,
    Timer {
        timer: Timer,
        at: Duration,
    },
}

#[derive(Debug)]
pub struct Journal {
    pub entries: Vec<Entry>,
}

/// What a process knows of a reply; on disk only if `durable`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub held: Held,
    pub durable: bool,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a misfortune of its own")]
pub struct Instance {
    pub id: InstanceId,
    pub frozen: bool,
    pub dead: bool,
    /// From the store; others may reach it.
    pub cut_off: bool,
    /// Wall clock minus true time, in milliseconds.
    pub skew: i64,
    pub journal: Journal,
    pub gone: Vec<InstanceId>,
    /// Adopted replies whose fate is not known yet.
    pub adopted: Vec<Held>,
    pub flight: Option<Flight>,
    pub pending: Vec<Pending>,
    /// The newest generation served, and when its token dies: the cache forgets it then.
    pub served: Option<(Incarnation, Generation, Timestamp)>,
    pub watch: Option<Watch>,
    pub beacon: Option<Beacon>,
    pub listening: Listening,
    /// When its flight began.
    pub began: Duration,
    /// Whether the record was ever missing while this flight looked.
    pub saw_nothing: bool,
}

pub const EPOCH: i64 = 1_800_000_000_000;

impl Instance {
    pub fn new(id: InstanceId) -> Self {
        Self {
            id,
            frozen: false,
            dead: false,
            cut_off: false,
            skew: 0,
            journal: Journal { entries: vec![] },
            gone: vec![],
            adopted: vec![],
            flight: None,
            pending: vec![],
            served: None,
            watch: None,
            beacon: None,
            listening: Listening::NoBus,
            began: Duration::ZERO,
            saw_nothing: false,
        }
    }

    pub fn now(&self, true_time: Duration) -> Now {
        let millis = EPOCH + i64::try_from(true_time.as_millis()).expect("short runs") + self.skew;
        Now { wall: Timestamp::from_millisecond(millis).expect("in range"), boot: Boot(true_time) }
    }

    pub fn runs(&self) -> bool {
        !self.dead && !self.frozen
    }

    pub fn newest_kept(&self) -> Option<&Held> {
        let held = self.journal.entries.iter().map(|e| &e.held);
        held.max_by_key(|h| (h.successor.incarnation, h.successor.generation))
    }
}
