//! The decisions of a pool, as plain data: which member a request leases, which requests wait, and
//! when members are warmed up, cooled down and retired.
//!
//! Nothing here waits, reads a clock or uses a runtime. Each event carries the time as a
//! [`Duration`] since an origin of the caller's choice, and is applied in one step. What has to be
//! done about wakers and sessions goes to an [`EffectSink`], which may only record it, because it
//! is called in the middle of a step.
//!
//! A pool has a fixed number of *slots*. A slot is empty, or has a *member* in service, or a member
//! that is being warmed up, or both; then the second takes over from the first. A retired member
//! leaves its slot immediately and *drains*: it is removed with the end of its last lease. Members
//! are numbered, and no number is used twice, so that a report about a member is never attributed
//! to its successor.
//!
//! The invariant after each event: no waiter is in a queue for which a member is ready.

use std::{collections::BTreeSet, time::Duration};

use super::{
    ready::{Ready, SelectionOrder},
    types::{
        BAD_MARK_MILLIS, Counters, Feedback, Key, LeaseDecision, LeaseEnd, LeaseRequest, LeaseResult, Limits,
        Member, MemberEnd, MemberNumber, Phase, Preference, QueueKey, Readiness, Refusal, RetireReason, Slot,
        WaiterInfo, WaiterRef,
    },
};
use crate::waiters::Waiters;

/// Where the state machine puts its effects, and what it asks during a step.
pub(crate) trait EffectSink {
    /// Wakes a waiting task.
    type Waker;
    /// Why a member could not be warmed up.
    type Cause: Clone;

    /// Creates and warms up the session of this member.
    fn start_warm_up(&mut self, member: Key);
    /// The member was removed, and none of its leases is left.
    fn removed(&mut self, member: Key, end: MemberEnd);
    /// Returns whether requests can be sent under the member's session now.
    ///
    /// If not, the sink ensures a call of [`PoolState::recheck`] when this may have changed, or of
    /// [`PoolState::renewed`] when it has.
    fn is_open(&mut self, member: Key) -> bool;
    /// Returns whether warm-ups can be started by the caller of this step.
    fn can_start_warm_up(&mut self) -> bool;
    fn wake(&mut self, waker: Self::Waker);
    /// Drops these after the lock is released.
    fn discard(&mut self, waker: Option<Self::Waker>, cause: Option<Self::Cause>);
    fn random(&mut self) -> u64;
}

/// The context of an event: the sink of its effects, the limits, and the time.
pub(crate) struct Step<'a, H> {
    pub(crate) effects: &'a mut H,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Duration,
}

/// The waiters of one queue.
type Queue<W, C> = Waiters<W, LeaseResult<C>, WaiterInfo>;

/// The state of one pool.
#[derive(Clone)]
pub(crate) struct PoolState<H: EffectSink> {
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    slots: Vec<Slot>,
    /// The slots without a member in service and without a warm-up.
    empty: BTreeSet<u32>,
    ready: Ready,
    cooling: BTreeSet<(Duration, u32)>,
    any: Queue<H::Waker, H::Cause>,
    /// One queue for each slot.
    keyed: Vec<Queue<H::Waker, H::Cause>>,
    /// The slots whose queues are not empty.
    keyed_slots: BTreeSet<u32>,
    unused: Queue<H::Waker, H::Cause>,
    waiting: usize,
    arrivals: u64,
    leases: u64,
    next_number: MemberNumber,
    /// The number of warm-ups, and of those whose slot has no member in service.
    warming: usize,
    filling: usize,
    serving: usize,
    consecutive_failures: u32,
    unavailable: Option<H::Cause>,
    retry_at: Duration,
    /// The number of backoffs since a warm-up last succeeded.
    backoffs: u32,
    /// Whether a warm-up was needed where none could be started.
    needs_runtime: bool,
    /// Members that became ready in this step, to be offered to the waiters.
    offers: Vec<u32>,
    counters: Counters,
}

