//! The gate of one source: the state machine with its values, tasks and wakers.
//!
//! Every event decides under one lock and acts after it, so that no waker, no drop of a user's type
//! and no user's code runs under the lock.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    task::Waker,
    time::Duration,
};

use tokio::task::AbortHandle;
use tracing::Span;

use super::{
    effects::{Deferred, Effect, Effects, Starts, TimerSetting},
    error::{RenewalError, RenewalErrorKind},
    source::{AttemptContext, GateEvent, RenewalReason, RenewalSource},
    state::{
        Attempt, CandidateBase, Core, DiscardReason, Generation, Grant, Ignored, State, Step, VerificationId,
        Verified,
    },
    sync::{Mutex, Published},
    task::{self, AttemptResult, TaskReports},
    version::{Status, VersionState},
};
use crate::{
    jitter::Jitter,
    rt,
    waiters::{Ticket, Waiters},
};

/// A [`RenewalSource`] that owns its gate.
pub(crate) trait GateOwner: RenewalSource {
    fn gate(&self) -> &Gate<Self>;

    /// Starts the task of an attempt.
    fn launch(self: &Arc<Self>, attempt: AttemptContext<Self>) {
        task::spawn(self, attempt);
    }
}

/// The gate of one source.
pub(crate) struct Gate<S: RenewalSource> {
    /// Set exactly while all requests pass.
    published: Published<S::Value>,
    jitter: Jitter,
    /// The state, created by the first event: until then the gate is open, as it was built. A
    /// request that only passes does not read it, and most sessions never have an event.
    inner: OnceLock<Box<Mutex<Inner<S>>>>,
}

/// A gate together with its owner.
pub(crate) struct GateRef<'a, S>(&'a Arc<S>);

impl<S> Clone for GateRef<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for GateRef<'_, S> {}

impl<S: GateOwner> Deref for GateRef<'_, S> {
    type Target = Gate<S>;

    fn deref(&self) -> &Gate<S> {
        self.0.gate()
    }
}

/// What is decided and changed under the lock.
pub(super) struct Inner<S: RenewalSource> {
    pub(super) core: Core<Effects>,
    /// The generation of the published value.
    published: Option<Generation>,
    current: Option<Arc<S::Value>>,
    pending: Option<Arc<S::Value>>,
    candidate: Option<Arc<S::Value>>,
    /// The request of `renew_with`, while no attempt is sending it.
    explicit: Option<S::Request>,
    /// What `renew_with` was given in this event.
    given_request: Option<S::Request>,
    /// What `replace` was given in this event.
    given_value: Option<Arc<S::Value>>,
    pub(super) reason: RenewalReason,
    /// The running attempt, or the last one.
    running: Running,
    task: Option<AbortHandle>,
    /// An attempt that was started outside a runtime; the next event inside one spawns it.
    unspawned: Option<Box<AttemptContext<S>>>,
    timer: Timer,
    /// Tasks that are woken by every change: admitted requests that wait for the readiness of the
    /// inner service, and pools.
    watchers: Waiters<Waker, ()>,
}

/// What is reported about an attempt when it ends.
struct Running {
    generation: Option<Generation>,
    since: Duration,
    /// The kind of its failure, should it fail: what its task has reported, or what the end of the
    /// task without a report means.
    failure: RenewalErrorKind,
}

/// When the gate needs a tick, and the task that makes it.
#[derive(Default)]
struct Timer {
    at: Option<Duration>,
    /// Distinguishes one setting from the next.
    number: u64,
    /// The timer could not be spawned, or was lost with its runtime; the next event inside a
    /// runtime spawns it again.
    is_lost: bool,
    handle: Option<AbortHandle>,
}

/// A consistent view of a gate.
pub(crate) struct GateSnapshot<V> {
    /// The newest generation that was used.
    #[cfg(feature = "serde")]
    pub(crate) last: Generation,
    /// Whether there is a current value.
    pub(crate) is_current: bool,
    /// The current value or, while there is none, the pending one.
    pub(crate) value: Option<Arc<V>>,
}

/// What a gate offers to a request that does not want to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// All requests pass.
    Open,
    /// New requests wait for a renewal or a release that is under way.
    Renewing,
    /// No request passes, and the next one would start a renewal or get an error.
    Idle,
}

impl<S: RenewalSource> Gate<S> {
    /// Creates an open gate.
    pub(crate) fn open(value: Arc<S::Value>, jitter: Jitter) -> Self {
        Self { published: Published::new(Some(value)), jitter, inner: OnceLock::new() }
    }

