//! What the provider knows of the tokens it issued. Pure: time comes with the call.

use std::collections::HashMap;

use serde::Serialize;
use tokenkeep_core::{Boot, Rotation, ports::Entropy as _, provider::Successor};

use super::Config;
use crate::SeededEntropy;

/// Every token ever issued. The provider lives by the boot clock, so that a test may let the wall jump without
/// moving the provider's own time.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entropy: SeededEntropy,
    families: Vec<Family>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
}

#[derive(Debug)]
struct Family {
    subject: String,
    scope: String,
    revoked: bool,
    /// In the order of issue.
    refresh_tokens: Vec<String>,
}

#[derive(Debug)]
struct Refresh {
    family: usize,
    predecessor: Option<String>,
    successor: Option<String>,
    first_spent_at: Option<Boot>,
    /// One of its successors was used.
    superseded: bool,
    presented: u32,
    spent: u32,
    in_flight: u32,
    max_in_flight: u32,
}

#[derive(Debug)]
struct Access {
    family: usize,
    dies_at: Boot,
}

/// What a grant brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issued {
    /// The number of the family it belongs to.
    pub family: usize,
    /// The access token.
    pub access_token: String,
    /// The refresh token, if one is handed out.
    pub refresh_token: Option<String>,
    /// What it is good for.
    pub scope: String,
}

/// One authorization and every refresh token that descends from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyView {
    /// Its number.
    pub family: usize,
    /// Whose account.
    pub subject: String,
    /// Whether all of it is dead: by a reuse, by revocation.
    pub revoked: bool,
    /// Its refresh tokens, oldest first.
    pub refresh_tokens: Vec<RefreshView>,
}

/// What became of one refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefreshView {
    /// The token.
    pub token: String,
    /// Whether a spend at this moment would succeed.
    pub live: bool,
    /// How many requests carried it, processed or not.
    pub presented: u32,
    /// How many of them brought tokens.
    pub spent: u32,
    /// How many requests carried it at the same time, at most.
    pub max_in_flight: u32,
}

impl Ledger {
    /// A new authorization.
    pub(super) fn open(&mut self, subject: &str, scope: &str, refreshable: bool, now: Boot, config: &Config) -> Issued {
        let family = self.families.len();
        self.families.push(Family {
            subject: subject.to_owned(),
            scope: scope.to_owned(),
            revoked: false,
            refresh_tokens: Vec::new(),
        });
        let refresh_token = refreshable.then(|| self.new_refresh(family, None));
        self.issued(family, refresh_token, now, config)
    }

    /// A request that carries this refresh token came in.
    pub(super) fn arrive(&mut self, token: &str) {
        if let Some(refresh) = self.refresh.get_mut(token) {
            refresh.presented += 1;
            refresh.in_flight += 1;
            refresh.max_in_flight = refresh.max_in_flight.max(refresh.in_flight);
        }
    }

    /// That request is over.
    pub(super) fn leave(&mut self, token: &str) {
        if let Some(refresh) = self.refresh.get_mut(token) {
            refresh.in_flight -= 1;
        }
    }

    /// Spends a refresh token; `None` = `invalid_grant`.
    pub(super) fn spend(&mut self, token: &str, now: Boot, config: &Config) -> Option<Issued> {
        let family = self.refresh.get(token)?.family;
        if !self.is_live(token, now, config) {
            if matches!(config.rotation, Rotation::Strict | Rotation::Grace { .. }) {
                // A second spend is theft until proven otherwise (RFC 9700 4.14.2).
                self.families[family].revoked = true;
            }
            return None;
        }
        let refresh = self.refresh.get_mut(token)?;
        refresh.spent += 1;
        refresh.first_spent_at.get_or_insert(now);
        let (predecessor, known_successor) = (refresh.predecessor.clone(), refresh.successor.clone());
        if let Some(predecessor) = predecessor.and_then(|token| self.refresh.get_mut(&token)) {
            predecessor.superseded = true;
        }
        let refresh_token = match (config.rotation, known_successor) {
            (Rotation::None, _) => config.repeat_refresh_token.then(|| token.to_owned()),
            (Rotation::Grace { successor: Successor::Same, .. }, Some(same)) => Some(same),
            _ => Some(self.new_refresh(family, Some(token))),
        };
        Some(self.issued(family, refresh_token, now, config))
    }

