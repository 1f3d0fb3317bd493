//! Whether what is heard is all there is to hear: a pure state machine.
//!
//! A bus may lose anything at any time without a word. So silence proves nothing, unless something would have been
//! heard: our own messages come back, every peer speaks at least every [`HEARTBEAT`], and each numbers what it sends.
//! While all of them are heard in time and no number is missing, this instance *trusts*: nothing was changed that it
//! has not been told of. Otherwise it is *cautious*, and asks the store about what it serves. What it may have missed,
//! it *owes*: before it trusts again, it must catch up on what was changed since everything was still in order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokenkeep_core::{Boot, InstanceId};

/// How often everybody says at least that they are there.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(250);
/// Our own message that has not come back after this says that there is no bus.
pub(super) const ECHO: Duration = Duration::from_millis(500);
/// A peer that was not heard for so long may be doing things that we are not told.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);
/// How many of those who left are remembered, so that what was recorded of them cannot be played back.
const DEPARTED: usize = 1024;

/// What one instance knows of who can be heard.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    own: InstanceId,
    listening: bool,
    /// When our messages that have not come back yet were sent, by their numbers.
    sent: VecDeque<(u64, Boot)>,
    /// When the last of ours that came back was *sent*: whatever the broker took before that, we have heard by now.
    echoed: Option<Boot>,
    /// When the echoes began that have not been missed since.
    hearing_since: Option<Boot>,
    /// The number expected next of ourselves.
    next_own: Next,
    peers: BTreeMap<InstanceId, Peer>,
    /// Those who left, or are said to be gone.
    departed: BTreeMap<InstanceId, Departed>,
    owed: Option<Owed>,
    trusting: bool,
    /// When everything was last in order, nothing owed.
    in_order: Boot,
    /// Catch-ups are numbered, so that one that began before a loss does not pay for it.
    catch_ups: u64,
    missing: u64,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// When it was last heard. One that only the registry shows has as long as any other to be heard.
    heard: Boot,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
struct Departed {
    /// The number it would have used next.
    next: Next,
    /// It said so itself.
    in_order: bool,
}

/// Which number is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// This one or any later: what comes before it is owed already.
    From(u64),
    /// This one: if a later comes, those in between were lost.
    Exactly(u64),
}

impl Next {
    /// Whether it would not be noticed if the next message were lost.
    fn is_loose(self) -> bool {
        matches!(self, Next::From(_))
    }

    /// The same, where what comes before is owed in any case.
    fn loosely(self) -> Self {
        let (Next::From(number) | Next::Exactly(number)) = self;
        Next::From(number)
    }
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    /// Everything was in order then, or so long before.
    since: Boot,
    reach: Duration,
    /// The catch-up that would pay for it.
    under_way: Option<CatchUp>,
}

/// One catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CatchUp(u64);

/// What a look at the state brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Everything is heard again; catch up on what was changed within `gap` before now.
    CatchUp { number: CatchUp, gap: Duration },
    /// From now on this instance trusts.
    Trusting,
    /// From now on it does not.
    Cautious(Doubt),
}

/// Why an instance is cautious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It is not subscribed.
    Deaf,
    /// Its own messages do not come back.
    NoEcho,
    /// That peer is not heard.
    Silent(InstanceId),
    /// Everybody is heard, but not everything was.
    Behind,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Doubt::Deaf => f.write_str("there is no subscription"),
            Doubt::NoEcho => f.write_str("what is published does not come back"),
            Doubt::Silent(peer) => write!(f, "instance {peer} is not heard"),
            Doubt::Behind => f.write_str("messages were lost"),
        }
    }
}

impl Trust {
    /// Nothing is heard yet, and everything since `reach` before now is owed.
    pub(super) fn new(own: InstanceId, now: Boot, reach: Duration) -> Self {
        Self {
            own,
            listening: false,
            sent: VecDeque::new(),
            echoed: None,
            hearing_since: None,
            next_own: Next::From(0),
            peers: BTreeMap::new(),
            departed: BTreeMap::new(),
            owed: Some(Owed { since: now, reach, under_way: None }),
            trusting: false,
            in_order: now,
            catch_ups: 0,
            missing: 0,
        }
    }

    /// A subscription begins: from now on a missing number is a loss.
    pub(super) fn subscribed(&mut self, now: Boot) {
        self.listening = true;
        self.echoed = None;
        self.next_own = self.next_own.loosely();
        for peer in self.peers.values_mut() {
            *peer = Peer { heard: now, next: peer.next.loosely() };
        }
        self.owe();
    }

    /// The subscription ended.
    pub(super) fn deaf(&mut self) {
        self.listening = false;
        self.owe();
    }

