//! What goes over the bus: who sends, in the clear, and sealed for that sender, a number and a batch of events.
//!
//! Nobody who has access to the broker alone can read whose tokens changed, nor say so: what does not open is not
//! heard. Who plays an old message back is found out by its number.

use tokenkeep_core::{
    AttemptId, ClientId, ConnectionId, Generation, GrantId, Incarnation, InstanceId, IntegrationId, Subject, Tenant,
    id::Ulid,
    ports::{Kind, RecordKey},
};

use super::Event;
use crate::barrier::{Barrier, Place};

/// A later tokenkeep may say more; what it says then is in another form, and not for us.
const FORM: u8 = 1;
const SENDER_LEN: usize = 16;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) from: InstanceId,
    /// Counts what `from` sends, from 0 on.
    pub(super) number: u64,
    /// None = only that it is there.
    pub(super) events: Vec<Event>,
}

/// Builds the message that carries as many of `events` as fit into `room` bytes; answers how many those are. One
/// event always fits: its parts are bounded.
pub(super) fn build_message(
    barrier: &Barrier,
    from: InstanceId,
    number: u64,
    events: &[Event],
    room: usize,
) -> (Vec<u8>, usize) {
    let mut plain = vec![FORM];
    plain.extend_from_slice(&number.to_be_bytes());
    let mut taken = 0;
    for event in events {
        let before = plain.len();
        put_event(&mut plain, event);
        if taken > 0 && plain.len() + SENDER_LEN + Barrier::OVERHEAD > room {
            plain.truncate(before);
            break;
        }
        taken += 1;
    }
    let mut message = from.0.to_bytes().to_vec();
    message.extend_from_slice(&barrier.seal(Place::Bus, &place_of(from), &plain));
    (message, taken)
}

/// Takes back what [`build_message`] gave; `None` = it is nothing that an instance with our root key sent.
pub(super) fn parse_message(barrier: &Barrier, message: &[u8]) -> Option<Message> {
    let (sender, sealed) = message.split_first_chunk::<SENDER_LEN>()?;
    let from = InstanceId(Ulid::from_bytes(*sender));
    let plain = barrier.open(Place::Bus, &place_of(from), sealed).ok()?;
    let mut rest = Bytes(plain.strip_prefix(&[FORM])?);
    let number = rest.u64()?;
    let mut events = Vec::new();
    while !rest.0.is_empty() {
        events.push(rest.event()?);
    }
    Some(Message { from, number, events })
}

/// A key of its own for every sender: none seals so much that random nonces could collide.
fn place_of(sender: InstanceId) -> RecordKey {
    RecordKey { tenant: Tenant::system(), kind: Kind::Instance, id: sender.to_string() }
}

const CHANGED: u8 = 1;
const DELETED: u8 = 2;
const HELD: u8 = 3;
const KEYS_CHANGED: u8 = 4;
const INTEGRATION_CHANGED: u8 = 5;
const INSTANCE_FORGOTTEN: u8 = 6;
const LEAVING: u8 = 7;
const CLIENT_CHANGED: u8 = 8;
const GRANT_CHANGED: u8 = 9;
const ACCESS_TOKEN_SPENT: u8 = 10;
const SIGNING_KEYS_CHANGED: u8 = 11;

fn put_event(to: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Changed { connection, incarnation, generation: floor }
        | Event::Deleted { connection, incarnation, floor } => {
            to.push(if matches!(event, Event::Changed { .. }) { CHANGED } else { DELETED });
            put_connection(to, connection);
            to.extend_from_slice(&incarnation.0.to_bytes());
            to.extend_from_slice(&floor.0.to_be_bytes());
        }
        Event::Held { connection, attempt } => {
            to.push(HELD);
            put_connection(to, connection);
            to.extend_from_slice(&attempt.0.to_bytes());
        }
        Event::KeysChanged => to.push(KEYS_CHANGED),
        Event::IntegrationChanged(id) => {
            to.push(INTEGRATION_CHANGED);
            put_name(to, id.as_str());
        }
        Event::ClientChanged(id) => {
            to.push(CLIENT_CHANGED);
            put_name(to, id.as_str());
        }
        Event::GrantChanged(id) => {
            to.push(GRANT_CHANGED);
            to.extend_from_slice(&id.0.to_bytes());
        }
        Event::AccessTokenSpent(jti) => {
            to.push(ACCESS_TOKEN_SPENT);
            put_name(to, jti);
        }
        Event::SigningKeysChanged => to.push(SIGNING_KEYS_CHANGED),
        Event::InstanceForgotten(id) => {
            to.push(INSTANCE_FORGOTTEN);
            to.extend_from_slice(&id.0.to_bytes());
        }
        Event::Leaving => to.push(LEAVING),
    }
}

fn put_connection(to: &mut Vec<u8>, id: &ConnectionId) {
    for name in [id.integration.as_str(), id.tenant.as_str(), id.subject.as_str()] {
        put_name(to, name);
    }
}

