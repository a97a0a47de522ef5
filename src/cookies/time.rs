//! [`Timestamp`], the time argument of a jar, and [`EventTime`], the unique times within one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cookie::time::OffsetDateTime;

/// A point in time, in milliseconds since the Unix epoch.
///
/// The jar does not read a clock. Methods that depend on the time take it as a `Timestamp`.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
/// use tower_client_sessions::cookies::Timestamp;
///
/// let time = Timestamp::from(UNIX_EPOCH + Duration::from_secs(2));
/// assert_eq!(time, Timestamp::from_millis(2_000));
/// assert_eq!(SystemTime::from(time), UNIX_EPOCH + Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time, which no clock reaches.
    pub const MAX: Self = Self(i64::MAX);

    /// Creates a time from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Creates a time from seconds since the Unix epoch, saturating at the numeric bounds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Reads the system clock.
    ///
    /// A convenience for callers. A [`Jar`](super::Jar) never calls it.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Adds a duration, saturating at [`Timestamp::MAX`].
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Subtracts a duration, saturating at [`Timestamp::MIN`].
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// Returns the time elapsed since `earlier`, or zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub(super) fn from_date_time(time: OffsetDateTime) -> Self {
        // The years of `OffsetDateTime` fit.
        Self((time.unix_timestamp_nanos() / 1_000_000) as i64)
    }

    /// Fails for years that `OffsetDateTime` cannot represent.
    pub(super) fn to_date_time(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok()
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
    /// Converts a time that `SystemTime` cannot represent to the Unix epoch.
    fn from(time: Timestamp) -> Self {
        let distance = Duration::from_millis(time.0.unsigned_abs());
        let converted =
            if time.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        converted.unwrap_or(UNIX_EPOCH)
    }
}

/// A [`Timestamp`] with a counter in its low bits, so that all events of a jar differ.
///
/// RFC 6265bis §5.8.3 orders cookies by creation time, and §5.7 evicts by last use. Milliseconds
/// alone would leave ties in both orders.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct EventTime(i64);

impl EventTime {
    const COUNTER_BITS: u32 = 10;

    /// The time of a cookie that has none yet; the jar replaces it.
    pub(super) const UNSET: Self = Self(0);

    /// The next event at `now`. It is later than `self` even if the clock does not advance.
    pub(super) fn next(self, now: Timestamp) -> Self {
        Self(Self::at(now).0.max(self.0.saturating_add(1)))
    }

    /// The next event, without reading the clock.
    pub(super) fn tick(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(super) fn at(time: Timestamp) -> Self {
        let limit = i64::MAX >> Self::COUNTER_BITS;
        Self(time.0.clamp(-limit, limit) << Self::COUNTER_BITS)
    }

    /// The representation for an atomic, which has the same order.
    pub(super) const fn to_raw(self) -> i64 {
        self.0
    }

    pub(super) const fn from_raw(raw: i64) -> Self {
        Self(raw)
    }

    pub(super) const fn timestamp(self) -> Timestamp {
        Timestamp(self.0 >> Self::COUNTER_BITS)
    }

    /// Combines the time of `self` with the counter of `event`, or returns `event` if `self` is
    /// [`UNSET`](Self::UNSET).
    pub(super) fn ordered_by(self, event: Self) -> Self {
        if self == Self::UNSET {
            return event;
        }
        let counter = (1 << Self::COUNTER_BITS) - 1;
        Self((self.0 & !counter) | (event.0 & counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_at_the_same_time_stay_ordered() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let first = EventTime::default().next(now);
        let second = first.next(now);
        let third = second.next(Timestamp::from_millis(1));

        assert!(first < second && second < third);
        assert_eq!(third.timestamp(), now);
    }

    #[test]
    fn the_numeric_bounds_do_not_overflow() {
        for time in [Timestamp::MIN, Timestamp::MAX] {
            let _ = EventTime::at(time).next(time).tick();
            let _ = SystemTime::from(time);
            let _ = time.saturating_add(Duration::MAX);
        }
        assert_eq!(Timestamp::from_millis(-1).as_secs(), -1);
    }
}
