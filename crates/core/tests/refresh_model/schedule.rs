//! What may happen next.

use std::time::Duration;

use tokenkeep_core::refresh::{Cause, Listening};

use crate::{
    instance::Pending,
    world::{LIFE, World},
};

/// How something that was under way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Well,
    /// Done, but the answer is lost.
    AnswerLost,
    /// Never done, and nobody says so.
    RequestLost,
    /// Not done, and it says so.
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub enum Action {
    Begin { instance: usize, cause: Cause },
    Progress { instance: usize, pending: usize, how: How },
    Advance(Duration),
    Freeze(usize),
    Thaw(usize),
    CutOff(usize),
    Reconnect(usize),
    Kill { instance: usize, written: bool, for_good: bool },
    Restart(usize),
    Jump { instance: usize, millis: i64 },
    StoreDown,
    StoreUp,
    RollBack(usize),
    Consent,
    PutAccessOnly,
    Delete,
    Ghost(usize),
    CacheDown,
    CacheUp,
    CacheLost,
    BusDown,
    BusUp,
    Deafen(usize),
    HearAgain(usize),
}

impl World {
    /// Everything that may happen now, with weights.
    pub fn possible(&self) -> Vec<(u32, Action)> {
        let mut actions = vec![
            (3, Action::Advance(Duration::from_millis(700))),
            (2, Action::Advance(Duration::from_secs(6))),
            (1, Action::Advance(Duration::from_secs(40))),
            (1, Action::Advance(Duration::from_secs(130))),
            (2, Action::Advance(LIFE)),
        ];
        for (i, instance) in self.instances.iter().enumerate() {
            if instance.dead {
                if !self.lost_for_good[i] {
                    actions.push((4, Action::Restart(i)));
                }
                continue;
            }
            for (p, pending) in instance.pending.iter().enumerate() {
                self.outcomes(i, p, pending, &mut actions);
            }
            if instance.frozen {
                actions.push((4, Action::Thaw(i)));
                continue;
            }
            actions.push((1, Action::Freeze(i)));
            actions.push((1, Action::Kill { instance: i, written: true, for_good: false }));
            actions.push((1, Action::Kill { instance: i, written: false, for_good: false }));
            if self.instances.iter().filter(|i| i.runs()).count() > 1 {
                let weight = if instance.cut_off { 3 } else { 1 };
                actions.push((weight, Action::Kill { instance: i, written: true, for_good: true }));
            }
            actions.push(if instance.cut_off { (1, Action::Reconnect(i)) } else { (1, Action::CutOff(i)) });
            if self.setting.jumps {
                actions.push((1, Action::Jump { instance: i, millis: 90_000 }));
                actions.push((1, Action::Jump { instance: i, millis: -90_000 }));
            }
            if instance.flight.is_none() {
                let generation = instance.served.map_or_else(Default::default, |(_, g, _)| g);
                actions
                    .push((12, Action::Begin { instance: i, cause: Cause::Read { min_ttl: Duration::from_secs(60) } }));
                actions.push((4, Action::Begin { instance: i, cause: Cause::Due }));
                actions.push((3, Action::Begin { instance: i, cause: Cause::Reported { generation } }));
                actions.push((1, Action::Begin { instance: i, cause: Cause::Forced }));
            }
        }
        if self.store.down {
            actions.push((4, Action::StoreUp));
        } else {
            actions.push((1, Action::StoreDown));
        }
        if self.setting.rollbacks && self.store.can_roll_back() {
            actions.push((1, Action::RollBack(1)));
            actions.push((1, Action::RollBack(3)));
        }
        if self.setting.users && !self.store.down {
            actions.push((1, Action::Consent));
            actions.push((1, Action::PutAccessOnly));
            actions.push((1, Action::Delete));
        }
        if let Some(cache) = &self.cache {
            actions.push(if cache.down { (2, Action::CacheUp) } else { (1, Action::CacheDown) });
            if cache.copy.is_some() {
                actions.push((1, Action::CacheLost));
            }
        }
        if let Some(bus) = &self.bus {
            actions.push(if bus.down { (2, Action::BusUp) } else { (1, Action::BusDown) });
            for (i, instance) in self.instances.iter().enumerate().filter(|(_, i)| i.runs() && !bus.down) {
                let deaf = instance.listening == Listening::Deaf;
                actions.push(if deaf { (2, Action::HearAgain(i)) } else { (1, Action::Deafen(i)) });
            }
        }
        for ghost in 0..self.ghosts.len() {
            actions.push((2, Action::Ghost(ghost)));
        }
        actions
    }

    fn outcomes(&self, instance: usize, pending: usize, what: &Pending, actions: &mut Vec<(u32, Action)>) {
        let mut offer = |weight, how| actions.push((weight, Action::Progress { instance, pending, how }));
        let runs = self.instances[instance].runs();
        match what {
            // The provider works whether or not we are frozen.
            Pending::Sent { .. } => offer(16, How::Well),
            _ if !runs => return,
            Pending::Timer { at, .. } if *at > self.time => return,
            Pending::Read | Pending::Timer { .. } => offer(16, How::Well),
            Pending::Write { .. } => {
                offer(20, How::Well);
                offer(2, How::AnswerLost);
                offer(1, How::RequestLost);
            }
            Pending::Connect | Pending::Keep(_) | Pending::LateKeep(_) => {
                offer(16, How::Well);
                offer(1, How::Failed);
            }
            Pending::Seek => {
                offer(16, How::Well);
                offer(1, How::Failed);
            }
            Pending::Share(_) | Pending::Beacon(_) | Pending::Withdraw(_) => {
                offer(16, How::Well);
                offer(2, How::RequestLost);
            }
            Pending::Spend { .. } => offer(16, How::Well),
            Pending::Replied { .. } => offer(16, How::Well),
        }
        if runs && matches!(what, Pending::Sent { .. } | Pending::Replied { .. }) {
            offer(2, How::AnswerLost);
        }
    }
}