impl<H: EffectSink> PoolState<H> {
    pub(crate) fn new(limits: &Limits, first_number: MemberNumber) -> Self {
        Self {
            members: Vec::new(),
            free: Vec::new(),
            slots: vec![Slot::default(); limits.size as usize],
            empty: (0..limits.size).collect(),
            ready: Ready::new(limits.order),
            cooling: BTreeSet::new(),
            any: Waiters::new(),
            keyed: (0..limits.size).map(|_| Waiters::new()).collect(),
            keyed_slots: BTreeSet::new(),
            unused: Waiters::new(),
            waiting: 0,
            arrivals: 0,
            leases: 0,
            next_number: first_number,
            warming: 0,
            filling: 0,
            serving: 0,
            consecutive_failures: 0,
            unavailable: None,
            retry_at: Duration::ZERO,
            backoffs: 0,
            needs_runtime: false,
            offers: Vec::new(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a waiter that leaves because its time is over.
    pub(crate) fn count_time_out(&mut self) {
        self.counters.timed_out += 1;
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn unavailable(&self) -> Option<&H::Cause> {
        self.unavailable.as_ref()
    }

    pub(crate) fn member(&self, key: Key) -> Option<&Member> {
        self.members.get(key.index as usize)?.as_ref().filter(|member| member.number == key.number)
    }

    /// Returns all members, including those that are warming up or draining.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Key, &Member)> {
        (0..).zip(&self.members).filter_map(|(index, member)| {
            member.as_ref().map(|member| (Key { index, number: member.number }, member))
        })
    }

    /// Returns the members that can be leased immediately, in order.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = (Key, &Member)> {
        self.ready.iter().map(|index| (self.key(index), self.at(index)))
    }

    /// Returns whether waiters need a member whose warm-up could not be started by this event.
    pub(crate) fn needs_runtime(&self) -> bool {
        self.needs_runtime && self.waiting > 0
    }

    /// Returns when a tick is due that no other event would replace.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        if self.waiting == 0 {
            return None;
        }
        let cooled = self.cooling.first().map(|(at, _)| *at);
        let retry =
            (self.unavailable.is_some() && self.warming == 0 && self.would_grow()).then_some(self.retry_at);
        [cooled, retry].into_iter().flatten().min()
    }

    fn at(&self, index: u32) -> &Member {
        self.members[index as usize].as_ref().expect("the index is that of a member")
    }

    fn at_mut(&mut self, index: u32) -> &mut Member {
        self.members[index as usize].as_mut().expect("the index is that of a member")
    }

    fn key(&self, index: u32) -> Key {
        Key { index, number: self.at(index).number }
    }

    fn queue(&mut self, queue: QueueKey) -> &mut Queue<H::Waker, H::Cause> {
        match queue {
            QueueKey::Any => &mut self.any,
            QueueKey::Slot(slot) => &mut self.keyed[slot as usize],
            QueueKey::Unused => &mut self.unused,
        }
    }
}

/// Requests: leasing, waiting, leaving, ending.
impl<H: EffectSink> PoolState<H> {
    /// Leases a member to a request, or adds it to a queue.
    pub(crate) fn ask(&mut self, step: &mut Step<'_, H>, request: &LeaseRequest) -> LeaseDecision<H::Cause> {
        // Members whose cooldown has ended go to the waiters first: the timer may be late, and no
        // request may overtake them.
        self.end_cooldowns(step);
        self.serve_waiters(step);
        let avoid = self.effective_avoid(&request.avoid);
        let (queue, leased) = match request.preference {
            Preference::Any => (QueueKey::Any, self.lease_any(step, None, avoid)),
            Preference::Prefer(number) => (QueueKey::Any, self.lease_any(step, Some(number), avoid)),
            Preference::Key(key) => {
                let slot = self.slot_of(key, avoid);
                (QueueKey::Slot(slot), self.lease_slot(step, slot))
            }
            Preference::Unused => (QueueKey::Unused, self.lease_unused(step)),
        };
        let decision = match leased {
            Some(key) => LeaseDecision::Leased(key),
            None => self.wait(step, queue, avoid),
        };
        self.serve_waiters(step);
        self.grow(step);
        decision
    }

    /// Checks whether a waiter was served. `None` means that it continues to wait, and its waker
    /// should be stored.
    ///
    /// Any other result removes the waiter: it must not be used again.
    pub(crate) fn poll(
        &mut self,
        step: &mut Step<'_, H>,
        waiter: WaiterRef,
    ) -> Option<Result<Key, H::Cause>> {
        self.end_cooldowns(step);
        self.serve_waiters(step);
        self.grow(step);
        let queue = self.queue(waiter.queue);
        if !queue.has_outcome(waiter.ticket) {
            return None;
        }
        let (waker, outcome) = queue.remove(waiter.ticket);
        step.effects.discard(waker, None);
        outcome
    }

