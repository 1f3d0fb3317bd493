//! A refresh step by step, where the order of events is the rule: random schedules find these, a reader should not
//! have to.

use std::time::Duration;

use jiff::Timestamp;
use tokenkeep_core::{
    AccessToken, Attempt, AttemptId, Boot, Connection, ConnectionId, Fingerprint, Incarnation, InstanceId,
    IntegrationId, Now, Phase, RefreshPolicy, RenewBy, Renewal, Rotation, Subject, Tenant,
    change::{self, NewRenewal, NewTokens},
    id::Ulid,
    ports::Version,
    refresh::{
        Beacon, Cause, Decision, Effect, Fault, Flight, Heard, Held, Input, Listening, Local, Obstacle, Outcome,
        Received, Seen, Settle, Settled, Sought, Verdict, Watch, Written, commit, decide, refuse, settle,
    },
};

const US: InstanceId = InstanceId(Ulid::from_parts(0, 1));
const OTHER: InstanceId = InstanceId(Ulid::from_parts(0, 2));
const FIRST: AttemptId = AttemptId(Ulid::from_parts(0, 100));
const OURS: AttemptId = AttemptId(Ulid::from_parts(0, 200));

fn at(second: u64) -> Now {
    let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(second).expect("small")).expect("in range");
    Now { wall, boot: Boot(Duration::from_secs(second)) }
}

fn renewal(n: u8) -> Renewal {
    Renewal { by: RenewBy::RefreshToken(format!("refresh {n}").into()), fingerprint: Fingerprint([n; 16]) }
}

fn access(now: Now, life: u64) -> AccessToken {
    AccessToken {
        token: "access".into(),
        token_type: "Bearer".into(),
        issued_at: now.wall,
        expires_at: Some(at(now.boot.0.as_secs() + life).wall),
    }
}

/// A connection of that life, whose access token dies at second 100 and whose refresh token is number 1.
fn connection(life: u128) -> Connection {
    let id = ConnectionId {
        integration: IntegrationId::new("strict").expect("valid"),
        tenant: Tenant::default_tenant(),
        subject: Subject::default_subject(),
    };
    let new = NewTokens {
        access: Some(access(at(0), 100)),
        renewal: NewRenewal::Replace(renewal(1)),
        scope: None,
        display_name: None,
    };
    change::replace(&id, &Seen::Absent, new, Incarnation(Ulid::from(life)), false, at(0).wall).expect("tokens")
}

fn local() -> Local {
    Local {
        instance: US,
        policy: RefreshPolicy::new(Rotation::Strict, Duration::from_secs(10)),
        watch: None,
        gone: vec![],
        served: None,
        held: None,
        heard: Heard { beacon: None, listening: Listening::Since(Boot(Duration::ZERO)) },
        sought: None,
    }
}

fn live(connection: &Connection, version: &str) -> Input {
    Input::Record(Ok(Seen::Live(Box::new(connection.clone()), Version(version.into()))))
}

/// The record that was to be written.
fn written(effects: &[Effect]) -> Connection {
    let connections = effects.iter().find_map(|effect| match effect {
        Effect::Write { connection, .. } => Some(connection.as_ref().clone()),
        _ => None,
    });
    connections.unwrap_or_else(|| panic!("nothing is written: {effects:?}"))
}

fn committed(version: &str) -> Input {
    Input::Written(Written::Committed(Version(version.into())))
}

/// A connection whose refresh token somebody else was about to spend at second 50.
fn claimed_by_another() -> Connection {
    let attempt = Attempt {
        id: FIRST,
        owner: OTHER,
        renewal: 0,
        fingerprint: Fingerprint([1; 16]),
        first_spend_at: at(50).wall,
        replays: 0,
        phase: Phase::Running,
    };
    Connection { attempt: Some(attempt), ..connection(1) }
}

/// Takes a strict provider's token over from an owner who was silent for long enough, up to the claim.
fn takeover() -> (Flight, Connection) {
    let record = claimed_by_another();
    let cause = Cause::Read { min_ttl: Duration::from_secs(30) };
    let mut early = Flight::new(Cause::Due, local(), OURS);
    early.step(at(99), Input::Start);
    let looked = early.step(at(99), live(&record, "1"));
    let watch = match looked.into_iter().next() {
        Some(Effect::Finish(outcome)) => match *outcome {
            Outcome::Blocked { watch, .. } => watch,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };

    let mut flight = Flight::new(cause, Local { watch, ..local() }, OURS);
    flight.step(at(400), Input::Start);
    flight.step(at(400), live(&record, "1"));
    flight.step(at(400), Input::Found(Ok(None)));
    let claim = written(&flight.step(at(400), Input::Connected));
    assert_eq!(claim.attempt.as_ref().map(|a| (a.owner, a.replays)), Some((US, 1)));
    (flight, claim)
}

fn spends(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Spend { .. }))
}

#[test]
fn an_owner_that_stays_silent_is_taken_over() {
    let (mut flight, _) = takeover();
    assert!(spends(&flight.step(at(401), committed("2"))));
}

