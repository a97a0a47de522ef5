//! A gate as something lives behind it: the core with its values, drivers and wakers.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep, sleep_until},
};
use tracing::Span;

use super::{
    core::{
        Admission, Attempt, Core, Ended, Failure, Generation, Grant, Host, Limits, Refusal, Refused, State,
        Step, Verdict,
    },
    driver,
    error::{RenewalError, RenewalErrorKind},
    jitter::{Jitter, spread},
    ration::Ration,
    sync::{AtomicU8, AtomicU64, Mutex, Ordering, Published},
    waiters::{Ticket, Waiters},
};

/// Why a renewal was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RenewalReason {
    /// There was nothing yet to send under.
    Initial,
    /// An answer said that the session has expired.
    Expired,
    /// The session was cleared.
    Cleared,
    /// `renew` or `renew_with` was called.
    Requested,
    /// A budget of uses or age was spent, or nearly.
    LimitReached,
}

/// Whatever owns a gate: makes its values, runs its renewals, tells the time.
///
/// `pending`, `candidate` and `ended` are called under the gate's lock: they must not wait, call user code, or take the lock of a
/// gate.
pub(crate) trait Keeper: Sized + Send + Sync + 'static {
    /// What is published, as an `Arc`.
    type Value: Send + Sync + 'static;
    /// What `renew_with` was given.
    type Request: Send + 'static;

    fn gate(&self) -> &Gate<Self>;
    fn life(value: &Self::Value) -> &Life;
    fn limits(&self) -> Limits;
    /// The time since an origin of the keeper's choice; it never goes back.
    fn now(&self) -> Duration;
    fn has_rule(&self) -> bool;

    /// The value that edits go to while nothing is current. `candidate` is the one that already runs, if one does; `failed` is
    /// the pending value whose candidate has just failed.
    fn pending(
        &self,
        candidate: Option<&Arc<Self::Value>>,
        failed: Option<&Arc<Self::Value>>,
    ) -> Option<Arc<Self::Value>>;
    /// The value under which an attempt runs.
    fn candidate(
        &self,
        pending: Option<&Arc<Self::Value>>,
        generation: Generation,
    ) -> Option<Arc<Self::Value>>;

    /// A value that a renewal has brought, in the place of its candidate, takes over what was added to `pending` meanwhile.
    ///
    /// Called under the gate's lock, as `pending` is.
    fn carry_over(&self, _pending: &Self::Value, _value: &Self::Value) {}

    /// Half of what this value was last [allowed](Life::allow) is used up.
    fn running_out(self: &Arc<Self>, _value: &Arc<Self::Value>) {}

    /// Brings a new value about. `None` as a value means the candidate.
    fn renew(self: &Arc<Self>, attempt: Drive<Self>) -> Renewing<Self::Value>;

    /// Starts a driver for this attempt.
    fn launch(self: &Arc<Self>, attempt: Drive<Self>) {
        driver::spawn(self, attempt);
    }

    /// Is told what has changed, after the lock is released.
    fn tell(&self, _change: Change) {}
}

/// What a keeper may want to know, to count it or to tell others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// An attempt has started.
    Started { generation: Generation, reason: RenewalReason },
    /// It has ended well.
    Committed { generation: Generation, took: Duration },
    /// It has failed.
    Failed { generation: Generation, kind: RenewalErrorKind, took: Duration },
    /// It was fenced.
    Abandoned { generation: Generation, took: Duration },
    /// A value became current.
    Current { generation: Generation },
    /// The current value has ended.
    Ended { generation: Generation },
}

/// A renewal on its way.
pub(crate) type Renewing<V> =
    Pin<Box<dyn Future<Output = Result<Option<Arc<V>>, Failure<RenewalError>>> + Send>>;

/// An attempt as its driver gets it.
pub(crate) struct Drive<K: Keeper> {
    pub(crate) attempt: Attempt,
    pub(crate) generation: Generation,
    pub(crate) candidate: Option<Arc<K::Value>>,
    pub(crate) request: Option<K::Request>,
    /// The attempt is for what `renew_with` was given, whether or not it can be had again.
    pub(crate) once: bool,
    pub(crate) reason: RenewalReason,
    /// What was going on where the attempt was launched; no span until then.
    pub(crate) cause: Span,
}

/// The life of one value: its generation, where it stands, how often it was used.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) generation: Generation,
    /// When it was made, by the keeper's clock.
    pub(crate) born: Duration,
    standing: AtomicU8,
    uses: AtomicU64,
    pub(crate) ration: Ration,
    /// Nanoseconds of the keeper's clock from which on an early renewal may be asked for again.
    due_again: AtomicU64,
    /// Where in its buffer this value's early mark is, so that many sessions are not renewed at once.
    jitter: u32,
}

const CANDIDATE: u8 = 0;
const CURRENT: u8 = 1;
const FOLLOWED: u8 = 2;
const ENDED: u8 = 3;

impl Life {
    /// `random` is where the value's jitter comes from.
    pub(crate) fn new(generation: Generation, born: Duration, random: u64) -> Self {
        Self {
            generation,
            born,
            standing: AtomicU8::new(CANDIDATE),
            uses: AtomicU64::new(0),
            ration: Ration::new(),
            due_again: AtomicU64::new(0),
            jitter: random as u32,
        }
    }

    /// As [`new`](Self::new), current from the start.
    pub(crate) fn current(generation: Generation, born: Duration, random: u64) -> Self {
        Self { standing: AtomicU8::new(CURRENT), ..Self::new(generation, born, random) }
    }

