use proptest::prelude::*;
use tokenkeep_core::id::Ulid;

use super::*;

const OWN: InstanceId = InstanceId(Ulid(100));

fn at(millis: u64) -> Boot {
    Boot(Duration::from_secs(3600) + Duration::from_millis(millis))
}

fn peer(n: u128) -> InstanceId {
    InstanceId(Ulid(n))
}

/// Subscribed at 0, heard itself, and caught up: trusting.
fn trusting() -> Trust {
    let mut trust = Trust::new(OWN, at(0), Duration::ZERO);
    trust.subscribed(at(0));
    echo(&mut trust, 0, 0);
    let Some(Turn::CatchUp { number, .. }) = trust.turn(at(0)) else { panic!("it owes everything since it began") };
    assert!(trust.caught_up(number));
    assert_eq!(trust.turn(at(0)), Some(Turn::Trusting));
    trust
}

fn echo(trust: &mut Trust, number: u64, millis: u64) {
    trust.sending(number, at(millis));
    trust.heard(OWN, number, at(millis));
}

#[test]
fn without_an_echo_there_is_no_bus_and_a_late_one_brings_it_back_at_once() {
    let mut trust = trusting();
    assert_eq!(trust.holds_until(), Some(at(500)));
    trust.sending(1, at(250));
    assert_eq!(trust.turn(at(499)), None);
    assert_eq!(trust.turn(at(500)), Some(Turn::Cautious(Doubt::NoEcho)));
    assert_eq!(trust.holds_until(), None);
    // It was sent 400 ms ago: what the broker took since then may still be on its way.
    trust.heard(OWN, 1, at(650));
    assert_eq!(trust.turn(at(650)), Some(Turn::Trusting), "nothing was lost, so nothing is owed");
    assert_eq!(trust.holds_until(), Some(at(750)));
}

#[test]
fn an_echo_is_as_old_as_its_sending() {
    let mut trust = trusting();
    trust.sending(1, at(0));
    trust.heard(OWN, 1, at(20_000));
    assert_eq!(trust.turn(at(20_000)), Some(Turn::Cautious(Doubt::NoEcho)));
}

#[test]
fn a_silent_peer_is_waited_for_until_it_speaks_leaves_or_is_gone() {
    let silent = || {
        let mut trust = trusting();
        assert!(trust.heard(peer(1), 0, at(100)));
        assert_eq!(trust.turn(at(100)), None);
        for number in 1..=6 {
            echo(&mut trust, number, number * 250);
            assert_eq!(trust.turn(at(number * 250)), None);
        }
        echo(&mut trust, 7, 1600);
        assert_eq!(trust.turn(at(1600)), Some(Turn::Cautious(Doubt::Silent(peer(1)))));
        trust
    };
    let mut trust = silent();
    trust.heard(peer(1), 1, at(1700));
    assert_eq!(trust.turn(at(1700)), Some(Turn::Trusting));

    let mut trust = silent();
    trust.heard(peer(1), 1, at(1700));
    trust.left(peer(1));
    assert_eq!(trust.turn(at(1700)), Some(Turn::Trusting));
    assert!(!trust.heard(peer(1), 1, at(1700)), "played back");
    assert!(trust.peers.is_empty());

    let mut trust = silent();
    trust.peer_gone(peer(1));
    let Some(Turn::CatchUp { gap, .. }) = trust.turn(at(1700)) else { panic!("it may have died before it spoke") };
    assert_eq!(gap, Duration::from_millis(200), "since all was in order");
}

#[test]
fn a_catch_up_does_not_pay_for_what_is_lost_after_it_began() {
    let mut trust = trusting();
    trust.heard(peer(1), 0, at(0));
    trust.heard(peer(1), 2, at(10));
    assert_eq!(trust.turn(at(10)), Some(Turn::Cautious(Doubt::Behind)));
    let Some(Turn::CatchUp { number: first, .. }) = trust.turn(at(10)) else { panic!() };
    assert_eq!(trust.turn(at(10)), None, "one at a time");
    trust.heard(peer(1), 4, at(20));
    assert!(!trust.caught_up(first));
    let Some(Turn::CatchUp { number: second, .. }) = trust.turn(at(20)) else { panic!() };
    assert!(trust.caught_up(second));
    assert_eq!(trust.turn(at(20)), Some(Turn::Trusting));
}