fn put_name(to: &mut Vec<u8>, name: &str) {
    to.push(u8::try_from(name.len()).expect("an identifier has 255 bytes at most"));
    to.extend_from_slice(name.as_bytes());
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }

    fn ulid(&mut self) -> Option<Ulid> {
        self.chunk().map(Ulid::from_bytes)
    }

    fn name(&mut self) -> Option<&'a str> {
        let [len] = self.chunk()?;
        let (name, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }

    fn connection(&mut self) -> Option<ConnectionId> {
        Some(ConnectionId {
            integration: IntegrationId::new(self.name()?).ok()?,
            tenant: Tenant::new(self.name()?).ok()?,
            subject: Subject::new(self.name()?).ok()?,
        })
    }

    fn event(&mut self) -> Option<Event> {
        let [word] = self.chunk()?;
        Some(match word {
            CHANGED | DELETED => {
                let (connection, incarnation) = (self.connection()?, Incarnation(self.ulid()?));
                let floor = Generation(self.u64()?);
                if word == CHANGED {
                    Event::Changed { connection, incarnation, generation: floor }
                } else {
                    Event::Deleted { connection, incarnation, floor }
                }
            }
            HELD => Event::Held { connection: self.connection()?, attempt: AttemptId(self.ulid()?) },
            KEYS_CHANGED => Event::KeysChanged,
            INTEGRATION_CHANGED => Event::IntegrationChanged(IntegrationId::new(self.name()?).ok()?),
            CLIENT_CHANGED => Event::ClientChanged(ClientId::new(self.name()?).ok()?),
            GRANT_CHANGED => Event::GrantChanged(GrantId(self.ulid()?)),
            ACCESS_TOKEN_SPENT => Event::AccessTokenSpent(self.name()?.to_owned()),
            SIGNING_KEYS_CHANGED => Event::SigningKeysChanged,
            INSTANCE_FORGOTTEN => Event::InstanceForgotten(InstanceId(self.ulid()?)),
            LEAVING => Event::Leaving,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::barrier::tests::barrier;

    fn ulid() -> impl Strategy<Value = Ulid> {
        any::<u128>().prop_map(Ulid)
    }

    fn connection() -> impl Strategy<Value = ConnectionId> {
        ("[a-z][a-z0-9._-]{0,62}", "[!-~]{3,255}", "[ -~]{3,255}").prop_map(|(integration, tenant, subject)| {
            ConnectionId {
                integration: integration.parse().unwrap(),
                tenant: tenant.parse().unwrap(),
                subject: subject.parse().unwrap(),
            }
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        let floor = || (connection(), ulid().prop_map(Incarnation), any::<u64>().prop_map(Generation));
        prop_oneof![
            floor().prop_map(|(connection, incarnation, generation)| Event::Changed {
                connection,
                incarnation,
                generation
            }),
            floor().prop_map(|(connection, incarnation, floor)| Event::Deleted { connection, incarnation, floor }),
            (connection(), ulid()).prop_map(|(connection, id)| Event::Held { connection, attempt: AttemptId(id) }),
            Just(Event::KeysChanged),
            "[a-z]{1,63}".prop_map(|id| Event::IntegrationChanged(id.parse().unwrap())),
            "[!-~]{1,255}".prop_map(|id| Event::ClientChanged(id.parse().unwrap())),
            ulid().prop_map(|id| Event::GrantChanged(GrantId(id))),
            "[!-~]{1,255}".prop_map(Event::AccessTokenSpent),
            Just(Event::SigningKeysChanged),
            ulid().prop_map(|id| Event::InstanceForgotten(InstanceId(id))),
            Just(Event::Leaving),
        ]
    }

    proptest! {
        #[test]
        fn what_was_built_is_parsed_in_pieces_that_fit(
            from in ulid().prop_map(InstanceId),
            events in proptest::collection::vec(event(), 0..40),
            room in 700_usize..4000,
        ) {
            let barrier = barrier();
            let (mut rest, mut heard) = (events.as_slice(), Vec::new());
            for number in 0.. {
                let (message, taken) = build_message(&barrier, from, number, rest, room);
                prop_assert!(message.len() <= room);
                let parsed = parse_message(&barrier, &message).unwrap();
                prop_assert_eq!((parsed.from, parsed.number), (from, number));
                heard.extend(parsed.events);
                rest = &rest[taken..];
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(heard, events);
        }

        #[test]
        fn what_is_nobodys_is_not_heard(bytes: Vec<u8>) {
            prop_assert_eq!(parse_message(&barrier(), &bytes), None);
        }

        #[test]
        fn opened_bytes_in_no_form_are_not_heard(mut bytes: Vec<u8>) {
            // Whatever it says, it must not be able to make anybody panic.
            bytes.insert(0, FORM);
            let (barrier, from) = (barrier(), InstanceId(Ulid(7)));
            let mut message = from.0.to_bytes().to_vec();
            message.extend(barrier.seal(Place::Bus, &place_of(from), &bytes));
            let _ = parse_message(&barrier, &message);
        }
    }

    #[test]
    fn nobody_speaks_for_another_and_nothing_is_read_on_the_way() {
        let barrier = barrier();
        let (one, two) = (InstanceId(Ulid(1)), InstanceId(Ulid(2)));
        let events = [Event::IntegrationChanged("canary".parse().unwrap())];
        let (message, _) = build_message(&barrier, one, 0, &events, 4096);
        assert!(!message.windows(6).any(|window| window == b"canary"));
        let mut forged = two.0.to_bytes().to_vec();
        forged.extend_from_slice(&message[SENDER_LEN..]);
        assert_eq!(parse_message(&barrier, &forged), None);
    }
}
