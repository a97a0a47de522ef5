//! The shell of a pool: its state machine together with sessions, wakers and tasks.
//!
//! One lock guards the state and the effects of a step. It is held for one step, and never across
//! an await, a wake-up, the drop of a session, or a call of the user's code: a step records its
//! effects, and they are carried out after the lock is released.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Weak},
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{
    classify::Verdict,
    effects::{Deferred, Effects, GateWatch, TimerStart},
    error::{PoolError, PoolErrorKind},
    settings::Settings,
    slot_leases::SlotLeases,
    state::{PoolState, Step},
    tasks::{Tasks, Usage},
    types::{Feedback, Key, LeaseDecision, LeaseEnd, LeaseRequest, Member, MemberNumber, Refusal, WaiterRef},
    warm_up,
};
use crate::{
    gate::{Availability, RenewalError},
    jitter::Jitter,
    rt,
    session::{Session, SessionId, Sessions},
};

/// What all handles of a pool share.
pub(crate) struct Pool {
    pub(crate) sessions: Sessions,
    pub(crate) settings: Settings,
    /// The slots of the members, if sessions are shared with other processes.
    pub(crate) slots: Option<Arc<SlotLeases>>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: PoolState<Effects>,
    effects: Effects,
    timer: Timer,
}

/// The time at which the pool has to be ticked if no event comes first.
#[derive(Default)]
struct Timer {
    at: Option<Duration>,
    /// Distinguishes this setting of the timer from earlier ones.
    number: u64,
    handle: Option<AbortHandle>,
}

/// The immediate result of a request for a lease.
pub(crate) enum AskResult {
    Leased(Key, Session),
    Wait(WaiterRef),
}

/// What a waiter finds when it is polled.
pub(crate) enum PollResult {
    Leased(Key, Session),
    Rejected(PoolError),
    Pending,
}

impl Pool {
    pub(crate) fn new(
        sessions: Sessions,
        settings: Settings,
        members: Vec<Session>,
        first: MemberNumber,
    ) -> Arc<Self> {
        let jitter = Jitter::seeded(sessions.registry.context.jitter.draw());
        let state = PoolState::new(&settings.limits, first);
        let inner = Inner { state, effects: Effects::new(jitter), timer: Timer::default() };
        let share = sessions.registry.context.share.clone();
        let slots = share.map(|share| SlotLeases::new(share, &settings.name, settings.slots));
        let pool = Arc::new(Self { sessions, settings, slots, inner: Mutex::new(inner) });
        for session in members {
            pool.event(|state, step| {
                let joined = state.join(step)?;
                step.effects.session_mut(joined).replace(session)
            });
        }
        pool
    }

    /// Returns the name of the member with this number.
    pub(crate) fn member_id(&self, number: MemberNumber) -> SessionId {
        SessionId::from(format!("{}-{number}", self.settings.name))
    }

    /// Leases a member, or enters a queue.
    pub(crate) fn ask(self: &Arc<Self>, request: &LeaseRequest) -> Result<AskResult, PoolError> {
        let decision = self.event(|state, step| match state.ask(step, request) {
            LeaseDecision::Leased(key) => Ok(AskResult::Leased(key, step.effects.leased(key))),
            LeaseDecision::Wait(waiter) => Ok(AskResult::Wait(waiter)),
            LeaseDecision::Refuse(refusal) => Err(refusal),
        });
        decision.map_err(|refusal| match refusal {
            Refusal::QueueFull => PoolError::new(PoolErrorKind::TooManyWaiting, &self.settings.name),
            Refusal::Unavailable(cause) => PoolError::unavailable(&self.settings.name, cause),
        })
    }

    /// Polls a waiter. `Pending` means that `waker` was stored; any other result ends the wait.
    pub(crate) fn poll(self: &Arc<Self>, waiter: WaiterRef, waker: &Waker) -> PollResult {
        // Wakers are cloned and dropped outside the lock.
        let mut waker = Some(waker.clone());
        let result = self.event(|state, step| match state.poll(step, waiter) {
            Some(Ok(key)) => PollResult::Leased(key, step.effects.leased(key)),
            Some(Err(cause)) => PollResult::Rejected(PoolError::unavailable(&self.settings.name, cause)),
            None if state.needs_runtime() => {
                state.leave(step, waiter);
                PollResult::Rejected(PoolError::new(PoolErrorKind::NoRuntime, &self.settings.name))
            }
            None => {
                std::mem::swap(state.waker(waiter), &mut waker);
                PollResult::Pending
            }
        });
        drop(waker);
        result
    }

