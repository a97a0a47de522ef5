//! Uses of a value that are granted in parts, by a source outside the gate.

#[cfg(feature = "shared")]
use super::sync::{AtomicU64, Ordering};

/// How many uses of a value are allowed, where processes share them.
///
/// Without the feature `shared` it has no fields and allows every use.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// The total number of uses that are allowed; `u64::MAX` means that all are.
    #[cfg(feature = "shared")]
    allowed: AtomicU64,
    /// The use at which more should be requested.
    #[cfg(feature = "shared")]
    refill_at: AtomicU64,
}

impl Allowance {
    /// Allows every use.
    pub(crate) fn unlimited() -> Self {
        Self {
            #[cfg(feature = "shared")]
            allowed: AtomicU64::new(u64::MAX),
            #[cfg(feature = "shared")]
            refill_at: AtomicU64::new(u64::MAX),
        }
    }
}

#[cfg(not(feature = "shared"))]
impl Allowance {
    pub(crate) fn limit(&self, max_uses: u64) -> u64 {
        max_uses
    }

    pub(crate) fn is_low(&self, _uses: u64) -> bool {
        false
    }
}

#[cfg(feature = "shared")]
impl Allowance {
    /// Returns how many uses are allowed in total, at most `max_uses`.
    pub(crate) fn limit(&self, max_uses: u64) -> u64 {
        max_uses.min(self.allowed.load(Ordering::Relaxed))
    }

    /// Returns whether this use is the one at which more should be requested.
    pub(crate) fn is_low(&self, uses: u64) -> bool {
        uses == self.refill_at.load(Ordering::Relaxed)
    }

    /// Allows no use until [`allow`](Self::allow) is called.
    pub(crate) fn begin(&self) {
        self.allowed.store(0, Ordering::Relaxed);
    }

    /// Allows `uses` more uses.
    pub(crate) fn allow(&self, uses: u64) {
        let before = self.allowed.fetch_add(uses, Ordering::Relaxed);
        self.refill_at.store(before + uses.div_ceil(2), Ordering::Relaxed);
    }

    /// Returns whether uses are allowed in parts, and some were.
    pub(crate) fn allows_some(&self) -> bool {
        !matches!(self.allowed.load(Ordering::Relaxed), 0 | u64::MAX)
    }

    /// Takes all uses that are allowed and left, for another value.
    pub(crate) fn take_remaining(&self, uses: &AtomicU64) -> u64 {
        let allowed = self.allowed.load(Ordering::Relaxed);
        let used = uses
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| (uses < allowed).then_some(allowed));
        used.map_or(0, |uses| allowed - uses)
    }
}
