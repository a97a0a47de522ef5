//! One generation of a session: its cookie jar and its profile.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak, atomic::AtomicI64},
    time::Duration,
};

use super::{Session, SessionId, SessionInner};
use crate::{
    cookies::{Jar, SessionJar},
    gate::{Generation, VersionState},
    profile::{Profile, ProfileAssignment},
};

/// One generation of a session, with a cookie jar and a profile of its own.
///
/// A request keeps the identity under which it was sent, and its response stores cookies in that
/// identity only. The renewal or session layer adds the identity to each request; lower layers read
/// it with [`Identity::of`].
///
/// Not to be confused with `reqwest::Identity`, which is a TLS client certificate.
///
/// # Clone
///
/// Clones refer to the same identity.
#[derive(Clone)]
pub struct Identity {
    pub(crate) session: Session,
    pub(crate) inner: Arc<IdentityInner>,
}

/// The generation of a pending identity; no request ever sees it.
pub(super) const PENDING: Generation = Generation::new(0);

/// The state of an identity, which its handles and requests share.
pub(crate) struct IdentityInner {
    pub(crate) version: VersionState,
    pub(crate) jar: SessionJar,
    /// `None` if the sessions have no profiles.
    pub(crate) profile: Option<Arc<ProfileAssignment>>,
    /// When to renew because a required cookie is about to expire, in milliseconds since the Unix
    /// epoch.
    pub(crate) due: AtomicI64,
    /// The session, once a request has this identity attached. The attached handle is then one
    /// pointer, which costs one count up and down of a line that all requests share.
    session: OnceLock<Weak<SessionInner>>,
}

impl IdentityInner {
    /// The value of `due` until the jar was searched for required cookies.
    pub(crate) const UNKNOWN: i64 = i64::MIN;

    pub(crate) fn new(version: VersionState, jar: Jar, profile: Option<Arc<ProfileAssignment>>) -> Self {
        let due = AtomicI64::new(Self::UNKNOWN);
        Self { version, jar: SessionJar::new(jar), profile, due, session: OnceLock::new() }
    }

    /// Remembers the session, which is always the same for one identity.
    pub(super) fn set_session(&self, session: &Arc<SessionInner>) {
        self.session.get_or_init(|| Arc::downgrade(session));
    }

    /// The session, if it was set and still exists.
    pub(super) fn session(&self) -> Option<Arc<SessionInner>> {
        self.session.get()?.upgrade()
    }

    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()?.profile()
    }

    /// The assignment, if it still waits for a free profile.
    pub(crate) fn awaited_profile(&self) -> Option<&Arc<ProfileAssignment>> {
        self.profile.as_ref().filter(|assignment| assignment.profile().is_none())
    }
}

impl Identity {
    /// The session of this identity.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The id of the session.
    pub fn session_id(&self) -> &SessionId {
        self.session.id()
    }

    /// The generation number.
    ///
    /// It grows with every renewal, clear and replacement, and may skip numbers.
    pub fn generation(&self) -> u64 {
        self.inner.version.generation.get()
    }

    /// The profile, if the sessions have profiles and one was free.
    ///
    /// Below the session layer, which waits for a free profile, it is always present if there are
    /// profiles.
    pub fn profile(&self) -> Option<&Profile> {
        self.inner.profile()
    }

    /// Puts this identity's profile into cooldown, like
    /// [`Sessions::mark_profile_bad`](crate::Sessions::mark_profile_bad). Returns `false` if it has
    /// none.
    pub fn mark_profile_bad(&self) -> bool {
        self.profile().is_some_and(|profile| self.session.0.context.mark_profile_bad(profile))
    }

    /// The number of requests that a renewal layer has sent under this identity, not counting
    /// redirects.
    pub fn uses(&self) -> u64 {
        self.inner.version.uses()
    }

    /// The time since this identity was created.
    pub fn age(&self) -> Duration {
        self.session.now().saturating_sub(self.inner.version.created_at)
    }

    /// Whether the identity was ended by an expired response, a clear, a replacement or a failed
    /// renewal.
    ///
    /// An identity that was superseded by an early renewal has not ended.
    pub fn is_ended(&self) -> bool {
        self.inner.version.is_ended()
    }
}

/// Equal if both refer to the same identity.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("session", self.session_id())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
