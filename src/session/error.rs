//! Errors of the session layer and the profile layer.

use std::{error::Error, fmt, sync::Arc};

use super::SessionId;
use crate::gate::BoxError;

/// Error of [`SessionService`](super::SessionService) and
/// [`ProfileService`](crate::profile_layer::ProfileService): the request was not sent.
#[derive(Clone, Debug)]
pub struct SessionError {
    kind: SessionErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a [`SessionError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionErrorKind {
    /// The request selects no session, and there is no default session.
    NoSession,
    /// The request names a session other than its identity's.
    SessionMismatch,
    /// The request has a handle to a session of other `Sessions` than the layer's.
    WrongRegistry,
    /// The session has no current identity, and the request bypassed the gate, which would have
    /// waited.
    RenewalPending,
    /// Cookies cannot be matched with the request's URI. The source says why.
    BadUri,
    /// A cookie in the request's `RequestCookies` is invalid. The source says which one and why.
    BadCookie,
    /// The profile layer got a request without an identity.
    NoIdentity,
    /// No profile was free, or became free within the duration of
    /// [`OnExhausted::Wait`](crate::profile::OnExhausted::Wait). For a pinned session, the source
    /// names the profile.
    ProfilesExhausted,
    /// The identity ended before this hop was sent. The gate starts the request again.
    IdentityEnded,
    /// The session is shared between processes, and no renewal layer exists that could load it.
    SharedWithoutRenewal,
}

impl SessionError {
    pub(crate) fn new(kind: SessionErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn caused_by(kind: SessionErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: Some(source.into().into()) }
    }

    /// The kind of the error.
    pub fn kind(&self) -> SessionErrorKind {
        self.kind
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SessionErrorKind::NoSession => {
                "the request selects no session; add a SessionId or Session extension, or configure a default session \
                 (a redirect layer of another crate removes extensions)"
            }
            SessionErrorKind::SessionMismatch => {
                "the request has the identity of one session and names another; remove one of the extensions"
            }
            SessionErrorKind::WrongRegistry => {
                "the request has a handle to a session of other `Sessions` than the layer's; use the same for both"
            }
            SessionErrorKind::RenewalPending => {
                "the session is being renewed, and no renewal layer above waits for it"
            }
            SessionErrorKind::BadUri => "the request URI has no host to match cookies with",
            SessionErrorKind::BadCookie => "invalid cookie in RequestCookies",
            SessionErrorKind::NoIdentity => {
                "the request has no identity; put the profile layer below a session layer, or use ProfileLayer::with_sessions"
            }
            SessionErrorKind::SharedWithoutRenewal => {
                "the session is shared between processes; put a renewal layer above the session layer to load it"
            }
            SessionErrorKind::ProfilesExhausted => {
                "no profile is free; add profiles, limit the sessions with max_sessions, or change Profiles::on_exhausted"
            }
            SessionErrorKind::IdentityEnded => "the session's identity ended before the next hop of the request was sent",
        })
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Error of [`Session::fork`](super::Session::fork) and
/// [`Session::rename`](super::Session::rename): a session with the requested id exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionIdTaken {
    id: SessionId,
}

impl SessionIdTaken {
    pub(super) fn new(id: SessionId) -> Self {
        Self { id }
    }

    /// The id that is taken.
    pub fn id(&self) -> &SessionId {
        &self.id
    }
}

impl fmt::Display for SessionIdTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session id {} is taken", self.id)
    }
}

impl Error for SessionIdTaken {}
