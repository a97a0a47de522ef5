//! A pool as it runs: the core with its sessions, wakers and tasks.
//!
//! One lock guards the decisions and what belongs to them. It is held for a decision and never across an await, a wake-up, a
//! drop of a session, or code that is not ours: what follows from a decision is noted under the lock and done after it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{
    classify::{Outcome, Verdict},
    error::{PoolError, PoolErrorKind},
    slot_leases::SlotLeases,
    state::{
        EffectSink, Feedback, Key, LeaseDecision, LeaseRequest, Limits, MemberEnd, PoolState, Refusal, Step,
        WaiterRef,
    },
    strategy::{Picker, RequestView},
    warm_up,
};
use crate::{
    gate::{
        RenewalError, driver,
        jitter::Jitter,
        keeper::{Gate, Outlook},
        waiters::Ticket,
    },
    session::{Session, SessionId, SessionInner, Sessions},
};

/// What makes a key of a request, if it is to stick to a session.
pub(crate) type StickyKey = Arc<dyn Fn(&RequestView<'_>) -> Option<u64> + Send + Sync>;

/// How outcomes are judged.
pub(crate) type Classify = Arc<dyn Fn(&Outcome<'_>) -> Verdict + Send + Sync>;

/// The settings of a pool beside those of its core.
pub(crate) struct Settings {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) max_wait: Duration,
    pub(crate) max_cooldown: Duration,
    /// How many sessions the pools of this name have in all processes, if they are shared.
    pub(crate) slots: Option<u32>,
    pub(crate) sticky: Option<StickyKey>,
    pub(crate) picker: Option<Arc<dyn Picker>>,
    pub(crate) classify: Classify,
}

/// What all handles of a pool share.
pub(crate) struct Pool {
    pub(crate) sessions: Sessions,
    pub(crate) settings: Settings,
    /// What its sessions sit on, if they are shared with other processes.
    pub(crate) slots: Option<Arc<SlotLeases>>,
    inner: Mutex<Inner>,
}

struct Inner {
    core: PoolState<Effects>,
    effects: Effects,
    timer: Timer,
}

/// When the pool is to be ticked though nobody asks.
#[derive(Default)]
struct Timer {
    at: Option<Duration>,
    /// Tells one setting from the next.
    number: u64,
    handle: Option<AbortHandle>,
}

/// The core's effects: the sessions by the place of their members, and what is to be done after the step.
pub(crate) struct Effects {
    sessions: Vec<Option<Session>>,
    /// Whether a rule was there when it was last asked for. Without one, a session whose gate stands still is opened by the next
    /// request that is sent under it.
    has_rule: bool,
    jitter: Jitter,
    deferred: Deferred,
}

/// What is left to do once the lock is released.
#[derive(Default)]
struct Deferred {
    warm_ups: Vec<Key>,
    removed: Vec<(Key, Option<Session>, MemberEnd)>,
    /// Gates that move; who waits for them is to be told.
    moving: Vec<(Key, Session)>,
    /// Gates that nobody works on.
    still: Vec<(Key, Session)>,
    woken: Vec<Waker>,
    discarded: Vec<Waker>,
    causes: Vec<RenewalError>,
    timer: Option<(Duration, u64, Option<AbortHandle>)>,
}

impl Deferred {
    fn is_empty(&self) -> bool {
        let Self { warm_ups, removed, moving, still, woken, discarded, causes, timer } = self;
        warm_ups.is_empty()
            && removed.is_empty()
            && moving.is_empty()
            && still.is_empty()
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
        match session.0.gate.outlook() {
            Outlook::Open => true,
            Outlook::Still if !self.has_rule => true,
            Outlook::Still => {
                let session = session.clone();
                self.deferred.still.push((member, session));
                false
            }
            Outlook::Moving => {
                let session = session.clone();
                self.deferred.moving.push((member, session));
                false
            }
        }
    }
    fn can_start_warm_up(&mut self) -> bool {
        driver::is_in_runtime()
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
    fn new(jitter: Jitter) -> Self {
        Self { sessions: Vec::new(), has_rule: true, jitter, deferred: Deferred::default() }
    }

    fn session(&self, member: Key) -> Option<&Session> {
        self.sessions.get(member.index as usize)?.as_ref()
    }

    fn session_mut(&mut self, member: Key) -> &mut Option<Session> {
        let index = member.index as usize;
        if self.sessions.len() <= index {
            self.sessions.resize(index + 1, None);
        }
        &mut self.sessions[index]
    }

    /// Takes what is to be done, if there is anything.
    fn take(&mut self) -> Option<Deferred> {
        if self.deferred.is_empty() {
            return None;
        }
        let mut deferred = std::mem::take(&mut self.deferred);
        if !driver::is_in_runtime() {
            // What nobody can work on here stays noted until somebody in a runtime passes.
            self.deferred.still = std::mem::take(&mut deferred.still);
        }
        Some(deferred)
    }
}

/// What a request got.
pub(crate) enum AskResult {
    Leased(Key, Session),
    Wait(WaiterRef),
}

/// What a waiter sees.
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
        first: u64,
    ) -> Arc<Self> {
        let jitter = Jitter::seeded(sessions.registry.context.jitter.draw());
        let core = PoolState::new(&settings.limits, first);
        let inner = Inner { core, effects: Effects::new(jitter), timer: Timer::default() };
        let share = sessions.registry.context.share.clone();
        let slots = share.map(|share| SlotLeases::new(share, &settings.name, settings.slots));
        let pool = Arc::new(Self { sessions, settings, slots, inner: Mutex::new(inner) });
        for session in members {
            pool.event(|core, step| {
                let joined = core.join(step)?;
                step.effects.session_mut(joined).replace(session)
            });
        }
        pool
    }

    /// The name of the member of this number.
    pub(crate) fn member_id(&self, number: u64) -> SessionId {
        SessionId::from(format!("{}-{number}", self.settings.name))
    }

    /// Asks for a member.
    pub(crate) fn ask(self: &Arc<Self>, ask: &LeaseRequest) -> Result<AskResult, PoolError> {
        let answer = self.event(|core, step| match core.ask(step, ask) {
            LeaseDecision::Leased(key) => Ok(AskResult::Leased(key, step.effects.leased(key))),
            LeaseDecision::Wait(place) => Ok(AskResult::Wait(place)),
            LeaseDecision::Refuse(refusal) => Err(refusal),
        });
        answer.map_err(|refusal| match refusal {
            Refusal::QueueFull => PoolError::new(PoolErrorKind::TooManyWaiting, &self.settings.name),
            Refusal::Unavailable(cause) => PoolError::unavailable(&self.settings.name, cause),
        })
    }

    /// Looks whether a waiter has been served. `Nothing` means that `waker` was stored; otherwise the place is given back.
    pub(crate) fn poll(self: &Arc<Self>, place: WaiterRef, waker: &Waker) -> PollResult {
        // Cloned, and the old one dropped, outside the lock.
        let mut waker = Some(waker.clone());
        let seen = self.event(|core, step| match core.poll(step, place) {
            Some(Ok(key)) => PollResult::Leased(key, step.effects.leased(key)),
            Some(Err(cause)) => PollResult::Rejected(PoolError::unavailable(&self.settings.name, cause)),
            None if core.needs_runtime() => {
                core.leave(step, place);
                PollResult::Rejected(PoolError::new(PoolErrorKind::NoRuntime, &self.settings.name))
            }
            None => {
                std::mem::swap(core.waker(place), &mut waker);
                PollResult::Pending
            }
        });
        drop(waker);
        seen
    }

    /// A waiter gives up.
    pub(crate) fn leave(self: &Arc<Self>, place: WaiterRef) {
        self.event(|core, step| core.leave(step, place));
    }

    /// A waiter has waited too long.
    pub(crate) fn time_out(self: &Arc<Self>, place: WaiterRef) {
        self.event(|core, step| {
            core.count_time_out();
            core.leave(step, place);
        });
    }

    /// A lease ends.
    pub(crate) fn end(self: &Arc<Self>, key: Key, used: bool) {
        self.event(|core, step| core.end(step, key, used));
    }

    /// News about a member.
    pub(crate) fn mark(self: &Arc<Self>, key: Key, verdict: Verdict) {
        let feedback = match verdict {
            Verdict::Neutral => return,
            Verdict::Good => Feedback::Good,
            Verdict::Bad => Feedback::Bad,
            Verdict::CoolDown(rest) => Feedback::CoolDown(rest.min(self.settings.max_cooldown)),
            Verdict::Retire => Feedback::Retire,
        };
        self.event(|core, step| core.apply_feedback(step, key, feedback));
    }

    /// Applies whatever is due.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.event(|core, step| core.tick(step));
    }

    /// The timer of this number has rung; whatever is due after this event sets the next one.
    pub(crate) fn fire(self: &Arc<Self>, number: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.timer.number == number {
                inner.timer.at = None;
            }
        }
        self.tick();
    }

    /// The timer of this number will not fire. Everybody looks, so that one who is inside a runtime sets it again.
    pub(crate) fn timer_lost(self: &Arc<Self>, number: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.timer.number != number || inner.timer.at.is_none() {
                return;
            }
            inner.timer.at = None;
        }
        let wake_all = self.decide(|core, step| core.wake_all(step)).1;
        if let Some(mut deferred) = wake_all {
            // Not set from here, where it would be lost again.
            if deferred.timer.take().is_some() {
                self.inner.lock().timer.at = None;
            }
            self.run(deferred);
        }
    }

    pub(crate) fn set_timer(&self, number: u64, handle: AbortHandle) {
        {
            let mut inner = self.inner.lock();
            if inner.timer.number == number {
                inner.timer.handle = Some(handle);
                return;
            }
        }
        handle.abort();
    }

    /// An order was carried out or has failed.
    pub(crate) fn warmed(self: &Arc<Self>, key: Key, result: Result<(), RenewalError>) {
        self.event(|core, step| core.warmed(step, key, result));
    }

    /// An order was lost with its runtime.
    pub(crate) fn lost(self: &Arc<Self>, key: Key) {
        self.event(|core, step| core.lost(step, key));
    }

    /// A member's session can be sent under again, or could not be renewed.
    pub(crate) fn opened(self: &Arc<Self>, key: Key, result: Result<(), RenewalError>) {
        self.event(|core, step| core.opened(step, key, result));
    }

    fn recheck(self: &Arc<Self>, key: Key) {
        self.event(|core, step| core.recheck(step, key));
    }

    /// Looks at the core and the sessions, changing nothing. `look` must not run code that is not ours.
    pub(crate) fn inspect<R>(
        &self,
        look: impl FnOnce(&PoolState<Effects>, &dyn Fn(Key) -> Option<Session>) -> R,
    ) -> R {
        let inner = self.inner.lock();
        look(&inner.core, &|key| inner.effects.session(key).cloned())
    }

    /// The time by the pool's clock.
    pub(crate) fn now(&self) -> Duration {
        self.sessions.registry.context.now()
    }

    fn has_rule(&self) -> bool {
        self.sessions.registry.context.backend().is_some_and(|lane| lane.has_rule())
    }

    /// One event: the core decides under the lock; the rest is done after it.
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
        let Inner { core, effects, timer } = &mut *inner;
        // Read under the lock, so that time does not go back from one event to the next.
        let now = self.now();
        let result = decide(core, &mut Step { effects: effects, limits: &self.settings.limits, now });
        if !effects.deferred.still.is_empty() && !driver::is_in_runtime() {
            // Somebody in a runtime has to pass.
            core.wake_all(&mut Step { effects: effects, limits: &self.settings.limits, now });
        }
        let mut deferred = effects.take();
        if let Some(at) = core.next_timer()
            && timer.at.is_none_or(|set| at < set)
            && driver::is_in_runtime()
        {
            timer.number += 1;
            timer.at = Some(at);
            let old = timer.handle.take();
            deferred.get_or_insert_default().timer = Some((at, timer.number, old));
        }
        (result, deferred)
    }

    /// Does what is left to do, and what comes of that, one after the other: warm_ups may be many.
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
            if let Some((at, number, old)) = deferred.timer {
                if let Some(old) = old {
                    old.abort();
                }
                warm_up::set_timer(self, at, number);
            }
            for (key, session) in deferred.moving {
                GateWatch::set(self, key, &session);
            }
            if !(deferred.still.is_empty() && deferred.warm_ups.is_empty()) {
                let has_rule = self.has_rule();
                self.inner.lock().effects.has_rule = has_rule;
                for (key, session) in deferred.still {
                    if has_rule {
                        warm_up::renew(self, key, session);
                    } else {
                        left.extend(self.decide(|core, step| core.recheck(step, key)).1);
                    }
                }
                for key in deferred.warm_ups {
                    left.extend(self.run_warm_up(key, has_rule));
                }
            }
        }
    }

    /// The session of an ordered member is this one.
    pub(crate) fn attach_session(&self, key: Key, session: Session) {
        self.inner.lock().effects.session_mut(key).replace(session);
    }

    /// Lets a member be another process's, as soon as its leases have ended.
    pub(crate) fn release(self: &Arc<Self>, key: Key) {
        self.event(|core, step| core.apply_feedback(step, key, Feedback::Release));
    }

    /// Makes the session of an ordered member. It serves as it is where no rule says how to warm it, and where it is warm already.
    fn run_warm_up(self: &Arc<Self>, key: Key, has_rule: bool) -> Option<Deferred> {
        let guard = warm_up::WarmUpGuard::new(self, key);
        if let Some(slots) = &self.slots {
            slots.fill(self, guard);
            return None;
        }
        let session = self.sessions.registry.member(self.member_id(key.number));
        let is_warm = !has_rule || session.0.gate.outlook() == Outlook::Open;
        self.inner.lock().effects.session_mut(key).replace(session.clone());
        if is_warm {
            guard.keep();
            return self.decide(|core, step| core.warmed(step, key, Ok(()))).1;
        }
        warm_up::warm_up(guard, session);
        None
    }
}