    /// Removes a waiter that was dropped.
    pub(crate) fn leave(self: &Arc<Self>, waiter: WaiterRef) {
        self.event(|state, step| state.leave(step, waiter));
    }

    /// Removes a waiter that has waited too long.
    pub(crate) fn time_out(self: &Arc<Self>, waiter: WaiterRef) {
        self.event(|state, step| {
            state.count_time_out();
            state.leave(step, waiter);
        });
    }

    /// Ends a lease.
    pub(crate) fn end(self: &Arc<Self>, key: Key, end: LeaseEnd) {
        self.event(|state, step| state.end(step, key, end));
    }

    /// Applies a verdict to a member.
    pub(crate) fn mark(self: &Arc<Self>, key: Key, verdict: Verdict) {
        let feedback = match verdict {
            Verdict::Neutral => return,
            Verdict::Good => Feedback::Good,
            Verdict::Bad => Feedback::Bad,
            Verdict::CoolDown(cooldown) => Feedback::CoolDown(cooldown.min(self.settings.max_cooldown)),
            Verdict::Retire => Feedback::Retire,
        };
        self.event(|state, step| state.apply_feedback(step, key, feedback));
    }

    /// Reads the state and the sessions without changing them. `read` must not call user code.
    pub(crate) fn inspect<R>(
        &self,
        read: impl FnOnce(&PoolState<Effects>, &dyn Fn(Key) -> Option<Session>) -> R,
    ) -> R {
        let inner = self.inner.lock();
        read(&inner.state, &|key| inner.effects.session(key).cloned())
    }

    /// Returns the time since the origin of the pool's clock.
    pub(crate) fn now(&self) -> Duration {
        self.sessions.registry.context.now()
    }

    fn tasks(self: &Arc<Self>) -> Weak<dyn Tasks> {
        let pool: Weak<Self> = Arc::downgrade(self);
        pool
    }

    fn has_rule(&self) -> bool {
        self.sessions.registry.context.backend().is_some_and(|backend| backend.has_rule())
    }

    /// Runs one step under the lock and carries out its effects afterwards.
    fn event<R>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut PoolState<Effects>, &mut Step<'_, Effects>) -> R,
    ) -> R {
        let (result, deferred) = self.decide(decide);
        if let Some(deferred) = deferred {
            self.run(deferred);
        }
        result
    }

    fn decide<R>(
        &self,
        decide: impl FnOnce(&mut PoolState<Effects>, &mut Step<'_, Effects>) -> R,
    ) -> (R, Option<Deferred>) {
        let mut inner = self.inner.lock();
        let Inner { state, effects, timer } = &mut *inner;
        // Read under the lock, so that time never decreases from one event to the next.
        let now = self.now();
        let result = decide(state, &mut Step { effects, limits: &self.settings.limits, now });
        if effects.needs_runtime() {
            // A waiter that is polled inside a runtime has to start the renewals.
            state.wake_all(&mut Step { effects, limits: &self.settings.limits, now });
        }
        let mut deferred = effects.take();
        if let Some(at) = state.next_timer()
            && timer.at.is_none_or(|set| at < set)
            && rt::is_available()
        {
            timer.number += 1;
            timer.at = Some(at);
            let replaced = timer.handle.take();
            let start = TimerStart { at, number: timer.number, replaced };
            deferred.get_or_insert_default().timer = Some(start);
        }
        (result, deferred)
    }

    /// Carries out effects, and then the effects of those.
    ///
    /// It loops instead of recursing, since there may be many warm-ups.
    fn run(self: &Arc<Self>, deferred: Deferred) {
        let mut left = VecDeque::from([deferred]);
        while let Some(deferred) = left.pop_front() {
            deferred.woken.into_iter().for_each(Waker::wake);
            drop((deferred.discarded, deferred.causes));
            for (key, session, end) in deferred.removed {
                if let Some(session) = &session {
                    self.sessions.registry.forget(session);
                }
                if let Some(slots) = &self.slots {
                    slots.release(key, session, end);
                }
            }
            if let Some(start) = deferred.timer {
                self.start_timer(start);
            }
            for (key, session) in deferred.renewing {
                GateWatch::set(self.tasks(), key, &session);
            }
            if !(deferred.idle.is_empty() && deferred.warm_ups.is_empty()) {
                let has_rule = self.has_rule();
                self.inner.lock().effects.has_rule = has_rule;
                for (key, session) in deferred.idle {
                    if has_rule {
                        warm_up::renew(self.clone(), key, session);
                    } else {
                        left.extend(self.decide(|state, step| state.recheck(step, key)).1);
                    }
                }
                for key in deferred.warm_ups {
                    left.extend(self.run_warm_up(key, has_rule));
                }
            }
        }
    }

    fn start_timer(self: &Arc<Self>, start: TimerStart) {
        let TimerStart { at, number, replaced } = start;
        if let Some(replaced) = replaced {
            replaced.abort();
        }
        let wait = at.saturating_sub(self.now());
        let Some(handle) = warm_up::start_timer(self.tasks(), number, wait) else {
            return;
        };
        {
            let mut inner = self.inner.lock();
            if inner.timer.number == number {
                inner.timer.handle = Some(handle);
                return;
            }
        }
        handle.abort();
    }

    /// Creates the session of a new member and warms it up.
    ///
    /// The member serves immediately if there is no renewal rule, or if its session is logged in.
    fn run_warm_up(self: &Arc<Self>, key: Key, has_rule: bool) -> Option<Deferred> {
        let guard = warm_up::WarmUpGuard::new(self.tasks(), key);
        if let Some(slots) = &self.slots {
            slots.fill(self.tasks(), guard);
            return None;
        }
        let session = self.sessions.registry.member(self.member_id(key.number));
        let is_warm = !has_rule || session.gate().availability() == Availability::Open;
        self.attach_session(key, session.clone());
        if is_warm {
            guard.disarm();
            return self.decide(|state, step| state.warmed(step, key, Ok(()))).1;
        }
        warm_up::warm_up(guard, session);
        None
    }
}

