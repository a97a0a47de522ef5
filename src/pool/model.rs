//! Model checking of the state machine: every short sequence of events, and long random walks.
//!
//! A world has a pool of one to three slots, a few requests, and the events that can happen to
//! them. Beside the state machine it keeps a record of its own, simple enough to be verified by
//! reading: the leases, the waiters, and the history of each member. Every event is checked against
//! the records. Waiters are polled only after they were woken, and time advances only to the times
//! that the state machine asked for. Therefore a lost wake-up or timer shows at the end of a walk
//! as a request that never completes.
//!
//! Each flaw omits one duty of the pool's shell or removes one rule of the state machine; the walks
//! must find it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::*;

const MS: Duration = Duration::from_millis(1);
const CAP: usize = 2;
const DELAY: Duration = Duration::from_millis(3);
const MAX_USES: u64 = 5;
const MAX_AGE: Duration = Duration::from_millis(40);
const FAILURES: u32 = 2;
const WAITING: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    NoCap,
    NoDelay,
    NoUses,
    NoAge,
    NoFailureLimit,
    NoQueueLimit,
    LeaseEndsEarly,
    LeaseLostInLeave,
    LeaseLost,
    WakeLost,
    TimerLost,
    OldestRequeued,
    GateIgnored,
    RenewalUnreported,
    ColdServes,
    AvoidIgnored,
    WarmUpLostSilently,
}

#[derive(Clone, Default)]
struct Effects {
    warm_ups: Vec<Key>,
    gone: Vec<Key>,
    woken: Vec<usize>,
    shut: BTreeSet<MemberNumber>,
    cannot_start_warm_up: bool,
    open_anyway: bool,
    random: u64,
}

impl EffectSink for Effects {
    type Waker = usize;
    type Cause = u64;

    fn start_warm_up(&mut self, member: Key) {
        self.warm_ups.push(member);
    }
    fn removed(&mut self, member: Key, _end: MemberEnd) {
        self.gone.push(member);
    }
    fn is_open(&mut self, member: Key) -> bool {
        self.open_anyway || !self.shut.contains(&member.number)
    }
    fn can_start_warm_up(&mut self) -> bool {
        !self.cannot_start_warm_up
    }
    fn wake(&mut self, waker: usize) {
        self.woken.push(waker);
    }
    fn discard(&mut self, _waker: Option<usize>, _cause: Option<u64>) {}
    fn random(&mut self) -> u64 {
        self.random = crate::jitter::spread(self.random.wrapping_add(1));
        self.random
    }
}

/// The state of a request.
#[derive(Clone, Debug, PartialEq)]
enum At {
    Waiting { waiter: WaiterRef, ask: LeaseRequest, arrival: u64, woken: bool },
    Leased(Key),
    Over,
}

/// The records about a member.
#[derive(Clone, Debug, Default)]
struct Record {
    leases: BTreeSet<usize>,
    uses: u64,
    last: Option<Duration>,
    cooling_until: Duration,
    born: Option<Duration>,
    gone: bool,
}

#[derive(Clone)]
struct World {
    state: PoolState<Effects>,
    effects: Effects,
    limits: Limits,
    flaw: Option<Flaw>,
    now: Duration,
    requests: Vec<At>,
    records: BTreeMap<MemberNumber, Record>,
    failures: u32,
    causes: u64,
    arrivals: u64,
    /// When each request began to wait, by its number.
    waited: BTreeMap<usize, u64>,
}

/// An event. Its number selects among the requests or members to which it can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(Preference, bool),
    Poll(usize),
    Leave(usize),
    End(usize, LeaseEnd),
    Warmed(usize, bool),
    Lost(usize),
    Mark(usize, Feedback),
    Shut(usize),
    Open(usize, bool),
    Pass(u32),
    /// Time advances, and the timer is late.
    Late(u32),
    Runtime(bool),
}

type Checked = Result<(), String>;