    pub(crate) fn waker(&mut self, waiter: WaiterRef) -> &mut Option<H::Waker> {
        self.queue(waiter.queue).waker_mut(waiter.ticket)
    }

    /// Removes a waiter. A member that it was given goes to the next waiter.
    pub(crate) fn leave(&mut self, step: &mut Step<'_, H>, waiter: WaiterRef) {
        let queue = self.queue(waiter.queue);
        let in_queue = !queue.has_outcome(waiter.ticket);
        let (waker, outcome) = queue.remove(waiter.ticket);
        self.counters.abandoned += 1;
        if in_queue {
            self.left_queue(waiter.queue);
        }
        match outcome {
            Some(Ok(key)) => {
                step.effects.discard(waker, None);
                self.end(step, key, LeaseEnd::Unused);
            }
            Some(Err(cause)) => step.effects.discard(waker, Some(cause)),
            None => step.effects.discard(waker, None),
        }
    }

    /// Ends a lease; an unused one does not count as a use.
    pub(crate) fn end(&mut self, step: &mut Step<'_, H>, key: Key, end: LeaseEnd) {
        let member = self.at_mut(key.index);
        debug_assert_eq!(member.number, key.number, "a leased member is not removed");
        member.in_use -= 1;
        if end == LeaseEnd::Unused {
            member.uses -= 1;
            self.counters.unused += 1;
        }
        let member = self.at(key.index);
        if member.phase == Phase::Draining && member.in_use == 0 {
            self.remove(step, key.index);
        } else {
            self.update_readiness(step, key.index);
            if end == LeaseEnd::Unused {
                // The member may be unused again although its readiness did not change.
                self.offers.push(key.index);
            }
        }
        self.end_cooldowns(step);
        self.finish_event(step);
    }

    /// Applies whatever is due.
    pub(crate) fn tick(&mut self, step: &mut Step<'_, H>) {
        self.end_cooldowns(step);
        self.serve_waiters(step);
        self.grow(step);
    }

    /// Wakes all waiters, so that one that is polled inside a runtime starts the warm-ups.
    pub(crate) fn wake_all(&mut self, step: &mut Step<'_, H>) {
        self.any.wake_all(|waker| step.effects.wake(waker));
        self.unused.wake_all(|waker| step.effects.wake(waker));
        for slot in &self.keyed_slots {
            self.keyed[*slot as usize].wake_all(|waker| step.effects.wake(waker));
        }
    }