#[test]
fn a_peer_first_heard_in_the_middle_said_something_before() {
    let mut trust = trusting();
    trust.heard(peer(1), 7, at(10));
    assert_eq!(trust.turn(at(10)), Some(Turn::Cautious(Doubt::Behind)));
}

#[test]
fn whom_only_the_registry_shows_is_waited_for() {
    let mut trust = trusting();
    trust.peer_seen(peer(1), at(0));
    echo(&mut trust, 1, 1500);
    assert_eq!(trust.turn(at(1500)), Some(Turn::Cautious(Doubt::Silent(peer(1)))));
    trust.peer_gone(peer(1));
    assert!(matches!(trust.turn(at(1500)), Some(Turn::CatchUp { .. })));
    trust.peer_seen(peer(1), at(1500));
    assert!(trust.peers.contains_key(&peer(1)), "it was not gone after all");
    trust.left(peer(1));
    trust.peer_seen(peer(1), at(1500));
    assert!(trust.peers.is_empty(), "a registry that is behind does not bring back who left");
}

/// What can happen, in any order.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Wait(u64),
    /// So often, 250 ms pass, everybody says that they are there, and the store answers.
    Beat(u8),
    /// Somebody speaks, with a change it made or without; the message may get lost on its way to us.
    Speak {
        who: usize,
        change: bool,
        lost: bool,
    },
    /// Somebody makes a change and dies before it is told.
    Die {
        who: usize,
    },
    /// The registry says so.
    Gone {
        who: usize,
    },
    Leave {
        who: usize,
    },
    Deaf,
    Subscribe,
    CatchUpDone,
    /// A message is played back.
    Replay {
        who: usize,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    let who = || 0..3_usize;
    prop_oneof![
        4 => (1..400_u64).prop_map(Happens::Wait),
        6 => (1..10_u8).prop_map(Happens::Beat),
        9 => (who(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(who, change, lost)| Happens::Speak { who, change, lost }),
        1 => (1..3_usize).prop_map(|who| Happens::Die { who }),
        1 => (1..3_usize).prop_map(|who| Happens::Gone { who }),
        1 => (1..3_usize).prop_map(|who| Happens::Leave { who }),
        1 => Just(Happens::Deaf),
        3 => Just(Happens::Subscribe),
        6 => Just(Happens::CatchUpDone),
        1 => who().prop_map(|who| Happens::Replay { who }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Dead,
    Over,
}

/// The world as it really is, beside what [`Trust`] makes of it.
struct World {
    trust: Trust,
    now: u64,
    listening: bool,
    /// Ourselves first.
    numbers: [u64; 3],
    /// The last that we heard, and whoever listened with us could record.
    recorded: [Option<u64>; 3],
    lives: [Life; 3],
    /// When each change was made, and whether we know of it.
    changes: Vec<(u64, bool)>,
    /// The catch-up under way: its number, from when on it asks, and when it began.
    catching_up: Option<(CatchUp, u64, u64)>,
}

impl World {
    fn new() -> Self {
        let mut trust = Trust::new(OWN, at(0), Duration::ZERO);
        for n in 1..3 {
            trust.peer_seen(Self::id(n), at(0));
        }
        let lives = [Life::Running; 3];
        Self {
            trust,
            now: 0,
            listening: false,
            numbers: [0; 3],
            recorded: [None; 3],
            lives,
            changes: Vec::new(),
            catching_up: None,
        }
    }

    fn id(who: usize) -> InstanceId {
        if who == 0 { OWN } else { peer(who as u128) }
    }

    fn speak(&mut self, who: usize, change: bool, lost: bool) -> bool {
        let number = self.numbers[who];
        self.numbers[who] += 1;
        if who == 0 {
            self.trust.sending(number, at(self.now));
        }
        let heard = self.listening && !lost;
        if heard {
            self.recorded[who] = Some(number);
        }
        if change && who != 0 {
            self.changes.push((self.now, heard));
        }
        heard && self.trust.heard(Self::id(who), number, at(self.now))
    }

    fn step(&mut self, happens: Happens) {
        match happens {
            Happens::Wait(millis) => self.now += millis,
            Happens::Beat(times) => {
                for _ in 0..times {
                    self.step(Happens::Wait(250));
                    for who in 0..3 {
                        self.step(Happens::Speak { who, change: false, lost: false });
                    }
                    self.step(Happens::CatchUpDone);
                }
            }
            Happens::Speak { who, change, lost } if self.lives[who] == Life::Running => {
                self.speak(who, change, lost);
            }
            Happens::Die { who } if self.lives[who] == Life::Running => {
                self.lives[who] = Life::Dead;
                self.changes.push((self.now, false));
            }
            Happens::Gone { who } if self.lives[who] == Life::Dead => {
                self.lives[who] = Life::Over;
                self.trust.peer_gone(Self::id(who));
            }
            Happens::Leave { who } if self.lives[who] == Life::Running => {
                self.lives[who] = Life::Over;
                if self.speak(who, true, false) {
                    self.trust.left(Self::id(who));
                } else {
                    // Its word was lost: then the registry says it one day.
                    self.lives[who] = Life::Dead;
                }
            }
            Happens::Deaf if self.listening => {
                self.listening = false;
                self.trust.deaf();
            }
            Happens::Subscribe if !self.listening => {
                self.listening = true;
                self.trust.subscribed(at(self.now));
            }
            Happens::CatchUpDone => {
                if let Some((number, since, began)) = self.catching_up.take() {
                    for (made, known) in &mut self.changes {
                        *known |= (since..=began).contains(made);
                    }
                    self.trust.caught_up(number);
                }
            }
            Happens::Replay { who } if self.listening => {
                if let Some(number) = self.recorded[who] {
                    assert!(!self.trust.heard(Self::id(who), number, at(self.now)), "played back");
                }
            }
            _ => {}
        }
        while let Some(turn) = self.trust.turn(at(self.now)) {
            if let Turn::CatchUp { number, gap } = turn {
                // What was told less than a silence before may be lost, too: the overlap covers it.
                let reach = u64::try_from((gap + SILENCE).as_millis()).unwrap();
                self.catching_up = Some((number, self.now.saturating_sub(reach), self.now));
            }
        }
    }

    fn is_trusting(&self) -> bool {
        self.trust.holds_until().is_some_and(|until| at(self.now) < until)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn who_trusts_knows_of_every_change_older_than_a_silence(all in prop::collection::vec(happens(), 1..120)) {
        let mut world = World::new();
        for happens in all {
            world.step(happens);
            if world.is_trusting() {
                let silence = u64::try_from(SILENCE.as_millis()).unwrap();
                let unknown = world.changes.iter().find(|(made, known)| !known && made + silence <= world.now);
                prop_assert_eq!(unknown, None, "at {}", world.now);
            }
        }
    }

    #[test]
    fn once_everybody_is_heard_again_trust_comes_back(all in prop::collection::vec(happens(), 1..120)) {
        let mut world = World::new();
        for happens in all {
            world.step(happens);
        }
        world.step(Happens::Subscribe);
        for who in 1..3 {
            world.step(Happens::Gone { who });
        }
        for _ in 0..3 {
            for who in 0..3 {
                world.step(Happens::Speak { who, change: false, lost: false });
            }
            world.step(Happens::CatchUpDone);
        }
        prop_assert!(world.is_trusting(), "{:?}", world.trust);
    }
}
