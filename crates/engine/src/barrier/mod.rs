//! The barrier: above it values, below it sealed bytes. The store, the L2 cache, the bus, the journal and backups see
//! nothing that this module has not sealed.
//!
//! AES-256-GCM throughout. From the root key, HKDF-SHA256 makes a data key (named by the root key's id) and from
//! that a key of its own for every record: its place, tenant, kind and id. The same four are the additional
//! authenticated data, so a record that was moved, renamed or handed to another tenant does not open. A key per record
//! also means that no key ever seals so much that random nonces could collide.

mod hashes;
mod key_check;
mod root_key;

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use tokenkeep_core::ports::{Entropy, RecordKey, SealingKeyId};
use zeroize::Zeroizing;

pub use hashes::Hashes;
pub use key_check::{KeyCheckError, verify_or_create};
pub use root_key::{RootKey, RootKeyError};

use root_key::{KEY_LEN, KeyTag};

/// Where sealed bytes are meant to stand. Part of the key they are sealed with: never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The store.
    Store,
    /// The shared cache.
    L2,
    /// A local journal.
    Journal,
    /// A backup file.
    Backup,
    /// On its way to other instances.
    Bus,
}

impl Place {
    fn as_str(self) -> &'static str {
        match self {
            Place::Store => "store",
            Place::L2 => "l2",
            Place::Journal => "journal",
            Place::Backup => "backup",
            Place::Bus => "bus",
        }
    }
}

/// Why sealed bytes did not open. None of these says that there is nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Sealed with a root key that we were not given. Configure it as a retired key.
    #[error("sealed with the key {}, which is not configured", id.0)]
    UnknownKey {
        /// The id of that root key.
        id: SealingKeyId,
    },
    /// Changed since it was sealed, or taken from another place.
    #[error("not what was sealed here: it was changed, or belongs to another place")]
    Tampered,
    /// Too short to have been sealed by us.
    #[error("not something this barrier ever sealed")]
    Malformed,
    /// Sealed by a later tokenkeep.
    #[error("sealed in format {found}; this tokenkeep knows formats up to {FORMAT}")]
    FutureVersion {
        /// Its format.
        found: u8,
    },
}

/// The envelope: format, root key id, nonce, ciphertext with tag.
const FORMAT: u8 = 1;
const TAG_LEN: usize = 16;
const KEY_TAG_AT: usize = 1;
const NONCE_AT: usize = KEY_TAG_AT + size_of::<KeyTag>();
const HEADER_LEN: usize = NONCE_AT + NONCE_LEN;

/// Seals, opens and hashes, with keys that never leave it.
pub struct Barrier {
    active: DataKey,
    retired: Vec<DataKey>,
    /// Boxed: six prepared HMAC states are twenty kilobytes, and a barrier is moved.
    hashes: Box<Hashes>,
    entropy: Arc<dyn Entropy>,
}

impl Barrier {
    /// By how many bytes sealed is longer than plain.
    pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

    /// A barrier that seals with `active` and still opens what the `retired` keys sealed.
    ///
    /// Its hashes are those of a fresh installation; [`verify_or_create`] brings those of an existing one.
    pub fn new(active: &RootKey, retired: &[RootKey], entropy: Arc<dyn Entropy>) -> Self {
        Self {
            active: DataKey::new(active),
            retired: retired.iter().map(DataKey::new).collect(),
            hashes: Box::new(Hashes::of_root(active)),
            entropy,
        }
    }

    /// The id of the key that seals at present.
    pub fn key_id(&self) -> SealingKeyId {
        root_key::id_of_tag(self.active.tag)
    }

    /// The keyed hashes of this installation.
    pub fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    /// Seals `plain` for the record `key` at `place`.
    pub fn seal(&self, place: Place, key: &RecordKey, plain: &[u8]) -> Vec<u8> {
        let context = Context::new(place, key);
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);

        let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.active.tag);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);

        let aad = context.aad(&sealed[..NONCE_AT]);
        let tag = self
            .active
            .record_key(&context)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed[HEADER_LEN..])
            .expect("AES-GCM seals anything below 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed for the record `key` at `place`.
    pub fn open(&self, place: Place, key: &RecordKey, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        match sealed.first() {
            Some(&FORMAT) => {}
            Some(&found) if found > FORMAT => return Err(OpenError::FutureVersion { found }),
            _ => return Err(OpenError::Malformed),
        }
        if sealed.len() < HEADER_LEN + TAG_LEN {
            return Err(OpenError::Malformed);
        }
        let tag: KeyTag = sealed[KEY_TAG_AT..NONCE_AT].try_into().map_err(|_| OpenError::Malformed)?;
        let data_key = std::iter::once(&self.active)
            .chain(&self.retired)
            .find(|k| k.tag == tag)
            .ok_or_else(|| OpenError::UnknownKey { id: root_key::id_of_tag(tag) })?;
        let nonce: [u8; NONCE_LEN] = sealed[NONCE_AT..HEADER_LEN].try_into().map_err(|_| OpenError::Malformed)?;

        let context = Context::new(place, key);
        let mut plain = Zeroizing::new(sealed[HEADER_LEN..].to_vec());
        let len = data_key
            .record_key(&context)
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.aad(&sealed[..NONCE_AT])),
                &mut plain[..],
            )
            .map_err(|_| OpenError::Tampered)?
            .len();
        plain.truncate(len);
        Ok(plain)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("key_id", &self.key_id().0).finish_non_exhaustive()
    }
}

/// What one root key seals with.
struct DataKey {
    tag: KeyTag,
    prk: hkdf::Prk,
}