    /// The same, used so often before.
    pub(crate) fn used(self, uses: u64) -> Self {
        Self { uses: AtomicU64::new(uses), ..self }
    }

    /// Whether nothing may be sent under this value any more. A value that was renewed while it worked is not ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.standing.load(Ordering::Acquire) == ENDED
    }

    pub(crate) fn is_current(&self) -> bool {
        self.standing.load(Ordering::Acquire) == CURRENT
    }

    /// By how much of its buffer the early mark is late: at most a half.
    pub(crate) fn jitter(&self) -> f64 {
        f64::from(self.jitter) / f64::from(u32::MAX) / 2.0
    }

    /// How many sends were counted.
    pub(crate) fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Takes all uses that are allowed and not used up, for another value.
    #[cfg(feature = "shared")]
    pub(crate) fn take_rest(&self) -> u64 {
        self.ration.take_rest(&self.uses)
    }

    fn stand(&self, standing: u8) {
        self.standing.store(standing, Ordering::Release);
    }
}

/// How long and how often one value may serve.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) uses: Option<u64>,
    pub(crate) age: Option<Duration>,
}

impl Budget {
    /// The tenth of a budget that is left for an early renewal.
    const BUFFER: f64 = 0.1;

    fn early(limit: f64, jitter: f64) -> f64 {
        limit - limit * Self::BUFFER * (1.0 - jitter)
    }
}

/// The gate of one keeper.
pub(crate) struct Gate<K: Keeper> {
    /// Set exactly while everybody passes.
    published: Published<K::Value>,
    jitter: Jitter,
    /// All that decides, made for the first event: until then the gate is open, as it was built. Whoever only passes does not read
    /// it, and of many sessions most never see an event.
    inner: OnceLock<Box<Mutex<Inner<K>>>>,
}

struct Inner<K: Keeper> {
    core: Core<Notes>,
    /// The generation that the published pointer shows.
    published: Option<Generation>,
    current: Option<Arc<K::Value>>,
    pending: Option<Arc<K::Value>>,
    candidate: Option<Arc<K::Value>>,
    /// The request of `renew_with`, while it is the source and no attempt is sending it.
    once: Option<K::Request>,
    /// What `renew_with` was given in this event.
    given_request: Option<K::Request>,
    /// What `replace` was given in this event.
    given: Option<Arc<K::Value>>,
    reason: RenewalReason,
    /// The attempt that runs, or ran last.
    running: Running,
    driver: Option<AbortHandle>,
    /// An attempt that was started where there was no runtime; the next event inside one launches it.
    unlaunched: Option<Box<Drive<K>>>,
    alarm: Alarm,
    /// Those who are woken by every change: admitted requests that wait for the readiness of the service below, and pools.
    queued: Waiters<Waker, ()>,
}

/// What is told about an attempt when it ends.
struct Running {
    generation: Generation,
    since: Duration,
    /// How it fails, should it fail: what its driver has reported, or what befalls it without a report.
    failure: RenewalErrorKind,
}

impl Running {
    fn took(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }
}

/// When the gate is to be ticked though nobody asks, and how to stop what does it.
#[derive(Default)]
struct Alarm {
    at: Option<Duration>,
    /// Tells one setting from the next.
    number: u64,
    /// The alarm could not be set, or was lost with its runtime; the next event inside a runtime sets it.
    is_lost: bool,
    handle: Option<AbortHandle>,
}

/// What the core tells in one event, in order.
#[derive(Debug)]
enum Note {
    EndCurrent,
    Fresh,
    Candidate(Generation, bool),
    Discard(bool),
    Promote,
    Install,
    Drive(Attempt, Generation),
    Abort,
}

/// The core's host: it notes down what to do.
pub(crate) struct Notes {
    has_rule: bool,
    random: u64,
    notes: Vec<Note>,
    woken: Vec<Waker>,
    forgotten: Vec<Waker>,
    errors: Vec<RenewalError>,
}

impl Host for Notes {
    type Waker = Waker;
    type Error = RenewalError;

    fn has_rule(&self) -> bool {
        self.has_rule
    }
    fn end_current(&mut self) {
        self.notes.push(Note::EndCurrent);
    }
    fn fresh(&mut self) {
        self.notes.push(Note::Fresh);
    }
    fn candidate(&mut self, generation: Generation, overlap: bool) {
        self.notes.push(Note::Candidate(generation, overlap));
    }
    fn discard(&mut self, failed: bool) {
        self.notes.push(Note::Discard(failed));
    }
    fn promote(&mut self) {
        self.notes.push(Note::Promote);
    }
    fn install(&mut self, _generation: Generation) {
        self.notes.push(Note::Install);
    }
    fn drive(&mut self, attempt: Attempt, generation: Generation) {
        self.notes.push(Note::Drive(attempt, generation));
    }
    fn abort(&mut self) {
        self.notes.push(Note::Abort);
    }
    fn wake(&mut self, waker: Waker) {
        self.woken.push(waker);
    }
    fn forget(&mut self, waker: Waker) {
        self.forgotten.push(waker);
    }
    fn forget_error(&mut self, error: RenewalError) {
        self.errors.push(error);
    }
    fn random(&mut self) -> u64 {
        self.random = spread(self.random);
        self.random
    }
}

/// What is left to do once the lock is released.
struct After<K: Keeper> {
    woken: Vec<Waker>,
    forgotten: Vec<Waker>,
    errors: Vec<RenewalError>,
    dropped: Vec<Arc<K::Value>>,
    spent: Option<K::Request>,
    aborted: [Option<AbortHandle>; 2],
    unlaunched: Option<Box<Drive<K>>>,
    drive: Option<Drive<K>>,
    alarm: Option<(Duration, u64)>,
    changes: Vec<Change>,
}

