//! Tables whose keys are hashes.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds what finds such keys.
pub(crate) type Uniform = BuildHasherDefault<AlreadyUniform>;

/// The keys are hashes of 32 bytes: any eight bytes of one are a good hash.
#[derive(Default)]
pub(crate) struct AlreadyUniform(u64);

impl Hasher for AlreadyUniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length that an array is preceded by says nothing.
    fn write_usize(&mut self, _: usize) {}
}
