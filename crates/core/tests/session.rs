//! How long a session's tokens live, and what becomes of one that is refreshed.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use tokenkeep_core::{
    Grant, GrantId, Incarnation,
    grant::{Family, GrantError, GrantSeed, GrantStage, LiveToken, MAX_LIVE, OVERLAP, Presented, Revoked, User},
    id::Ulid,
    session::{FLOOR, HEADSTART, Renewed, Session, SessionToken, Terms, UpstreamLife, session_client},
    time::after,
};
use tokenkeep_oauth::issuer::{resource::Resource, scope::ScopeSet};

const NOW: i64 = 1_000_000;
const GRACE: Duration = Duration::from_mins(1);
const LIFE: Duration = Duration::from_hours(24 * 30);
const USUAL: Duration = Duration::from_hours(4);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

/// `ttl`, coordinated, when the upstream dies and whether it can be renewed: when the token dies.
#[test]
fn a_token_lives_as_long_as_its_terms_and_its_upstream_say() {
    let (hour, minute) = (3600, 60);
    for (ttl, coordinated, dies, renewable, expected, why) in [
        (Some(7200), false, Some(hour), true, 7200, "an explicit ttl is what it is"),
        (Some(7200), false, Some(hour), false, 7200, "even where the upstream ends before"),
        (Some(7200), true, Some(hour), false, hour, "unless it is to follow what cannot be renewed"),
        (Some(7200), true, Some(hour), true, 7200, "what can be renewed ends nothing"),
        (Some(10), true, Some(hour), false, 10, "a shorter one stays"),
        (None, true, Some(hour), true, 45 * minute, "fifteen minutes before the upstream"),
        (None, true, Some(hour), false, 45 * minute, "also where it cannot be renewed"),
        (None, true, Some(20 * minute), true, 5 * minute, "the floor meets the head start"),
        (None, true, Some(10 * minute), true, 5 * minute, "never less than the floor"),
        (None, true, Some(2 * minute), true, 5 * minute, "even beyond the upstream, if that can be renewed"),
        (None, true, Some(-minute), true, 5 * minute, "or is dead and can be renewed"),
        (None, true, Some(2 * minute), false, 2 * minute, "but not beyond one that cannot"),
        (None, true, Some(-minute), false, -minute, "nothing lives on what is dead"),
        (None, true, Some(30 * hour), true, 30 * hour - 15 * minute, "a long one is followed, too"),
        (None, true, None, true, 4 * hour, "the usual life, where the upstream says nothing"),
        (None, true, None, false, 4 * hour, "or never dies"),
        (None, false, Some(hour), true, 4 * hour, "or is not followed"),
        (None, false, Some(hour), false, 4 * hour, "even if it ends before"),
    ] {
        let terms = Terms { ttl: ttl.map(Duration::from_secs), coordinated };
        let upstream = UpstreamLife { expires_at: dies.map(at), renewable };
        assert_eq!(terms.expires_at(upstream, USUAL, at(0)), at(expected), "{why}");
    }
    assert_eq!((HEADSTART, FLOOR), (Duration::from_secs(900), Duration::from_secs(300)));
    let fraction = UpstreamLife { expires_at: Some(after(at(100), Duration::from_millis(900))), renewable: false };
    let terms = Terms { ttl: None, coordinated: true };
    assert_eq!(terms.expires_at(fraction, USUAL, at(0)), at(100), "claims are to the second, and never later");
}

fn token(jti: &str, issued: i64, life: i64) -> SessionToken {
    let upstream_expires_at = Some(at(issued + life + 900));
    SessionToken { jti: jti.to_owned(), issued_at: at(issued), expires_at: at(issued + life), upstream_expires_at }
}

fn session() -> Grant {
    Grant {
        id: GrantId(Ulid(7)),
        client: session_client(),
        subject: "alice".parse().unwrap(),
        user: User { name: None, email: Some("alice@example.com".into()) },
        scope: ScopeSet::default(),
        resource: Resource::parse("https://api.example.com").unwrap(),
        connection: Some("supabase-auth/_default/alice".parse().unwrap()),
        exchangers: BTreeSet::new(),
        seed: GrantSeed::new([9; 32]),
        created_at: at(0),
        stage: GrantStage::Active(Family::begin(Some(LIFE), at(0))),
        live: vec![token("a", 0, 2700).live()],
        session: Some(Session {
            terms: Terms { ttl: None, coordinated: true },
            incarnation: Incarnation(Ulid(3)),
            successors: Vec::new(),
        }),
    }
}

fn renewed(grant: Grant, of: &str, new: &str, now: i64) -> Renewed {
    grant.renewed(of, token(new, now, 2700), GRACE, at(now)).unwrap()
}

#[test]
fn what_was_refreshed_lives_on_for_the_grace_window() {
    let Renewed { grant, token: first, .. } = renewed(session(), "a", "b", 100);
    assert_eq!(first.jti, "b");
    assert!(grant.has_live("a", at(159)) && !grant.has_live("a", at(160)) && grant.has_live("b", at(2799)));
    let lost = grant.clone().renewed("a", token("x", 160, 2700), GRACE, at(160));
    assert_eq!(lost.unwrap_err(), GrantError::Expired);

    let late = renewed(session(), "a", "b", 2690).grant;
    assert!(!late.has_live("a", at(2700)), "the window makes nothing live longer");
}

