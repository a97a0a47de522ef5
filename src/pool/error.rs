//! The errors of requests to a pool, and of its settings.

use std::{error::Error, fmt, sync::Arc};

use crate::gate::{ConfigError, RenewalError};

/// The error of a request that got no session from the pool.
#[derive(Clone, Debug)]
pub struct PoolError {
    kind: PoolErrorKind,
    pool: Arc<str>,
    source: Option<RenewalError>,
}

/// What a [`PoolError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PoolErrorKind {
    /// No session became free within `max_wait`.
    TimedOut,
    /// The number of waiting requests is at `max_waiting`.
    TooManyWaiting,
    /// Too many warm-ups in a row have failed, and no member that could serve is left.
    ///
    /// The source is the last failure. A request after the backoff starts another warm-up.
    Unavailable,
    /// There is no tokio runtime in which the request could wait or a session be warmed up.
    NoRuntime,
}

impl PoolError {
    pub(crate) fn new(kind: PoolErrorKind, pool: &Arc<str>) -> Self {
        Self { kind, pool: pool.clone(), source: None }
    }

    pub(crate) fn unavailable(pool: &Arc<str>, cause: RenewalError) -> Self {
        Self { kind: PoolErrorKind::Unavailable, pool: pool.clone(), source: Some(cause) }
    }

    /// Returns what the error is about.
    pub fn kind(&self) -> PoolErrorKind {
        self.kind
    }

    /// Returns the name of the pool.
    pub fn pool(&self) -> &str {
        &self.pool
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            PoolErrorKind::TimedOut => {
                "timed out waiting for a session; increase `size`, `max_in_flight` or `max_wait`"
            }
            PoolErrorKind::TooManyWaiting => {
                "too many requests are waiting for a session; limit the concurrency above the pool or increase `max_waiting`"
            }
            PoolErrorKind::Unavailable => "unavailable: too many warm-ups failed in a row",
            PoolErrorKind::NoRuntime => "no tokio runtime is available; send the request from within one",
        };
        write!(f, "pool {}: {what}", self.pool)
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// An error in the settings of a pool.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::{SessionPool, Sessions, pool::PoolConfigErrorKind};
///
/// let error = SessionPool::builder(&Sessions::new()).size(0).build().unwrap_err();
/// assert_eq!((error.kind(), error.setting()), (PoolConfigErrorKind::Zero, "size"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfigError(Cause);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    Zero(ConfigError),
    NameTaken(String),
}

/// What a [`PoolConfigError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PoolConfigErrorKind {
    /// A limit is zero, so that no request would ever be served.
    Zero,
    /// Another pool of the same sessions has this name.
    NameTaken,
}

impl PoolConfigError {
    pub(super) fn name_taken(name: String) -> Self {
        Self(Cause::NameTaken(name))
    }

    /// Returns what the error is about.
    pub fn kind(&self) -> PoolConfigErrorKind {
        match self.0 {
            Cause::Zero(_) => PoolConfigErrorKind::Zero,
            Cause::NameTaken(_) => PoolConfigErrorKind::NameTaken,
        }
    }

    /// Returns the name of the setting, which is that of the builder's method.
    pub fn setting(&self) -> &'static str {
        match &self.0 {
            Cause::Zero(error) => error.setting(),
            Cause::NameTaken(_) => "name",
        }
    }
}

impl fmt::Display for PoolConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Zero(error) => error.fmt(f),
            Cause::NameTaken(name) => {
                write!(
                    f,
                    "another pool of these sessions is named {name:?}; give each pool a `name` of its own"
                )
            }
        }
    }
}

impl Error for PoolConfigError {}

impl From<ConfigError> for PoolConfigError {
    fn from(error: ConfigError) -> Self {
        Self(Cause::Zero(error))
    }
}
