//! The refresh protocol held against a model of everything that can go wrong around it.
//!
//! A *world* is a store, a provider and two to four instances that run the very state machine the service runs. A
//! schedule (a list of numbers, so that it can be shrunk) decides at each step what happens next: whose read is
//! answered, whose write is lost on the way back, who dies, who freezes and for how long, when a clock jumps, when the
//! store rolls back to an earlier state, when a user consents again or deletes. Then everything that can come back
//! comes back, and the invariants of ARCHITECTURE.md are checked: 1 (no rotated refresh token that reached us is
//! lost), 2 (no two spends of one refresh token in flight at once, with its stated exception) and 6 (an outage is
//! neither absence nor refusal).
//!
//! `PROPTEST_CASES` sets how many schedules are tried; proptest's own default stands for two thousand here.

mod instance;
mod provider;
mod schedule;
mod sharing;
mod store;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use world::{Setting, SpoiltBy, World};

fn settings(spoilt_by: Option<SpoiltBy>) -> impl Strategy<Value = (Setting, Vec<u16>)> {
    let rotation = prop_oneof![
        4 => Just(provider::STRICT),
        1 => Just(provider::NONE),
        1 => Just(provider::OVERLAP),
        1 => Just(provider::PREDECESSOR),
        1 => Just(provider::GRACE_SAME),
        1 => Just(provider::GRACE_NEW),
    ];
    let may = any::<bool>;
    // What a fault is about must be there.
    let (cache, bus) = match spoilt_by {
        Some(SpoiltBy::SeekErrorReadAsNone | SpoiltBy::CopyNotLookedFor) => (Just(true).boxed(), may().boxed()),
        Some(SpoiltBy::BeaconIgnored | SpoiltBy::DeafnessTakenForSilence) => (may().boxed(), Just(true).boxed()),
        _ => (may().boxed(), may().boxed()),
    };
    let told = matches!(spoilt_by, Some(SpoiltBy::BeaconIgnored | SpoiltBy::DeafnessTakenForSilence));
    let held = proptest::bool::weighted(if told { 0.95 } else { 0.3 });
    let setting = (2usize..=4, rotation, may(), may(), may(), cache, bus, held).prop_map(
        move |(instances, rotation, rollbacks, users, jumps, cache, bus, held)| Setting {
            instances,
            rotation,
            logins: users != jumps,
            rollbacks,
            users,
            jumps,
            cache,
            bus,
            held,
            spoilt_by,
        },
    );
    (setting, proptest::collection::vec(any::<u16>(), 20..220))
}

fn run(setting: Setting, schedule: &[u16]) -> Result<(), TestCaseError> {
    let mut world = World::new(setting);
    for &choice in schedule {
        world.act(choice);
    }
    world.recover();
    match world.violation() {
        None => Ok(()),
        Some(violation) => Err(TestCaseError::fail(format!("{violation}\n{}", world.story()))),
    }
}

fn runner(cases: Option<u32>) -> TestRunner {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    config.cases = cases.unwrap_or(if config.cases == 256 { 2_000 } else { config.cases });
    TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()))
}

#[test]
fn invariants_hold_under_every_schedule() {
    let result = runner(None).run(&settings(None), |(setting, schedule)| run(setting, &schedule));
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A copy of somebody's reply was committed while our journal still wrote it; when it had, the flight was at a reply of
/// its own, and took that for durable.
#[test]
fn the_journal_speaks_of_the_reply_that_it_was_given() {
    let setting = Setting {
        instances: 2,
        rotation: provider::OVERLAP,
        logins: false,
        rollbacks: true,
        users: false,
        jumps: true,
        cache: true,
        bus: false,
        held: true,
        spoilt_by: None,
    };
    let schedule = [
        4837, 24896, 2213, 6644, 35483, 11533, 15055, 48413, 8573, 33223, 23970, 11358, 24030, 41776, 46118, 14565,
        17985, 5014, 6468, 14762, 6089, 28188, 2660, 11798, 0, 0, 0, 0, 0, 0, 0,
    ];
    run(setting, &schedule).unwrap();
}

/// A model that never gets anywhere finds nothing: every kind of event must turn up, and the books must be compared at
/// the end of most runs.
#[test]
fn schedules_reach_what_they_are_meant_to_reach() {
    let runs = std::cell::RefCell::new(Vec::new());
    let result = runner(Some(1_000)).run(&settings(None), |(setting, schedule)| {
        let mut world = World::new(setting);
        for &choice in &schedule {
            world.act(choice);
        }
        world.recover();
        runs.borrow_mut().push(world.reach);
        Ok(())
    });
    assert!(result.is_ok());
    let runs = runs.into_inner();
    let share = |which: fn(&world::Reach) -> u32| runs.iter().filter(|r| which(r) > 0).count() * 1000 / runs.len();
    let shares = [
        ("a reply committed", share(|r| r.commits), 600),
        ("a refresh token taken over", share(|r| r.takeovers), 200),
        ("an alternate kept", share(|r| r.alternates), 10),
        ("an exchange without an outcome", share(|r| r.unanswered), 80),
        ("a refusal for good", share(|r| r.reauth), 50),
        ("a journal adopted with a reply in it", share(|r| r.resumed), 100),
        ("a copy shared", share(|r| r.shared), 100),
        ("a copy taken over", share(|r| r.found), 10),
        ("a spend put off because somebody holds the reply", share(|r| r.told_in_time), 3),
        ("a spend put off because the shared cache is silent", share(|r| r.cache_unreadable), 10),
        ("the books compared at the end", share(|r| r.checked), 500),
    ];
    for (what, reached, least) in shares {
        assert!(reached >= least, "{what} in {reached} of 1000 runs only: {shares:?}");
    }
    assert!(share(|r| r.excepted) <= 350, "too many runs end in a stated exception: {} of 1000", share(|r| r.excepted));
}

/// Each of these would be a defect of the protocol; the model must find every one of them.
fn is_found(spoilt_by: SpoiltBy) {
    let result = runner(Some(20_000)).run(&settings(Some(spoilt_by)), |(setting, schedule)| run(setting, &schedule));
    assert!(result.is_err(), "{spoilt_by:?} went unnoticed");
}

#[test]
fn finds_a_skipped_intent() {
    is_found(SpoiltBy::IntentSkipped);
}

#[test]
fn finds_a_compare_and_swap_on_the_generation_alone() {
    is_found(SpoiltBy::CasOnGenerationAlone);
}

#[test]
fn finds_a_late_reply_dropped() {
    is_found(SpoiltBy::LateReplyDropped);
}

#[test]
fn finds_a_journal_entry_removed_at_commit() {
    is_found(SpoiltBy::JournalRemovedAtCommit);
}

#[test]
fn finds_a_timeout_read_as_refusal() {
    is_found(SpoiltBy::TimeoutReadAsRefusal);
}

#[test]
fn finds_an_outage_of_the_shared_cache_read_as_no_copy() {
    is_found(SpoiltBy::SeekErrorReadAsNone);
}

#[test]
fn finds_a_copy_that_nobody_looks_for() {
    is_found(SpoiltBy::CopyNotLookedFor);
}

#[test]
fn finds_a_beacon_ignored() {
    is_found(SpoiltBy::BeaconIgnored);
}

#[test]
fn finds_deafness_taken_for_silence() {
    is_found(SpoiltBy::DeafnessTakenForSilence);
}