impl<K: Keeper> After<K> {
    fn run(self, keeper: &Arc<K>) {
        for waker in self.woken {
            waker.wake();
        }
        for handle in self.aborted.into_iter().flatten() {
            handle.abort();
        }
        for change in self.changes {
            keeper.tell(change);
        }
        drop((self.forgotten, self.errors, self.dropped, self.spent, self.unlaunched));
        if let Some((at, number)) = self.alarm {
            driver::set_alarm(keeper, at, number);
        }
        if let Some(drive) = self.drive {
            keeper.launch(drive);
        }
    }
}

/// Permission to send under one value. A role that comes with it is given up when it is dropped.
pub(crate) struct RawPermit<K: Keeper> {
    pub(crate) value: Arc<K::Value>,
    role: Option<Role<K>>,
}

/// An attempt number that is never live.
const NO_ATTEMPT: Attempt = 0;

/// The right of one request to act for the others, until it reports or is dropped.
struct Role<K: Keeper> {
    keeper: Arc<K>,
    attempt: Attempt,
}

impl<K: Keeper> Drop for Role<K> {
    fn drop(&mut self) {
        let attempt = self.attempt;
        if attempt == NO_ATTEMPT {
            return;
        }
        Gate::event(&self.keeper, |inner, step| inner.core.drop_role(step, attempt));
    }
}

impl<K: Keeper> RawPermit<K> {
    /// A permit without a role.
    pub(crate) fn plain(value: Arc<K::Value>) -> Self {
        Self { value, role: None }
    }

    fn grant(&self) -> Grant {
        Grant {
            generation: K::life(&self.value).generation,
            role: self.role.as_ref().map_or(0, |role| role.attempt),
        }
    }

    /// The role has been used: nothing is to be given up any more.
    fn disarm(&mut self) {
        if let Some(role) = &mut self.role {
            role.attempt = NO_ATTEMPT;
        }
    }

    /// Whose gate the role is for, if there is one.
    pub(crate) fn role_keeper(&self) -> Option<Arc<K>> {
        self.role.as_ref().map(|role| role.keeper.clone())
    }

    /// Whether this request acts for the others.
    pub(crate) fn has_role(&self) -> bool {
        self.role.is_some()
    }
}

/// Where a gate stands.
pub(crate) struct Standing<V> {
    /// The newest generation that was given out.
    #[cfg(feature = "serde")]
    pub(crate) last: Generation,
    /// Whether there is a current value.
    pub(crate) is_current: bool,
    /// The current value or, while there is none, the pending one.
    pub(crate) value: Option<Arc<V>>,
}

/// What a gate looks like to one who does not want to wait at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Everybody passes.
    Open,
    /// Nobody new passes, and somebody works on it.
    Moving,
    /// Nobody passes, and nothing moves by itself.
    Still,
}

/// The answer to an admission or to a poll.
pub(crate) enum Entry<K: Keeper> {
    Pass(RawPermit<K>),
    Wait(Ticket),
    Refuse(RenewalError),
}

/// An admission with the value that it is for, as both were in one moment.
enum Looked<K: Keeper> {
    Pass(Arc<K::Value>, Grant),
    Wait(Ticket),
    Refuse(Refusal<RenewalError>),
}

impl<K: Keeper> Looked<K> {
    fn entry(self, keeper: &Arc<K>) -> Entry<K> {
        match self {
            Self::Wait(ticket) => Entry::Wait(ticket),
            Self::Pass(value, grant) => {
                let role =
                    (grant.role != NO_ATTEMPT).then(|| Role { keeper: keeper.clone(), attempt: grant.role });
                Entry::Pass(RawPermit { value, role })
            }
            Self::Refuse(Refusal::Closed) => Entry::Refuse(RenewalError::new(RenewalErrorKind::Closed)),
            Self::Refuse(Refusal::Overloaded) => {
                Entry::Refuse(RenewalError::new(RenewalErrorKind::QueueFull))
            }
            Self::Refuse(Refusal::Failed(error)) => Entry::Refuse(error),
        }
    }
}

impl<K: Keeper> Gate<K> {
    /// A gate through which everybody passes.
    pub(crate) fn open(value: Arc<K::Value>, jitter: Jitter) -> Self {
        Self { published: Published::new(Some(value)), jitter, inner: OnceLock::new() }
    }

    /// A gate at which the first one waits for a renewal.
    pub(crate) fn pending(pending: Option<Arc<K::Value>>, jitter: Jitter) -> Self {
        Self::pending_after(1, pending, jitter)
    }

    /// The same, as one that has given out generations up to `last`.
    pub(crate) fn pending_after(last: Generation, pending: Option<Arc<K::Value>>, jitter: Jitter) -> Self {
        let inner = Inner { pending, ..Inner::new(Core::pending().going_on_from(last), None) };
        Self { published: Published::new(None), jitter, inner: OnceLock::from(Box::new(Mutex::new(inner))) }
    }

