//! What a step of a pool's state machine leaves to be done after the lock is released.

use std::{
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{
    state::EffectSink,
    tasks::Tasks,
    types::{Key, MemberEnd},
};
use crate::{
    gate::{Availability, RenewalError},
    jitter::Jitter,
    rt,
    session::{Session, SessionInner},
    waiters::Ticket,
};

/// The sessions of the members, by index, and what has to be done after the step.
pub(crate) struct Effects {
    sessions: Vec<Option<Session>>,
    /// Whether a renewal rule existed when it was last looked up.
    ///
    /// Without a rule, the next request under a session opens its idle gate.
    pub(crate) has_rule: bool,
    jitter: Jitter,
    deferred: Deferred,
}

/// The work that is left once the lock is released.
#[derive(Default)]
pub(crate) struct Deferred {
    pub(crate) warm_ups: Vec<Key>,
    pub(crate) removed: Vec<(Key, Option<Session>, MemberEnd)>,
    /// Sessions under renewal; the pool has to watch their gates.
    pub(crate) renewing: Vec<(Key, Session)>,
    /// Sessions that need a renewal which nothing has started.
    pub(crate) idle: Vec<(Key, Session)>,
    pub(crate) woken: Vec<Waker>,
    pub(crate) discarded: Vec<Waker>,
    pub(crate) causes: Vec<RenewalError>,
    pub(crate) timer: Option<TimerStart>,
}

/// A timer to start, and the one that it replaces.
pub(crate) struct TimerStart {
    pub(crate) at: Duration,
    pub(crate) number: u64,
    pub(crate) replaced: Option<AbortHandle>,
}

impl Deferred {
    fn is_empty(&self) -> bool {
        let Self { warm_ups, removed, renewing, idle, woken, discarded, causes, timer } = self;
        warm_ups.is_empty()
            && removed.is_empty()
            && renewing.is_empty()
            && idle.is_empty()
            && woken.is_empty()
            && discarded.is_empty()
            && causes.is_empty()
            && timer.is_none()
    }
}

impl EffectSink for Effects {
    type Waker = Waker;
    type Cause = RenewalError;

    fn start_warm_up(&mut self, member: Key) {
        self.deferred.warm_ups.push(member);
    }
    fn removed(&mut self, member: Key, end: MemberEnd) {
        let session = self.session_mut(member).take();
        self.deferred.removed.push((member, session, end));
    }
    fn is_open(&mut self, member: Key) -> bool {
        let Some(session) = self.session(member) else {
            return false;
        };
        match session.gate().availability() {
            Availability::Open => true,
            Availability::Idle if !self.has_rule => true,
            Availability::Idle => {
                let session = session.clone();
                self.deferred.idle.push((member, session));
                false
            }
            Availability::Renewing => {
                let session = session.clone();
                self.deferred.renewing.push((member, session));
                false
            }
        }
    }
    fn can_start_warm_up(&mut self) -> bool {
        rt::is_available()
    }
    fn wake(&mut self, waker: Waker) {
        self.deferred.woken.push(waker);
    }
    fn discard(&mut self, waker: Option<Waker>, cause: Option<RenewalError>) {
        self.deferred.discarded.extend(waker);
        self.deferred.causes.extend(cause);
    }
    fn random(&mut self) -> u64 {
        self.jitter.draw()
    }
}

impl Effects {
    pub(crate) fn new(jitter: Jitter) -> Self {
        Self { sessions: Vec::new(), has_rule: true, jitter, deferred: Deferred::default() }
    }

    pub(crate) fn session(&self, member: Key) -> Option<&Session> {
        self.sessions.get(member.index as usize)?.as_ref()
    }

    pub(crate) fn session_mut(&mut self, member: Key) -> &mut Option<Session> {
        let index = member.index as usize;
        if self.sessions.len() <= index {
            self.sessions.resize(index + 1, None);
        }
        &mut self.sessions[index]
    }

    /// Returns the session of a member that has just been leased.
    pub(crate) fn leased(&self, member: Key) -> Session {
        self.session(member).expect("a member in service has a session").clone()
    }

    /// Returns whether work is left that only a caller inside a runtime can do.
    pub(crate) fn needs_runtime(&self) -> bool {
        !self.deferred.idle.is_empty() && !rt::is_available()
    }

    /// Takes the deferred work, if there is any.
    pub(crate) fn take(&mut self) -> Option<Deferred> {
        if self.deferred.is_empty() {
            return None;
        }
        let mut deferred = std::mem::take(&mut self.deferred);
        if !rt::is_available() {
            // Renewals cannot be started here; they stay until the next event inside a runtime.
            self.deferred.idle = std::mem::take(&mut deferred.idle);
        }
        Some(deferred)
    }
}

/// Rechecks a member when the gate of its session changes.
pub(crate) struct GateWatch {
    pool: Weak<dyn Tasks>,
    key: Key,
    watched: Mutex<Option<(Weak<SessionInner>, Ticket)>>,
}

impl GateWatch {
    pub(crate) fn set(pool: Weak<dyn Tasks>, key: Key, session: &Session) {
        let watch = Arc::new(Self { pool, key, watched: Mutex::new(None) });
        {
            // A concurrent wake-up blocks on this lock until the ticket is stored.
            let mut watched = watch.watched.lock();
            let mut ticket = None;
            session.gate().watch(&mut ticket, &Waker::from(watch.clone()));
            *watched = ticket.map(|ticket| (Arc::downgrade(&session.0), ticket));
        }
        // Checked after the ticket was taken: a gate that opens in between is seen here or wakes.
        if session.gate().availability() != Availability::Renewing {
            watch.wake();
        }
    }
}

impl Wake for GateWatch {
    fn wake(self: Arc<Self>) {
        let watched = self.watched.lock().take();
        let Some((session, ticket)) = watched else {
            return;
        };
        if let Some(session) = session.upgrade() {
            session.gate.unwatch(ticket);
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.recheck(self.key);
        }
    }
}
