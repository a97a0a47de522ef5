//! The settings by which a list assigns its profiles.

use std::time::Duration;

/// Which of the free profiles of a list is assigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileStrategy {
    /// The profile that was assigned longest ago; at first, in the order of the list. A profile
    /// that is skipped keeps its turn.
    #[default]
    RoundRobin,
    /// A random profile.
    Random,
    /// A random profile by a generator with this seed, so that tests are reproducible.
    Seeded(u64),
    /// The profile that the fewest identities have at the moment; among those, the one assigned
    /// least often, and then longest ago.
    LeastUsed,
}

/// What happens when no profile of a list is free: all others are cooling down, or the list is
/// exclusive and other sessions have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnExhausted {
    /// A profile is reused: sessions share it although the list is exclusive, or get one that is
    /// cooling down.
    #[default]
    Reuse,
    /// A session that is created or renewed has no profile at first, and its requests wait for one.
    ///
    /// They wait in the session layer up to this duration, in the order in which the sessions
    /// arrived. Then they fail with [`ProfilesExhausted`]; outside a tokio runtime, they fail
    /// immediately.
    ///
    /// The wait counts against the timeout of a renewal attempt.
    ///
    /// [`ProfilesExhausted`]: crate::session::SessionErrorKind::ProfilesExhausted
    Wait(Duration),
    /// Like [`Wait`](Self::Wait) with a duration of zero.
    Fail,
}

impl OnExhausted {
    /// The default of an exclusive list.
    pub(super) const WAIT: Self = Self::Wait(Duration::from_secs(30));

    /// Returns how long a request waits for a profile.
    pub(crate) const fn max_wait(self) -> Duration {
        match self {
            Self::Reuse | Self::Fail => Duration::ZERO,
            Self::Wait(max_wait) => max_wait,
        }
    }
}
