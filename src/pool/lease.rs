//! Leases of a pool's sessions, and handles to its members.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    classify::Verdict,
    runtime::Pool,
    types::{Key, LeaseEnd},
};
use crate::session::{Session, SessionId};

/// One use of a pool's session, until it is dropped.
///
/// [`SessionPool::lease`](super::SessionPool::lease) gives it out, for work that takes more than one request: put its
/// [`session`](Self::session) into the extensions of each. Requests through a [`PoolLayer`](super::PoolLayer) are leased by
/// themselves.
pub struct Lease {
    /// There until the lease ends.
    member: Option<Member>,
    end: LeaseEnd,
}

impl Lease {
    pub(crate) fn new(pool: Arc<Pool>, key: Key, session: Session) -> Self {
        Self { member: Some(Member { pool, key, session }), end: LeaseEnd::Unused }
    }

    /// The leased session.
    ///
    /// To ask for it is to use it: a lease that is dropped before counts for nothing.
    pub fn session(&mut self) -> &Session {
        self.end = LeaseEnd::Used;
        &self.member().session
    }

    /// A handle to the leased session as a member of its pool.
    pub fn member(&self) -> &Member {
        self.member.as_ref().expect("it is taken when the lease is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(Member { pool, key, session }) = self.member.take() else {
            return;
        };
        // First, so that a session that was retired can be forgotten with its last lease.
        drop(session);
        pool.end(key, self.end);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("session", self.member().id()).finish_non_exhaustive()
    }
}

/// A handle to one session of a pool, to say how it fares.
///
/// Every response that came through a [`PoolLayer`](super::PoolLayer) under a session of its pool has it in its extensions. It
/// does not keep the session leased. What is said about a session that is gone from the pool changes nothing.
///
/// # Clone
///
/// Clones are the same member.
#[derive(Clone)]
pub struct Member {
    pub(crate) pool: Arc<Pool>,
    pub(crate) key: Key,
    pub(crate) session: Session,
}

impl Member {
    /// The session's name.
    pub fn id(&self) -> &SessionId {
        self.session.id()
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Says that the session works: its score heals.
    pub fn mark_good(&self) {
        self.mark(Verdict::Good);
    }

    /// Says that the session may be blocked: its score rises by one, and at `max_error_score` it is retired.
    pub fn mark_bad(&self) {
        self.mark(Verdict::Bad);
    }

    /// Lets the session rest for so long, at most `max_cooldown`; this is no bad mark.
    pub fn cool_down(&self, cooldown: Duration) {
        self.mark(Verdict::CoolDown(cooldown));
    }

    /// Takes the session out of the pool. Requests on their way under it end as they would; another one takes its place.
    pub fn retire(&self) {
        self.mark(Verdict::Retire);
    }

    /// Says what a verdict says.
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
