use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokenkeep_core::{
    Boot, ConnectionId, Generation,
    ports::{Counter, Limit, Taken},
};

/// Holds back callers who report every new token as bad: what they see is not a bad token.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    recent: Mutex<HashMap<ConnectionId, VecDeque<(Boot, Generation)>>>,
}

const WINDOW: Duration = Duration::from_mins(1);
const ALLOWED: NonZeroU32 = NonZeroU32::new(5).expect("five is not none");
/// So many connections are remembered; beyond that, those whose minute is over are forgotten.
const TIDY_AT: usize = 1024;

/// A report that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The first of its generation, as far as this instance saw.
    First,
    /// One of many.
    Again,
}

impl Reports {
    /// Counts a report of the current `generation`; `Err` = too many, and how long to wait. Many reports of one
    /// generation are one.
    pub(crate) fn count(&self, id: &ConnectionId, generation: Generation, now: Boot) -> Result<Report, Duration> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= TIDY_AT {
            recent.retain(|_, reports| reports.back().is_some_and(|(at, _)| now.since(*at) < WINDOW));
        }
        let reports = recent.entry(id.clone()).or_default();
        while reports.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            reports.pop_front();
        }
        if reports.iter().any(|(_, reported)| *reported == generation) {
            return Ok(Report::Again);
        }
        if reports.len() >= ALLOWED.get() as usize {
            let first = reports.front().map_or(now, |(at, _)| *at);
            return Err(WINDOW.saturating_sub(now.since(first)));
        }
        reports.push_back((now, generation));
        Ok(Report::First)
    }
}

/// The same over all instances, for a first report here. `name` is the connection's. A counter that does not answer
/// holds nobody back: each instance has counted for itself.
pub(crate) async fn count_everywhere(
    counter: &dyn Counter,
    name: &str,
    generation: Generation,
) -> Result<(), Duration> {
    let once = Limit::Window { count: NonZeroU32::MIN, per: WINDOW };
    if let Ok(Taken::Wait(_)) = counter.take(&format!("{name}/{generation}"), once).await {
        return Ok(()); // another instance counted this generation
    }
    match counter.take(name, Limit::Window { count: ALLOWED, per: WINDOW }).await {
        Ok(Taken::Wait(wait)) => Err(wait),
        Ok(Taken::Granted) => Ok(()),
        Err(error) => {
            tracing::debug!(%error, "reports are counted by this instance alone");
            Ok(())
        }
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
            assert_eq!(reports.count(&id, Generation(generation), at(generation)), Ok(Report::First));
            for _ in 0..1000 {
                assert_eq!(reports.count(&id, Generation(generation), at(generation)), Ok(Report::Again));
            }
        }
        assert_eq!(reports.count(&id, Generation(6), at(6)), Err(Duration::from_secs(55)));
        assert_eq!(reports.count(&id, Generation(6), at(61)), Ok(Report::First));
    }
}
