//! The random properties of a world, all drawn from one seed.

use std::{sync::Mutex, time::Duration};

use super::flaws::Flaw;

/// SplitMix64: small, and the same on every platform.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Returns true in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns an independent generator.
    pub(crate) fn child(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn millis(&mut self, max: u64) -> Duration {
        Duration::from_millis(self.below(max + 1))
    }
}

/// Panics without a message, intentionally.
pub(crate) fn panic_wanted() -> ! {
    std::panic::resume_unwind(Box::new("intended by the soak"))
}

/// The random properties of a world, apart from its course.
#[derive(Clone, Debug)]
pub(super) struct Moods {
    pub(super) sessions: u64,
    /// The capacity of the registry; further sessions evict forks.
    pub(super) capacity: usize,
    pub(super) requests: u64,
    pub(super) users: u64,
    /// The time in milliseconds within which requests start and users act.
    pub(super) rush: u64,
    pub(super) has_rule: bool,
    pub(super) login_first: bool,
    /// Percentages.
    pub(super) login_fails: u64,
    pub(super) login_hangs: u64,
    pub(super) page_hangs: u64,
    pub(super) page_errors: u64,
    pub(super) expires: u64,
    pub(super) panics: u64,
    pub(super) drops: u64,
    pub(super) freezes: u64,
    pub(super) posts: u64,
    pub(super) latency: u64,
    pub(super) login_latency: u64,
    /// The number of pages per login, if limited.
    pub(super) pages: Option<u64>,
    pub(super) max_uses: Option<u64>,
    pub(super) max_age: Option<Duration>,
    pub(super) replays: u32,
    pub(super) late: u64,
    pub(super) release: u64,
    pub(super) stack: u64,
    pub(super) permits: usize,
    pub(super) outer: u64,
    /// The world's flaw, when the checks themselves are tested.
    pub(super) flaw: Option<Flaw>,
}

impl Moods {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut often = |percent: u64, max: u64| if rng.chance(percent) { rng.between(1, max) } else { 0 };
        let (login_fails, login_hangs) = (often(50, 60), often(25, 30));
        let (page_hangs, page_errors, expires) = (often(20, 15), often(40, 20), often(60, 20));
        let (panics, drops, freezes, posts) = (often(30, 12), often(60, 40), often(30, 10), often(40, 50));
        Self {
            sessions: rng.between(1, 3),
            capacity: if rng.chance(50) { 4 } else { 64 },
            requests: rng.between(4, 40),
            users: rng.below(4),
            rush: [0, 100, 2000, 20_000][rng.below(4) as usize],
            has_rule: rng.chance(70),
            login_first: rng.chance(50),
            login_fails,
            login_hangs,
            page_hangs,
            page_errors,
            expires,
            panics,
            drops,
            freezes,
            posts,
            latency: [0, 1, 20, 500][rng.below(4) as usize],
            login_latency: [0, 1, 100, 3000][rng.below(4) as usize],
            pages: rng.chance(40).then(|| rng.between(1, 10)),
            max_uses: rng.chance(30).then(|| rng.between(1, 12)),
            max_age: rng.chance(20).then(|| Duration::from_millis(rng.between(1, 5000))),
            replays: rng.below(5) as u32,
            late: rng.below(3),
            release: rng.below(3),
            stack: rng.below(7),
            permits: rng.between(1, 4) as usize,
            outer: rng.below(3),
            flaw: None,
        }
    }
}

/// Returns a generator for one decision, so that a panic in it does not poison the lock.
pub(super) fn draw(rng: &Mutex<Rng>) -> Rng {
    rng.lock().unwrap().child()
}