impl Effects {
    /// The session of a member that was leased just now.
    fn leased(&self, key: Key) -> Session {
        self.session(key).expect("a member that serves has its session").clone()
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

/// Looks at a member again when its session's gate changes.
struct GateWatch {
    pool: Weak<Pool>,
    key: Key,
    place: Mutex<Option<(Weak<SessionInner>, Ticket)>>,
}

impl GateWatch {
    fn set(pool: &Arc<Pool>, key: Key, session: &Session) {
        let watch = Arc::new(Self { pool: Arc::downgrade(pool), key, place: Mutex::new(None) });
        {
            // A change in between waits for the place to be noted.
            let mut place = watch.place.lock();
            let mut ticket = None;
            Gate::queue(&session.0, &mut ticket, &Waker::from(watch.clone()));
            *place = ticket.map(|ticket| (Arc::downgrade(&session.0), ticket));
        }
        // Looked at after the place was taken, so that a gate that opens in between is seen or wakes.
        if session.0.gate.outlook() != Outlook::Moving {
            watch.wake();
        }
    }
}

impl Wake for GateWatch {
    fn wake(self: Arc<Self>) {
        let place = self.place.lock().take();
        let Some((session, ticket)) = place else {
            return;
        };
        if let Some(session) = session.upgrade() {
            Gate::unqueue(&session, ticket);
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.recheck(self.key);
        }
    }
}