    /// Returns the members that a request must not get: none if all slots are served by such
    /// members.
    fn effective_avoid<'a>(&self, avoid: &'a [MemberNumber]) -> &'a [MemberNumber] {
        let is_avoided = |index| avoid.contains(&self.at(index).number);
        if avoid.is_empty() || self.slots.iter().all(|slot| slot.serving.is_some_and(is_avoided)) {
            return &[];
        }
        avoid
    }

    fn lease_any(
        &mut self,
        step: &mut Step<'_, H>,
        prefer: Option<MemberNumber>,
        avoid: &[MemberNumber],
    ) -> Option<Key> {
        let preferred = prefer.and_then(|number| {
            self.ready.iter().find(|index| self.at(*index).number == number && !avoid.contains(&number))
        });
        if let Some(key) = preferred.and_then(|index| self.lease(step, index)) {
            return Some(key);
        }
        let random = if step.limits.order == SelectionOrder::Random { step.effects.random() } else { 0 };
        let mut taken = None;
        while let Some(index) = self.ready.first(random, |index| !avoid.contains(&self.at(index).number)) {
            taken = self.lease(step, index);
            if taken.is_some() {
                break;
            }
        }
        // A pool that is not full grows: with each request if all members share the work, with a
        // request that finds no idle member under `LeastLoaded`, and only when no member is free
        // under `FillFirst`.
        let busy = taken.is_some_and(|key| self.at(key.index).in_use > 1);
        if step.limits.spreads() || (busy && step.limits.order == SelectionOrder::LeastLoaded) {
            self.warm_up_anywhere(step);
        }
        taken
    }

    fn lease_slot(&mut self, step: &mut Step<'_, H>, slot: u32) -> Option<Key> {
        let index = self.slots[slot as usize].serving?;
        let taken = if self.is_ready(index) { self.lease(step, index) } else { None };
        // The member may have been retired because of its age; then its successor may serve.
        taken.or_else(|| {
            let other = self.slots[slot as usize].serving.filter(|other| *other != index)?;
            if self.is_ready(other) { self.lease(step, other) } else { None }
        })
    }

    fn lease_unused(&mut self, step: &mut Step<'_, H>) -> Option<Key> {
        while let Some(index) = self.ready.first(0, |index| self.is_unused(index)) {
            if let Some(key) = self.lease(step, index) {
                return Some(key);
            }
        }
        if self.waiting > 0 {
            // A standby member goes to earlier waiters once it serves.
            return None;
        }
        let slot = self.standby_slot()?;
        self.replace(step, slot);
        let index = self.slots[slot as usize].serving?;
        if self.is_ready(index) { self.lease(step, index) } else { None }
    }

    /// Returns a slot with a standby member.
    fn standby_slot(&self) -> Option<u32> {
        let is_standby = |index: u32| self.at(index).phase == Phase::Standby;
        (0..).zip(&self.slots).find(|(_, slot)| slot.next.is_some_and(is_standby)).map(|(slot, _)| slot)
    }

    /// Returns the first slot for the key whose member is not to be avoided.
    fn slot_of(&self, key: u64, avoid: &[MemberNumber]) -> u32 {
        let size = self.slots.len() as u64;
        let slots = (0..size).map(|turn| ((key % size + turn) % size) as u32);
        let suits = |slot: &u32| {
            let serving = self.slots[*slot as usize].serving;
            !serving.is_some_and(|index| avoid.contains(&self.at(index).number))
        };
        slots.clone().find(suits).unwrap_or((key % size) as u32)
    }

    fn wait(
        &mut self,
        step: &mut Step<'_, H>,
        queue: QueueKey,
        avoid: &[MemberNumber],
    ) -> LeaseDecision<H::Cause> {
        if let Some(cause) = self.cannot_be_served(step, queue) {
            self.counters.rejected_unavailable += 1;
            return LeaseDecision::Refuse(Refusal::Unavailable(cause));
        }
        if self.waiting >= step.limits.max_waiting {
            self.counters.rejected_queue_full += 1;
            return LeaseDecision::Refuse(Refusal::QueueFull);
        }
        self.arrivals += 1;
        let note = WaiterInfo { arrival: self.arrivals, avoid: avoid.to_vec() };
        let ticket = self.queue(queue).push_with(note);
        self.waiting += 1;
        self.counters.waited += 1;
        self.counters.waiting_peak = self.counters.waiting_peak.max(self.waiting as u64);
        if let QueueKey::Slot(slot) = queue {
            self.keyed_slots.insert(slot);
        }
        LeaseDecision::Wait(WaiterRef { queue, ticket })
    }

    /// Returns why this queue cannot be served: the pool is unavailable, and no member in service
    /// matches.
    fn cannot_be_served(&self, step: &Step<'_, H>, queue: QueueKey) -> Option<H::Cause> {
        let cause = self.unavailable.as_ref()?;
        let is_served = match queue {
            QueueKey::Any => self.serving > 0,
            QueueKey::Slot(slot) => self.slots[slot as usize].serving.is_some(),
            QueueKey::Unused => false,
        };
        let may_recover = self.warming > 0 || step.now >= self.retry_at;
        (!is_served && !may_recover).then(|| cause.clone())
    }

    /// Counts a waiter that left its queue, served or not.
    fn left_queue(&mut self, queue: QueueKey) {
        self.waiting -= 1;
        if let QueueKey::Slot(slot) = queue
            && self.keyed[slot as usize].is_empty()
        {
            self.keyed_slots.remove(&slot);
        }
    }
}

/// Members: leasing, readiness, offers to waiters.
impl<H: EffectSink> PoolState<H> {
    fn is_ready(&self, index: u32) -> bool {
        matches!(self.at(index).readiness, Readiness::Ready(_))
    }

    fn is_unused(&self, index: u32) -> bool {
        self.at(index).is_unused()
    }

