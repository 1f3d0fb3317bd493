//! The end of a run: everything that can come back does.

use std::time::Duration;

use tokenkeep_core::refresh::Cause;

use super::{LIFE, World};
use crate::{instance::Pending, provider::Token, schedule::How};

impl World {
    /// Everything that can come back comes back, and nothing goes wrong any more.
    pub fn recover(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.tell(|| "recovery".into());
        self.store.down = false;
        self.cache.iter_mut().for_each(|cache| cache.down = false);
        self.bus.iter_mut().for_each(|bus| bus.down = false);
        self.listen_all();
        self.ghosts.clear();
        let alive: Vec<Token> = self.held_and_live();
        for i in 0..self.instances.len() {
            (self.instances[i].frozen, self.instances[i].cut_off) = (false, false);
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

    /// Schedules that lead here by themselves are few.
    pub(super) fn begin_with_a_reply_held(&mut self) {
        self.time += LIFE;
        self.begin(0, Cause::Read { min_ttl: Duration::from_secs(60) });
        while !matches!(self.instances[0].pending[0], Pending::Replied { .. }) {
            self.progress(0, 0, How::Well);
        }
        self.instances[0].cut_off = true;
        self.run_out(0);
    }

    /// Carries one instance on until it only waits for time to pass.
    pub(super) fn run_out(&mut self, i: usize) {
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
}