impl World {
    fn new(size: u32, order: SelectionOrder, flaw: Option<Flaw>) -> Self {
        let limits = Limits {
            size,
            max_in_flight: CAP,
            min_delay: DELAY,
            delay_jitter: 500,
            max_score: 2 * BAD_MARK_MILLIS,
            score_decrement: BAD_MARK_MILLIS / 2,
            max_uses: Some(MAX_USES),
            max_age: Some(MAX_AGE),
            max_waiting: WAITING,
            max_failures: FAILURES,
            backoff: 10 * MS,
            backoff_max: 40 * MS,
            order,
        };
        let state = PoolState::new(&limits, MemberNumber::FIRST);
        let mut world = Self {
            state,
            effects: Effects::default(),
            limits,
            flaw,
            now: Duration::ZERO,
            requests: Vec::new(),
            records: BTreeMap::new(),
            failures: 0,
            causes: 0,
            arrivals: 0,
            waited: BTreeMap::new(),
        };
        let limits = &mut world.limits;
        match flaw {
            Some(Flaw::NoCap) => limits.max_in_flight = CAP + 1,
            Some(Flaw::NoDelay) => limits.min_delay = Duration::ZERO,
            Some(Flaw::NoUses) => limits.max_uses = None,
            Some(Flaw::NoAge) => limits.max_age = None,
            Some(Flaw::NoFailureLimit) => limits.max_failures = u32::MAX,
            Some(Flaw::NoQueueLimit) => limits.max_waiting = usize::MAX,
            Some(Flaw::GateIgnored) => world.effects.open_anyway = true,
            _ => {}
        }
        world
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn step<R>(&mut self, event: impl FnOnce(&mut PoolState<Effects>, &mut Step<'_, Effects>) -> R) -> R {
        event(&mut self.state, &mut Step { effects: &mut self.effects, limits: &self.limits, now: self.now })
    }

    fn all(&self, is: impl Fn(&At) -> bool) -> Vec<usize> {
        (0..self.requests.len()).filter(|index| is(&self.requests[*index])).collect()
    }

    fn shut_ones(&self) -> Vec<Key> {
        self.state
            .members()
            .filter(|(_, member)| member.phase == Phase::Renewing)
            .map(|(key, _)| key)
            .collect()
    }

    /// Applies an event if it is possible now, and checks the result.
    fn apply(&mut self, event: Event) -> Checked {
        let pick = |from: Vec<usize>, which: usize| (!from.is_empty()).then(|| from[which % from.len()]);
        match event {
            Event::Ask(preference, avoids) => self.ask(preference, avoids)?,
            Event::Poll(which) => {
                if let Some(index) = pick(self.all(|at| matches!(at, At::Waiting { woken: true, .. })), which)
                {
                    self.poll_waiter(index)?;
                }
            }
            Event::Leave(which) => {
                if let Some(index) = pick(self.all(|at| matches!(at, At::Waiting { .. })), which) {
                    let At::Waiting { waiter, .. } = std::mem::replace(&mut self.requests[index], At::Over)
                    else {
                        unreachable!()
                    };
                    let granted = self.state.queue(waiter.queue).has_outcome(waiter.ticket);
                    if !(granted && self.has(Flaw::LeaseLostInLeave)) {
                        self.step(|state, step| state.leave(step, waiter));
                    }
                }
            }
            Event::End(which, end) => {
                if let Some(index) = pick(self.all(|at| matches!(at, At::Leased(_))), which) {
                    self.end(index, end);
                }
            }
            Event::Warmed(which, well) => {
                if !self.effects.warm_ups.is_empty() {
                    let key = self.effects.warm_ups.remove(which % self.effects.warm_ups.len());
                    self.warmed(key, well);
                }
            }
            Event::Lost(which) => {
                if !self.effects.warm_ups.is_empty() {
                    let key = self.effects.warm_ups.remove(which % self.effects.warm_ups.len());
                    if !self.has(Flaw::WarmUpLostSilently) {
                        self.step(|state, step| state.warm_up_lost(step, key));
                    }
                }
            }
            Event::Mark(which, mark) => {
                if let Some(index) = pick(self.all(|at| matches!(at, At::Leased(_))), which) {
                    let At::Leased(key) = self.requests[index] else { unreachable!() };
                    if let Feedback::CoolDown(cooldown) = mark {
                        let record = self.records.get_mut(&key.number).unwrap();
                        record.cooling_until = record.cooling_until.max(self.now + cooldown);
                    }
                    self.step(|state, step| state.apply_feedback(step, key, mark));
                }
            }
            Event::Shut(which) => {
                let serving: Vec<_> =
                    self.state.members().filter(|(_, member)| member.phase == Phase::Serving).collect();
                if !serving.is_empty() {
                    let number = serving[which % serving.len()].0.number;
                    self.effects.shut.insert(number);
                }
            }
            Event::Open(which, well) => {
                let shut = self.shut_ones();
                if !shut.is_empty() {
                    let key = shut[which % shut.len()];
                    self.open(key, well);
                } else if let Some(number) = self.effects.shut.first().copied() {
                    self.effects.shut.remove(&number);
                }
            }
            Event::Pass(ms) => self.pass(self.now + ms * MS)?,
            Event::Late(ms) => self.now += ms * MS,
            Event::Runtime(there) => self.effects.cannot_start_warm_up = !there,
        }
        self.check()
    }

    fn ask(&mut self, preference: Preference, avoids: bool) -> Checked {
        if self.requests.iter().filter(|at| **at != At::Over).count() >= 6 {
            return Ok(());
        }
        let used = self.state.members().find(|(_, member)| member.uses > 0).map(|(key, _)| key.number);
        let avoid: Vec<_> = used.filter(|_| avoids).into_iter().collect();
        let ask = LeaseRequest { preference, avoid };
        let reported = if self.has(Flaw::AvoidIgnored) {
            LeaseRequest { preference, avoid: Vec::new() }
        } else {
            ask.clone()
        };
        let is_unavailable = self.state.unavailable.is_some() && self.state.serving == 0;
        let avoided = self.avoids(&ask);
        let decision = self.step(|state, step| state.ask(step, &reported));
        match decision {
            LeaseDecision::Leased(key) => {
                self.requests.push(At::Leased(key));
                if avoided.contains(&key.number) {
                    return Err(format!("avoids: {key:?} was leased to a request that avoids it"));
                }
            }
            LeaseDecision::Wait(waiter) => {
                self.arrivals += 1;
                self.waited.insert(self.requests.len(), self.arrivals);
                let ask = LeaseRequest { preference, avoid: avoided };
                self.requests.push(At::Waiting { waiter, ask, arrival: self.arrivals, woken: true });
                let waiting = self.state.waiting();
                if waiting > WAITING {
                    return Err(format!("bound: {waiting} requests wait"));
                }
                if self.has(Flaw::OldestRequeued) {
                    self.requeue_oldest();
                }
            }
            LeaseDecision::Refuse(Refusal::Unavailable(_)) => {
                if self.state.serving > 0 && preference == Preference::Any {
                    return Err(String::from("unavailable: rejected though a member is in service"));
                }
                if !is_unavailable && preference == Preference::Any {
                    return Err(String::from("unavailable: rejected though the pool is available"));
                }
            }
            LeaseDecision::Refuse(Refusal::QueueFull) => {}
        }
        Ok(())
    }

    /// Returns the members that this request must not get.
    fn avoids(&self, ask: &LeaseRequest) -> Vec<MemberNumber> {
        let serving: Vec<_> = self
            .state
            .slots
            .iter()
            .map(|slot| slot.serving.map(|index| self.state.at(index).number))
            .collect();
        if serving.iter().all(|number| number.is_some_and(|number| ask.avoid.contains(&number)))
            || !matches!(ask.preference, Preference::Any | Preference::Prefer(_))
        {
            return Vec::new();
        }
        ask.avoid.clone()
    }

    fn requeue_oldest(&mut self) {
        let Some(oldest) = self.state.any.oldest() else { return };
        let note = self.state.any.note(oldest).clone();
        let role = self.state.any.waker_mut(oldest).take();
        self.state.any.remove(oldest);
        let ticket = self.state.any.push_with(note);
        *self.state.any.waker_mut(ticket) = role;
        for request in &mut self.requests {
            if let At::Waiting { waiter, .. } = request
                && waiter.queue == QueueKey::Any
                && waiter.ticket == oldest
            {
                waiter.ticket = ticket;
            }
        }
    }

    fn poll_waiter(&mut self, index: usize) -> Checked {
        let At::Waiting { waiter, ask, .. } = self.requests[index].clone() else { unreachable!() };
        let outcome = self.step(|state, step| state.poll(step, waiter));
        match outcome {
            None if self.effects.cannot_start_warm_up && self.state.needs_runtime() => {
                // Outside a runtime, with work left that needs one.
                self.step(|state, step| state.leave(step, waiter));
                self.requests[index] = At::Over;
            }
            None => {
                *self.state.waker(waiter) = Some(index);
                let At::Waiting { woken, .. } = &mut self.requests[index] else { unreachable!() };
                *woken = false;
            }
            Some(Ok(key)) => {
                self.requests[index] = At::Leased(key);
                if ask.avoid.contains(&key.number) {
                    return Err(format!("avoids: {key:?} was leased to a waiter that avoids it"));
                }
            }
            Some(Err(_)) => self.requests[index] = At::Over,
        }
        Ok(())
    }

    fn end(&mut self, index: usize, end: LeaseEnd) {
        let At::Leased(key) = self.requests[index] else { unreachable!() };
        if self.has(Flaw::LeaseLost) && end == LeaseEnd::Unused {
            self.requests[index] = At::Over;
            return;
        }
        if !self.has(Flaw::LeaseEndsEarly) {
            self.requests[index] = At::Over;
        }
        self.step(|state, step| state.end(step, key, end));
        if self.has(Flaw::LeaseEndsEarly) {
            // The server still processes the request; the records are corrected by the next check.
            let record = self.records.entry(key.number).or_default();
            record.leases.insert(usize::MAX - index);
            self.requests[index] = At::Over;
        }
    }

    fn warmed(&mut self, key: Key, well: bool) {
        self.causes += 1;
        let cause = self.causes;
        if well {
            self.records.entry(key.number).or_default().born = Some(self.now);
        }
        let reported = if well || self.has(Flaw::ColdServes) { Ok(()) } else { Err(cause) };
        self.failures = if well { 0 } else { self.failures + 1 };
        self.step(|state, step| state.warmed(step, key, reported));
    }

    fn open(&mut self, key: Key, well: bool) {
        self.effects.shut.remove(&key.number);
        if self.has(Flaw::RenewalUnreported) {
            return;
        }
        self.causes += 1;
        let cause = self.causes;
        self.failures = if well { 0 } else { self.failures + 1 };
        self.step(|state, step| state.renewed(step, key, if well { Ok(()) } else { Err(cause) }));
    }

    /// Advances the time and fires the timers on the path.
    fn pass(&mut self, to: Duration) -> Checked {
        while let Some(at) = self.state.next_timer().filter(|at| *at <= to && !self.has(Flaw::TimerLost)) {
            self.now = self.now.max(at);
            let before = self.state.next_timer();
            self.step(|state, step| state.tick(step));
            self.check()?;
            if self.state.next_timer() == before {
                break;
            }
        }
        self.now = to;
        Ok(())
    }

    /// Checks the state machine against the records.
    fn check(&mut self) -> Checked {
        let is_heard = !self.has(Flaw::WakeLost);
        for index in std::mem::take(&mut self.effects.woken) {
            if let At::Waiting { woken, .. } = &mut self.requests[index] {
                *woken = is_heard;
            }
        }
        // The current leases: those taken by a request, and those given to a waiter that was not
        // polled yet.
        let mut now: BTreeMap<MemberNumber, BTreeSet<usize>> = BTreeMap::new();
        let mut in_queue = Vec::new();
        for index in 0..self.requests.len() {
            match self.requests[index].clone() {
                At::Leased(key) => {
                    now.entry(key.number).or_default().insert(index);
                }
                At::Waiting { waiter, ask, arrival, .. } => {
                    let queue = self.state.queue(waiter.queue);
                    if !queue.has_outcome(waiter.ticket) {
                        in_queue.push((arrival, ask, waiter));
                        continue;
                    }
                    // Read without removing the waiter.
                    let mut copy = queue.clone();
                    if let (_, Some(Ok(key))) = copy.remove(waiter.ticket) {
                        now.entry(key.number).or_default().insert(index);
                    }
                }
                At::Over => {}
            }
        }
        for (number, leases) in &now {
            let delay = DELAY;
            let record = self.records.entry(*number).or_default();
            let new: Vec<_> = leases.difference(&record.leases).copied().collect();
            for index in new {
                record.uses += 1;
                if record.born.is_none() {
                    return Err(format!("cold: {number} was leased before it was warm"));
                }
                if self.effects.shut.contains(number) && !matches!(self.requests[index], At::Over) {
                    let was_open = self.state.members().any(|(key, _)| key.number == *number);
                    if was_open && self.flaw == Some(Flaw::GateIgnored) {
                        return Err(format!("shut: {number} was leased while its gate was shut"));
                    }
                }
                if record.last.is_some_and(|last| self.now < last + delay) {
                    return Err(format!("delay: {number} was leased again too soon"));
                }
                if self.now < record.cooling_until {
                    return Err(format!("cooldown: {number} was leased during its cooldown"));
                }
                if record.born.is_some_and(|born| self.now >= born + MAX_AGE) {
                    return Err(format!("age: {number} was leased though it is too old"));
                }
                record.last = Some(self.now);
                // A later request was served: no earlier waiter in a queue could have been.
                let arrival = self.waited.get(&index).copied().unwrap_or(u64::MAX);
                if let Some((older, ..)) = in_queue.iter().find(|(older, ask, waiter)| {
                    *older < arrival && waiter.queue == QueueKey::Any && !ask.avoid.contains(number)
                }) {
                    return Err(format!("order: {older} was skipped for {arrival}"));
                }
            }
            let ghosts: Vec<_> =
                record.leases.iter().copied().filter(|index| *index > usize::MAX / 2).collect();
            record.leases.clone_from(leases);
            record.leases.extend(ghosts);
            if record.leases.len() > CAP {
                return Err(format!("cap: {number} has {} leases", record.leases.len()));
            }
            if record.uses > MAX_USES + self.state.counters.unused {
                return Err(format!("uses: {number} was used {} times", record.uses));
            }
        }
        for (number, record) in &mut self.records {
            if !now.contains_key(number) {
                record.leases.retain(|index| *index > usize::MAX / 2);
            }
        }
        for key in std::mem::take(&mut self.effects.gone) {
            let record = self.records.entry(key.number).or_default();
            if std::mem::replace(&mut record.gone, true) || !record.leases.is_empty() {
                return Err(format!("gone: {key:?} with {:?}", record.leases));
            }
        }
        self.check_waiters(&in_queue)?;
        let state = &self.state;
        if state.waiting != in_queue.len() && self.flaw.is_none() {
            return Err(format!(
                "waiting: {} in the state, {} in the records",
                state.waiting,
                in_queue.len()
            ));
        }
        if self.failures >= FAILURES && state.unavailable.is_none() && !self.has(Flaw::ColdServes) {
            return Err(format!("unavailable: not after {} failures", self.failures));
        }
        self.check_slots()
    }

    /// Checks that no waiter could be served by a ready member.
    fn check_waiters(&self, in_queue: &[(u64, LeaseRequest, WaiterRef)]) -> Checked {
        for (key, member) in self.state.members() {
            let can_serve = member.phase == Phase::Serving
                && member.in_use < self.limits.max_in_flight
                && member.ready_at <= self.now
                && !self.has(Flaw::TimerLost);
            for (arrival, ask, waiter) in in_queue {
                let fits = match waiter.queue {
                    QueueKey::Any => !ask.avoid.contains(&key.number),
                    QueueKey::Slot(slot) => slot == member.slot,
                    QueueKey::Unused => member.uses == 0 && member.in_use == 0,
                };
                // A cooldown that ends at this moment is processed by the timer or by the next
                // event.
                let noticed = !matches!(member.readiness, Readiness::CoolingDown(_))
                    || self.state.next_timer().is_none_or(|alarm| alarm > member.ready_at);
                if can_serve && fits && noticed && !self.has(Flaw::AvoidIgnored) {
                    return Err(format!("idle: {key:?} can serve, and {arrival} waits"));
                }
            }
        }
        Ok(())
    }

    fn check_slots(&self) -> Checked {
        let state = &self.state;
        let count = |is: &dyn Fn(&Member) -> bool| state.members().filter(|(_, member)| is(member)).count();
        let serving = count(&|member| matches!(member.phase, Phase::Serving | Phase::Renewing));
        let slots = state.slots.iter().filter(|slot| slot.serving.is_some()).count();
        let warming = count(&|member| member.phase == Phase::Warming);
        let unserved =
            state.slots.iter().filter(|slot| slot.serving.is_none() && slot.next.is_some()).count();
        let empty = state.slots.iter().filter(|slot| slot.serving.is_none() && slot.next.is_none()).count();
        let records = [
            (state.serving, serving),
            (serving, slots),
            (state.warming, warming),
            (state.filling, unserved),
            (state.empty.len(), empty),
        ];
        if records.iter().any(|(one, other)| one != other) {
            return Err(format!("slots: {records:?}"));
        }
        let idle = count(&|member| member.phase == Phase::Draining && member.in_use == 0);
        if idle > 0 {
            return Err(String::from("gone: a drained member was not removed"));
        }
        let leased: usize = state.members().map(|(_, member)| member.in_use).sum();
        let booked: usize = self.records.values().map(|record| record.leases.len()).sum();
        if leased != booked && self.flaw.is_none() {
            return Err(format!("leases: {leased} in the state, {booked} in the records"));
        }
        Ok(())
    }

    /// Lets everything succeed from now on: all requests must complete within a bounded time.
    fn finish(&mut self) -> Checked {
        self.apply(Event::Runtime(true))?;
        for _ in 0..200 {
            for index in self.all(|at| matches!(at, At::Waiting { woken: true, .. })) {
                self.poll_waiter(index)?;
                self.check()?;
            }
            while !self.effects.warm_ups.is_empty() {
                self.apply(Event::Warmed(0, true))?;
            }
            while !self.shut_ones().is_empty() && !self.has(Flaw::RenewalUnreported) {
                self.apply(Event::Open(0, true))?;
            }
            self.effects.shut.clear();
            for index in self.all(|at| matches!(at, At::Leased(_))) {
                self.end(index, LeaseEnd::Used);
                self.check()?;
            }
            // Only to the time that the state machine asked for.
            match self.state.next_timer() {
                Some(at) => self.pass(at.max(self.now))?,
                None if self.all(|at| matches!(at, At::Waiting { .. })).is_empty() => break,
                None => {}
            }
            self.check()?;
        }
        let left = self.all(|at| matches!(at, At::Waiting { .. }));
        if !left.is_empty() {
            return Err(format!("stuck: {left:?} are never served"));
        }
        let kept: Vec<_> = self.state.members().filter(|(_, member)| member.in_use > 0).collect();
        if !kept.is_empty() {
            return Err(format!("leases: lost {kept:?}"));
        }
        Ok(())
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::jitter::spread(self.0) % end
    }

    fn event(&mut self) -> Event {
        let which = self.below(8) as usize;
        match self.below(100) {
            0..26 => {
                let preference = match self.below(6) {
                    0 => Preference::Key(self.below(3)),
                    1 => Preference::Unused,
                    2 => Preference::Prefer(MemberNumber(self.below(6))),
                    _ => Preference::Any,
                };
                Event::Ask(preference, self.below(5) == 0)
            }
            26..46 => Event::Poll(which),
            46..50 => Event::Leave(which),
            50..66 => Event::End(which, if self.below(5) > 0 { LeaseEnd::Used } else { LeaseEnd::Unused }),
            66..76 => Event::Warmed(which, self.below(4) > 0),
            76..77 => Event::Lost(which),
            77..84 => Event::Mark(
                which,
                match self.below(5) {
                    0 | 1 => Feedback::Bad,
                    2 => Feedback::Good,
                    3 => Feedback::CoolDown(7 * MS),
                    4 => Feedback::Release,
                    _ => Feedback::Retire,
                },
            ),
            84..87 => Event::Shut(which),
            87..91 => Event::Open(which, self.below(3) > 0),
            91..92 => Event::Runtime(self.below(2) == 0),
            92..95 => Event::Late(self.below(6) as u32 + 1),
            _ => Event::Pass(self.below(6) as u32 + 1),
        }
    }
}

const ORDERS: [SelectionOrder; 4] = [
    SelectionOrder::RoundRobin,
    SelectionOrder::LeastLoaded,
    SelectionOrder::FillFirst,
    SelectionOrder::Random,
];

/// Walks at random; returns the first violation and the events that led to it.
fn walks(seeds: std::ops::Range<u64>, flaw: Option<Flaw>) -> Checked {
    for seed in seeds {
        let mut rng = Rng(seed);
        let order = ORDERS[rng.below(4) as usize];
        let mut world = World::new(1 + rng.below(3) as u32, order, flaw);
        let mut path = Vec::new();
        let steps = 5 + rng.below(60);
        for _ in 0..steps {
            let event = rng.event();
            path.push(event);
            world.apply(event).map_err(|why| format!("{why} (seed {seed}, {path:?})"))?;
        }
        world.finish().map_err(|why| format!("{why} (seed {seed}, at the end of {path:?})"))?;
    }
    Ok(())
}

/// The events of the exhaustive search.
const EVENTS: [Event; 14] = [
    Event::Ask(Preference::Any, false),
    Event::Ask(Preference::Any, true),
    Event::Ask(Preference::Key(0), false),
    Event::Ask(Preference::Unused, false),
    Event::Poll(0),
    Event::Leave(0),
    Event::End(0, LeaseEnd::Used),
    Event::Warmed(0, true),
    Event::Warmed(0, false),
    Event::Mark(0, Feedback::Bad),
    Event::Mark(0, Feedback::Retire),
    Event::Mark(0, Feedback::Release),
    Event::Shut(0),
    Event::Pass(3),
];

/// Searches every sequence of a few events, and finishes each.
fn search(world: &World, depth: u32, paths: &mut u64) -> Checked {
    *paths += 1;
    world.clone().finish()?;
    if depth == 0 {
        return Ok(());
    }
    for event in EVENTS {
        let mut next = world.clone();
        next.apply(event).map_err(|why| format!("{why} <= {event:?}"))?;
        search(&next, depth - 1, paths).map_err(|why| format!("{why} <= {event:?}"))?;
    }
    Ok(())
}

#[test]
fn every_short_sequence_of_events_is_correct() {
    for order in [SelectionOrder::RoundRobin, SelectionOrder::FillFirst] {
        let mut paths = 0;
        let mut world = World::new(2, order, None);
        // One member is in service at the start, so that short sequences reach interesting states.
        world.apply(Event::Ask(Preference::Any, false)).unwrap();
        world.apply(Event::Warmed(0, true)).unwrap();
        search(&world, 4, &mut paths).unwrap_or_else(|why| panic!("{order:?}: {why}"));
        assert_eq!(paths, (0..=4).map(|depth| (EVENTS.len() as u64).pow(depth)).sum::<u64>());
    }
}

#[test]
fn long_random_walks_are_correct() {
    walks(0..30_000, None).unwrap_or_else(|why| panic!("{why}"));
}

#[track_caller]
fn is_caught(flaw: Flaw, expected: &[&str]) {
    let Err(why) = walks(0..20_000, Some(flaw)) else {
        panic!("{flaw:?} was missed");
    };
    let is_meant = expected.iter().any(|prefix| why.starts_with(prefix));
    assert!(is_meant, "{flaw:?} violated another rule: {why}");
}

#[test]
fn broken_variants_of_the_limits_are_caught() {
    is_caught(Flaw::NoCap, &["cap"]);
    is_caught(Flaw::LeaseEndsEarly, &["cap"]);
    is_caught(Flaw::NoDelay, &["delay"]);
    is_caught(Flaw::NoUses, &["uses"]);
    is_caught(Flaw::NoAge, &["age"]);
    is_caught(Flaw::NoFailureLimit, &["unavailable"]);
    is_caught(Flaw::NoQueueLimit, &["bound"]);
}

#[test]
fn broken_variants_of_the_queues_are_caught() {
    is_caught(Flaw::OldestRequeued, &["order"]);
    is_caught(Flaw::AvoidIgnored, &["avoids"]);
    is_caught(Flaw::WakeLost, &["stuck"]);
    is_caught(Flaw::TimerLost, &["stuck"]);
    is_caught(Flaw::LeaseLostInLeave, &["stuck", "leases"]);
    is_caught(Flaw::LeaseLost, &["stuck", "leases"]);
}

#[test]
fn broken_variants_of_the_members_are_caught() {
    is_caught(Flaw::GateIgnored, &["shut"]);
    is_caught(Flaw::RenewalUnreported, &["stuck"]);
    is_caught(Flaw::ColdServes, &["cold"]);
    is_caught(Flaw::WarmUpLostSilently, &["stuck"]);
}