    /// Creates a gate without a current value; its first request starts a renewal.
    pub(crate) fn pending(pending: Option<Arc<S::Value>>, jitter: Jitter) -> Self {
        Self::pending_after(Generation::FIRST, pending, jitter)
    }

    /// Like [`pending`](Self::pending), where generations up to `last` were used before.
    pub(crate) fn pending_after(last: Generation, pending: Option<Arc<S::Value>>, jitter: Jitter) -> Self {
        let core = Core::initially_pending().continuing_from(last);
        let inner = Inner { pending, ..Inner::new(core, None) };
        Self { published: Published::new(None), jitter, inner: OnceLock::from(Box::new(Mutex::new(inner))) }
    }

    /// Returns whether no event has happened yet.
    #[cfg(test)]
    pub(super) fn is_untouched(&self) -> bool {
        self.inner.get().is_none()
    }

    /// Returns the state, creating it for the first event.
    pub(super) fn inner(&self) -> &Mutex<Inner<S>> {
        if let Some(inner) = self.inner.get() {
            return inner;
        }
        // Only an event changes the published value, and every event calls this first: until then,
        // the published value is the one that the gate was built with.
        let Some(value) = self.published.load() else {
            return self.inner.get().expect("an event has been here");
        };
        let core = Core::initially_open().continuing_from(S::version(&value).generation);
        let created = Box::new(Mutex::new(Inner::new(core, Some(value))));
        // If two events create it concurrently, one is kept. Nothing has happened in the other.
        self.inner.get_or_init(|| created)
    }

    /// Returns the value under which all requests may be sent now.
    pub(crate) fn published(&self) -> Option<Arc<S::Value>> {
        self.published.load()
    }

    /// Returns the current value; also while waiters are still being released.
    pub(crate) fn current(&self) -> Option<Arc<S::Value>> {
        self.published.load().or_else(|| self.inner.get()?.lock().current.clone())
    }

    pub(crate) fn snapshot(&self) -> GateSnapshot<S::Value> {
        if self.inner.get().is_none()
            && let Some(value) = self.published.load()
        {
            return GateSnapshot {
                #[cfg(feature = "serde")]
                last: S::version(&value).generation,
                is_current: true,
                value: Some(value),
            };
        }
        let inner = self.inner().lock();
        GateSnapshot {
            #[cfg(feature = "serde")]
            last: inner.core.last(),
            is_current: inner.current.is_some(),
            value: inner.current.as_ref().or(inner.pending.as_ref()).cloned(),
        }
    }

    /// Returns a random number for jitter.
    pub(crate) fn random(&self) -> u64 {
        self.jitter.draw()
    }

    /// Returns whether a new request would pass or wait. An open gate takes no lock for it.
    pub(crate) fn availability(&self) -> Availability {
        if self.published.is_some() {
            return Availability::Open;
        }
        match self.inner().lock().core.state() {
            State::Open | State::Cooldown { .. } | State::Overlap => Availability::Open,
            State::Probe { .. } | State::Stagger { .. } | State::Hold | State::Lead { .. } => {
                Availability::Renewing
            }
            State::Pending | State::Backoff { .. } | State::Failed { .. } | State::Closed => {
                Availability::Idle
            }
        }
    }

