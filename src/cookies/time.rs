use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds since the Unix epoch.
///
/// The jar reads no clock; every call that depends on the time takes it as a `Timestamp`.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
/// use tower_client_sessions::cookies::Timestamp;
///
/// let moment = Timestamp::from(UNIX_EPOCH + Duration::from_secs(2));
/// assert_eq!(moment, Timestamp::from_millis(2_000));
/// assert_eq!(SystemTime::from(moment), UNIX_EPOCH + Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment, which no clock reaches.
    pub const MAX: Self = Self(i64::MAX);

    /// Creates the moment this many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Creates the moment this many seconds after the Unix epoch, or the nearest that can be held.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Reads the system's clock.
    ///
    /// A convenience for callers; nothing in this module calls it.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns the moment this much later, or [`Timestamp::MAX`].
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns the moment this much earlier, or [`Timestamp::MIN`].
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// Returns the time since `earlier`, or nothing if that is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => {
                Self(i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis))
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    /// A moment that the system's clock cannot hold becomes the epoch.
    fn from(moment: Timestamp) -> Self {
        let distance = Duration::from_millis(moment.0.unsigned_abs());
        let time =
            if moment.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        time.unwrap_or(UNIX_EPOCH)
    }
}

/// A [`Timestamp`] with a counter in its low bits, so that no two events of a jar are equal.
///
/// RFC 6265bis §5.8.3 orders cookies by creation and its §5.7 evicts by last use; a clock of
/// milliseconds leaves ties that these orders must not have.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct EventTime(i64);

impl EventTime {
    const COUNTER_BITS: u32 = 10;

    /// The next event at `now`: later than `self` even if the clock stands still or steps back.
    pub(super) fn next(self, now: Timestamp) -> Self {
        Self(Self::at(now).0.max(self.0.saturating_add(1)))
    }

    /// The next event at a moment that was not read from a clock.
    pub(super) fn tick(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(super) fn at(moment: Timestamp) -> Self {
        let limit = i64::MAX >> Self::COUNTER_BITS;
        Self(moment.0.clamp(-limit, limit) << Self::COUNTER_BITS)
    }

    pub(super) fn timestamp(self) -> Timestamp {
        Timestamp(self.0 >> Self::COUNTER_BITS)
    }

    /// Puts the counter of `order` under the moment of `self`.
    pub(super) fn ordered_by(self, order: Self) -> Self {
        let counter = (1 << Self::COUNTER_BITS) - 1;
        Self((self.0 & !counter) | (order.0 & counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let first = EventTime::default().next(now);
        let second = first.next(now);
        let third = second.next(Timestamp::from_millis(1));

        assert!(first < second && second < third);
        assert_eq!(third.timestamp(), now);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for moment in [Timestamp::MIN, Timestamp::MAX] {
            let _ = EventTime::at(moment).next(moment).tick();
            let _ = SystemTime::from(moment);
            let _ = moment.saturating_add(Duration::MAX);
        }
        assert_eq!(Timestamp::from_millis(-1).as_secs(), -1);
    }
}
