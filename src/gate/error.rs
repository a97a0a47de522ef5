//! Why a request is not sent, or why a renewal does not succeed.

use std::{error::Error, fmt, sync::Arc};

use super::state::CoreError;

/// A boxed error, as tower's middleware uses it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a gate did not admit a request, or why a renewal failed.
///
/// # Clone
///
/// Clones share one source: all requests that waited for the same renewal get the same error.
#[derive(Clone, Debug)]
pub struct RenewalError {
    kind: RenewalErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a [`RenewalError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RenewalErrorKind {
    /// The renewal failed, and so did its retries; the source says why. The first request after the
    /// backoff tries again, unless the request given to `renew_with` cannot be sent twice.
    Failed,
    /// The renewal failed permanently; the source says why. No attempt is made until `clear`,
    /// `renew`, `renew_with` or `replace` is called.
    Permanent,
    /// The renewal did not end within the attempt timeout.
    TimedOut,
    /// The renewal's task panicked.
    Panicked,
    /// The renewal's task was aborted, or its runtime shut down, before it ended.
    Aborted,
    /// There is no tokio runtime to wait in, or to run the renewal on.
    NoRuntime,
    /// More renewals were started within the window than the rate limit allows.
    TooManyRenewals,
    /// There is no renewal rule, and the leading request failed, or its response shows that the
    /// session has expired.
    LeaderFailed,
    /// The request waited longer than the configured maximum.
    WaitTimedOut,
    /// The maximum number of requests is waiting.
    QueueFull,
    /// A renewal acquired a permit of its own gate, and would have waited for itself.
    Reentrant,
    /// A later `clear`, `replace` or `renew_with` ended the renewal.
    Superseded,
    /// A renewal was requested, but no rule is set.
    NoRule,
    /// A renewal was requested, but no service with a `RenewalLayer` exists for these sessions.
    NoService,
    /// The request given to `renew_with` has another body type than the stack.
    BodyTypeMismatch,
    /// The gate was closed.
    Closed,
    /// The renewals succeeded, but the server rejected the renewed session before it accepted any
    /// request.
    Rejected,
}

impl RenewalError {
    pub(crate) fn new(kind: RenewalErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn caused_by(kind: RenewalErrorKind, source: BoxError) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> RenewalErrorKind {
        self.kind
    }
}

impl fmt::Display for RenewalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RenewalErrorKind::Failed => "the session could not be renewed",
            RenewalErrorKind::Permanent => {
                "the renewal failed permanently; clear, replace or renew the session to try again"
            }
            RenewalErrorKind::TimedOut => "the renewal timed out",
            RenewalErrorKind::Panicked => "the renewal panicked",
            RenewalErrorKind::Aborted => {
                "the renewal's task was aborted or its runtime shut down before the renewal ended"
            }
            RenewalErrorKind::NoRuntime => {
                "no tokio runtime to run the renewal on or to wait in; call from within a runtime"
            }
            RenewalErrorKind::TooManyRenewals => {
                "too many renewals in a short time; if they are intended, raise `renewal_rate_limit`"
            }
            RenewalErrorKind::LeaderFailed => {
                "no renewal rule is set, and the request that was sent in its place did not get a session"
            }
            RenewalErrorKind::WaitTimedOut => "timed out waiting for the session to be renewed",
            RenewalErrorKind::QueueFull => "too many requests are waiting for the session to be renewed",
            RenewalErrorKind::Reentrant => {
                "a renewal sent a request through its own gate; send it through the `Renewal` instead"
            }
            RenewalErrorKind::Superseded => "the renewal was ended by a later clear, replace or renew_with",
            RenewalErrorKind::NoRule => {
                "no renewal rule is set; set one on the `RenewalLayer`, or call `renew_with`"
            }
            RenewalErrorKind::NoService => {
                "no service with a `RenewalLayer` exists for these sessions; keep the client alive while renewing"
            }
            RenewalErrorKind::BodyTypeMismatch => {
                "the request's body type differs from the stack's; build it with the stack's body type"
            }
            RenewalErrorKind::Closed => "the gate is closed",
            RenewalErrorKind::Rejected => {
                "the server rejected the renewed session each time; check that the rule proves that the login worked"
            }
        })
    }
}

impl Error for RenewalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<CoreError> for RenewalError {
    fn from(error: CoreError) -> Self {
        Self::new(match error {
            CoreError::TimedOut => RenewalErrorKind::TimedOut,
            CoreError::TooManyRenewals => RenewalErrorKind::TooManyRenewals,
            CoreError::LeaderFailed => RenewalErrorKind::LeaderFailed,
            CoreError::Aborted => RenewalErrorKind::Aborted,
            CoreError::Rejected => RenewalErrorKind::Rejected,
        })
    }
}

/// A failure that a retry cannot change, like a wrong password or a closed account.
///
/// A renewal that ends in this error is not retried. All waiters get it, and so do all later
/// requests until `clear`, `renew`, `renew_with` or `replace` is called.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::gate::{BoxError, PermanentError};
///
/// fn check(status: u16) -> Result<(), BoxError> {
///     match status {
///         200 => Ok(()),
///         403 => Err(PermanentError::new("the password is wrong").into()),
///         _ => Err(format!("the login returned {status}").into()),
///     }
/// }
/// assert!(check(403).unwrap_err().is::<PermanentError>());
/// ```
#[derive(Debug)]
pub struct PermanentError {
    source: BoxError,
}

impl PermanentError {
    /// Creates a permanent error with `source` as its source.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self { source: source.into() }
    }
}

impl fmt::Display for PermanentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("permanent error")
    }
}

impl Error for PermanentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