impl Tasks for Pool {
    fn warmed(self: Arc<Self>, key: Key, result: Result<(), RenewalError>) {
        self.event(|state, step| state.warmed(step, key, result));
    }

    fn warm_up_lost(self: Arc<Self>, key: Key) {
        self.event(|state, step| state.warm_up_lost(step, key));
    }

    fn renewed(self: Arc<Self>, key: Key, result: Result<(), RenewalError>) {
        self.event(|state, step| state.renewed(step, key, result));
    }

    fn recheck(self: Arc<Self>, key: Key) {
        self.event(|state, step| state.recheck(step, key));
    }

    fn timer_fired(self: Arc<Self>, number: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.timer.number == number {
                inner.timer.at = None;
            }
        }
        // This event sets the next timer.
        self.event(|state, step| state.tick(step));
    }

    fn timer_lost(self: Arc<Self>, number: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.timer.number != number || inner.timer.at.is_none() {
                return;
            }
            inner.timer.at = None;
        }
        // All waiters are woken, so that one that is polled inside a runtime sets the timer again.
        if let Some(mut deferred) = self.decide(|state, step| state.wake_all(step)).1 {
            // A timer that is set here would be lost again.
            if deferred.timer.take().is_some() {
                self.inner.lock().timer.at = None;
            }
            self.run(deferred);
        }
    }

    fn session(&self, id: SessionId) -> Session {
        self.sessions.registry.member(id)
    }

    fn attach_session(&self, key: Key, session: Session) {
        let replaced = self.inner.lock().effects.session_mut(key).replace(session);
        drop(replaced);
    }

    fn release(self: Arc<Self>, key: Key) {
        self.event(|state, step| state.apply_feedback(step, key, Feedback::Release));
    }

    fn usage(&self) -> HashMap<Key, Usage> {
        let usage = |member: &Member| Usage { last_lease: member.last_lease(), is_leased: member.in_use > 0 };
        self.inspect(|state, _| state.members().map(|(key, member)| (key, usage(member))).collect())
    }

    fn has_waiters(&self) -> bool {
        self.inspect(|state, _| state.waiting() > 0)
    }

    fn random(&self) -> u64 {
        self.sessions.registry.context.jitter.draw()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sessions.registry.context.release_pool(&self.settings.name);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPool").field("name", &self.settings.name).finish_non_exhaustive()
    }
}
