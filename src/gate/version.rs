//! One value's generation, status and uses.

use std::time::Duration;

use super::{
    allowance::Allowance,
    state::{Epoch, Generation},
    sync::{AtomicU8, AtomicU64, Ordering},
};

/// The state of one value: its generation, its status, and how often it was used.
#[derive(Debug)]
pub(crate) struct VersionState {
    pub(crate) generation: Generation,
    /// When it was made, by the source's clock.
    pub(crate) created_at: Duration,
    status: AtomicU8,
    /// Bit 0: a request was accepted under this value. Bit 1: a request is in doubt. The rest: the
    /// epoch of the last doubt. One word, so that a request whose send has read an epoch also sees
    /// the doubt that raised it.
    evidence: AtomicU64,
    pub(super) uses: AtomicU64,
    pub(crate) allowance: Allowance,
    /// The source's clock, in nanoseconds, from which on the value may ask for an early renewal
    /// again.
    next_early_renewal: AtomicU64,
    /// Whether the value is the result of another process's renewal.
    is_adopted: bool,
    /// Delays this value's early renewal, so that many sessions are not renewed together.
    jitter: u32,
}

const PROVEN: u64 = 1;
const IN_DOUBT: u64 = 2;

/// What a value is to its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Candidate,
    Current,
    Superseded,
    Ended,
}

impl VersionState {
    /// Creates the state of a candidate. `random` determines its jitter.
    pub(crate) fn new(generation: Generation, created_at: Duration, random: u64) -> Self {
        Self::with_status(generation, created_at, random, Status::Candidate)
    }

    /// Creates the state of a value that is current from the start.
    pub(crate) fn current(generation: Generation, created_at: Duration, random: u64) -> Self {
        Self::with_status(generation, created_at, random, Status::Current)
    }

    fn with_status(generation: Generation, created_at: Duration, random: u64, status: Status) -> Self {
        Self {
            generation,
            created_at,
            status: AtomicU8::new(status as u8),
            evidence: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            allowance: Allowance::unlimited(),
            next_early_renewal: AtomicU64::new(0),
            is_adopted: false,
            jitter: random as u32,
        }
    }

    /// Sets the number of earlier uses.
    pub(crate) fn used(self, uses: u64) -> Self {
        Self { uses: AtomicU64::new(uses), ..self }
    }

    /// Marks the value as the result of another process's renewal.
    #[cfg(feature = "shared")]
    pub(crate) fn adopted(self) -> Self {
        Self { is_adopted: true, ..self }
    }

    /// Returns whether the value is the result of another process's renewal, so that no request of
    /// this process has caused it.
    pub(crate) fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    /// Returns whether no request may be sent under this value any more. A superseded value has not
    /// ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.has_status(Status::Ended)
    }

    pub(crate) fn is_current(&self) -> bool {
        self.has_status(Status::Current)
    }

    fn has_status(&self, status: Status) -> bool {
        self.status.load(Ordering::Acquire) == status as u8
    }

    pub(super) fn set_status(&self, status: Status) {
        self.status.store(status as u8, Ordering::Release);
    }

    /// Returns the epoch of a request that is sent now.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.evidence.load(Ordering::Acquire) >> 2)
    }

    /// Returns whether a request was accepted under this value.
    pub(crate) fn is_proven(&self) -> bool {
        self.evidence.load(Ordering::Acquire) & PROVEN != 0
    }

    /// Notes that a request was accepted, and returns whether one is in doubt.
    pub(super) fn prove(&self) -> bool {
        let mut evidence = self.evidence.load(Ordering::Acquire);
        if evidence & PROVEN == 0 {
            evidence = self.evidence.fetch_or(PROVEN, Ordering::AcqRel);
        }
        evidence & IN_DOUBT != 0
    }

    /// Publishes the doubts. Called under the gate's lock.
    pub(super) fn set_doubts(&self, epoch: Epoch, has_doubts: bool) {
        let doubts = (epoch.0 << 2) | if has_doubts { IN_DOUBT } else { 0 };
        if self.evidence.load(Ordering::Relaxed) & !PROVEN != doubts {
            let _ = self.evidence.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |evidence| {
                Some(doubts | (evidence & PROVEN))
            });
        }
    }

    /// The part of the renewal buffer by which the early renewal is delayed, at most a half.
    pub(crate) fn jitter(&self) -> f64 {
        f64::from(self.jitter) / f64::from(u32::MAX) / 2.0
    }

    /// Returns how many requests were sent under this value.
    pub(crate) fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Takes all uses that are allowed and left, for another value.
    #[cfg(feature = "shared")]
    pub(crate) fn take_remaining(&self) -> u64 {
        self.allowance.take_remaining(&self.uses)
    }

    /// Returns whether an early renewal may be requested now, and if so, delays the next request by
    /// `cooldown`.
    pub(super) fn may_renew_early(&self, now: Duration, cooldown: Duration) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if nanos(now) < self.next_early_renewal.load(Ordering::Relaxed) {
            return false;
        }
        self.next_early_renewal.store(nanos(now.saturating_add(cooldown)), Ordering::Relaxed);
        true
    }
}

/// How often and how long one value may be used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UsageLimits {
    pub(crate) uses: Option<u64>,
    pub(crate) age: Option<Duration>,
}

impl UsageLimits {
    /// The part of a limit that is left when an early renewal starts.
    const BUFFER: f64 = 0.1;

    /// Where an early renewal starts.
    pub(super) fn early(limit: f64, jitter: f64) -> f64 {
        limit - limit * Self::BUFFER * (1.0 - jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jitter::spread;

    #[test]
    fn hazard_44_an_early_renewal_is_jittered_within_its_buffer() {
        let early = |random| {
            let version = VersionState::new(Generation::FIRST, Duration::ZERO, random);
            UsageLimits::early(100.0, version.jitter())
        };
        // The buffer is the last tenth. Every draw leaves at least half of it for the renewal.
        assert!((early(0) - 90.0).abs() < 1e-6);
        assert!((early(u64::MAX) - 95.0).abs() < 1e-6);
        let draws: Vec<_> = (0..100).map(|number| early(spread(number))).collect();
        assert!(draws.iter().all(|draw| (90.0..=95.0).contains(draw)), "{draws:?}");
        assert!(draws.iter().any(|draw| *draw < 91.0) && draws.iter().any(|draw| *draw > 94.0), "{draws:?}");
    }
}
