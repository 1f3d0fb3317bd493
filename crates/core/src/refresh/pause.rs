use std::{collections::VecDeque, time::Duration};

use crate::Boot;

/// Guards one integration against marking all its connections at once. When most refreshes turn `invalid_grant`
/// within a minute, the cause is rather ours (a secret swapped, a client re-created) than each user's.
#[derive(Clone, Debug, Default)]
pub struct Pause {
    recent: VecDeque<(Boot, bool)>,
    until: Option<Boot>,
}

/// What a refusal means, given the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseVerdict {
    /// It is this connection's own.
    Believe,
    /// It is one too many. `first` says that the pause begins with it: alert once.
    Pause {
        /// Whether the pause begins here.
        first: bool,
    },
}

const WINDOW: Duration = Duration::from_mins(1);
const LENGTH: Duration = Duration::from_mins(5);
/// So few refusals are nobody's fault but their own.
const MINIMUM: usize = 10;
const MEMORY: usize = 1024;

impl Pause {
    /// Whether refreshing is paused at `now`.
    pub fn is_paused(&self, now: Boot) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// A refresh brought tokens: whatever was wrong is not wrong for all.
    pub fn succeeded(&mut self, now: Boot) {
        self.until = None;
        self.push(now, false);
    }

    /// A refresh was refused with `invalid_grant`.
    pub fn refused(&mut self, now: Boot) -> PauseVerdict {
        self.push(now, true);
        if self.is_paused(now) {
            return PauseVerdict::Pause { first: false };
        }
        let refused = self.recent.iter().filter(|(_, refused)| *refused).count();
        if refused >= MINIMUM && refused * 2 > self.recent.len() {
            self.until = Some(now + LENGTH);
            PauseVerdict::Pause { first: true }
        } else {
            PauseVerdict::Believe
        }
    }

    fn push(&mut self, now: Boot, refused: bool) {
        self.recent.push_back((now, refused));
        while self.recent.len() > MEMORY || self.recent.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_few_refusals_are_each_connections_own() {
        let mut pause = Pause::default();
        for second in 0..9 {
            assert_eq!(pause.refused(at(second)), PauseVerdict::Believe);
        }
        assert!(!pause.is_paused(at(9)));
    }

    #[test]
    fn most_of_many_pause_until_one_succeeds_or_time_is_up() {
        let mut pause = Pause::default();
        for second in 0..9 {
            pause.refused(at(second));
        }
        assert_eq!(pause.refused(at(9)), PauseVerdict::Pause { first: true });
        assert_eq!(pause.refused(at(10)), PauseVerdict::Pause { first: false });
        assert!(pause.is_paused(at(8) + LENGTH));
        assert!(!pause.is_paused(at(9) + LENGTH));
        pause.succeeded(at(11));
        assert!(!pause.is_paused(at(12)));
    }

    #[test]
    fn many_among_more_that_succeed_are_believed() {
        let mut pause = Pause::default();
        for n in 0..40 {
            pause.succeeded(at(n));
            assert_eq!(pause.refused(at(n)), PauseVerdict::Believe);
        }
    }

    #[test]
    fn what_is_a_minute_old_is_forgotten() {
        let mut pause = Pause::default();
        for n in 0..40 {
            assert_eq!(pause.refused(at(n * 10)), PauseVerdict::Believe);
        }
    }
}
