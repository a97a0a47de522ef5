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
    core::{Answer, Ask, Core, End, Host, Key, Limits, Mark, Place, Refusal, Step},
    error::{PoolError, PoolErrorKind},
    judge::{Outcome, Verdict},
    seats::Seats,
    strategy::{Picker, RequestView},
    warm,
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
pub(crate) type Judge = Arc<dyn Fn(&Outcome<'_>) -> Verdict + Send + Sync>;

/// The settings of a pool beside those of its core.
pub(crate) struct Settings {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) max_wait: Duration,
    pub(crate) max_cooldown: Duration,
    /// How many sessions the pools of this name have in all processes, if they are shared.
    pub(crate) seats: Option<u32>,
    pub(crate) sticky: Option<StickyKey>,
    pub(crate) choose: Option<Arc<dyn Picker>>,
    pub(crate) judge: Judge,
}

/// What all handles of a pool share.
pub(crate) struct Pool {
    pub(crate) sessions: Sessions,
    pub(crate) settings: Settings,
    /// What its sessions sit on, if they are shared with other processes.
    pub(crate) seats: Option<Arc<Seats>>,
    inner: Mutex<Inner>,
}

struct Inner {
    core: Core<Notes>,
    notes: Notes,
    alarm: Alarm,
}

/// When the pool is to be ticked though nobody asks.
#[derive(Default)]
struct Alarm {
    at: Option<Duration>,
    /// Tells one setting from the next.
    number: u64,
    handle: Option<AbortHandle>,
}

/// The core's host: the sessions by the place of their members, and what is to be done after the step.
pub(crate) struct Notes {
    sessions: Vec<Option<Session>>,
    /// Whether a rule was there when it was last asked for. Without one, a session whose gate stands still is opened by the next
    /// request that is sent under it.
    has_rule: bool,
    jitter: Jitter,
    after: After,
}

/// What is left to do once the lock is released.
#[derive(Default)]
struct After {
    orders: Vec<Key>,
    gone: Vec<(Key, Option<Session>, End)>,
    /// Gates that move; who waits for them is to be told.
    moving: Vec<(Key, Session)>,
    /// Gates that nobody works on.
    still: Vec<(Key, Session)>,
    woken: Vec<Waker>,
    forgotten: Vec<Waker>,
    causes: Vec<RenewalError>,
    alarm: Option<(Duration, u64, Option<AbortHandle>)>,
}

impl After {
    fn is_nothing(&self) -> bool {
        let Self { orders, gone, moving, still, woken, forgotten, causes, alarm } = self;
        orders.is_empty()
            && gone.is_empty()
            && moving.is_empty()
            && still.is_empty()
            && woken.is_empty()
            && forgotten.is_empty()
            && causes.is_empty()
            && alarm.is_none()
    }
}

impl Host for Notes {
    type Waker = Waker;
    type Cause = RenewalError;

    fn order(&mut self, member: Key) {
        self.after.orders.push(member);
    }
    fn gone(&mut self, member: Key, end: End) {
        let session = self.session_mut(member).take();
        self.after.gone.push((member, session, end));
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
                self.after.still.push((member, session));
                false
            }
            Outlook::Moving => {
                let session = session.clone();
                self.after.moving.push((member, session));
                false
            }
        }
    }
    fn can_order(&mut self) -> bool {
        driver::is_in_runtime()
    }
    fn wake(&mut self, waker: Waker) {
        self.after.woken.push(waker);
    }
    fn forget(&mut self, waker: Option<Waker>, cause: Option<RenewalError>) {
        self.after.forgotten.extend(waker);
        self.after.causes.extend(cause);
    }
    fn random(&mut self) -> u64 {
        self.jitter.draw()
    }
}

impl Notes {
    fn new(jitter: Jitter) -> Self {
        Self { sessions: Vec::new(), has_rule: true, jitter, after: After::default() }
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
    fn take(&mut self) -> Option<After> {
        if self.after.is_nothing() {
            return None;
        }
        let mut after = std::mem::take(&mut self.after);
        if !driver::is_in_runtime() {
            // What nobody can work on here stays noted until somebody in a runtime passes.
            self.after.still = std::mem::take(&mut after.still);
        }
        Some(after)
    }
}

/// What a request got.
pub(crate) enum Got {
    Leased(Key, Session),
    Wait(Place),
}

/// What a waiter sees.
pub(crate) enum Seen {
    Leased(Key, Session),
    Refused(PoolError),
    Nothing,
}

impl Pool {
    pub(crate) fn new(
        sessions: Sessions,
        settings: Settings,
        members: Vec<Session>,
        first: u64,
    ) -> Arc<Self> {
        let jitter = Jitter::seeded(sessions.registry.shared.jitter.draw());
        let core = Core::new(&settings.limits, first);
        let inner = Inner { core, notes: Notes::new(jitter), alarm: Alarm::default() };
        let share = sessions.registry.shared.share.clone();
        let seats = share.map(|share| Seats::new(share, &settings.name, settings.seats));
        let pool = Arc::new(Self { sessions, settings, seats, inner: Mutex::new(inner) });
        for session in members {
            pool.event(|core, step| {
                let adopted = core.adopt(step)?;
                step.host.session_mut(adopted).replace(session)
            });
        }
        pool
    }

