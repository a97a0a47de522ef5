//! Random numbers for jitter.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

/// A sequence of well-distributed numbers that are not secret. Equal seeds give equal sequences.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    /// The odd number nearest to 2^64 divided by the golden ratio: its multiples visit every
    /// number, far apart.
    const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Creates a sequence with a random seed: the keys of the standard library's hasher are random.
    pub(crate) fn random() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    pub(crate) fn draw(&self) -> u64 {
        spread(self.0.fetch_add(Self::STRIDE, Ordering::Relaxed))
    }
}

/// Returns a number whose every bit depends on all bits of `number` (the finalizer of SplitMix64).
pub(crate) const fn spread(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences_and_different_seeds_differ() {
        let draws = |seed| {
            let jitter = Jitter::seeded(seed);
            [jitter.draw(), jitter.draw(), jitter.draw()]
        };
        assert_eq!(draws(7), draws(7));
        let (one, other) = (draws(7), draws(8));
        assert!(one.iter().all(|number| !other.contains(number)));
        assert_ne!(one[0], one[1]);
    }

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // The reference implementation adds the stride before it mixes, and starts at 0.
        let jitter = Jitter::seeded(Jitter::STRIDE);
        let numbers = [jitter.draw(), jitter.draw(), jitter.draw()];
        assert_eq!(numbers, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    #[test]
    fn hazard_44_draws_cover_their_range_evenly() {
        let jitter = Jitter::seeded(1);
        let mut counts = [0u32; 16];
        (0..16_000).for_each(|_| counts[(jitter.draw() >> 60) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
