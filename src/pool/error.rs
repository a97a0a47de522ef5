//! Why a request got no session, and what is wrong with a pool's settings.

use std::{error::Error, fmt, sync::Arc};

use crate::gate::{ConfigError, RenewalError};

/// Why the pool gave a request no session.
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
    /// No session became free within the time that a request may wait.
    TimedOut,
    /// As many requests wait as may.
    TooManyWaiting,
    /// Too many sessions in a row could not be warmed up, and none is left that could serve; the source says how the last one
    /// failed. A request that comes after a rest makes the pool try again.
    Unavailable,
    /// There was no tokio runtime to wait in, or to warm a session up on.
    NoRuntime,
}

impl PoolError {
    pub(crate) fn new(kind: PoolErrorKind, pool: &Arc<str>) -> Self {
        Self { kind, pool: pool.clone(), source: None }
    }

    pub(crate) fn unavailable(pool: &Arc<str>, cause: RenewalError) -> Self {
        Self { kind: PoolErrorKind::Unavailable, pool: pool.clone(), source: Some(cause) }
    }

    /// What the error is about.
    pub fn kind(&self) -> PoolErrorKind {
        self.kind
    }

    /// The name of the pool.
    pub fn pool(&self) -> &str {
        &self.pool
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            PoolErrorKind::TimedOut => {
                "no session became free in time; more sessions, a higher cap or a longer `max_wait` would help"
            }
            PoolErrorKind::TooManyWaiting => {
                "too many requests wait for a session; admit fewer above the pool, or raise `max_waiting`"
            }
            PoolErrorKind::Unavailable => "too many sessions in a row could not be warmed up",
            PoolErrorKind::NoRuntime => {
                "no tokio runtime to wait in, or to warm a session up on; call from within one"
            }
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