    /// Whether spending this refresh token now would bring tokens.
    pub(super) fn is_live(&self, token: &str, now: Boot, config: &Config) -> bool {
        let Some(refresh) = self.refresh.get(token) else { return false };
        if self.families[refresh.family].revoked {
            return false;
        }
        match config.rotation {
            Rotation::None | Rotation::Overlap => true,
            Rotation::Predecessor => !refresh.superseded,
            Rotation::Grace { window, .. } => refresh.first_spent_at.is_none_or(|at| now.since(at) <= window),
            Rotation::Strict => refresh.first_spent_at.is_none(),
        }
    }

    /// Whose access token this is, if it is good.
    pub(super) fn subject_of(&self, access_token: &str, now: Boot) -> Option<&str> {
        let access = self.access.get(access_token)?;
        let family = &self.families[access.family];
        (!family.revoked && now < access.dies_at).then_some(family.subject.as_str())
    }

    /// Ends the whole family of a refresh or access token (RFC 7009 2.1). Unknown tokens are no error.
    pub(super) fn revoke(&mut self, token: &str) {
        let family = self.refresh.get(token).map(|r| r.family).or_else(|| self.access.get(token).map(|a| a.family));
        if let Some(family) = family {
            self.families[family].revoked = true;
        }
    }

    /// Ends everything of one subject, as a user does who removes the application.
    pub(super) fn revoke_subject(&mut self, subject: &str) {
        for family in self.families.iter_mut().filter(|family| family.subject == subject) {
            family.revoked = true;
        }
    }

    /// How many requests carried this refresh token.
    pub(super) fn presented(&self, token: &str) -> u32 {
        self.refresh.get(token).map_or(0, |refresh| refresh.presented)
    }

    /// Refresh tokens that more than one request carried, in the order of issue.
    pub(super) fn spent_twice(&self) -> Vec<String> {
        let tokens = self.families.iter().flat_map(|family| &family.refresh_tokens);
        tokens.filter(|token| self.presented(token) > 1).cloned().collect()
    }

    /// How many requests carried the same refresh token at the same time, at most.
    pub(super) fn max_in_flight(&self) -> u32 {
        self.refresh.values().map(|refresh| refresh.max_in_flight).max().unwrap_or(0)
    }

    /// Everything, for looking at.
    pub(super) fn families(&self, now: Boot, config: &Config) -> Vec<FamilyView> {
        let view = |token: &String| {
            let refresh = &self.refresh[token];
            RefreshView {
                token: token.clone(),
                live: self.is_live(token, now, config),
                presented: refresh.presented,
                spent: refresh.spent,
                max_in_flight: refresh.max_in_flight,
            }
        };
        let families = self.families.iter().enumerate();
        families
            .map(|(number, family)| FamilyView {
                family: number,
                subject: family.subject.clone(),
                revoked: family.revoked,
                refresh_tokens: family.refresh_tokens.iter().map(view).collect(),
            })
            .collect()
    }

    /// A word nobody guesses, with a prefix that makes it easy to find where it must not be.
    pub(super) fn word(&self, prefix: &str) -> String {
        use std::fmt::Write as _;
        let bytes = self.entropy.bytes32();
        bytes[..16].iter().fold(prefix.to_owned(), |mut word, byte| {
            let _infallible = write!(word, "{byte:02x}");
            word
        })
    }

    fn new_refresh(&mut self, family: usize, predecessor: Option<&str>) -> String {
        let token = self.word("fake_rt_");
        if let Some(predecessor) = predecessor.and_then(|token| self.refresh.get_mut(token)) {
            predecessor.successor = Some(token.clone());
        }
        self.families[family].refresh_tokens.push(token.clone());
        let refresh = Refresh {
            family,
            predecessor: predecessor.map(str::to_owned),
            successor: None,
            first_spent_at: None,
            superseded: false,
            presented: 0,
            spent: 0,
            in_flight: 0,
            max_in_flight: 0,
        };
        self.refresh.insert(token.clone(), refresh);
        token
    }