    /// Leases a ready member. `None` if it cannot serve after all; then it is no longer ready.
    fn lease(&mut self, step: &mut Step<'_, H>, index: u32) -> Option<Key> {
        let key = self.key(index);
        if step.limits.is_aged(self.at(index), step.now) {
            self.retire_at(step, index, RetireReason::Age);
            return None;
        }
        if !step.effects.is_open(key) {
            self.at_mut(index).phase = Phase::Renewing;
            self.update_readiness(step, index);
            return None;
        }
        self.leases += 1;
        self.counters.leases += 1;
        let delay = self.draw_delay(step);
        let last_lease = self.leases;
        let member = self.at_mut(index);
        member.in_use += 1;
        member.uses += 1;
        member.last_lease = last_lease;
        member.ready_at = member.ready_at.max(step.now.saturating_add(delay));
        self.update_readiness(step, index);
        let member = self.at(index);
        if step.limits.is_spent(member) {
            self.retire_at(step, index, RetireReason::Uses);
        } else if step.limits.is_late(member, step.now) {
            let slot = member.slot;
            self.warm_up_slot(step, slot);
        }
        Some(key)
    }

    fn draw_delay(&mut self, step: &mut Step<'_, H>) -> Duration {
        let delay = step.limits.min_delay;
        if delay == Duration::ZERO || step.limits.delay_jitter == 0 {
            return delay;
        }
        let thousandths = step.effects.random() % (step.limits.delay_jitter + 1);
        delay.saturating_add(delay.mul_f64(thousandths as f64 / 1000.0))
    }

    /// Enters a member in the index where it belongs now.
    fn update_readiness(&mut self, step: &Step<'_, H>, index: u32) {
        let member = self.at(index);
        let readiness = if member.phase != Phase::Serving || member.in_use >= step.limits.max_in_flight {
            Readiness::Unavailable
        } else if member.ready_at > step.now {
            Readiness::CoolingDown(member.ready_at)
        } else {
            Readiness::Ready(match step.limits.order {
                SelectionOrder::RoundRobin => (0, member.last_lease),
                SelectionOrder::LeastLoaded => (member.in_use as u64, member.last_lease),
                SelectionOrder::FillFirst => (0, u64::from(member.slot)),
                SelectionOrder::Random => (0, 0),
            })
        };
        let old = std::mem::replace(&mut self.at_mut(index).readiness, readiness);
        if old == readiness {
            return;
        }
        match old {
            Readiness::Unavailable => {}
            Readiness::Ready(rank) => self.ready.remove(index, rank),
            Readiness::CoolingDown(at) => {
                self.cooling.remove(&(at, index));
            }
        }
        match readiness {
            Readiness::Unavailable => {}
            Readiness::Ready(rank) => {
                self.ready.insert(index, rank);
                if self.waiting > 0 {
                    self.offers.push(index);
                }
            }
            Readiness::CoolingDown(at) => {
                self.cooling.insert((at, index));
            }
        }
    }

    /// Makes the members whose cooldown has ended ready.
    fn end_cooldowns(&mut self, step: &mut Step<'_, H>) {
        while let Some((_, index)) = self.cooling.first().copied().filter(|(at, _)| *at <= step.now) {
            self.update_readiness(step, index);
        }
    }

    /// Offers the members that became ready in this step to the waiters.
    fn serve_waiters(&mut self, step: &mut Step<'_, H>) {
        while let Some(index) = self.offers.pop() {
            while self.waiting > 0
                && self.members[index as usize].is_some()
                && self.is_ready(index)
                && let Some(waiter) = self.next_for(index)
            {
                let Some(key) = self.lease(step, index) else {
                    break;
                };
                self.serve(step, waiter, Ok(key));
            }
        }
        if self.waiting == 0 && self.offers.capacity() > 1024 {
            self.offers = Vec::new();
        }
    }

    /// Ends an event that may have occurred outside a runtime: if it left work that needs a
    /// runtime, all waiters are woken.
    fn finish_event(&mut self, step: &mut Step<'_, H>) {
        self.serve_waiters(step);
        if self.needs_runtime() {
            self.wake_all(step);
        }
    }

    /// Returns the waiter that has waited longest among those that this member can serve.
    fn next_for(&self, index: u32) -> Option<WaiterRef> {
        let member = self.at(index);
        let any = self.any.iter().find(|ticket| !self.any.note(*ticket).avoid.contains(&member.number));
        let keyed = &self.keyed[member.slot as usize];
        let of_slot = keyed.oldest();
        let unused = if self.is_unused(index) { self.unused.oldest() } else { None };
        let waiters = [
            any.map(|ticket| (self.any.note(ticket).arrival, QueueKey::Any, ticket)),
            of_slot.map(|ticket| (keyed.note(ticket).arrival, QueueKey::Slot(member.slot), ticket)),
            unused.map(|ticket| (self.unused.note(ticket).arrival, QueueKey::Unused, ticket)),
        ];
        let oldest = waiters.into_iter().flatten().min_by_key(|(arrival, ..)| *arrival);
        oldest.map(|(_, queue, ticket)| WaiterRef { queue, ticket })
    }

