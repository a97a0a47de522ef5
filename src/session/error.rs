//! Why a request could not be sent under a session.

use std::{error::Error, fmt, sync::Arc};

use crate::gate::BoxError;

/// Why the session layer or the profile layer refused a request.
#[derive(Clone, Debug)]
pub struct SessionError {
    kind: SessionErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What a [`SessionError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionErrorKind {
    /// The request names no session, and no default was configured.
    NoSession,
    /// The request names one session and carries the identity of another.
    SessionMismatch,
    /// The request carries a handle to a session of other `Sessions` than the layer's.
    WrongRegistry,
    /// The session has no current identity, and the request came around the gate that could wait for one.
    RenewalPending,
    /// The request's URI is not one that cookies can be matched with; the source says why.
    BadUri,
    /// A cookie in the request's `RequestCookies` was refused; the source says which and why.
    BadCookie,
    /// The profile layer met a request without an identity.
    NoIdentity,
    /// No profile was free, and none came to be within the bound of [`OnExhausted::Wait`](crate::profile::OnExhausted::Wait). The
    /// source names the profile, if the session is pinned to one.
    ProfilesExhausted,
    /// The identity ended before this hop of the request could leave; the gate starts the request again.
    IdentityEnded,
    /// The session is shared with other processes, and no renewal layer stands on it that could look where it is.
    SharedWithoutRenewal,
}

impl SessionError {
    pub(crate) fn new(kind: SessionErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn caused_by(kind: SessionErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: Some(source.into().into()) }
    }

    /// What the error is about.
    pub fn kind(&self) -> SessionErrorKind {
        self.kind
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SessionErrorKind::NoSession => {
                "the request names no session; put a SessionId or a Session into its extensions, or configure a default \
                 session (a redirect layer without follow_redirects drops them on its way)"
            }
            SessionErrorKind::SessionMismatch => {
                "the request names one session and carries the identity of another; name one of them"
            }
            SessionErrorKind::WrongRegistry => {
                "the request carries a handle to a session of other `Sessions` than the layer's; build both on the same"
            }
            SessionErrorKind::RenewalPending => {
                "the session is being renewed, and this stack has no renewal layer that could wait for it"
            }
            SessionErrorKind::BadUri => "the request's URI has no host to match cookies with",
            SessionErrorKind::BadCookie => "a cookie that the request brings along was refused",
            SessionErrorKind::NoIdentity => {
                "the request has no identity; put the profile layer below the session layer, or use ProfileLayer::resolving"
            }
            SessionErrorKind::SharedWithoutRenewal => {
                "the session is shared with other processes; put a renewal layer above the session layer, which looks it up"
            }
            SessionErrorKind::ProfilesExhausted => {
                "no profile is free; add profiles, keep fewer sessions (`max_sessions`), or let Profiles::on_exhausted recycle \
                 them or wait longer"
            }
            SessionErrorKind::IdentityEnded => "the session's identity ended while the request was on its way",
        })
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