    /// The name of the member of this number.
    pub(crate) fn member_id(&self, number: u64) -> SessionId {
        SessionId::from(format!("{}-{number}", self.settings.name))
    }

    /// Asks for a member.
    pub(crate) fn ask(self: &Arc<Self>, ask: &Ask) -> Result<Got, PoolError> {
        let answer = self.event(|core, step| match core.ask(step, ask) {
            Answer::Leased(key) => Ok(Got::Leased(key, step.host.leased(key))),
            Answer::Wait(place) => Ok(Got::Wait(place)),
            Answer::Refuse(refusal) => Err(refusal),
        });
        answer.map_err(|refusal| match refusal {
            Refusal::Overloaded => PoolError::new(PoolErrorKind::TooManyWaiting, &self.settings.name),
            Refusal::Broken(cause) => PoolError::broken(&self.settings.name, cause),
        })
    }

    /// Looks whether a waiter has been served. `Nothing` means that `waker` was stored; otherwise the place is given back.
    pub(crate) fn poll(self: &Arc<Self>, place: Place, waker: &Waker) -> Seen {
        // Cloned, and the old one dropped, outside the lock.
        let mut waker = Some(waker.clone());
        let seen = self.event(|core, step| match core.poll(step, place) {
            Some(Ok(key)) => Seen::Leased(key, step.host.leased(key)),
            Some(Err(cause)) => Seen::Refused(PoolError::broken(&self.settings.name, cause)),
            None if core.is_starved() => {
                core.leave(step, place);
                Seen::Refused(PoolError::new(PoolErrorKind::NoRuntime, &self.settings.name))
            }
            None => {
                std::mem::swap(core.waker(place), &mut waker);
                Seen::Nothing
            }
        });
        drop(waker);
        seen
    }

    /// A waiter gives up.
    pub(crate) fn leave(self: &Arc<Self>, place: Place) {
        self.event(|core, step| core.leave(step, place));
    }

    /// A waiter has waited too long.
    pub(crate) fn time_out(self: &Arc<Self>, place: Place) {
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
        let mark = match verdict {
            Verdict::Neutral => return,
            Verdict::Good => Mark::Good,
            Verdict::Bad => Mark::Bad,
            Verdict::CoolDown(rest) => Mark::Rest(rest.min(self.settings.max_cooldown)),
            Verdict::Retire => Mark::Retire,
        };
        self.event(|core, step| core.mark(step, key, mark));
    }

    /// Applies whatever is due.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.event(|core, step| core.tick(step));
    }

