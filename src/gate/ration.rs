//! Uses of a value that are allowed from outside, some at a time.

#[cfg(feature = "shared")]
use super::sync::{AtomicU64, Ordering};

/// How many uses of a value there may be, where they are shared with other processes. Without that feature it is nothing at all.
#[derive(Debug)]
pub(crate) struct Ration {
    #[cfg(feature = "shared")]
    allowance: AtomicU64,
    /// The use at which more should be asked for.
    #[cfg(feature = "shared")]
    refill_at: AtomicU64,
}

impl Ration {
    /// Every use is allowed.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "shared")]
            allowance: AtomicU64::new(u64::MAX),
            #[cfg(feature = "shared")]
            refill_at: AtomicU64::new(u64::MAX),
        }
    }
}

#[cfg(not(feature = "shared"))]
impl Ration {
    pub(crate) fn most(&self, limit: u64) -> u64 {
        limit
    }

    pub(crate) fn is_running_out(&self, _uses: u64) -> bool {
        false
    }
}

#[cfg(feature = "shared")]
impl Ration {
    /// How many uses there may be, of at most `limit`.
    pub(crate) fn most(&self, limit: u64) -> u64 {
        limit.min(self.allowance.load(Ordering::Relaxed))
    }

    /// Whether this use is the one at which more should be asked for.
    pub(crate) fn is_running_out(&self, uses: u64) -> bool {
        uses == self.refill_at.load(Ordering::Relaxed)
    }

    /// From now on, each use has to be allowed.
    pub(crate) fn begin(&self) {
        self.allowance.store(0, Ordering::Relaxed);
    }

    /// Allows so many uses more.
    pub(crate) fn allow(&self, uses: u64) {
        let before = self.allowance.fetch_add(uses, Ordering::Relaxed);
        self.refill_at.store(before + uses.div_ceil(2), Ordering::Relaxed);
    }

    /// Whether each use has to be allowed, and some were.
    pub(crate) fn allows_some(&self) -> bool {
        !matches!(self.allowance.load(Ordering::Relaxed), 0 | u64::MAX)
    }

    /// Takes all that is allowed and not used up, for another value to use.
    pub(crate) fn take_rest(&self, uses: &AtomicU64) -> u64 {
        let allowance = self.allowance.load(Ordering::Relaxed);
        let used = uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| {
            (uses < allowance).then_some(allowance)
        });
        used.map_or(0, |uses| allowance - uses)
    }
}
