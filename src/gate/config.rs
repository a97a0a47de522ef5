//! The limits of a gate, as users set them.

use std::{error::Error, fmt, time::Duration};

use super::state::{Limits, Release};

/// The limits of a gate.
///
/// All waits are bounded; [`validate`](Self::validate) rejects a zero. The defaults suit an API
/// client whose login takes seconds. Renewals that work never
/// reach the [`renewal_rate_limit`](Self::renewal_rate_limit).
///
/// # Examples
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
#[must_use]
pub struct GateConfig {
    pub(crate) limits: Limits,
    pub(crate) max_wait: Duration,
    pub(crate) evidence_timeout: Duration,
}

impl GateConfig {
    /// Creates the default limits, each stated at its setter.
    pub const fn new() -> Self {
        Self {
            limits: Limits {
                max_attempts: 5,
                max_starts: 20,
                start_window: Duration::from_secs(60),
                max_waiting: 1 << 17,
                attempt_timeout: Duration::from_secs(30),
                retry_backoff: Duration::from_millis(100),
                retry_backoff_max: Duration::from_secs(10),
                failed_backoff: Duration::from_secs(1),
                failed_backoff_max: Duration::from_secs(60),
                cooldown: Duration::from_secs(10),
                role_timeout: Duration::from_secs(1),
                release: Release::All,
            },
            max_wait: Duration::from_secs(120),
            evidence_timeout: Duration::from_secs(1),
        }
    }

    /// Sets how long one renewal attempt may take. Default: 30 seconds.
    pub const fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.limits.attempt_timeout = timeout;
        self
    }

    /// Sets how long one request may wait. Default: two minutes.
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Sets how long a request that was rejected under two identities waits for evidence at most.
    /// Default: one second.
    ///
    /// A response to a request that was sent later shows whether the session works. The wait is
    /// about twice as long as the rejected response took, but at least 20 ms. If no evidence comes,
    /// the response is delivered, except that the request may cause one renewal of a session under
    /// which another request was accepted. Zero means no wait.
    pub const fn evidence_timeout(mut self, timeout: Duration) -> Self {
        self.evidence_timeout = timeout;
        self
    }

    /// Sets how many requests of one session may wait. Default: 131,072.
    pub const fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.limits.max_waiting = max_waiting;
        self
    }

    /// Sets how many consecutive attempts may fail before all waiters get the error. Default: 5.
    ///
    /// The gate then backs off before it lets one request try again: for one second at first, and
    /// twice as long after each further failure, up to a minute.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.limits.max_attempts = attempts;
        self
    }

    /// Sets the pause between attempts. Default: 100 ms and 10 s.
    ///
    /// `initial` is the ceiling of the first pause. The ceiling doubles with each failed attempt,
    /// up to `max`; each pause is drawn between zero and the ceiling. A `max` below `initial`
    /// counts as `initial`, so that all pauses have the same ceiling.
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.limits.retry_backoff = initial;
        self.limits.retry_backoff_max = max.max(initial);
        self
    }

    /// Sets how many renewals may start within `window` without an accepted request after them.
    /// Default: 20 in one minute.
    ///
    /// An accepted request under a new identity resets the count, so a session whose renewals work
    /// never reaches the limit.
    pub const fn renewal_rate_limit(mut self, renewals: usize, window: Duration) -> Self {
        self.limits.max_starts = renewals;
        self.limits.start_window = window;
        self
    }

    /// Sets how waiting requests are released after a renewal. Default: [`Release::All`].
    pub const fn release(mut self, release: Release) -> Self {
        self.limits.release = release;
        self
    }

    /// Sets the minimum time between a failed early renewal and the next one. The current value
    /// stays in use. Default: 10 s.
    pub const fn cooldown(mut self, cooldown: Duration) -> Self {
        self.limits.cooldown = cooldown;
        self
    }

    /// Checks the limits. Everything that takes a `GateConfig` calls this.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first limit that is zero.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        ConfigError::unless(limits.attempt_timeout > Duration::ZERO, "attempt_timeout")?;
        ConfigError::unless(self.max_wait > Duration::ZERO, "max_wait")?;
        ConfigError::unless(limits.max_waiting > 0, "max_waiting")?;
        ConfigError::unless(limits.max_attempts > 0, "max_attempts")?;
        ConfigError::unless(limits.max_starts > 0, "renewal_rate_limit")?;
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

/// A setting that cannot work: a limit of zero, which would admit no request, or a missing layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: &'static str,
    problem: &'static str,
}

impl ConfigError {
    /// A layer that a setting requires is missing.
    pub(crate) fn missing_layer(layer: &'static str) -> Self {
        Self {
            setting: layer,
            problem: "is missing below; the rule reads bodies, and only this layer provides them",
        }
    }

    pub(crate) fn unless(holds: bool, setting: &'static str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { setting, problem: "is zero; it must be at least one" }) }
    }

    /// Returns the name of the setting or of the layer.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.problem)
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validate_names_a_zero() {
        let check = |config: GateConfig| config.validate().map_err(|error| error.setting());
        assert_eq!(check(GateConfig::new()), Ok(()));
        assert_eq!(check(GateConfig::new().max_waiting(0)), Err("max_waiting"));
        assert_eq!(check(GateConfig::new().max_attempts(0)), Err("max_attempts"));
        assert_eq!(check(GateConfig::new().renewal_rate_limit(0, Duration::MAX)), Err("renewal_rate_limit"));
        assert_eq!(check(GateConfig::new().attempt_timeout(Duration::ZERO)), Err("attempt_timeout"));
        assert_eq!(check(GateConfig::new().max_wait(Duration::ZERO)), Err("max_wait"));
        let release = Release::Staggered { burst: 0, every: Duration::ZERO };
        assert_eq!(check(GateConfig::new().release(release)), Err("release: burst"));
        assert_eq!(GateConfig::new().cooldown(Duration::MAX).limits.cooldown, Duration::MAX);
        let limits = GateConfig::new().backoff(Duration::from_secs(2), Duration::ZERO).limits;
        assert_eq!(limits.retry_backoff_max, Duration::from_secs(2));
        let error = GateConfig::new().max_waiting(0).validate().unwrap_err();
        assert_eq!(error.to_string(), "max_waiting is zero; it must be at least one");
    }
}