#[test]
fn whoever_refreshes_meanwhile_gets_the_same() {
    let Renewed { grant, token: first, .. } = renewed(session(), "a", "b", 100);
    for now in [100, 130, 159] {
        let again = renewed(grant.clone(), "a", "other", now);
        assert_eq!(again.token, first, "at {now}");
        assert_eq!(again.grant.live, grant.live, "nothing is made");
    }
    let next = renewed(grant, "b", "c", 150).grant;
    assert_eq!(renewed(next.clone(), "a", "other", 155).token.jti, "c", "who is two behind catches up");
    let revoked = next.revoke(Revoked::Asked, at(156)).unwrap();
    assert_eq!(revoked.successor_of("a", at(156)), None);
    assert_eq!(revoked.renewed("a", token("x", 157, 1), GRACE, at(157)).unwrap_err(), GrantError::Revoked);
}

#[test]
fn a_successor_that_was_taken_back_is_not_handed_out_again() {
    let grant = renewed(session(), "a", "b", 100).grant.forget("b").unwrap();
    assert_eq!(grant.successor_of("a", at(101)), None);
    assert_eq!(renewed(grant, "a", "c", 101).token.jti, "c");
}

#[test]
fn one_more_leaves_the_others_as_they_are() {
    let grant = session().reissued("a", &token("b", 10, 300), at(10)).unwrap();
    assert!(grant.has_live("a", at(2699)) && grant.has_live("b", at(309)) && !grant.has_live("b", at(310)));
    assert_eq!(session().reissued("b", &token("c", 10, 300), at(10)).unwrap_err(), GrantError::Expired);
    let over = session().revoke(Revoked::Asked, at(1)).unwrap();
    assert_eq!(over.reissued("a", &token("c", 10, 300), at(10)).unwrap_err(), GrantError::Revoked);
}

/// Sockets that are opened again and again must not push out what the user lives on.
#[test]
fn the_short_lived_give_way() {
    let mut grant = session();
    for n in 0..MAX_LIVE * 2 {
        grant = grant.reissued("a", &token(&format!("ws{n}"), 10, 300), at(10)).unwrap();
    }
    assert_eq!(grant.live.len(), MAX_LIVE);
    assert!(grant.has_live("a", at(10)) && grant.has_live(&format!("ws{}", MAX_LIVE * 2 - 1), at(10)));
}

#[test]
fn the_token_that_is_shown_never_gives_way() {
    let mut grant = session();
    for n in 0..MAX_LIVE * 2 {
        grant = grant.reissued("a", &token(&format!("long{n}"), 10, 90_000), at(10)).unwrap();
    }
    assert!(grant.has_live("a", at(10)), "though it dies before all others");
    let renewed = grant.renewed("a", token("b", 20, 90_000), GRACE, at(20)).unwrap().grant;
    assert!(renewed.has_live("a", at(21)) && renewed.has_live("b", at(21)), "also where it is in its grace window");
}

#[test]
fn a_laptop_that_slept_comes_back_once() {
    let grant = session();
    let presented = |n| Presented::parse(&grant.token(n)).unwrap();
    let by =
        |grant: Grant, n, new: &str, now| grant.renewed_by(&presented(n), LIFE, token(new, now, 2700), GRACE, at(now));
    let woken = by(session(), 1, "b", 9000).unwrap();
    assert_eq!((woken.token.jti.as_str(), woken.number), ("b", Some(2)));
    let twice = by(woken.grant.clone(), 1, "other", 9030).unwrap();
    assert_eq!((twice.token, twice.number), (woken.token.clone(), Some(2)), "the same, where the answer was lost");
    let later = by(woken.grant.clone(), 1, "c", 9061).unwrap();
    assert_eq!((later.token.jti.as_str(), later.number), ("c", Some(2)), "after the window it is another token");
    let next = by(woken.grant, 2, "d", 9070).unwrap().grant;
    assert!(by(next.clone(), 1, "x", 9071).is_ok(), "the predecessor overlaps");
    let after_overlap = 9070 + i64::try_from(OVERLAP.as_secs()).unwrap();
    let replayed = by(next, 1, "x", after_overlap).unwrap_err();
    assert_eq!(replayed, GrantError::Replayed(Revoked::RefreshTokenReplayed));
    let forged = Presented::parse(&format!("{}.1.{}", grant.id, "A".repeat(43)).into()).unwrap();
    let refused = session().renewed_by(&forged, LIFE, token("x", 1, 1), GRACE, at(1));
    assert_eq!(refused.unwrap_err(), GrantError::Forged);
}

#[test]
fn a_session_without_a_refresh_token_ends_with_its_tokens() {
    let stage = GrantStage::Active(Family::begin(None, at(0)));
    let grant = Grant { stage, ..session() };
    assert!(grant.is_live(at(2699)) && !grant.is_live(at(2700)));
    assert_eq!(grant.lives_until("a", at(0)), Some(at(2700)));
    let gone = LiveToken { jti: "z".into(), expires_at: at(5) };
    assert_eq!(grant.remember(gone, at(2)).lives_until("z", at(5)), None);
}