    /// Whether nothing has happened yet that anything had to decide.
    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.inner.get().is_none()
    }

    /// What decides, made if nothing has happened yet.
    fn inner(&self) -> &Mutex<Inner<K>> {
        if let Some(inner) = self.inner.get() {
            return inner;
        }
        // Only an event takes the value away or puts another one there, and each finds what is made here: as long as nothing is
        // made, the published value is the one that the gate was built with.
        let Some(value) = self.published.load() else {
            return self.inner.get().expect("an event has been here");
        };
        let core = Core::open().going_on_from(K::life(&value).generation);
        let made = Box::new(Mutex::new(Inner::new(core, Some(value))));
        // Of two that were made at once, one is kept. Nothing has happened in the other.
        self.inner.get_or_init(|| made)
    }

    /// The value under which everybody may send at this moment.
    pub(crate) fn published(&self) -> Option<Arc<K::Value>> {
        self.published.load()
    }

    /// The current value; also while held requests are still being let out.
    pub(crate) fn current(&self) -> Option<Arc<K::Value>> {
        self.published.load().or_else(|| self.inner.get()?.lock().current.clone())
    }

    /// Where the gate stands in one moment.
    pub(crate) fn standing(&self) -> Standing<K::Value> {
        if self.inner.get().is_none()
            && let Some(value) = self.published.load()
        {
            return Standing {
                #[cfg(feature = "serde")]
                last: K::life(&value).generation,
                is_current: true,
                value: Some(value),
            };
        }
        let inner = self.inner().lock();
        Standing {
            #[cfg(feature = "serde")]
            last: inner.core.last(),
            is_current: inner.current.is_some(),
            value: inner.current.as_ref().or(inner.pending.as_ref()).cloned(),
        }
    }

    /// A number to draw jitter from.
    pub(crate) fn random(&self) -> u64 {
        self.jitter.draw()
    }

    /// Whether one who came now would pass or wait. While everybody passes, this takes no lock.
    pub(crate) fn outlook(&self) -> Outlook {
        if self.published.is_some() {
            return Outlook::Open;
        }
        match self.inner().lock().core.state() {
            State::Open | State::Cool { .. } | State::Over => Outlook::Open,
            State::Probe { .. } | State::Stagger { .. } | State::Hold | State::Lead { .. } => Outlook::Moving,
            State::Pending | State::Backoff { .. } | State::Failed { .. } | State::Closed => Outlook::Still,
        }
    }

    /// How many requests are held.
    pub(crate) fn held(&self) -> usize {
        self.inner.get().map_or(0, |inner| inner.lock().core.held())
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner.get().is_none_or(|inner| inner.lock().core.is_idle())
    }

    /// Shows the current value to `edit`, or, while there is none, the pending one and the running candidate.
    ///
    /// `edit` runs under the gate's lock, so that what it does is in whatever is committed next.
    pub(crate) fn edit<R>(&self, mut edit: impl FnMut(&K::Value) -> R) -> Option<R> {
        let inner = self.inner().lock();
        if let Some(current) = &inner.current {
            return Some(edit(current));
        }
        if let Some(candidate) = &inner.candidate {
            edit(candidate);
        }
        inner.pending.as_ref().map(|pending| edit(pending))
    }

    /// Asks for admission; `admitted` tells one that was let through before from one that is new.
    pub(crate) fn admit(keeper: &Arc<K>, admitted: bool) -> Entry<K> {
        if let Some(value) = keeper.gate().published.load() {
            return Entry::Pass(RawPermit::plain(value));
        }
        let looked = Self::event_and(
            keeper,
            |inner, step| inner.core.admit(step, admitted),
            |inner, admission| match admission {
                Admission::Pass(grant) => Looked::Pass(inner.value(grant), grant),
                Admission::Wait(ticket) => Looked::Wait(ticket),
                Admission::Refuse(refusal) => Looked::Refuse(refusal),
            },
        );
        looked.entry(keeper)
    }

    /// Looks whether a waiter may go. `Wait` means that `waker` was stored.
    pub(crate) fn poll(keeper: &Arc<K>, ticket: Ticket, waker: &Waker) -> Entry<K> {
        if let Some(value) = keeper.gate().let_out(ticket) {
            return Entry::Pass(RawPermit::plain(value));
        }
        // Cloned, and the old one dropped, outside the lock.
        let mut waker = Some(waker.clone());
        let looked = Self::event_and(
            keeper,
            |inner, step| {
                let result = inner.core.poll(step, ticket);
                if result.is_none() {
                    std::mem::swap(inner.core.waiter_waker(ticket), &mut waker);
                }
                result
            },
            |inner, result| match result {
                None => Looked::Wait(ticket),
                Some(Ok(grant)) => Looked::Pass(inner.value(grant), grant),
                Some(Err(refusal)) => Looked::Refuse(refusal),
            },
        );
        drop(waker);
        looked.entry(keeper)
    }

    /// The short way of a crowd through a gate that has opened: nothing is decided, so nothing has to follow.
    fn let_out(&self, ticket: Ticket) -> Option<Arc<K::Value>> {
        let (value, waker) = {
            let mut inner = self.inner().lock();
            let waker = inner.core.let_out(ticket)?;
            (inner.current.clone(), waker)
        };
        drop(waker);
        Some(value.expect("an open gate has a current value"))
    }

    /// A waiter gives up.
    pub(crate) fn leave(keeper: &Arc<K>, ticket: Ticket) {
        Self::event(keeper, |inner, step| inner.core.drop_waiter(step, ticket));
    }

    /// Whether a permit is still good.
    pub(crate) fn still_good(&self, permit: &RawPermit<K>) -> bool {
        K::life(&permit.value).is_current()
            || (permit.has_role() && self.inner().lock().core.may_send(permit.grant()))
    }

    /// Counts a send under this permit. `false`: its value has ended or is used up; ask for admission again.
    pub(crate) fn count_send(keeper: &Arc<K>, permit: &RawPermit<K>, budget: &Budget) -> bool {
        if !keeper.gate().still_good(permit) {
            return false;
        }
        let life = K::life(&permit.value);
        let mut due = false;
        // A candidate that a request leads under is as old as its lead; that has a deadline of its own.
        if let Some(age) = budget.age.filter(|_| life.is_current()) {
            let now = keeper.now();
            let lived = now.saturating_sub(life.born);
            if lived >= age {
                Self::spend(keeper, life.generation);
                return false;
            }
            due = lived.as_secs_f64() >= Budget::early(age.as_secs_f64(), life.jitter());
        }
        match budget.uses {
            None => {
                life.uses.fetch_add(1, Ordering::Relaxed);
            }
            Some(limit) => {
                let most = life.ration.most(limit);
                let counted = life.uses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| {
                    (uses < most).then_some(uses + 1)
                });
                match counted {
                    Ok(before) => {
                        if life.ration.is_running_out(before + 1) {
                            keeper.running_out(&permit.value);
                        }
                        due |= (before + 1) as f64 >= Budget::early(limit as f64, life.jitter())
                            && before + 1 < limit;
                    }
                    Err(_) => {
                        Self::spend(keeper, life.generation);
                        return false;
                    }
                }
            }
        }
        if due {
            Self::due(keeper, life);
        }
        true
    }

    fn spend(keeper: &Arc<K>, generation: Generation) {
        Self::event(keeper, |inner, step| {
            if inner.core.current() == Some(generation) {
                inner.reason = RenewalReason::LimitReached;
            }
            inner.core.spent(step, generation);
        });
    }

    /// Asks for an early renewal, once per cool-down.
    pub(crate) fn due(keeper: &Arc<K>, life: &Life) {
        let now = keeper.now();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if nanos(now) < life.due_again.load(Ordering::Relaxed) {
            return;
        }
        life.due_again.store(nanos(now.saturating_add(keeper.limits().cool)), Ordering::Relaxed);
        let generation = life.generation;
        Self::event(keeper, |inner, step| {
            if matches!(inner.core.state(), State::Open) {
                inner.reason = RenewalReason::LimitReached;
            }
            inner.core.due(step, generation);
        });
    }

    /// The answer was not an expired one.
    pub(crate) fn report_good(keeper: &Arc<K>, permit: &mut RawPermit<K>) {
        if permit.has_role() {
            let grant = permit.grant();
            Self::event(keeper, |inner, step| inner.core.report_good(step, grant));
            permit.disarm();
        }
    }

    /// The answer was an expired one. `true`: it was news.
    pub(crate) fn report_expired(keeper: &Arc<K>, mut permit: RawPermit<K>) -> bool {
        let grant = permit.grant();
        let verdict = Self::event(keeper, |inner, step| {
            if inner.core.current() == Some(grant.generation) {
                inner.reason = RenewalReason::Expired;
            }
            inner.core.report_expired(step, grant)
        });
        permit.disarm();
        verdict == Verdict::Current
    }

    /// The value of this permit was rejected by somebody who keeps the permit.
    pub(crate) fn report_rejected(keeper: &Arc<K>, permit: &RawPermit<K>) {
        let grant = permit.grant();
        Self::event(keeper, |inner, step| {
            if inner.core.current() == Some(grant.generation) {
                inner.reason = RenewalReason::Expired;
            }
            inner.core.report_expired(step, grant);
        });
    }

    /// There was no answer.
    pub(crate) fn report_error(keeper: &Arc<K>, mut permit: RawPermit<K>) {
        if permit.has_role() {
            let grant = permit.grant();
            Self::event(keeper, |inner, step| inner.core.report_error(step, grant));
            permit.disarm();
        }
    }

    /// Joins the line of those who are woken by every change; each is woken once and joins again for the next.
    pub(crate) fn queue(keeper: &Arc<K>, place: &mut Option<Ticket>, waker: &Waker) {
        let waker = waker.clone();
        let old = {
            let mut inner = keeper.gate().inner().lock();
            let ticket = *place.get_or_insert_with(|| inner.queued.push());
            inner.queued.waker_mut(ticket).replace(waker)
        };
        drop(old);
    }

    /// Leaves that line.
    pub(crate) fn unqueue(keeper: &Arc<K>, ticket: Ticket) {
        let gone = keeper.gate().inner().lock().queued.remove(ticket);
        drop(gone);
    }

    /// Ends the current value.
    pub(crate) fn clear(keeper: &Arc<K>) -> Result<(), RenewalError> {
        Self::event(keeper, |inner, step| {
            inner.reason = RenewalReason::Cleared;
            inner.core.clear(step)
        })
        .map_err(refused)
    }

    /// Starts a renewal, or joins the one that runs.
    pub(crate) fn renew(keeper: &Arc<K>) -> Result<Asker<K>, RenewalError> {
        Self::event(keeper, |inner, step| {
            if !matches!(inner.core.state(), State::Over | State::Hold | State::Lead { .. }) {
                inner.reason = RenewalReason::Requested;
            }
            inner.core.renew(step)
        })
        .map(|ticket| Asker::new(keeper, ticket))
        .map_err(refused)
    }

    /// Ends the current value and renews by `request`, at once.
    pub(crate) fn renew_with(keeper: &Arc<K>, request: K::Request) -> Result<Asker<K>, RenewalError> {
        let mut request = Some(request);
        let ticket = Self::event(keeper, |inner, step| {
            inner.reason = RenewalReason::Requested;
            let ticket = inner.core.renew_with(step)?;
            inner.given_request = request.take();
            Ok(ticket)
        });
        drop(request);
        ticket.map(|ticket| Asker::new(keeper, ticket)).map_err(refused)
    }

    /// Makes the value that `make` returns for its generation current.
    pub(crate) fn replace(
        keeper: &Arc<K>,
        make: impl FnOnce(Generation) -> Arc<K::Value>,
    ) -> Result<Generation, RenewalError> {
        Self::replace_from(keeper, 0, make)
    }

    /// The same, as a generation that is `least` at least.
    pub(crate) fn replace_from(
        keeper: &Arc<K>,
        least: Generation,
        make: impl FnOnce(Generation) -> Arc<K::Value>,
    ) -> Result<Generation, RenewalError> {
        // What a closed gate does not take is dropped after the lock.
        let mut make = Some(make);
        let replaced = Self::event(keeper, |inner, step| {
            let generation = inner.core.replace_from(step, least)?;
            inner.given = make.take().map(|make| make(generation));
            Ok(generation)
        });
        drop(make);
        replaced.map_err(refused)
    }

    /// The same, if the value of this generation is still current. `None`: it is not.
    #[cfg(feature = "shared")]
    pub(crate) fn replace_if(
        keeper: &Arc<K>,
        current: Generation,
        make: impl FnOnce(Generation) -> Arc<K::Value>,
    ) -> Option<Generation> {
        let mut make = Some(make);
        let replaced = Self::event(keeper, |inner, step| {
            if inner.core.current() != Some(current) {
                return None;
            }
            let generation = inner.core.replace(step).ok()?;
            inner.given = make.take().map(|make| make(generation));
            Some(generation)
        });
        drop(make);
        replaced
    }

    /// Where nobody renews, a pending value simply becomes current.
    pub(crate) fn adopt_pending(
        keeper: &Arc<K>,
        make: impl FnOnce(Option<&Arc<K::Value>>, Generation) -> Arc<K::Value>,
    ) {
        let old = Self::event(keeper, |inner, step| {
            if inner.core.current().is_some() {
                return None;
            }
            let generation = inner.core.replace(step).ok()?;
            let pending = inner.pending.take();
            inner.given = Some(make(pending.as_ref(), generation));
            pending
        });
        drop(old);
    }

    /// Ends the gate for good.
    pub(crate) fn close(keeper: &Arc<K>) {
        Self::event(keeper, |inner, step| inner.core.close(step));
    }

    /// Gives a request back that an attempt has taken, for the next attempt.
    pub(crate) fn keep_request(keeper: &Arc<K>, attempt: Attempt, request: K::Request) {
        let mut request = Some(request);
        {
            let mut inner = keeper.gate().inner().lock();
            if inner.core.runs(attempt) {
                std::mem::swap(&mut inner.once, &mut request);
            }
        }
        drop(request);
    }

    /// A driver has ended.
    pub(crate) fn driver_done(
        keeper: &Arc<K>,
        attempt: Attempt,
        result: Result<Option<Arc<K::Value>>, Failure<RenewalError>>,
    ) {
        let mut unused = None;
        Self::event(keeper, |inner, step| {
            if !inner.core.runs(attempt) {
                unused = Some(result);
                return;
            }
            // It ended by itself: nothing is left to abort.
            inner.driver = None;
            if let Err(failure) = &result {
                inner.running.failure = failure.error.kind();
            }
            let result = result.map(|value| {
                if let Some(value) = value {
                    if let Some(pending) = &inner.pending {
                        keeper.carry_over(pending, &value);
                    }
                    unused = inner.candidate.replace(value).map(|old| Ok(Some(old)));
                }
            });
            inner.core.driver_done(step, attempt, result);
        });
        drop(unused);
    }

    /// Remembers how to stop the driver of this attempt, or stops it if it is of no use any more.
    pub(crate) fn set_driver(&self, attempt: Attempt, handle: AbortHandle) {
        {
            let mut inner = self.inner().lock();
            if inner.core.runs(attempt) {
                inner.driver = Some(handle);
                return;
            }
        }
        handle.abort();
    }

    /// Remembers how to stop the alarm of this number, or stops it if it is of no use any more.
    pub(crate) fn set_alarm(&self, number: u64, handle: AbortHandle) {
        {
            let mut inner = self.inner().lock();
            if inner.alarm.number == number && !inner.alarm.is_lost {
                inner.alarm.handle = Some(handle);
                return;
            }
        }
        handle.abort();
    }

    /// The alarm of this number will not go off. Everybody is woken, so that one who is inside a runtime sets it again.
    pub(crate) fn lose_alarm(&self, number: u64) {
        let mut woken = Vec::new();
        {
            let mut inner = self.inner().lock();
            if inner.alarm.number != number || inner.alarm.at.is_none() {
                return;
            }
            inner.alarm.is_lost = true;
            inner.core.rouse(|waker| woken.push(waker));
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Keeps an attempt that cannot be launched here. Everybody is woken, so that one who is inside a runtime launches it.
    pub(crate) fn keep_unlaunched(&self, drive: Drive<K>) {
        let attempt = drive.attempt;
        let mut drive = Some(Box::new(drive));
        let mut woken = Vec::new();
        {
            let mut inner = self.inner().lock();
            if inner.core.runs(attempt) {
                std::mem::swap(&mut inner.unlaunched, &mut drive);
                inner.core.rouse(|waker| woken.push(waker));
            }
        }
        drop(drive);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether something is to run that could not be started where it was asked for.
    pub(crate) fn waits_for_a_runtime(&self) -> bool {
        let inner = self.inner().lock();
        // A driver that runs elsewhere wakes those who asked; its alarm is only there in case it does not move.
        inner.unlaunched.is_some() || (inner.alarm.is_lost && inner.core.attempt_timeout().is_none())
    }

    /// Applies whatever is due.
    pub(crate) fn tick(keeper: &Arc<K>) {
        Self::event(keeper, |inner, step| inner.core.tick(step));
    }

    /// When the running attempt is overdue, if one runs.
    pub(crate) fn attempt_timeout(&self) -> Option<Duration> {
        self.inner().lock().core.attempt_timeout()
    }

    /// One event: the core decides and the values follow under the lock; the rest is done after it.
    fn event<R>(keeper: &Arc<K>, decide: impl FnOnce(&mut Inner<K>, &mut Step<'_, Notes>) -> R) -> R {
        Self::event_and(keeper, decide, |_, result| result)
    }

    /// As [`event`](Self::event), with a last look at the values, still under the lock, after they have followed.
    fn event_and<T, R>(
        keeper: &Arc<K>,
        decide: impl FnOnce(&mut Inner<K>, &mut Step<'_, Notes>) -> T,
        look: impl FnOnce(&Inner<K>, T) -> R,
    ) -> R {
        let gate = keeper.gate();
        let limits = keeper.limits();
        let now = keeper.now();
        let mut notes = Notes {
            has_rule: keeper.has_rule(),
            random: gate.random(),
            notes: Vec::new(),
            woken: Vec::new(),
            forgotten: Vec::new(),
            errors: Vec::new(),
        };
        let (result, after) = {
            let mut inner = gate.inner().lock();
            let decided = decide(&mut inner, &mut Step { host: &mut notes, limits: &limits, now });
            let after = inner.apply(keeper, now, notes);
            (look(&inner, decided), after)
        };
        after.run(keeper);
        result
    }
}

impl<K: Keeper> Inner<K> {
    fn new(core: Core<Notes>, current: Option<Arc<K::Value>>) -> Self {
        Self {
            published: core.current(),
            core,
            current,
            pending: None,
            candidate: None,
            once: None,
            given_request: None,
            given: None,
            reason: RenewalReason::Initial,
            running: Running {
                generation: 0,
                since: Duration::ZERO,
                failure: RenewalErrorKind::LeaderFailed,
            },
            driver: None,
            unlaunched: None,
            alarm: Alarm::default(),
            queued: Waiters::new(),
        }
    }

    /// The value that a grant is for.
    fn value(&self, grant: Grant) -> Arc<K::Value> {
        let mut values = [&self.current, &self.candidate].into_iter().flatten();
        let granted = values.find(|value| K::life(value).generation == grant.generation);
        granted.expect("a grant is for the current value or the candidate").clone()
    }

    /// Makes the values follow what the core decided, publishes, and collects what has to wait for the lock's release.
    fn apply(&mut self, keeper: &Arc<K>, now: Duration, notes: Notes) -> After<K> {
        let Notes { notes, mut woken, forgotten, errors, .. } = notes;
        let mut after = After {
            woken: Vec::new(),
            forgotten,
            errors,
            dropped: Vec::new(),
            spent: None,
            aborted: [None, None],
            unlaunched: None,
            drive: None,
            alarm: None,
            changes: Vec::new(),
        };
        let mut changed = !notes.is_empty();
        for note in notes {
            self.follow(keeper, now, note, &mut after);
        }
        // Published before anybody is woken, so that whoever wakes reads what woke it.
        let free = if self.core.is_free() { self.current.clone() } else { None };
        let generation = free.as_deref().map(|value| K::life(value).generation);
        if generation != self.published {
            self.published = generation;
            changed = true;
            after.dropped.extend(keeper.gate().published.swap(free));
        }
        if changed {
            self.queued.wake_all(|waker| woken.push(waker));
        }
        after.woken = woken;
        let at = self.core.alarm();
        if at != self.alarm.at || (at.is_some() && self.alarm.is_lost && driver::is_in_runtime()) {
            self.alarm.number += 1;
            self.alarm.at = at;
            self.alarm.is_lost = false;
            after.aborted[1] = self.alarm.handle.take();
            after.alarm = at.map(|at| (at, self.alarm.number));
        }
        if after.drive.is_none() && self.unlaunched.is_some() && driver::is_in_runtime() {
            after.drive = self.unlaunched.take().map(|drive| *drive);
        }
        after
    }

    fn follow(&mut self, keeper: &Arc<K>, now: Duration, note: Note, after: &mut After<K>) {
        match note {
            Note::EndCurrent => {
                if let Some(current) = self.current.take() {
                    let life = K::life(&current);
                    life.stand(ENDED);
                    after.changes.push(Change::Ended { generation: life.generation });
                    after.dropped.push(current);
                }
            }
            Note::Fresh => {
                after.spent = std::mem::replace(&mut self.once, self.given_request.take());
                let fresh = keeper.pending(self.candidate.as_ref(), None);
                after.dropped.extend(std::mem::replace(&mut self.pending, fresh));
            }
            Note::Candidate(generation, overlap) => {
                after.changes.push(Change::Started { generation, reason: self.reason });
                // Without a driver, a request leads.
                self.running = Running { generation, since: now, failure: RenewalErrorKind::LeaderFailed };
                let base = if overlap { None } else { self.pending.as_ref() };
                let candidate = keeper.candidate(base, generation);
                after.dropped.extend(std::mem::replace(&mut self.candidate, candidate));
            }
            Note::Discard(failed) => {
                if let Some(candidate) = self.candidate.take() {
                    K::life(&candidate).stand(ENDED);
                    after.dropped.push(candidate);
                }
                let Running { generation, failure: kind, .. } = self.running;
                let took = self.running.took(now);
                after.changes.push(match failed {
                    true => Change::Failed { generation, kind, took },
                    false => Change::Abandoned { generation, took },
                });
                if failed && self.pending.is_some() {
                    let next = keeper.pending(None, self.pending.as_ref());
                    after.dropped.extend(std::mem::replace(&mut self.pending, next));
                }
            }
            Note::Promote => {
                if let Some(followed) = self.current.take() {
                    K::life(&followed).stand(FOLLOWED);
                    after.dropped.push(followed);
                }
                let took = self.running.took(now);
                after.changes.push(Change::Committed { generation: self.running.generation, took });
                after.dropped.extend(self.pending.take());
                after.spent = self.once.take();
                let candidate = self.candidate.take();
                self.make_current(candidate, after);
            }
            Note::Install => {
                after.dropped.extend(self.pending.take());
                let given = self.given.take();
                self.make_current(given, after);
            }
            Note::Drive(attempt, generation) => {
                // What its driver does not report is that it was too slow.
                self.running.failure = RenewalErrorKind::TimedOut;
                after.drive = Some(Drive {
                    attempt,
                    generation,
                    candidate: self.candidate.clone(),
                    request: self.once.take(),
                    once: self.core.is_once(),
                    reason: self.reason,
                    cause: Span::none(),
                });
            }
            Note::Abort => {
                after.aborted[0] = self.driver.take();
                after.unlaunched = self.unlaunched.take();
            }
        }
    }

    fn make_current(&mut self, value: Option<Arc<K::Value>>, after: &mut After<K>) {
        if let Some(value) = &value {
            let life = K::life(value);
            life.stand(CURRENT);
            after.changes.push(Change::Current { generation: life.generation });
        }
        self.current = value;
    }
}

fn refused(refused: Refused) -> RenewalError {
    RenewalError::new(match refused {
        Refused::Closed => RenewalErrorKind::Closed,
        Refused::NoRule => RenewalErrorKind::NoRule,
    })
}

/// One who asked for a renewal and wants to know how it ends. Dropping it cancels nothing.
pub(crate) struct Asker<K: Keeper> {
    keeper: Arc<K>,
    ticket: Option<Ticket>,
    /// Looks by itself when something is overdue: the runtime that has the alarm may not be driven any more.
    look: Option<Pin<Box<Sleep>>>,
}

impl<K: Keeper> Asker<K> {
    fn new(keeper: &Arc<K>, ticket: Ticket) -> Self {
        Self { keeper: keeper.clone(), ticket: Some(ticket), look: None }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Generation, RenewalError>> {
        let ticket = self.ticket.expect("a renewal handle is not polled after it has answered");
        let ended = loop {
            let mut waker = Some(context.waker().clone());
            let (ended, due) = Gate::event(&self.keeper, |inner, step| {
                let ended = inner.core.poll_asker(step, ticket);
                if ended.is_none() {
                    std::mem::swap(inner.core.asker_waker(ticket), &mut waker);
                }
                (ended, inner.core.alarm())
            });
            drop(waker);
            if let Some(ended) = ended {
                break ended;
            }
            if !driver::is_in_runtime() {
                if self.keeper.gate().waits_for_a_runtime() {
                    // Nobody would ever wake this.
                    return Poll::Ready(Err(RenewalError::new(RenewalErrorKind::NoRuntime)));
                }
                return Poll::Pending;
            }
            ready!(self.poll_look(context, due));
            Gate::tick(&self.keeper);
        };
        self.ticket = None;
        self.look = None;
        Poll::Ready(match ended {
            Ended::Renewed(generation) => Ok(generation),
            Ended::Failed(error) => Err(error),
            Ended::Superseded => Err(RenewalError::new(RenewalErrorKind::Superseded)),
            Ended::Closed => Err(RenewalError::new(RenewalErrorKind::Closed)),
        })
    }
}

impl<K: Keeper> Asker<K> {
    /// Ready when what is due at this time of the keeper's clock is overdue.
    fn poll_look(&mut self, context: &mut Context<'_>, due: Option<Duration>) -> Poll<()> {
        /// Whoever has the alarm comes first.
        const GRACE: Duration = Duration::from_millis(100);
        let left = due.map(|due| due.saturating_sub(self.keeper.now()).saturating_add(GRACE));
        let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) else {
            self.look = None;
            return Poll::Pending;
        };
        let look = self.look.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if look.deadline() != at && !look.is_elapsed() {
            look.as_mut().reset(at);
        }
        ready!(look.as_mut().poll(context));
        self.look = None;
        Poll::Ready(())
    }
}

impl<K: Keeper> Drop for Asker<K> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let gone = self.keeper.gate().inner().lock().core.drop_asker(ticket);
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_44_the_early_mark_is_jittered_within_its_buffer() {
        let mark = |random| {
            let life = Life::new(1, Duration::ZERO, random);
            Budget::early(100.0, life.jitter())
        };
        // The buffer is the last tenth; at least half of it is left for the renewal, whatever is drawn.
        assert!((mark(0) - 90.0).abs() < 1e-6);
        assert!((mark(u64::MAX) - 95.0).abs() < 1e-6);
        let marks: Vec<_> = (0..100).map(|number| mark(spread(number))).collect();
        assert!(marks.iter().all(|mark| (90.0..=95.0).contains(mark)), "{marks:?}");
        assert!(marks.iter().any(|mark| *mark < 91.0) && marks.iter().any(|mark| *mark > 94.0), "{marks:?}");
    }
}
