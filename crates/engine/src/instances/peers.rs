//! Which of the others are alive, judged on our own boot clock alone: a record that moves has somebody who moves it.

use std::{collections::HashMap, time::Duration};

use tokenkeep_core::{Boot, InstanceId, ports::Version};

/// How often an instance renews its record, and looks at those of the others.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A record that has not moved for this long belongs to an instance that is silent: three renewals are missing.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// The others, as far as this instance has seen them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    sightings: HashMap<InstanceId, Sighting>,
    last_look: Option<Boot>,
}

/// How long a record has stood still.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    version: Version,
    since: Boot,
    silent: bool,
}

/// What a look showed that the one before did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there, or there again.
    Seen(InstanceId),
    /// Its record has not moved for [`SILENCE`].
    Silent(InstanceId),
    /// Its record is not there any more.
    Vanished(InstanceId),
}

impl Peers {
    /// What is new, given the records that a look at `now` showed.
    ///
    /// Time in which we did not look (a store that was down, a process that was frozen) counts for nobody's silence:
    /// the others may have been kept from renewing by the same.
    pub(super) fn observe(&mut self, records: &[(InstanceId, Version)], now: Boot) -> Vec<Change> {
        let looked_away = self.last_look.replace(now).is_some_and(|last| now.since(last) >= SILENCE);
        let mut changes = Vec::new();
        self.sightings.retain(|id, _| {
            let there = records.iter().any(|(other, _)| other == id);
            if !there {
                changes.push(Change::Vanished(*id));
            }
            there
        });
        for (id, version) in records {
            let earlier = self.sightings.get_mut(id).filter(|earlier| earlier.version == *version);
            let Some(earlier) = earlier else {
                let sighting = Sighting { version: version.clone(), since: now, silent: false };
                let before = self.sightings.insert(*id, sighting);
                if before.is_none_or(|before| before.silent) {
                    changes.push(Change::Seen(*id));
                }
                continue;
            };
            if looked_away && !earlier.silent {
                earlier.since = now;
            }
            if !earlier.silent && now.since(earlier.since) >= SILENCE {
                earlier.silent = true;
                changes.push(Change::Silent(*id));
            }
        }
        changes
    }

    /// Whether the record of `id`, read as `version`, is known to stand still.
    pub(super) fn is_silent(&self, id: InstanceId, version: &Version) -> bool {
        self.sightings.get(&id).is_some_and(|sighting| sighting.silent && sighting.version == *version)
    }
}

#[cfg(test)]
mod tests {
    use tokenkeep_core::id::Ulid;

    use super::*;

    fn id(n: u128) -> InstanceId {
        InstanceId(Ulid::from_parts(1, n))
    }

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(1000 + seconds))
    }

    fn look(peers: &mut Peers, seconds: u64, records: &[(u128, &str)]) -> Vec<Change> {
        let records: Vec<_> = records.iter().map(|(n, version)| (id(*n), Version((*version).to_owned()))).collect();
        peers.observe(&records, at(seconds))
    }

    #[test]
    fn a_record_that_moves_is_alive_whatever_time_it_names() {
        let mut peers = Peers::default();
        assert_eq!(look(&mut peers, 0, &[(1, "a")]), [Change::Seen(id(1))]);
        for (n, version) in ["b", "c", "d", "e", "f"].into_iter().enumerate() {
            assert_eq!(look(&mut peers, 10 * (n as u64 + 1), &[(1, version)]), []);
        }
    }

    #[test]
    fn a_record_that_stands_still_is_silent_after_thirty_seconds_and_said_so_once() {
        let mut peers = Peers::default();
        look(&mut peers, 0, &[(1, "a")]);
        assert_eq!(look(&mut peers, 15, &[(1, "a")]), []);
        assert_eq!(look(&mut peers, 29, &[(1, "a")]), []);
        assert!(!peers.is_silent(id(1), &Version("a".to_owned())));
        assert_eq!(look(&mut peers, 30, &[(1, "a")]), [Change::Silent(id(1))]);
        assert!(peers.is_silent(id(1), &Version("a".to_owned())));
        assert!(!peers.is_silent(id(1), &Version("b".to_owned())), "it has moved since");
        assert_eq!(look(&mut peers, 40, &[(1, "a")]), []);
        assert_eq!(look(&mut peers, 50, &[(1, "b")]), [Change::Seen(id(1))], "it is back");
    }

    #[test]
    fn what_is_removed_has_vanished() {
        let mut peers = Peers::default();
        look(&mut peers, 0, &[(1, "a"), (2, "x")]);
        assert_eq!(look(&mut peers, 10, &[(1, "b")]), [Change::Vanished(id(2))]);
        assert_eq!(look(&mut peers, 20, &[(1, "c")]), []);
    }

    #[test]
    fn while_nobody_looked_nobody_was_silent() {
        let mut peers = Peers::default();
        look(&mut peers, 0, &[(1, "a")]);
        assert_eq!(look(&mut peers, 600, &[(1, "a")]), [], "the store was down, for it as for us");
        assert_eq!(look(&mut peers, 620, &[(1, "a")]), []);
        assert_eq!(look(&mut peers, 630, &[(1, "a")]), [Change::Silent(id(1))]);
        assert_eq!(look(&mut peers, 900, &[(1, "a")]), [], "who was silent stays so");
        assert!(peers.is_silent(id(1), &Version("a".to_owned())));
    }
}