    fn serve(&mut self, step: &mut Step<'_, H>, waiter: WaiterRef, outcome: Result<Key, H::Cause>) {
        if let Some(waker) = self.queue(waiter.queue).end(waiter.ticket, outcome) {
            step.effects.wake(waker);
        }
        self.left_queue(waiter.queue);
    }
}

/// Slots: filling, succession, removal.
impl<H: EffectSink> PoolState<H> {
    /// Adds an existing session as the member of an empty slot.
    pub(crate) fn join(&mut self, step: &mut Step<'_, H>) -> Option<Key> {
        let slot = self.empty.pop_first()?;
        let index = self.enter(slot, Phase::Standby);
        self.slots[slot as usize].next = Some(index);
        self.at_mut(index).warmed_at = step.now;
        self.promote(step, slot);
        Some(self.key(index))
    }

    /// Ends a warm-up.
    pub(crate) fn warmed(&mut self, step: &mut Step<'_, H>, key: Key, result: Result<(), H::Cause>) {
        debug_assert_eq!(self.member(key).map(|member| member.phase), Some(Phase::Warming));
        match result {
            Ok(()) => {
                self.warm(step);
                self.counters.warmed += 1;
                let slot = self.end_warm_up(key.index, Phase::Standby);
                self.at_mut(key.index).warmed_at = step.now;
                if self.slots[slot as usize].serving.is_none() {
                    self.promote(step, slot);
                } else if !self.unused.is_empty() {
                    self.replace(step, slot);
                }
            }
            Err(cause) => {
                self.abandon_warm_up(step, key.index);
                self.fail(step, cause);
            }
        }
        self.end_cooldowns(step);
        self.serve_waiters(step);
        self.grow(step);
        self.finish_event(step);
    }

    /// Ends a warm-up without a result: it is unknown whether it would have succeeded.
    pub(crate) fn warm_up_lost(&mut self, step: &mut Step<'_, H>, key: Key) {
        self.abandon_warm_up(step, key.index);
        self.wake_all(step);
        self.serve_waiters(step);
    }

    /// Ends the renewal of a member's session.
    pub(crate) fn renewed(&mut self, step: &mut Step<'_, H>, key: Key, result: Result<(), H::Cause>) {
        if self.member(key).is_none_or(|member| member.phase != Phase::Renewing) {
            if let Err(cause) = result {
                step.effects.discard(None, Some(cause));
            }
            return;
        }
        match result {
            Ok(()) => {
                self.warm(step);
                self.at_mut(key.index).phase = Phase::Serving;
                self.update_readiness(step, key.index);
            }
            Err(cause) => {
                self.retire_at(step, key.index, RetireReason::Failed);
                self.fail(step, cause);
            }
        }
        self.end_cooldowns(step);
        self.serve_waiters(step);
        self.grow(step);
        self.finish_event(step);
    }

    /// Checks again whether a member under renewal is open.
    pub(crate) fn recheck(&mut self, step: &mut Step<'_, H>, key: Key) {
        let is_shut = self.member(key).is_some_and(|member| member.phase == Phase::Renewing);
        if is_shut && step.effects.is_open(key) {
            self.at_mut(key.index).phase = Phase::Serving;
            self.update_readiness(step, key.index);
            self.end_cooldowns(step);
            self.finish_event(step);
        }
    }

    /// Applies feedback about a member; feedback about a removed member is ignored.
    pub(crate) fn apply_feedback(&mut self, step: &mut Step<'_, H>, key: Key, feedback: Feedback) {
        let Some(member) = self.member(key) else {
            return;
        };
        let is_retired = !matches!(member.phase, Phase::Serving | Phase::Renewing);
        let member = self.at_mut(key.index);
        match feedback {
            Feedback::Good => {
                member.good += 1;
                member.score = member.score.saturating_sub(step.limits.score_decrement);
                self.counters.good += 1;
            }
            Feedback::Bad => {
                member.bad += 1;
                member.score = member.score.saturating_add(BAD_MARK_MILLIS);
                self.counters.bad += 1;
                if !is_retired && self.at(key.index).score >= step.limits.max_score {
                    self.retire_at(step, key.index, RetireReason::Errors);
                }
            }
            Feedback::CoolDown(cooldown) => {
                member.cooldowns += 1;
                member.ready_at = member.ready_at.max(step.now.saturating_add(cooldown));
                self.counters.cooldowns += 1;
                self.update_readiness(step, key.index);
            }
            Feedback::Retire | Feedback::Release if is_retired => {}
            Feedback::Release => self.retire_at(step, key.index, RetireReason::Released),
            Feedback::Retire => self.retire_at(step, key.index, RetireReason::Manual),
        }
        self.serve_waiters(step);
        self.grow(step);
        self.finish_event(step);
    }