    /// Returns the number of waiting requests.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.get().map_or(0, |inner| inner.lock().core.waiting())
    }

    /// Returns whether the gate may be dropped.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner.get().is_none_or(|inner| inner.lock().core.is_idle())
    }

    /// Applies `edit` to the current value or, while there is none, to the pending one and to the
    /// running candidate.
    ///
    /// `edit` runs under the gate's lock, so that the next commit includes its effect.
    pub(crate) fn edit<R>(&self, mut edit: impl FnMut(&S::Value) -> R) -> Option<R> {
        let inner = self.inner().lock();
        if let Some(current) = &inner.current {
            return Some(edit(current));
        }
        if let Some(candidate) = &inner.candidate {
            edit(candidate);
        }
        inner.pending.as_ref().map(|pending| edit(pending))
    }

    /// Stores a waker that the next change wakes, once. `place` is the watcher's ticket, which the
    /// first call sets.
    pub(crate) fn watch(&self, place: &mut Option<Ticket>, waker: &Waker) {
        let waker = waker.clone();
        let old = {
            let mut inner = self.inner().lock();
            let ticket = *place.get_or_insert_with(|| inner.watchers.push());
            inner.watchers.waker_mut(ticket).replace(waker)
        };
        drop(old);
    }

    /// Removes a watcher.
    pub(crate) fn unwatch(&self, ticket: Ticket) {
        let removed = self.inner().lock().watchers.remove(ticket);
        drop(removed);
    }

    /// Gives back a request that an attempt has taken, for the next attempt.
    pub(crate) fn return_request(&self, attempt: Attempt, request: S::Request) {
        let mut request = Some(request);
        {
            let mut inner = self.inner().lock();
            if inner.core.runs(attempt) {
                std::mem::swap(&mut inner.explicit, &mut request);
            }
        }
        drop(request);
    }

    /// Stores the handle of a timer's task, or aborts the task if a later setting replaced it.
    pub(super) fn set_timer(&self, number: u64, handle: AbortHandle) {
        {
            let mut inner = self.inner().lock();
            if inner.timer.number == number && !inner.timer.is_lost {
                inner.timer.handle = Some(handle);
                return;
            }
        }
        handle.abort();
    }

    /// Returns whether a task is due that could not be spawned for want of a runtime.
    pub(super) fn needs_runtime(&self) -> bool {
        let inner = self.inner().lock();
        // An attempt that runs elsewhere wakes its waiters; its timer is only a second safeguard.
        inner.unspawned.is_some() || (inner.timer.is_lost && inner.core.attempt_deadline().is_none())
    }

    /// Returns when the running attempt times out, if one runs.
    pub(super) fn attempt_deadline(&self) -> Option<Duration> {
        self.inner().lock().core.attempt_deadline()
    }
}

impl<'a, S: GateOwner> GateRef<'a, S> {
    pub(crate) const fn new(owner: &'a Arc<S>) -> Self {
        Self(owner)
    }