    /// Our message of that number is about to be published.
    pub(super) fn sending(&mut self, number: u64, now: Boot) {
        // What is not echoed within its time will not help any more.
        while self.sent.front().is_some_and(|(_, at)| now.since(*at) > ECHO) {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now));
    }

    /// Heard message `number` of `from`. Whether it is one that was never heard before.
    pub(super) fn heard(&mut self, from: InstanceId, number: u64, now: Boot) -> bool {
        if from == self.own {
            let new = self.in_turn(self.next_own, number);
            if new {
                if !self.is_echoed(now) {
                    self.hearing_since = Some(now);
                }
                self.next_own = Next::Exactly(number + 1);
                while let Some((_, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= number) {
                    self.echoed = Some(at);
                }
            }
            return new;
        }
        let expected = match (self.peers.get(&from), self.departed.get(&from)) {
            (Some(peer), _) => peer.next,
            // It was thought to be gone. Only what it could not have said before shows that it is not.
            (None, Some(departed)) => departed.next,
            // Its first message is number 0; what we did not hear before any other was lost.
            (None, None) => Next::Exactly(0),
        };
        if !self.in_turn(expected, number) {
            return false;
        }
        self.departed.remove(&from);
        self.peers.insert(from, Peer { heard: now, next: Next::Exactly(number + 1) });
        true
    }

    /// Whether `number` is new; if some before it are missing, they are owed.
    fn in_turn(&mut self, expected: Next, number: u64) -> bool {
        match expected {
            Next::From(next) => number >= next,
            Next::Exactly(next) => {
                if number > next {
                    self.missing += number - next;
                    self.owe();
                }
                number >= next
            }
        }
    }

    /// How many others there are: heard, or thought to be at work.
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// How many messages were never heard, by their numbers.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// That peer ends in good order, having told everything.
    pub(super) fn left(&mut self, peer: InstanceId) {
        self.depart(peer, true);
    }

    fn depart(&mut self, peer: InstanceId, in_order: bool) {
        let next = self.peers.remove(&peer).map_or(Next::Exactly(0), |peer| peer.next);
        self.departed.insert(peer, Departed { next, in_order });
        while self.departed.len() > DEPARTED {
            self.departed.pop_first();
        }
    }

    /// The registry shows that peer at work: it should be heard.
    pub(super) fn peer_seen(&mut self, peer: InstanceId, now: Boot) {
        let departed = self.departed.get(&peer);
        // A registry that is behind does not bring back who left.
        if peer == self.own || departed.is_some_and(|departed| departed.in_order) {
            return;
        }
        let next = departed.map_or(Next::Exactly(0), |departed| departed.next);
        self.departed.remove(&peer);
        self.peers.entry(peer).or_insert(Peer { heard: now, next });
    }

    /// That peer is surely gone; what it did last may never have been told.
    pub(super) fn peer_gone(&mut self, peer: InstanceId) {
        if self.peers.contains_key(&peer) {
            self.owe();
            self.depart(peer, false);
        }
    }

    /// That catch-up has been done. Whether it pays for everything that is owed.
    pub(super) fn caught_up(&mut self, number: CatchUp) -> bool {
        let pays = self.owed.is_some_and(|owed| owed.under_way == Some(number));
        if pays {
            self.owed = None;
        }
        pays
    }

    /// Compares what is heard with what should be; to be asked after every change, and when [`Trust::holds_until`]
    /// has come.
    pub(super) fn turn(&mut self, now: Boot) -> Option<Turn> {
        let doubt = self.doubt(now);
        match (doubt, &mut self.owed) {
            (None, None) => {
                self.in_order = now;
                (!std::mem::replace(&mut self.trusting, true)).then_some(Turn::Trusting)
            }
            (None, Some(owed)) if !self.trusting && owed.under_way.is_none() => {
                self.catch_ups += 1;
                let number = CatchUp(self.catch_ups);
                owed.under_way = Some(number);
                Some(Turn::CatchUp { number, gap: now.since(owed.since) + owed.reach })
            }
            (doubt, _) => {
                let doubt = doubt.unwrap_or(Doubt::Behind);
                std::mem::replace(&mut self.trusting, false).then_some(Turn::Cautious(doubt))
            }
        }
    }

    /// Why not everybody is heard, if so.
    pub(super) fn doubt(&self, now: Boot) -> Option<Doubt> {
        if !self.listening {
            return Some(Doubt::Deaf);
        }
        if !self.is_echoed(now) {
            return Some(Doubt::NoEcho);
        }
        let silent = self.peers.iter().find(|(_, peer)| peer.next.is_loose() || now.since(peer.heard) >= SILENCE);
        silent.map(|(id, _)| Doubt::Silent(*id))
    }

    /// Since when the bus has been heard without a gap, whoever speaks on it; `None` = it is not.
    pub(super) fn hearing_since(&self, now: Boot) -> Option<Boot> {
        self.hearing_since.filter(|_| self.listening && self.is_echoed(now))
    }

    fn is_echoed(&self, now: Boot) -> bool {
        self.echoed.is_some_and(|at| now.since(at) < ECHO)
    }

    /// Until when what is heard now is enough to trust, without another look; `None` = there is no trust.
    pub(super) fn holds_until(&self) -> Option<Boot> {
        let heard = self.peers.values().map(|peer| peer.heard + SILENCE);
        let echoed = self.echoed.filter(|_| self.trusting)? + ECHO;
        Some(heard.fold(echoed, Boot::min))
    }

    /// Something may have been missed since everything was in order; a catch-up that has begun does not cover it.
    fn owe(&mut self) {
        let (since, reach) = self.owed.map_or((self.in_order, Duration::ZERO), |owed| (owed.since, owed.reach));
        self.owed = Some(Owed { since, reach, under_way: None });
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