    /// Starts as many warm-ups as the unserved waiters need, as far as there are slots.
    fn grow(&mut self, step: &mut Step<'_, H>) {
        self.needs_runtime = false;
        if self.waiting == 0 {
            return;
        }
        while self.any.len() > self.filling.saturating_mul(step.limits.max_in_flight) {
            if !self.warm_up_anywhere(step) {
                break;
            }
        }
        let wanted: Vec<u32> = self.keyed_slots.intersection(&self.empty).copied().collect();
        for slot in wanted {
            self.warm_up_slot(step, slot);
        }
        while !self.unused.is_empty()
            && let Some(slot) = self.standby_slot()
        {
            self.replace(step, slot);
            self.serve_waiters(step);
        }
        while self.unused.len() > self.warming {
            if !self.warm_up_anywhere(step) && !self.warm_up_successor(step) {
                break;
            }
        }
    }

    /// Returns whether a waiter needs a warm-up that could be started after the backoff.
    fn would_grow(&self) -> bool {
        let has_room = !self.empty.is_empty();
        (!self.any.is_empty() && has_room)
            || self.keyed_slots.intersection(&self.empty).next().is_some()
            || (!self.unused.is_empty() && (has_room || self.slots.iter().any(|slot| slot.next.is_none())))
    }

    /// Starts a warm-up in the first empty slot. `false` if there is none, or if it cannot start
    /// now.
    fn warm_up_anywhere(&mut self, step: &mut Step<'_, H>) -> bool {
        let slot = self.empty.first().copied();
        slot.is_some_and(|slot| self.warm_up_slot(step, slot))
    }

    /// Starts the warm-up of a successor for the worst member, by its score, then by its uses.
    fn warm_up_successor(&mut self, step: &mut Step<'_, H>) -> bool {
        let without = (0..).zip(&self.slots).filter(|(_, slot)| slot.next.is_none());
        let serving = without.filter_map(|(slot, entry)| Some((slot, self.at(entry.serving?))));
        let least = serving.max_by_key(|(_, member)| (member.score, member.uses)).map(|(slot, _)| slot);
        least.is_some_and(|slot| self.warm_up_slot(step, slot))
    }

    /// Starts the warm-up of the next member of a slot, unless there is one already.
    fn warm_up_slot(&mut self, step: &mut Step<'_, H>, slot: u32) -> bool {
        let may_start = self.unavailable.is_none() || (self.warming == 0 && step.now >= self.retry_at);
        if self.slots[slot as usize].next.is_some() || !may_start {
            return false;
        }
        if !step.effects.can_start_warm_up() {
            self.needs_runtime = true;
            return false;
        }
        let index = self.enter(slot, Phase::Warming);
        self.slots[slot as usize].next = Some(index);
        self.warming += 1;
        self.counters.created += 1;
        if self.slots[slot as usize].serving.is_none() {
            self.filling += 1;
        }
        self.empty.remove(&slot);
        step.effects.start_warm_up(self.key(index));
        true
    }

    fn enter(&mut self, slot: u32, phase: Phase) -> u32 {
        let number = self.next_number;
        self.next_number = number.next();
        let member = Member::new(number, slot, phase);
        match self.free.pop() {
            Some(index) => {
                self.members[index as usize] = Some(member);
                index
            }
            None => {
                self.members.push(Some(member));
                u32::try_from(self.members.len() - 1).expect("fewer than 2^32 members")
            }
        }
    }

    /// Ends the warm-up of a member and returns its slot.
    fn end_warm_up(&mut self, index: u32, phase: Phase) -> u32 {
        let member = self.at_mut(index);
        member.phase = phase;
        let slot = member.slot;
        self.warming -= 1;
        if self.slots[slot as usize].serving.is_none() {
            self.filling -= 1;
        }
        slot
    }

