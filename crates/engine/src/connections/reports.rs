use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokenkeep_core::{Boot, ConnectionId, Generation};

/// Holds back callers who report every new token as bad: what they see is not a bad token.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    recent: Mutex<HashMap<ConnectionId, VecDeque<(Boot, Generation)>>>,
}

const WINDOW: Duration = Duration::from_mins(1);
const ALLOWED: usize = 5;
/// So many connections are remembered; beyond that, those whose minute is over are forgotten.
const TIDY_AT: usize = 1024;

impl Reports {
    /// Counts a report of the current `generation`; `Err` = too many, and how long to wait. Many reports of one
    /// generation are one.
    pub(crate) fn count(&self, id: &ConnectionId, generation: Generation, now: Boot) -> Result<(), Duration> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= TIDY_AT {
            recent.retain(|_, reports| reports.back().is_some_and(|(at, _)| now.since(*at) < WINDOW));
        }
        let reports = recent.entry(id.clone()).or_default();
        while reports.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            reports.pop_front();
        }
        if reports.iter().any(|(_, reported)| *reported == generation) {
            return Ok(());
        }
        if reports.len() >= ALLOWED {
            let first = reports.front().map_or(now, |(at, _)| *at);
            return Err(WINDOW.saturating_sub(now.since(first)));
        }
        reports.push_back((now, generation));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::{IntegrationId, Subject, Tenant};

    use super::*;

    #[test]
    fn the_sixth_new_token_in_a_minute_is_not_believed_to_be_bad() {
        let id = ConnectionId {
            integration: IntegrationId::new("p").unwrap(),
            tenant: Tenant::default_tenant(),
            subject: Subject::default_subject(),
        };
        let reports = Reports::default();
        let at = |s| Boot(Duration::from_secs(s));
        for generation in 1..=5 {
            for _ in 0..1000 {
                assert_eq!(reports.count(&id, Generation(generation), at(generation)), Ok(()));
            }
        }
        assert_eq!(reports.count(&id, Generation(6), at(6)), Err(Duration::from_secs(55)));
        assert_eq!(reports.count(&id, Generation(6), at(61)), Ok(()));
    }
}