    fn issued(&mut self, family: usize, refresh_token: Option<String>, now: Boot, config: &Config) -> Issued {
        let access_token = self.word("fake_at_");
        self.access.insert(access_token.clone(), Access { family, dies_at: now + config.token_life });
        Issued { family, access_token, refresh_token, scope: self.families[family].scope.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Boot = Boot(Duration::from_secs(100));

    fn ledger(rotation: Rotation) -> (Ledger, Config, String) {
        let (mut ledger, config) = (Ledger::default(), Config::rotating(rotation));
        let first = ledger.open("alice", "mail", true, START, &config);
        (ledger, config, first.refresh_token.unwrap())
    }

    fn spend(ledger: &mut Ledger, config: &Config, token: &str, after: u64) -> Option<String> {
        let issued = ledger.spend(token, START + Duration::from_secs(after), config)?;
        assert_eq!(ledger.subject_of(&issued.access_token, START + Duration::from_secs(after)), Some("alice"));
        Some(issued.refresh_token.unwrap_or_default())
    }

    #[test]
    fn none_keeps_the_token() {
        let (mut ledger, mut config, first) = ledger(Rotation::None);
        assert_eq!(spend(&mut ledger, &config, &first, 0).as_deref(), Some(""));
        config.repeat_refresh_token = true;
        assert_eq!(spend(&mut ledger, &config, &first, 1), Some(first.clone()));
        assert_eq!(ledger.spent_twice(), Vec::<String>::new(), "only requests are counted");
    }

    #[test]
    fn overlap_keeps_every_token() {
        let (mut ledger, config, first) = ledger(Rotation::Overlap);
        let second = spend(&mut ledger, &config, &first, 0).unwrap();
        let third = spend(&mut ledger, &config, &second, 0).unwrap();
        for token in [&first, &second, &third] {
            assert!(spend(&mut ledger, &config, token, 9).is_some());
        }
        assert!(first != second && second != third);
    }

    #[test]
    fn predecessor_lives_until_a_successor_is_used() {
        let (mut ledger, config, first) = ledger(Rotation::Predecessor);
        let second = spend(&mut ledger, &config, &first, 0).unwrap();
        let sibling = spend(&mut ledger, &config, &first, 1000).unwrap();
        assert_ne!(second, sibling);
        let third = spend(&mut ledger, &config, &second, 1001).unwrap();
        assert_eq!(spend(&mut ledger, &config, &first, 1002), None);
        assert!(spend(&mut ledger, &config, &third, 1003).is_some(), "a late replay ends nothing");
    }

    #[test]
    fn grace_answers_a_replay_inside_the_window_only() {
        for successor in [Successor::Same, Successor::New] {
            let window = Duration::from_secs(30);
            let (mut ledger, config, first) = ledger(Rotation::Grace { window, successor });
            let second = spend(&mut ledger, &config, &first, 0).unwrap();
            let replay = spend(&mut ledger, &config, &first, 30).unwrap();
            assert_eq!(second == replay, successor == Successor::Same);
            assert!(ledger.is_live(&second, START, &config));
            assert_eq!(spend(&mut ledger, &config, &first, 31), None);
            assert_eq!(spend(&mut ledger, &config, &second, 31), None, "the family is gone");
        }
    }

    #[test]
    fn strict_ends_the_family_at_the_second_spend() {
        let (mut ledger, config, first) = ledger(Rotation::Strict);
        let issued = ledger.spend(&first, START, &config).unwrap();
        let second = issued.refresh_token.unwrap();
        assert!(ledger.is_live(&second, START, &config));
        assert_eq!(spend(&mut ledger, &config, &first, 0), None);
        assert!(!ledger.is_live(&second, START, &config));
        assert_eq!(ledger.subject_of(&issued.access_token, START), None);
        assert!(ledger.families(START, &config)[0].revoked);
    }

    #[test]
    fn an_unknown_token_harms_nobody() {
        let (mut ledger, config, first) = ledger(Rotation::Strict);
        assert_eq!(spend(&mut ledger, &config, "fake_rt_forged", 0), None);
        assert!(ledger.is_live(&first, START, &config));
    }

    #[test]
    fn requests_with_the_same_token_are_counted() {
        let (mut ledger, _, first) = ledger(Rotation::Strict);
        ledger.arrive(&first);
        ledger.leave(&first);
        assert_eq!((ledger.max_in_flight(), ledger.spent_twice()), (1, Vec::new()));
        ledger.arrive(&first);
        ledger.arrive(&first);
        assert_eq!((ledger.max_in_flight(), ledger.spent_twice()), (2, vec![first]));
    }

    #[test]
    fn an_access_token_dies_on_time() {
        let (mut ledger, config, first) = ledger(Rotation::None);
        let issued = ledger.spend(&first, START, &config).unwrap();
        let last_second = START + Duration::from_secs(3599);
        assert_eq!(ledger.subject_of(&issued.access_token, last_second), Some("alice"));
        assert_eq!(ledger.subject_of(&issued.access_token, last_second + Duration::from_secs(1)), None);
    }
}
