//! Pauses between attempts: exponential growth and full jitter.

use std::time::Duration;

/// Returns `initial` doubled `times` times, at most `max`.
pub(crate) fn doubled(initial: Duration, times: u32, max: Duration) -> Duration {
    initial.saturating_mul(2u32.saturating_pow(times)).min(max)
}

/// Returns a pause between zero and `ceiling` ("full jitter"), drawn by the random number.
pub(crate) fn jittered(ceiling: Duration, random: u64) -> Duration {
    let share = (random >> 11) as f64 / (1u64 << 53) as f64;
    Duration::try_from_secs_f64(ceiling.as_secs_f64() * share).unwrap_or(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pause_doubles_up_to_its_maximum() {
        assert_eq!(doubled(SECOND, 0, 9 * SECOND), SECOND);
        assert_eq!(doubled(SECOND, 3, 9 * SECOND), 8 * SECOND);
        assert_eq!(doubled(SECOND, 4, 9 * SECOND), 9 * SECOND);
        assert_eq!(doubled(Duration::MAX, u32::MAX, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn jitter_is_between_zero_and_the_ceiling() {
        assert_eq!(jittered(8 * SECOND, 0), Duration::ZERO);
        assert_eq!(jittered(8 * SECOND, 1 << 63), 4 * SECOND);
        assert_eq!(jittered(8 * SECOND, 1 << 61), SECOND);
        assert!(jittered(8 * SECOND, u64::MAX) <= 8 * SECOND);
    }
}