impl DataKey {
    fn new(root: &RootKey) -> Self {
        let tag = root.tag();
        let key = root.derive(&[b"tokenkeep data key", &tag]);
        Self { tag, prk: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &*key) }
    }

    fn record_key(&self, context: &Context) -> LessSafeKey {
        let key = root_key::expand(&self.prk, &[b"tokenkeep record key", &context.0]);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).expect("AES-256 takes a key of 32 bytes"))
    }
}

/// Place, tenant, kind and id, each behind its length, so that no two records share one.
struct Context(Vec<u8>);

impl Context {
    fn new(place: Place, key: &RecordKey) -> Self {
        let parts = [place.as_str(), key.tenant.as_str(), key.kind.as_str(), &key.id];
        let mut bytes = Vec::with_capacity(parts.iter().map(|p| 8 + p.len()).sum());
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes)
    }

    fn aad(&self, header: &[u8]) -> Vec<u8> {
        [header, &self.0].concat()
    }
}

const _: () = assert!(KEY_LEN == 32, "AES-256");

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use tokenkeep_core::{Tenant, ports::Kind};
    use tokenkeep_testkit::SeededEntropy;

    use super::*;

    pub(crate) fn root(byte: u8) -> RootKey {
        RootKey::from_bytes([byte; 32])
    }

    pub(crate) fn barrier() -> Barrier {
        Barrier::new(&root(7), &[], Arc::new(SeededEntropy::default()))
    }

    fn key(tenant: &str, kind: Kind, id: &str) -> RecordKey {
        RecordKey { tenant: Tenant::new(tenant).unwrap(), kind, id: id.to_owned() }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(plain: Vec<u8>, id in ".{0,40}") {
            let (barrier, key) = (barrier(), key("t", Kind::Connection, &id));
            for place in [Place::Store, Place::L2, Place::Journal, Place::Backup, Place::Bus] {
                let sealed = barrier.seal(place, &key, &plain);
                let opened = barrier.open(place, &key, &sealed);
                prop_assert_eq!(opened.as_deref().map(Vec::as_slice), Ok(plain.as_slice()));
            }
        }

        #[test]
        fn any_flipped_bit_is_refused(plain in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (barrier, key) = (barrier(), key("t", Kind::Connection, "id"));
            let sealed = barrier.seal(Place::Store, &key, &plain);
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(barrier.open(Place::Store, &key, &flipped).is_err(), "bit {}", bit);
            }
            for len in 0..sealed.len() {
                prop_assert!(barrier.open(Place::Store, &key, &sealed[..len]).is_err(), "cut to {}", len);
            }
        }
    }

    #[test]
    fn nothing_opens_elsewhere() {
        let barrier = barrier();
        let here = key("acme", Kind::Connection, "google/alice");
        let sealed = barrier.seal(Place::Store, &here, b"token");
        assert!(barrier.open(Place::Store, &here, &sealed).is_ok());
        for place in [Place::L2, Place::Journal, Place::Backup, Place::Bus] {
            assert_eq!(barrier.open(place, &here, &sealed), Err(OpenError::Tampered), "{place:?}");
        }
        for there in [
            key("acm", Kind::Connection, "google/alice"),
            key("acme", Kind::Integration, "google/alice"),
            key("acme", Kind::Connection, "google/alicf"),
            key("acmeg", Kind::Connection, "oogle/alice"),
        ] {
            assert_eq!(barrier.open(Place::Store, &there, &sealed), Err(OpenError::Tampered), "{there:?}");
        }
    }

    #[test]
    fn a_retired_key_still_opens_and_an_unknown_one_is_named() {
        let key = key("t", Kind::Connection, "id");
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::default());
        let old = Barrier::new(&root(1), &[], entropy.clone());
        let sealed = old.seal(Place::Store, &key, b"token");

        let rotated = Barrier::new(&root(2), &[root(1)], entropy.clone());
        assert_eq!(rotated.open(Place::Store, &key, &sealed).as_deref().map(Vec::as_slice), Ok(&b"token"[..]));
        assert_ne!(rotated.key_id(), old.key_id());

        let other = Barrier::new(&root(2), &[], entropy);
        assert_eq!(other.open(Place::Store, &key, &sealed), Err(OpenError::UnknownKey { id: old.key_id() }));
    }

    #[test]
    fn a_later_format_is_told_apart_from_damage() {
        let (barrier, key) = (barrier(), key("t", Kind::Connection, "id"));
        let mut sealed = barrier.seal(Place::Store, &key, b"token");
        sealed[0] = 2;
        assert_eq!(barrier.open(Place::Store, &key, &sealed), Err(OpenError::FutureVersion { found: 2 }));
        sealed[0] = 0;
        assert_eq!(barrier.open(Place::Store, &key, &sealed), Err(OpenError::Malformed));
    }

    #[test]
    fn the_same_bytes_never_look_the_same() {
        let (barrier, key) = (barrier(), key("t", Kind::Connection, "id"));
        let seal = || barrier.seal(Place::Store, &key, b"token");
        assert_ne!(seal(), seal());
    }

    #[test]
    fn every_record_has_a_key_of_its_own() {
        // The same nonce on purpose: under one key, the same bytes would look the same.
        let ciphertext = |id: &str| {
            barrier().seal(Place::Store, &key("t", Kind::Connection, id), b"token")[HEADER_LEN..][..5].to_vec()
        };
        assert_eq!(ciphertext("a"), ciphertext("a"));
        assert_ne!(ciphertext("a"), ciphertext("b"));
    }

    #[test]
    fn debug_shows_no_key() {
        let printed = format!("{:?} {:?}", barrier(), root(7));
        assert!(!printed.contains("7, 7") && !printed.contains("0707"), "{printed}");
    }
}