#[test]
fn an_owner_that_speaks_while_we_claim_is_believed() {
    let (mut flight, claim) = takeover();
    flight.hear(Heard { beacon: Some(Beacon { attempt: FIRST, at: at(401).boot }), ..local().heard });
    assert!(!spends(&flight.step(at(401), committed("2"))));

    let released = written(&flight.step(at(401), live(&claim, "2")));
    let attempt = released.attempt.as_ref().expect("the earlier attempt is not forgotten");
    assert_eq!((attempt.phase, attempt.replays), (Phase::Unanswered, 1));
    flight.step(at(401), committed("3"));
    flight.step(at(401), live(&released, "3"));
    match flight.step(at(401), Input::Found(Ok(None))).pop() {
        Some(Effect::Finish(outcome)) => match *outcome {
            Outcome::Blocked { obstacle: Obstacle::ReplyElsewhere, retry_in, .. } => {
                assert_eq!(retry_in, local().policy.silence);
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_cannot_hear_while_it_claims_does_not_spend() {
    let (mut flight, _) = takeover();
    flight.hear(Heard { beacon: None, listening: Listening::Since(at(401).boot) });
    assert!(!spends(&flight.step(at(401), committed("2"))));
}

/// A takeover that ended tells nothing of the owner before it, who may be back and say so.
#[test]
fn after_a_second_spend_only_who_listened_for_long_enough_spends_again() {
    let mut record = claimed_by_another();
    let attempt = record.attempt.as_mut().expect("claimed");
    (attempt.replays, attempt.phase) = (1, Phase::Unanswered);
    let sought = Some(Sought { attempt: FIRST, at: at(400).boot, answered: true });
    let decided = |since| {
        let heard = Heard { beacon: None, listening: Listening::Since(at(since).boot) };
        decide(&record, Cause::Due, &Local { heard, sought, ..local() }, at(400))
    };
    let waits = Decision::Unresolved { obstacle: Obstacle::OwnerMayReturn, retry_in: Duration::from_secs(119) };
    assert_eq!(decided(399), waits);
    assert!(matches!(decided(280), Decision::Spend { replays: 2, .. }), "{:?}", decided(280));
}

/// A journal's reply to an earlier life of the connection leads on to a refresh of the present one. A reply is known
/// by its attempt, so the second refresh of that kind would be taken for the first, and be lost.
#[test]
fn every_claim_has_an_attempt_of_its_own() {
    let reply = Received { access: access(at(50), 100), renewal: Some(renewal(2)), scope: None };
    let held = Held::new(&connection(1), FIRST, Fingerprint([1; 16]), reply, at(50).wall);
    let present = connection(2);
    let mut flight = Flight::resume(held, local(), OURS);
    flight.step(at(200), Input::Start);
    flight.step(at(200), live(&present, "1"));
    flight.step(at(200), live(&present, "1"));
    let first = written(&flight.step(at(200), Input::Connected));
    let first = first.attempt.expect("a claim").id;
    assert_ne!(first, FIRST);

    flight.step(at(200), Input::Written(Written::Conflict));
    let second = written(&flight.step(at(200), live(&present, "2")));
    assert_ne!(second.attempt.expect("a claim").id, first);
}

/// An owner thought lost came back with its reply while another was about to spend the same token. Were the reply's
/// refresh token used in that moment, the provider would see its predecessor's predecessor next, and end the grant.
#[test]
fn what_a_late_reply_brought_rests_until_the_other_attempt_ended() {
    let reply = Received { access: access(at(50), 40), renewal: Some(renewal(2)), scope: None };
    let held = Held::new(&connection(1), OURS, Fingerprint([1; 16]), reply, at(50).wall);
    let seen = Seen::Live(Box::new(claimed_by_another()), Version("1".into()));
    let Verdict::Write(healed) = commit(&seen, &held, at(99).wall) else { panic!("the record lacks it") };
    assert_eq!(healed.fingerprint(), Some(Fingerprint([2; 16])));

    let watch = healed.attempt.as_ref().map(|attempt| Watch::observe(None, attempt, at(99).boot));
    let decided = |second| decide(&healed, Cause::Due, &Local { watch, ..local() }, at(second));
    assert_eq!(decided(99), Decision::Join);
    assert!(matches!(decided(114), Decision::Spend { replays: 0, .. }), "{:?}", decided(114));

    // However it ends, that says nothing of the token which is there now.
    let seen = Seen::Live(healed.clone(), Version("2".into()));
    let fault = Fault::NoOutcome { detail: "cut".into() };
    for ended in [
        settle(&seen, FIRST, &Settle::Release, at(99).wall),
        settle(&seen, FIRST, &Settle::Unanswered { fault, replay: false }, at(99).wall),
        refuse(&seen, FIRST, "invalid_grant", at(99).wall),
    ] {
        let Settled::Write(ended) = ended else { panic!("{ended:?}") };
        assert_eq!((&ended.health, ended.fingerprint()), (&healed.health, healed.fingerprint()));
        assert!(matches!(decide(&ended, Cause::Due, &local(), at(99)), Decision::Spend { replays: 0, .. }));
    }
}
