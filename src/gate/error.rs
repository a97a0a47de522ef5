//! What can keep a request from being sent, or a renewal from succeeding.

use std::{error::Error, fmt, sync::Arc};

use super::core::Fault;

/// A boxed error, as tower's middleware passes it on.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The reason why a gate did not let a request through, or why a renewal came to nothing.
///
/// Clones share one cause: all requests that waited for a renewal that failed get the same one.
#[derive(Clone, Debug)]
pub struct RenewalError {
    kind: RenewalErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What a [`RenewalError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RenewalErrorKind {
    /// The renewal failed, and so did its retries; the source says how. A request that comes after a rest tries again, unless
    /// what was given to `renew_with` cannot be sent twice.
    Failed,
    /// The renewal was refused for good; the source says how. Nothing is tried again before `clear`, `renew`, `renew_with` or
    /// `replace` is called.
    Permanent,
    /// The renewal did not end within the attempt deadline.
    TimedOut,
    /// The renewal's task panicked.
    Panicked,
    /// The renewal's task was aborted or its runtime was shut down before it ended.
    Aborted,
    /// There was no tokio runtime to wait in, or to run the renewal on.
    NoRuntime,
    /// More renewals were started within the window than the limit allows.
    TooManyRenewals,
    /// There is no renewal rule; the request that went ahead in its place was answered as expired, or failed.
    LeaderFailed,
    /// The request was held longer than the hold deadline.
    WaitTimedOut,
    /// As many requests are held as the limit allows.
    QueueFull,
    /// A renewal asked its own gate for a pass and would have waited for itself.
    Reentrant,
    /// The renewal was ended by a later `clear`, `replace` or `renew_with`.
    Superseded,
    /// A renewal was asked for where no rule says how.
    NoRule,
    /// A renewal was asked for where no service stands on these sessions to send it through.
    NoService,
    /// The request given to `renew_with` has a body of another type than the stack's.
    BodyTypeMismatch,
    /// The gate was closed.
    Closed,
}

impl RenewalError {
    pub(crate) fn new(kind: RenewalErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn caused_by(kind: RenewalErrorKind, source: BoxError) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// What the error is about.
    pub fn kind(&self) -> RenewalErrorKind {
        self.kind
    }
}

impl fmt::Display for RenewalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RenewalErrorKind::Failed => "the session could not be renewed",
            RenewalErrorKind::Permanent => {
                "the renewal was refused for good; clear, replace or renew the session to try again"
            }
            RenewalErrorKind::TimedOut => "the renewal ran past its attempt deadline",
            RenewalErrorKind::Panicked => "the renewal panicked",
            RenewalErrorKind::Aborted => "the renewal was lost before it ended: its task was aborted or its runtime shut down",
            RenewalErrorKind::NoRuntime => "no tokio runtime to run the renewal on or to wait for it in; call from within one",
            RenewalErrorKind::TooManyRenewals => {
                "too many renewals in a short time; if they are wanted, raise the gate's renewal limit"
            }
            RenewalErrorKind::LeaderFailed => {
                "no renewal rule is set, and the request that went ahead in its place did not get a session"
            }
            RenewalErrorKind::WaitTimedOut => "held longer than the hold deadline while the session was being renewed",
            RenewalErrorKind::QueueFull => "too many requests are held while the session is being renewed",
            RenewalErrorKind::Reentrant => {
                "a renewal sent a request through its own gate; send it through the renewal it was given"
            }
            RenewalErrorKind::Superseded => "the renewal was ended by a later clear, replace or renew_with",
            RenewalErrorKind::NoRule => {
                "no renewal rule is set; give the renewal layer one, or call renew_with with a request"
            }
            RenewalErrorKind::NoService => {
                "no service with a renewal layer stands on these sessions; keep the client alive while renewing"
            }
            RenewalErrorKind::BodyTypeMismatch => {
                "the request's body is not of the type that the stack sends; build it with the stack's body type"
            }
            RenewalErrorKind::Closed => "the gate is closed",
        })
    }
}

impl Error for RenewalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Fault> for RenewalError {
    fn from(fault: Fault) -> Self {
        Self::new(match fault {
            Fault::DeadlineElapsed => RenewalErrorKind::TimedOut,
            Fault::TooManyRenewals => RenewalErrorKind::TooManyRenewals,
            Fault::LeaderFailed => RenewalErrorKind::LeaderFailed,
            Fault::Lost => RenewalErrorKind::Aborted,
        })
    }
}

/// An answer that makes trying again pointless: credentials that are wrong, an account that is closed.
///
/// A renewal that ends in this error is not repeated. Everybody who waits gets it, and so does everybody who comes after, until
/// something changes: a `clear`, `renew`, `renew_with` or `replace`.
///
/// ```
/// use tower_client_sessions::gate::{BoxError, Refused};
///
/// fn check(status: u16) -> Result<(), BoxError> {
///     match status {
///         200 => Ok(()),
///         403 => Err(Refused::new("the password is wrong").into()),
///         _ => Err(format!("login answered {status}").into()),
///     }
/// }
/// assert!(check(403).unwrap_err().is::<Refused>());
/// ```
#[derive(Debug)]
pub struct PermanentError {
    source: BoxError,
}

impl PermanentError {
    /// Creates a refusal out of the error that says why.
    pub fn new(why: impl Into<BoxError>) -> Self {
        Self { source: why.into() }
    }
}

impl fmt::Display for PermanentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused for good")
    }
}

impl Error for PermanentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
