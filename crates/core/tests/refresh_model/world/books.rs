//! The books: what reached us, who spends what, and what must never happen.

use std::time::Duration;

use tokenkeep_core::{Connection, Generation, Health, InstanceId, Rotation, ports::Version};

use super::{InFlight, Reached, World, token_of};
use crate::{
    instance::{Instance, Told},
    provider::{Token, WINDOW, fingerprint},
    store::Content,
};

impl World {
    pub(super) fn write(&mut self, connection: &Connection, expect: Option<&Version>) -> Option<Version> {
        // Others carry an attempt along when they write; only its owner renews it.
        let shows = connection.attempt.as_ref().filter(|attempt| match self.store.content() {
            Content::Live(before) => before.attempt.as_ref() != Some(attempt),
            _ => true,
        });
        let shown = shows.map(|attempt| attempt.owner);
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
        if let Some(owner) = shown {
            self.shown.insert(owner, self.time);
        }
        Some(version)
    }

    /// What readers get must outlive the process that gives it to them.
    pub(super) fn check_durable(&mut self, published: &Connection) {
        let kept = |r: &&Reached| r.in_store || r.holders.values().any(|durable| durable.0);
        let brought = published.fingerprint();
        // What a provider hands out again and again is told apart by nothing.
        let mut with = self.reached.iter().filter(|r| r.brought != r.spent && Some(fingerprint(r.brought)) == brought);
        let lost = with.clone().next().is_some() && !with.any(|r| kept(&r));
        if lost && !self.rolled_back {
            self.violate(format!("1: {brought:?} is served, and durable nowhere"));
        }
    }

    /// What everybody may have heard by now.
    pub(super) fn told(&self) -> Told {
        self.reached.iter().filter_map(|r| Some((r.brought, r.told?))).collect()
    }

    /// The first byte of `i` leaves; `told` is what it may have heard when it was about to send it.
    pub(super) fn send(&mut self, i: usize, token: Token, told: &Told) {
        let owner = self.instances[i].id;
        let unknown = self.reached.iter().filter(|r| r.spent == token && r.brought != token);
        let own = |r: &Reached| r.holders.contains_key(&owner);
        if unknown.clone().any(own) {
            return self.violate(format!("1: {owner} spends token {token}, though it holds its successor"));
        }
        // Others who are spending it, or who hold a reply that nobody else can see.
        let others: Vec<(InstanceId, Option<Duration>)> = self
            .in_flight
            .iter()
            .filter(|f| f.token == token)
            .map(|f| (f.owner, None))
            .chain(
                unknown
                    .filter(|r| !r.holders.is_empty() || r.in_store)
                    .map(|r| (r.owner, told.get(&r.brought).copied())),
            )
            .collect();
        if let Some(cache) = &self.cache
            && let Some(copy) = &cache.copy
            && copy.held.spent == fingerprint(token)
            && copy.held.rotated()
            && copy.since < self.instances[i].began
            && self.setting.rotation == Rotation::Strict
            && !self.rolled_back
            && self.is_of_the_consented_grant(token)
        {
            return self.violate(format!("1: {owner} spends token {token}, though its successor is shared"));
        }
        for (other, told) in others {
            match self.may_spend_beside(other, told) {
                Some(excepted) => self.excepted |= excepted,
                None => self.violate(format!("2: token {token} is spent by {owner} while {other} is spending it")),
            }
        }
        self.shown.insert(owner, self.time);
        self.in_flight.push(InFlight { owner, token });
    }

    /// Whether what `other` spends may be spent by somebody else now, and if so, whether only by an exception.
    /// `told` = when it was last said that its reply is held.
    pub(super) fn may_spend_beside(&self, other: InstanceId, told: Option<Duration>) -> Option<bool> {
        let silent = self.shown.get(&other).map_or(Duration::MAX, |shown| self.time.saturating_sub(*shown));
        let lease_over = silent >= self.policy.lease;
        match self.setting.rotation {
            _ if self.rolled_back => Some(true),
            Rotation::None | Rotation::Overlap | Rotation::Predecessor if lease_over => Some(false),
            Rotation::Grace { .. } if lease_over && silent <= WINDOW => Some(false),
            Rotation::Grace { .. } if lease_over && self.setting.jumps => Some(true),
            _ => {
                let untold = told.is_none_or(|told| self.time.saturating_sub(told) >= self.policy.silence);
                (untold && silent >= self.policy.lease + self.policy.silence).then_some(true)
            }
        }
    }

    /// Whether the user has not consented anew since: an earlier grant is only tried where the newer one is refused.
    fn is_of_the_consented_grant(&self, token: Token) -> bool {
        let family = |token| self.provider.family(token);
        self.consented.is_some_and(|consented| family(consented) == family(token))
    }

    /// Refresh tokens of the consented grant which reached us, which we are bound to have kept, and which the
    /// provider still takes.
    pub(super) fn held_and_live(&self) -> Vec<Token> {
        let Some(family) = self.consented.and_then(|c| self.provider.family(c)) else { return vec![] };
        let shared = self.cache.as_ref().and_then(|cache| cache.copy.as_ref()?.held.successor.fingerprint());
        let kept = |r: &&Reached| !r.holders.is_empty() || r.in_store || shared == Some(fingerprint(r.brought));
        let reached = self.reached.iter().filter(kept).map(|r| r.brought);
        let late = self.time + WINDOW * 2;
        reached
            .chain(self.consented)
            .filter(|t| self.provider.family(*t) == Some(family) && self.provider.is_live(*t, late))
            .collect()
    }

    pub(super) fn check_nothing_lost(&mut self, alive: &[Token]) {
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
