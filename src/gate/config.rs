//! The bounds of a gate, as users set them.

use std::{error::Error, fmt, time::Duration};

use super::core::{Limits, Release};

/// The bounds of a gate: how long, how often, how many.
///
/// Every wait is bounded; a bound of zero is a mistake that [`check`](Self::check) names. The defaults suit an API client with a login that takes seconds; a crawler that spends sessions fast
/// raises [`renewal_rate_limit`](Self::renewal_rate_limit).
///
/// ```
/// use std::time::Duration;
/// use tower_client_sessions::gate::GateConfig;
///
/// let config = GateConfig::new()
///     .attempt_timeout(Duration::from_secs(5))
///     .renewal_rate_limit(1000, Duration::from_secs(60));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct GateConfig {
    pub(crate) limits: Limits,
    pub(crate) hold: Duration,
}

impl GateConfig {
    /// Creates the default bounds, each named at its setter.
    pub fn new() -> Self {
        Self {
            limits: Limits {
                failures: 5,
                starts: 20,
                window: Duration::from_secs(60),
                held: 1 << 17,
                attempt: Duration::from_secs(30),
                backoff: Duration::from_millis(100),
                backoff_most: Duration::from_secs(10),
                rest: Duration::from_secs(1),
                rest_most: Duration::from_secs(60),
                cool: Duration::from_secs(10),
                role: Duration::from_secs(1),
                release: Release::All,
            },
            hold: Duration::from_secs(120),
        }
    }

    /// Bounds one renewal attempt, from its start to its end. Default: 30 seconds.
    #[must_use]
    pub fn attempt_timeout(mut self, deadline: Duration) -> Self {
        self.limits.attempt = deadline;
        self
    }

    /// Bounds the time that one request is held. Default: two minutes.
    #[must_use]
    pub fn max_wait(mut self, deadline: Duration) -> Self {
        self.hold = deadline;
        self
    }

    /// Bounds how many requests of one session are held at once. Default: 131,072.
    #[must_use]
    pub fn max_waiting(mut self, held: usize) -> Self {
        self.limits.held = held;
        self
    }

    /// Sets how many attempts may fail in a row before everybody who waits is told. Default: 5.
    ///
    /// After that the gate rests, for a second at first and twice as long each time, and then lets one request try again.
    #[must_use]
    pub fn max_attempts(mut self, failures: u32) -> Self {
        self.limits.failures = failures;
        self
    }

    /// Sets the ceiling of the pause after the first failed attempt and the ceiling that doubling it stops at. The pause is
    /// drawn between nothing and its ceiling. Default: 100 ms and 10 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.limits.backoff = first;
        self.limits.backoff_most = most.max(first);
        self
    }

    /// Bounds how many renewals may start within `window`, however they end. Default: 20 in a minute.
    #[must_use]
    pub fn renewal_rate_limit(mut self, renewals: usize, window: Duration) -> Self {
        self.limits.starts = renewals;
        self.limits.window = window;
        self
    }

    /// Sets how held requests are let out after a renewal. Default: [`Release::All`].
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.limits.release = release;
        self
    }

    /// Sets how long after an early renewal that failed the next one may start; the value that works serves on meanwhile.
    /// Default: 10 s.
    #[must_use]
    pub fn cooldown(mut self, pause: Duration) -> Self {
        self.limits.cool = pause;
        self
    }

    /// Checks the bounds, as everything that takes a `GateConfig` does.
    ///
    /// # Errors
    ///
    /// Names the first bound that is zero.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        ConfigError::unless(limits.attempt > Duration::ZERO, "attempt_timeout")?;
        ConfigError::unless(self.hold > Duration::ZERO, "max_wait")?;
        ConfigError::unless(limits.held > 0, "max_waiting")?;
        ConfigError::unless(limits.failures > 0, "max_attempts")?;
        ConfigError::unless(limits.starts > 0, "renewal_rate_limit")?;
        match limits.release {
            Release::Staggered { burst, .. } => ConfigError::unless(burst > 0, "release: burst"),
            _ => Ok(()),
        }
    }
}

impl Default for GateConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A limit was set to zero, which would let nothing through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: &'static str,
}

impl ConfigError {
    pub(crate) fn unless(holds: bool, setting: &'static str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { setting }) }
    }

    /// The name of the setting.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is zero; it must be at least one", self.setting)
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_is_named() {
        let check = |config: GateConfig| config.validate().map_err(|error| error.setting());
        assert_eq!(check(GateConfig::new()), Ok(()));
        assert_eq!(check(GateConfig::new().max_waiting(0)), Err("max_waiting"));
        assert_eq!(check(GateConfig::new().max_attempts(0)), Err("max_attempts"));
        assert_eq!(check(GateConfig::new().renewal_rate_limit(0, Duration::MAX)), Err("renewal_rate_limit"));
        assert_eq!(check(GateConfig::new().attempt_timeout(Duration::ZERO)), Err("attempt_timeout"));
        assert_eq!(check(GateConfig::new().max_wait(Duration::ZERO)), Err("max_wait"));
        let release = Release::Staggered { burst: 0, every: Duration::ZERO };
        assert_eq!(check(GateConfig::new().release(release)), Err("release: burst"));
        assert_eq!(GateConfig::new().cooldown(Duration::MAX).limits.cool, Duration::MAX);
        let error = GateConfig::new().max_waiting(0).validate().unwrap_err();
        assert_eq!(error.to_string(), "max_waiting is zero; it must be at least one");
    }
}