    /// The alarm of this number has rung; whatever is due after this event sets the next one.
    pub(crate) fn ring(self: &Arc<Self>, number: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.alarm.number == number {
                inner.alarm.at = None;
            }
        }
        self.tick();
    }

    /// The alarm of this number will not ring. Everybody looks, so that one who is inside a runtime sets it again.
    pub(crate) fn lose_alarm(self: &Arc<Self>, number: u64) {
        {
            let mut inner = self.inner.lock();
            if inner.alarm.number != number || inner.alarm.at.is_none() {
                return;
            }
            inner.alarm.at = None;
        }
        let rouse = self.decide(|core, step| core.rouse(step)).1;
        if let Some(mut after) = rouse {
            // Not set from here, where it would be lost again.
            if after.alarm.take().is_some() {
                self.inner.lock().alarm.at = None;
            }
            self.run(after);
        }
    }

    pub(crate) fn set_alarm(&self, number: u64, handle: AbortHandle) {
        {
            let mut inner = self.inner.lock();
            if inner.alarm.number == number {
                inner.alarm.handle = Some(handle);
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

    fn look(self: &Arc<Self>, key: Key) {
        self.event(|core, step| core.look(step, key));
    }

    /// Looks at the core and the sessions, changing nothing. `look` must not run code that is not ours.
    pub(crate) fn inspect<R>(
        &self,
        look: impl FnOnce(&Core<Notes>, &dyn Fn(Key) -> Option<Session>) -> R,
    ) -> R {
        let inner = self.inner.lock();
        look(&inner.core, &|key| inner.notes.session(key).cloned())
    }

    /// The time by the pool's clock.
    pub(crate) fn now(&self) -> Duration {
        self.sessions.registry.shared.now()
    }

    fn has_rule(&self) -> bool {
        self.sessions.registry.shared.lane().is_some_and(|lane| lane.has_rule())
    }

    /// One event: the core decides under the lock; the rest is done after it.
    fn event<R>(self: &Arc<Self>, decide: impl FnOnce(&mut Core<Notes>, &mut Step<'_, Notes>) -> R) -> R {
        let (result, after) = self.decide(decide);
        if let Some(after) = after {
            self.run(after);
        }
        result
    }

    fn decide<R>(
        &self,
        decide: impl FnOnce(&mut Core<Notes>, &mut Step<'_, Notes>) -> R,
    ) -> (R, Option<After>) {
        let mut inner = self.inner.lock();
        let Inner { core, notes, alarm } = &mut *inner;
        // Read under the lock, so that time does not go back from one event to the next.
        let now = self.now();
        let result = decide(core, &mut Step { host: notes, limits: &self.settings.limits, now });
        if !notes.after.still.is_empty() && !driver::is_in_runtime() {
            // Somebody in a runtime has to pass.
            core.rouse(&mut Step { host: notes, limits: &self.settings.limits, now });
        }
        let mut after = notes.take();
        if let Some(at) = core.alarm()
            && alarm.at.is_none_or(|set| at < set)
            && driver::is_in_runtime()
        {
            alarm.number += 1;
            alarm.at = Some(at);
            let old = alarm.handle.take();
            after.get_or_insert_default().alarm = Some((at, alarm.number, old));
        }
        (result, after)
    }

    /// Does what is left to do, and what comes of that, one after the other: orders may be many.
    fn run(self: &Arc<Self>, after: After) {
        let mut left = VecDeque::from([after]);
        while let Some(after) = left.pop_front() {
            after.woken.into_iter().for_each(Waker::wake);
            drop((after.forgotten, after.causes));
            for (key, session, end) in after.gone {
                if let Some(session) = &session {
                    self.sessions.registry.forget(session);
                }
                if let Some(seats) = &self.seats {
                    seats.rise(key, session, end);
                }
            }
            if let Some((at, number, old)) = after.alarm {
                if let Some(old) = old {
                    old.abort();
                }
                warm::set_alarm(self, at, number);
            }
            for (key, session) in after.moving {
                Watch::set(self, key, &session);
            }
            if !(after.still.is_empty() && after.orders.is_empty()) {
                let has_rule = self.has_rule();
                self.inner.lock().notes.has_rule = has_rule;
                for (key, session) in after.still {
                    if has_rule {
                        warm::renew(self, key, session);
                    } else {
                        left.extend(self.decide(|core, step| core.look(step, key)).1);
                    }
                }
                for key in after.orders {
                    left.extend(self.carry_out(key, has_rule));
                }
            }
        }
    }

    /// The session of an ordered member is this one.
    pub(crate) fn seat(&self, key: Key, session: Session) {
        self.inner.lock().notes.session_mut(key).replace(session);
    }

    /// Lets a member be another process's, as soon as its leases have ended.
    pub(crate) fn give_back(self: &Arc<Self>, key: Key) {
        self.event(|core, step| core.mark(step, key, Mark::GiveBack));
    }

    /// Makes the session of an ordered member. It serves as it is where no rule says how to warm it, and where it is warm already.
    fn carry_out(self: &Arc<Self>, key: Key, has_rule: bool) -> Option<After> {
        let order = warm::Order::new(self, key);
        if let Some(seats) = &self.seats {
            seats.fill(self, order);
            return None;
        }
        let session = self.sessions.registry.member(self.member_id(key.number));
        let is_warm = !has_rule || session.0.gate.outlook() == Outlook::Open;
        self.inner.lock().notes.session_mut(key).replace(session.clone());
        if is_warm {
            order.keep();
            return self.decide(|core, step| core.warmed(step, key, Ok(()))).1;
        }
        warm::up(order, session);
        None
    }
}

impl Notes {
    /// The session of a member that was leased just now.
    fn leased(&self, key: Key) -> Session {
        self.session(key).expect("a member that serves has its session").clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sessions.registry.shared.release_pool(&self.settings.name);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPool").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

/// Looks at a member again when its session's gate changes.
struct Watch {
    pool: Weak<Pool>,
    key: Key,
    place: Mutex<Option<(Weak<SessionInner>, Ticket)>>,
}

impl Watch {
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

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        let place = self.place.lock().take();
        let Some((session, ticket)) = place else {
            return;
        };
        if let Some(session) = session.upgrade() {
            Gate::unqueue(&session, ticket);
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.look(self.key);
        }
    }
}
