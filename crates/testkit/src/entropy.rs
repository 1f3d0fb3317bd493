use std::sync::atomic::{AtomicU64, Ordering};

use tokenkeep_core::ports::Entropy;

/// [`Entropy`] that gives the same bytes in the same order in every run. Never for keys.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Default for SeededEntropy {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Entropy for SeededEntropy {
    /// `SplitMix64` (Steele, Lea, Flood 2014): every call moves on by whole words, so that two threads never draw the
    /// same one.
    fn fill(&self, bytes: &mut [u8]) {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        for chunk in bytes.chunks_mut(8) {
            let mut word = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        let (a, b, c) = (SeededEntropy::new(1), SeededEntropy::new(1), SeededEntropy::new(2));
        let first = a.bytes32();
        assert_eq!(first, b.bytes32());
        assert_ne!(first, a.bytes32());
        assert_ne!(first, c.bytes32());
    }

    #[test]
    fn any_length_is_filled() {
        let mut bytes = [0; 13];
        SeededEntropy::default().fill(&mut bytes);
        assert!(bytes[8..].iter().any(|b| *b != 0));
    }
}