    /// Removes a member whose warm-up did not succeed.
    fn abandon_warm_up(&mut self, step: &mut Step<'_, H>, index: u32) {
        let slot = self.end_warm_up(index, Phase::Draining);
        self.slots[slot as usize].next = None;
        self.note_empty(slot);
        self.remove(step, index);
    }

    /// Puts the standby member of an unserved slot into service.
    fn promote(&mut self, step: &mut Step<'_, H>, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        let index = entry.next.take().expect("the slot has a standby member");
        entry.serving = Some(index);
        self.serving += 1;
        self.at_mut(index).phase = Phase::Serving;
        self.update_readiness(step, index);
    }

    /// Replaces the member in service by the standby member.
    fn replace(&mut self, step: &mut Step<'_, H>, slot: u32) {
        let old = self.slots[slot as usize].serving.expect("the slot has a member in service");
        self.retire_at(step, old, RetireReason::Replaced);
    }

    /// Retires a member in service. Its successor takes over, or its warm-up starts.
    fn retire_at(&mut self, step: &mut Step<'_, H>, index: u32, reason: RetireReason) {
        let counters = &mut self.counters;
        let count = match reason {
            RetireReason::Errors => &mut counters.retired_errors,
            RetireReason::Uses => &mut counters.retired_uses,
            RetireReason::Age => &mut counters.retired_age,
            RetireReason::Manual => &mut counters.retired_manually,
            RetireReason::Replaced => &mut counters.retired_replaced,
            RetireReason::Failed => &mut counters.retired_failed,
            RetireReason::Released => &mut counters.released,
        };
        *count += 1;
        let member = self.at_mut(index);
        member.phase = Phase::Draining;
        member.end = if reason == RetireReason::Released { MemberEnd::Free } else { MemberEnd::Retired };
        let slot = member.slot;
        self.update_readiness(step, index);
        self.slots[slot as usize].serving = None;
        self.serving -= 1;
        match self.slots[slot as usize].next {
            Some(next) if self.at(next).phase == Phase::Standby => self.promote(step, slot),
            Some(_) => self.filling += 1,
            None => {
                self.note_empty(slot);
                // A process that releases a slot does not need another one.
                if reason != RetireReason::Released {
                    self.warm_up_slot(step, slot);
                }
            }
        }
        if self.at(index).in_use == 0 {
            self.remove(step, index);
        }
    }

    fn remove(&mut self, step: &mut Step<'_, H>, index: u32) {
        let (key, end) = (self.key(index), self.at(index).end);
        self.members[index as usize] = None;
        self.free.push(index);
        step.effects.removed(key, end);
    }

    fn note_empty(&mut self, slot: u32) {
        let entry = &self.slots[slot as usize];
        if entry.serving.is_none() && entry.next.is_none() {
            self.empty.insert(slot);
        }
    }

    /// A warm-up or renewal has succeeded: the pool is available.
    fn warm(&mut self, step: &mut Step<'_, H>) {
        self.consecutive_failures = 0;
        self.backoffs = 0;
        if let Some(cause) = self.unavailable.take() {
            step.effects.discard(None, Some(cause));
        }
    }

    /// A warm-up or renewal has failed. After too many in a row, the waiters that no member can
    /// serve get the cause.
    fn fail(&mut self, step: &mut Step<'_, H>, cause: H::Cause) {
        self.counters.warm_ups_failed += 1;
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        if self.consecutive_failures < step.limits.max_failures {
            step.effects.discard(None, Some(cause));
            return;
        }
        let backoff =
            step.limits.backoff.saturating_mul(1 << self.backoffs.min(16)).min(step.limits.backoff_max);
        self.backoffs = self.backoffs.saturating_add(1);
        self.retry_at = step.now.saturating_add(backoff);
        if let Some(old) = self.unavailable.replace(cause) {
            step.effects.discard(None, Some(old));
        }
        let slots: Vec<u32> = self.keyed_slots.iter().copied().collect();
        for queue in slots.into_iter().map(QueueKey::Slot).chain([QueueKey::Any, QueueKey::Unused]) {
            if let Some(cause) = self.cannot_be_served(step, queue) {
                while let Some(ticket) = self.queue(queue).oldest() {
                    self.counters.rejected_unavailable += 1;
                    self.serve(step, WaiterRef { queue, ticket }, Err(cause.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "model.rs"]
mod model;
