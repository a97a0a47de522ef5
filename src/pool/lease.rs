//! Leases of a pool's sessions, and handles to its members.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    classify::Verdict,
    runtime::Pool,
    types::{Key, LeaseEnd},
};
use crate::session::{Session, SessionId};

/// A lease of one session of a pool, which ends when it is dropped.
///
/// [`SessionPool::lease`](super::SessionPool::lease) returns it, for work that takes more than one
/// request: put its [`session`](Self::session) into the extensions of each. A
/// [`PoolLayer`](super::PoolLayer) leases sessions without it.
pub struct Lease {
    /// `Some` until the lease ends.
    member: Option<Member>,
    end: LeaseEnd,
}

impl Lease {
    pub(crate) fn new(pool: Arc<Pool>, key: Key, session: Session) -> Self {
        Self { member: Some(Member { pool, key, session }), end: LeaseEnd::Unused }
    }

    /// Returns the leased session and marks the lease as used.
    ///
    /// A lease that is dropped before this call does not count as a use.
    pub fn session(&mut self) -> &Session {
        self.end = LeaseEnd::Used;
        &self.member().session
    }

    /// Returns a handle to the leased session as a member of its pool.
    pub fn member(&self) -> &Member {
        self.member.as_ref().expect("a lease has its member until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(Member { pool, key, session }) = self.member.take() else {
            return;
        };
        // Dropped first, so that a retired session can be removed with its last lease.
        drop(session);
        pool.end(key, self.end);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("session", self.member().id()).finish_non_exhaustive()
    }
}

/// A handle to one member of a pool, by which the caller reports on its session.
///
/// Each response from a [`PoolLayer`](super::PoolLayer) under a member has it in its extensions. It
/// is not a lease. Reports on a member that has left the pool are ignored.
///
/// # Clone
///
/// Clones refer to the same member.
#[derive(Clone)]
pub struct Member {
    pub(crate) pool: Arc<Pool>,
    pub(crate) key: Key,
    pub(crate) session: Session,
}

impl Member {
    /// Returns the name of the session.
    pub fn id(&self) -> &SessionId {
        self.session.id()
    }

    /// Returns the session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Reports that the session works: its score is reduced.
    pub fn mark_good(&self) {
        self.mark(Verdict::Good);
    }

    /// Reports that the session may be blocked: its score rises by one, and at `max_error_score` it
    /// is retired.
    pub fn mark_bad(&self) {
        self.mark(Verdict::Bad);
    }

    /// Does not use the session for this duration, which is limited by `max_cooldown`.
    ///
    /// This is not a bad mark.
    pub fn cool_down(&self, cooldown: Duration) {
        self.mark(Verdict::CoolDown(cooldown));
    }

    /// Retires the session.
    ///
    /// Its requests in flight complete, and another session takes its place.
    pub fn retire(&self) {
        self.mark(Verdict::Retire);
    }

    /// Applies a verdict.
    pub fn mark(&self, verdict: Verdict) {
        self.pool.mark(self.key, verdict);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("pool", &self.pool.settings.name)
            .field("session", self.id())
            .finish_non_exhaustive()
    }
}