    pub(super) const fn owner(self) -> &'a Arc<S> {
        self.0
    }

    /// Returns whether the caller runs inside a renewal of this gate, and would wait for itself.
    pub(crate) fn is_reentrant(self) -> bool {
        task::is_reentrant(self.0)
    }

    /// Ends the current value.
    pub(crate) fn clear(self) -> Result<(), RenewalError> {
        let cleared = self.event(|inner, step| {
            inner.reason = RenewalReason::Cleared;
            inner.core.clear(step)
        });
        cleared.map_err(ignored)
    }

    /// Starts a renewal, or joins the running one.
    pub(super) fn start_renewal(self) -> Result<Ticket, RenewalError> {
        let ticket = self.event(|inner, step| {
            if !matches!(inner.core.state(), State::Overlap | State::Hold | State::Lead { .. }) {
                inner.reason = RenewalReason::Requested;
            }
            inner.core.renew(step)
        });
        ticket.map_err(ignored)
    }

    /// Ends the current value and starts a renewal by `request`.
    pub(super) fn start_renewal_with(self, request: S::Request) -> Result<Ticket, RenewalError> {
        let mut request = Some(request);
        let ticket = self.event(|inner, step| {
            inner.reason = RenewalReason::Requested;
            let ticket = inner.core.renew_with(step)?;
            inner.given_request = request.take();
            Ok(ticket)
        });
        drop(request);
        ticket.map_err(ignored)
    }

    /// Makes the value that `make` returns for its generation current.
    pub(crate) fn replace(
        self,
        make: impl FnOnce(Generation) -> Arc<S::Value>,
    ) -> Result<Generation, RenewalError> {
        self.replace_from(Generation::FIRST, make)
    }

    /// Like [`replace`](Self::replace), with `least` as the lowest generation to use.
    pub(crate) fn replace_from(
        self,
        least: Generation,
        make: impl FnOnce(Generation) -> Arc<S::Value>,
    ) -> Result<Generation, RenewalError> {
        // A closed gate does not call `make`, which is then dropped after the lock.
        let mut make = Some(make);
        let replaced = self.event(|inner, step| {
            let generation = inner.core.replace_from(step, least)?;
            inner.given_value = make.take().map(|make| make(generation));
            Ok(generation)
        });
        drop(make);
        replaced.map_err(ignored)
    }

    /// Like [`replace`](Self::replace), if the value of generation `current` is still current.
    /// `None` means that it is not.
    #[cfg(feature = "shared")]
    pub(crate) fn replace_if(
        self,
        current: Generation,
        make: impl FnOnce(Generation) -> Arc<S::Value>,
    ) -> Option<Generation> {
        let mut make = Some(make);
        let replaced = self.event(|inner, step| {
            if inner.core.current() != Some(current) {
                return None;
            }
            let generation = inner.core.replace(step).ok()?;
            inner.given_value = make.take().map(|make| make(generation));
            Some(generation)
        });
        drop(make);
        replaced
    }

    /// Makes the pending value current, where no layer renews.
    pub(crate) fn adopt_pending(
        self,
        make: impl FnOnce(Option<&Arc<S::Value>>, Generation) -> Arc<S::Value>,
    ) {
        let old = self.event(|inner, step| {
            if inner.core.current().is_some() {
                return None;
            }
            let generation = inner.core.replace(step).ok()?;
            let pending = inner.pending.take();
            inner.given_value = Some(make(pending.as_ref(), generation));
            pending
        });
        drop(old);
    }

    /// Requests an early renewal, at most once per cooldown.
    pub(crate) fn renew_early(self, version: &VersionState) {
        let source = self.0;
        if !version.may_renew_early(source.now(), source.limits().cooldown) {
            return;
        }
        let generation = version.generation;
        self.event(|inner, step| {
            if matches!(inner.core.state(), State::Open) {
                inner.reason = RenewalReason::LimitReached;
            }
            inner.core.renew_early(step, generation);
        });
    }

    /// Closes the gate permanently.
    pub(crate) fn close(self) {
        self.event(|inner, step| inner.core.close(step));
    }

    /// Applies whatever is due.
    pub(crate) fn tick(self) {
        self.event(|inner, step| inner.core.tick(step));
    }

    /// Handles one event: the state machine decides and the values change under the lock; the rest
    /// is done after it.
    pub(super) fn event<R>(self, decide: impl FnOnce(&mut Inner<S>, &mut Step<'_, Effects>) -> R) -> R {
        self.event_and(decide, |_, result| result)
    }

    /// Like [`event`](Self::event). `inspect` sees the values after the change, still under the
    /// lock.
    pub(super) fn event_and<T, R>(
        self,
        decide: impl FnOnce(&mut Inner<S>, &mut Step<'_, Effects>) -> T,
        inspect: impl FnOnce(&Inner<S>, T) -> R,
    ) -> R {
        let source = self.0;
        let gate = source.gate();
        let limits = source.limits();
        let now = source.now();
        let mut effects = Effects::of(&**source, gate.random());
        let (result, deferred) = {
            let mut inner = gate.inner().lock();
            inner.note_proof();
            let decided = decide(&mut inner, &mut Step { effects: &mut effects, limits: &limits, now });
            let deferred = inner.apply(source, now, effects);
            (inspect(&inner, decided), deferred)
        };
        let Starts { timer, attempt, verification } = deferred.run(source);
        if let Some((id, value)) = verification {
            task::spawn_verification(source, id, value);
        }
        if let Some(timer) = timer {
            task::spawn_timer(source, timer);
        }
        if let Some(attempt) = attempt {
            source.launch(attempt);
        }
        result
    }
}

impl<S: GateOwner> TaskReports for S {
    fn attempt_spawned(&self, attempt: Attempt, task: AbortHandle) {
        {
            let mut inner = self.gate().inner().lock();
            if inner.core.runs(attempt) {
                inner.task = Some(task);
                return;
            }
        }
        task.abort();
    }

    /// Keeps the attempt and wakes all waiters, so that one inside a runtime spawns it.
    fn attempt_not_spawned(&self, context: AttemptContext<Self>) {
        let attempt = context.attempt;
        let mut context = Some(Box::new(context));
        let mut wakes = Vec::new();
        {
            let mut inner = self.gate().inner().lock();
            if inner.core.runs(attempt) {
                std::mem::swap(&mut inner.unspawned, &mut context);
                inner.core.wake_all(|waker| wakes.push(waker));
            }
        }
        drop(context);
        wakes.into_iter().for_each(Waker::wake);
    }

    fn request_unused(self: &Arc<Self>, attempt: Attempt, request: Self::Request) {
        self.gate().return_request(attempt, request);
    }

    fn attempt_ended(self: &Arc<Self>, attempt: Attempt, result: AttemptResult<Self>) {
        let mut unused = None;
        GateRef(self).event(|inner, step| {
            if !inner.core.runs(attempt) {
                unused = Some(result);
                return;
            }
            // The task has ended: there is nothing to abort.
            inner.task = None;
            if let Err(failure) = &result {
                inner.running.failure = failure.error.kind();
            }
            let result = result.map(|value| {
                if let Some(value) = value {
                    if let Some(pending) = &inner.pending {
                        self.merge_edits(pending, &value);
                    }
                    unused = inner.candidate.replace(value).map(|old| Ok(Some(old)));
                }
            });
            let is_adopted = inner.candidate.as_deref().is_some_and(|value| S::version(value).is_adopted());
            inner.core.attempt_ended(step, attempt, result);
            if is_adopted {
                inner.core.not_renewed_here();
            }
        });
        drop(unused);
    }

    fn verification_ended(self: &Arc<Self>, id: VerificationId, result: Verified) {
        GateRef(self).event(|inner, step| {
            if result == Verified::Rejected && inner.core.verifies(id) {
                inner.reason = RenewalReason::Expired;
            }
            inner.core.verified(step, id, result);
        });
    }

    fn timer_spawned(&self, number: u64, task: AbortHandle) {
        self.gate().set_timer(number, task);
    }

    fn timer_fired(self: &Arc<Self>) {
        GateRef(self).tick();
    }

    /// Wakes all waiters, so that one inside a runtime spawns the timer again.
    fn timer_lost(&self, number: u64) {
        let mut wakes = Vec::new();
        {
            let mut inner = self.gate().inner().lock();
            if inner.timer.number != number || inner.timer.at.is_none() {
                return;
            }
            inner.timer.is_lost = true;
            inner.core.wake_all(|waker| wakes.push(waker));
        }
        wakes.into_iter().for_each(Waker::wake);
    }
}

impl<S: RenewalSource> Inner<S> {
    fn new(core: Core<Effects>, current: Option<Arc<S::Value>>) -> Self {
        Self {
            published: core.current(),
            core,
            current,
            pending: None,
            candidate: None,
            explicit: None,
            given_request: None,
            given_value: None,
            reason: RenewalReason::Initial,
            running: Running {
                generation: None,
                since: Duration::ZERO,
                failure: RenewalErrorKind::LeaderFailed,
            },
            task: None,
            unspawned: None,
            timer: Timer::default(),
            watchers: Waiters::new(),
        }
    }

    /// Returns the value that a grant is for.
    pub(super) fn value(&self, grant: Grant) -> Arc<S::Value> {
        let mut values = [&self.current, &self.candidate].into_iter().flatten();
        let granted = values.find(|value| S::version(value).generation == grant.generation);
        granted.expect("a grant is for the current value or the candidate").clone()
    }

    /// Learns whether a request was accepted under the current value, which takes no lock.
    fn note_proof(&mut self) {
        if let Some(version) = self.current.as_deref().map(S::version)
            && version.is_proven()
        {
            self.core.prove(version.generation);
        }
    }

    /// Returns the current value of an open gate.
    pub(super) fn open_value(&self) -> Arc<S::Value> {
        self.current.clone().expect("an open gate has a current value")
    }
}

impl<S: GateOwner> Inner<S> {
    /// Applies the effects to the values, publishes, and collects what has to wait for the end of
    /// the lock.
    fn apply(&mut self, source: &Arc<S>, now: Duration, effects: Effects) -> Deferred<S> {
        let mut deferred = Deferred::new();
        deferred.dropped_wakers = effects.dropped_wakers;
        deferred.dropped_errors = effects.dropped_errors;
        let mut has_changed = !effects.list.is_empty();
        for effect in effects.list {
            self.apply_one(source, now, effect, &mut deferred);
        }
        // Published before any task is woken, so that a woken task reads what woke it.
        let free = if self.core.admits_all() { self.current.clone() } else { None };
        let generation = free.as_deref().map(|value| S::version(value).generation);
        if generation != self.published {
            self.published = generation;
            has_changed = true;
            deferred.dropped_values.extend(source.gate().published.swap(free));
        }
        if let Some(current) = &self.current {
            S::version(current).set_doubts(self.core.epoch(), self.core.has_doubts());
        }
        deferred.wakes = effects.wakes;
        if has_changed {
            self.watchers.wake_all(|waker| deferred.wakes.push(waker));
        }
        let at = self.core.next_timer();
        if at != self.timer.at || (at.is_some() && self.timer.is_lost && rt::is_available()) {
            self.timer.number += 1;
            self.timer.at = at;
            self.timer.is_lost = false;
            deferred.aborted_timer = self.timer.handle.take();
            deferred.timer = at.map(|at| TimerSetting { at, number: self.timer.number });
        }
        if deferred.attempt.is_none() && self.unspawned.is_some() && rt::is_available() {
            deferred.attempt = self.unspawned.take().map(|context| *context);
        }
        deferred
    }

    fn apply_one(&mut self, source: &Arc<S>, now: Duration, effect: Effect, deferred: &mut Deferred<S>) {
        match effect {
            Effect::EndCurrent => {
                if let Some(current) = self.current.take() {
                    let version = S::version(&current);
                    version.set_status(Status::Ended);
                    deferred.events.push(GateEvent::Invalidated { generation: version.generation });
                    deferred.dropped_values.push(current);
                }
            }
            Effect::NewPending => {
                deferred.dropped_request = std::mem::replace(&mut self.explicit, self.given_request.take());
                let pending = source.pending(self.candidate.as_ref(), None);
                deferred.dropped_values.extend(std::mem::replace(&mut self.pending, pending));
            }
            Effect::Candidate(generation, base) => {
                deferred.events.push(GateEvent::Started { generation, reason: self.reason });
                // Without a task, a request leads.
                let failure = RenewalErrorKind::LeaderFailed;
                self.running = Running { generation: Some(generation), since: now, failure };
                let base = match base {
                    CandidateBase::Pending => self.pending.as_ref(),
                    CandidateBase::New => None,
                };
                let candidate = source.candidate(base, generation);
                deferred.dropped_values.extend(std::mem::replace(&mut self.candidate, candidate));
            }
            Effect::Discard(reason) => {
                if let Some(candidate) = self.candidate.take() {
                    S::version(&candidate).set_status(Status::Ended);
                    deferred.dropped_values.push(candidate);
                }
                let (generation, took) = self.running.ended(now);
                let kind = self.running.failure;
                deferred.events.push(match reason {
                    DiscardReason::Failed => GateEvent::Failed { generation, kind, took },
                    DiscardReason::Cancelled => GateEvent::Abandoned { generation, took },
                });
                if reason == DiscardReason::Failed && self.pending.is_some() {
                    let next = source.pending(None, self.pending.as_ref());
                    deferred.dropped_values.extend(std::mem::replace(&mut self.pending, next));
                }
            }
            Effect::Promote => {
                if let Some(superseded) = self.current.take() {
                    S::version(&superseded).set_status(Status::Superseded);
                    deferred.dropped_values.push(superseded);
                }
                let (generation, took) = self.running.ended(now);
                deferred.events.push(GateEvent::Committed { generation, took });
                deferred.dropped_values.extend(self.pending.take());
                deferred.dropped_request = self.explicit.take();
                let candidate = self.candidate.take();
                self.make_current(candidate, deferred);
            }
            Effect::Install => {
                deferred.dropped_values.extend(self.pending.take());
                let given = self.given_value.take();
                self.make_current(given, deferred);
            }
            Effect::Verify(id) => {
                let value = self.open_value();
                let generation = S::version(&value).generation;
                deferred.events.push(GateEvent::Verifying { generation });
                deferred.verification = Some((id, value));
            }
            Effect::StartAttempt(attempt, generation) => {
                // A task that ends without a report has timed out.
                self.running.failure = RenewalErrorKind::TimedOut;
                deferred.attempt = Some(AttemptContext {
                    attempt,
                    generation,
                    candidate: self.candidate.clone(),
                    request: self.explicit.take(),
                    is_explicit: self.core.is_explicit(),
                    reason: self.reason,
                    cause: Span::none(),
                });
            }
            Effect::AbortAttempt => {
                deferred.aborted_attempt = self.task.take();
                deferred.dropped_attempt = self.unspawned.take();
            }
        }
    }

    fn make_current(&mut self, value: Option<Arc<S::Value>>, deferred: &mut Deferred<S>) {
        if let Some(value) = &value {
            let version = S::version(value);
            version.set_status(Status::Current);
            deferred.events.push(GateEvent::Activated { generation: version.generation });
        }
        self.current = value;
    }
}

impl Running {
    /// Returns the attempt's generation and how long it took.
    fn ended(&self, now: Duration) -> (Generation, Duration) {
        let generation = self.generation.expect("a candidate comes before its end");
        (generation, now.saturating_sub(self.since))
    }
}

fn ignored(ignored: Ignored) -> RenewalError {
    RenewalError::new(match ignored {
        Ignored::Closed => RenewalErrorKind::Closed,
        Ignored::NoRule => RenewalErrorKind::NoRule,
    })
}
