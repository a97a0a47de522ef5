//! The decisions of a pool: who is leased, who waits, who is made, rested and retired, as plain data.
//!
//! Nothing here waits, reads a clock, or knows a runtime. Each event carries the time as a [`Duration`] since an origin of the
//! caller's choice and is applied in one step; what has to be done about wakers and sessions is told to a [`Host`], which must
//! only note it down, since it is called in the middle of a step.
//!
//! A pool has a number of *slots*. A slot is empty, or has a *member* that serves, or one that is on its way (*ordered*), or
//! both, where the second is to take over from the first. A member that is retired leaves its slot at once and *drains*: it is
//! forgotten with its last lease. Members are numbered and no number is used twice, so that news about one is never taken for
//! news about its successor.
//!
//! After each event, nobody stands in a line who could be served by a member that can serve.

use std::{collections::BTreeSet, time::Duration};

use super::ready::{Order, Rank, Ready};
use crate::gate::waiters::{Ticket, Waiters};

/// Names a member; it is never used again.
pub(crate) type Number = u64;

/// What one `mark_bad` adds to a member's score.
pub(crate) const BAD: u64 = 1000;

/// What the core tells its owner in the middle of a step, and asks.
pub(crate) trait Host {
    /// Wakes a waiting task.
    type Waker;
    /// Why a member could not be made.
    type Cause: Clone;

    /// A session is to be made for this member and warmed up.
    fn order(&mut self, member: Key);
    /// The member is gone; nobody has a lease of it. What becomes of its session depends on how it went.
    fn gone(&mut self, member: Key, end: End);
    /// Whether a session can be sent under at this moment. If not, the host sees to it that [`Core::look`] is called when that
    /// may have changed, or [`Core::opened`] when it has.
    fn is_open(&mut self, member: Key) -> bool;
    /// Whether orders can be carried out where this step is made.
    fn can_order(&mut self) -> bool;
    fn wake(&mut self, waker: Self::Waker);
    /// What nobody needs any more; it is dropped after the lock is released.
    fn forget(&mut self, waker: Option<Self::Waker>, cause: Option<Self::Cause>);
    fn random(&mut self) -> u64;
}

/// What goes with every event: whom to tell, within which bounds, and when it is.
pub(crate) struct Step<'a, H> {
    pub(crate) host: &'a mut H,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Duration,
}

/// The bounds of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) size: u32,
    /// Leases of one member at once.
    pub(crate) cap: usize,
    /// The least time from one lease of a member to its next.
    pub(crate) delay: Duration,
    /// The delay is longer by up to so many thousandths of it.
    pub(crate) delay_jitter: u64,
    /// The score, in thousandths, at which a member is retired.
    pub(crate) max_score: u64,
    /// What a good mark takes off the score, in thousandths.
    pub(crate) heal: u64,
    pub(crate) max_uses: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    /// How many may wait at once.
    pub(crate) waiting: usize,
    /// Warm-ups that may fail in a row.
    pub(crate) failures: u32,
    /// How long a broken pool rests before it tries again; it doubles each time.
    pub(crate) rest: Duration,
    pub(crate) rest_most: Duration,
    pub(crate) order: Order,
}

impl Limits {
    /// Whether the pool grows with each request while it is not full, so that all members share the work from the start.
    fn spreads(&self) -> bool {
        matches!(self.order, Order::RoundRobin | Order::Random)
    }

    fn is_spent(&self, member: &Member) -> bool {
        self.max_uses.is_some_and(|most| member.uses >= most)
    }

    fn is_aged(&self, member: &Member, now: Duration) -> bool {
        self.max_age.is_some_and(|most| now.saturating_sub(member.born) >= most)
    }

    /// Whether a budget of the member is in its last tenth: time to warm its successor.
    fn is_late(&self, member: &Member, now: Duration) -> bool {
        self.max_uses.is_some_and(|most| member.uses >= most - most.div_ceil(10))
            || self.max_age.is_some_and(|most| now.saturating_sub(member.born) >= most - most / 10)
    }
}

/// A member, wherever it is told about: its place in the slab, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) number: Number,
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) want: Want,
    /// Members that have failed it before. They are taken again only if the pool is no larger than these.
    pub(crate) avoid: Vec<Number>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Want {
    #[default]
    Any,
    /// Any, but this one if it can serve at once.
    Prefer(Number),
    /// The member of the slot that belongs to this key.
    Key(u64),
    /// One that nobody has used.
    Unused,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<E> {
    Leased(Key),
    Wait(Place),
    Refuse(Refusal<E>),
}

/// Why a request gets no member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<E> {
    Overloaded,
    Broken(E),
}

/// A place in one of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    line: Line,
    ticket: Ticket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Line {
    Any,
    Slot(u32),
    Unused,
}

/// What a waiter brings along.
#[derive(Clone, Debug)]
struct Note {
    /// Numbers all waiters of all lines.
    arrival: u64,
    avoid: Vec<Number>,
}

/// What a waiter is given in the end.
type Given<E> = Result<Key, E>;

type Waiting<H> = Waiters<<H as Host>::Waker, Given<<H as Host>::Cause>, Note>;

/// News about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Good,
    Bad,
    Rest(Duration),
    Retire,
    /// Another process is to have it.
    GiveBack,
}

/// What is left of a member that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was retired: nobody is to use its session again.
    Retired,
    /// Its session is for whoever takes it next: it was given back, or has never served.
    Free,
}

/// Why a member was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Errors,
    Uses,
    Age,
    Hand,
    /// A request asked for a new one while the pool was full.
    Replaced,
    /// It could not be renewed.
    Failed,
    GivenBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Its session is being made and warmed up.
    Ordered,
    /// It is warm and waits to take over its slot.
    Standby,
    Serving,
    /// It serves, but its session is being renewed.
    Shut,
    /// It was retired; its last leases are still out.
    Draining,
}

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) number: Number,
    pub(crate) phase: Phase,
    pub(crate) in_use: usize,
    pub(crate) uses: u64,
    /// In thousandths.
    pub(crate) score: u64,
    /// When it became warm.
    pub(crate) born: Duration,
    /// Before this it is not leased.
    pub(crate) ready_at: Duration,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) rests: u64,
    end: End,
    slot: u32,
    /// The number of its last lease.
    leased: u64,
    queue: Queue,
}

impl Member {
    /// The number of its last lease among all of the pool; 0 before its first.
    pub(crate) fn leased(&self) -> u64 {
        self.leased
    }
}

/// Where a member is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Nowhere,
    Ready(Rank),
    CoolingDown(Duration),
}

#[derive(Clone, Debug, Default)]
struct Slot {
    serving: Option<u32>,
    next: Option<u32>,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) leases: u64,
    pub(crate) unused: u64,
    pub(crate) waited: u64,
    pub(crate) overloaded: u64,
    pub(crate) broken: u64,
    pub(crate) left: u64,
    pub(crate) timed_out: u64,
    pub(crate) waiting_peak: u64,
    pub(crate) ordered: u64,
    pub(crate) warmed: u64,
    pub(crate) failed: u64,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) rests: u64,
    pub(crate) retired_errors: u64,
    pub(crate) retired_uses: u64,
    pub(crate) retired_age: u64,
    pub(crate) retired_hand: u64,
    pub(crate) retired_replaced: u64,
    pub(crate) retired_failed: u64,
    pub(crate) released: u64,
}

/// The state of one pool.
#[derive(Clone)]
pub(crate) struct Core<H: Host> {
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    slots: Vec<Slot>,
    /// Slots with nobody and nobody on the way.
    empty: BTreeSet<u32>,
    ready: Ready,
    resting: BTreeSet<(Duration, u32)>,
    any: Waiters<H::Waker, Given<H::Cause>, Note>,
    /// One line for each slot.
    keyed: Vec<Waiters<H::Waker, Given<H::Cause>, Note>>,
    /// Slots in whose lines somebody stands.
    keyed_slots: BTreeSet<u32>,
    unused: Waiters<H::Waker, Given<H::Cause>, Note>,
    waiting: usize,
    arrivals: u64,
    leases: u64,
    next_number: Number,
    /// Members in the phase `Ordered`, and those of them whose slot nobody serves.
    ordered: usize,
    filling: usize,
    serving: usize,
    failures: u32,
    broken: Option<H::Cause>,
    retry_at: Duration,
    /// How often the pool has rested since a warm-up went well.
    rests: u32,
    /// A member was to be ordered where orders cannot be carried out.
    starved: bool,
    /// Members that can serve since this step, to be offered to those who wait.
    offers: Vec<u32>,
    tally: Tally,
}

impl<H: Host> Core<H> {
    pub(crate) fn new(limits: &Limits, first_number: Number) -> Self {
        Self {
            members: Vec::new(),
            free: Vec::new(),
            slots: vec![Slot::default(); limits.size as usize],
            empty: (0..limits.size).collect(),
            ready: Ready::new(limits.order),
            resting: BTreeSet::new(),
            any: Waiters::new(),
            keyed: (0..limits.size).map(|_| Waiters::new()).collect(),
            keyed_slots: BTreeSet::new(),
            unused: Waiters::new(),
            waiting: 0,
            arrivals: 0,
            leases: 0,
            next_number: first_number,
            ordered: 0,
            filling: 0,
            serving: 0,
            failures: 0,
            broken: None,
            retry_at: Duration::ZERO,
            rests: 0,
            starved: false,
            offers: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// One of those who leave does so because its time is over.
    pub(crate) fn count_time_out(&mut self) {
        self.tally.timed_out += 1;
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn broken(&self) -> Option<&H::Cause> {
        self.broken.as_ref()
    }

    pub(crate) fn member(&self, key: Key) -> Option<&Member> {
        self.members.get(key.index as usize)?.as_ref().filter(|member| member.number == key.number)
    }

    /// All members, those on their way and those that drain included.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Key, &Member)> {
        (0..).zip(&self.members).filter_map(|(index, member)| {
            member.as_ref().map(|member| (Key { index, number: member.number }, member))
        })
    }

    /// The members that can be leased at once, in order.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = (Key, &Member)> {
        self.ready.iter().map(|index| (self.key(index), self.at(index)))
    }

    /// Whether somebody waits for a member that could not be ordered where this event happened.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved && self.waiting > 0
    }

    /// When a tick is due that nobody else will notice in time.
    pub(crate) fn alarm(&self) -> Option<Duration> {
        if self.waiting == 0 {
            return None;
        }
        let rested = self.resting.first().map(|(at, _)| *at);
        let retry =
            (self.broken.is_some() && self.ordered == 0 && self.would_grow()).then_some(self.retry_at);
        [rested, retry].into_iter().flatten().min()
    }

    fn at(&self, index: u32) -> &Member {
        self.members[index as usize].as_ref().expect("the index of a member")
    }

    fn at_mut(&mut self, index: u32) -> &mut Member {
        self.members[index as usize].as_mut().expect("the index of a member")
    }

    fn key(&self, index: u32) -> Key {
        Key { index, number: self.at(index).number }
    }

    fn line(&mut self, line: Line) -> &mut Waiting<H> {
        match line {
            Line::Any => &mut self.any,
            Line::Slot(slot) => &mut self.keyed[slot as usize],
            Line::Unused => &mut self.unused,
        }
    }
}

/// Requests: coming, waiting, leaving, ending.
impl<H: Host> Core<H> {
    /// A request asks for a member.
    pub(crate) fn ask(&mut self, step: &mut Step<'_, H>, ask: &Ask) -> Answer<H::Cause> {
        // Whoever has rested by now is for those who wait: the alarm may be late, and nobody overtakes.
        self.wake_rested(step);
        self.settle(step);
        let avoid = self.avoidable(&ask.avoid);
        let (line, taken) = match ask.want {
            Want::Any => (Line::Any, self.take_any(step, None, avoid)),
            Want::Prefer(number) => (Line::Any, self.take_any(step, Some(number), avoid)),
            Want::Key(key) => {
                let slot = self.slot_of(key, avoid);
                (Line::Slot(slot), self.take_of(step, slot))
            }
            Want::Unused => (Line::Unused, self.take_unused(step)),
        };
        let answer = match taken {
            Some(key) => Answer::Leased(key),
            None => self.wait(step, line, avoid),
        };
        self.settle(step);
        self.grow(step);
        answer
    }

    /// A waiter looks. `None` means that it has to wait on, and its waker should be stored.
    ///
    /// Any other answer gives the place back: it must not be used again.
    pub(crate) fn poll(&mut self, step: &mut Step<'_, H>, place: Place) -> Option<Result<Key, H::Cause>> {
        self.wake_rested(step);
        self.settle(step);
        self.grow(step);
        let line = self.line(place.line);
        if !line.has_outcome(place.ticket) {
            return None;
        }
        let (waker, outcome) = line.remove(place.ticket);
        step.host.forget(waker, None);
        outcome
    }

    pub(crate) fn waker(&mut self, place: Place) -> &mut Option<H::Waker> {
        self.line(place.line).waker_mut(place.ticket)
    }

    /// A waiter gives up. What it was given and has not taken up goes to the next.
    pub(crate) fn leave(&mut self, step: &mut Step<'_, H>, place: Place) {
        let line = self.line(place.line);
        let in_line = !line.has_outcome(place.ticket);
        let (waker, outcome) = line.remove(place.ticket);
        self.tally.left += 1;
        if in_line {
            self.left_line(place.line);
        }
        match outcome {
            Some(Ok(key)) => {
                step.host.forget(waker, None);
                self.end(step, key, false);
            }
            Some(Err(cause)) => step.host.forget(waker, Some(cause)),
            None => step.host.forget(waker, None),
        }
    }

    /// A lease has ended; one under which nothing was sent counts for nothing.
    pub(crate) fn end(&mut self, step: &mut Step<'_, H>, key: Key, used: bool) {
        let member = self.at_mut(key.index);
        debug_assert_eq!(member.number, key.number, "a member is kept while it is leased");
        member.in_use -= 1;
        if !used {
            member.uses -= 1;
            self.tally.unused += 1;
        }
        let member = self.at(key.index);
        if member.phase == Phase::Draining && member.in_use == 0 {
            self.bury(step, key.index);
        } else {
            self.requeue(step, key.index);
            if !used {
                // It may be unused again, though it stands where it stood.
                self.offers.push(key.index);
            }
        }
        self.wake_rested(step);
        self.close(step);
    }

    /// Applies whatever is due.
    pub(crate) fn tick(&mut self, step: &mut Step<'_, H>) {
        self.wake_rested(step);
        self.settle(step);
        self.grow(step);
    }

    /// Wakes everybody, so that somebody who can carry out orders does.
    pub(crate) fn rouse(&mut self, step: &mut Step<'_, H>) {
        self.any.wake_all(|waker| step.host.wake(waker));
        self.unused.wake_all(|waker| step.host.wake(waker));
        for slot in &self.keyed_slots {
            self.keyed[*slot as usize].wake_all(|waker| step.host.wake(waker));
        }
    }

    /// Whom a request does not get; with everybody to be avoided, nobody is.
    fn avoidable<'a>(&self, avoid: &'a [Number]) -> &'a [Number] {
        let is_avoided = |index| avoid.contains(&self.at(index).number);
        if avoid.is_empty() || self.slots.iter().all(|slot| slot.serving.is_some_and(is_avoided)) {
            return &[];
        }
        avoid
    }

    fn take_any(&mut self, step: &mut Step<'_, H>, prefer: Option<Number>, avoid: &[Number]) -> Option<Key> {
        let preferred = prefer.and_then(|number| {
            self.ready.iter().find(|index| self.at(*index).number == number && !avoid.contains(&number))
        });
        if let Some(key) = preferred.and_then(|index| self.take(step, index)) {
            return Some(key);
        }
        let random = if step.limits.order == Order::Random { step.host.random() } else { 0 };
        let mut taken = None;
        while let Some(index) = self.ready.first(random, |index| !avoid.contains(&self.at(index).number)) {
            taken = self.take(step, index);
            if taken.is_some() {
                break;
            }
        }
        // A pool that is not full grows: by each request if all members are to share the work, and otherwise by one that finds
        // nobody idle, unless one member is to be used until it fails.
        let busy = taken.is_some_and(|key| self.at(key.index).in_use > 1);
        if step.limits.spreads() || (busy && step.limits.order == Order::LeastLoaded) {
            self.order_anywhere(step);
        }
        taken
    }

    fn take_of(&mut self, step: &mut Step<'_, H>, slot: u32) -> Option<Key> {
        let index = self.slots[slot as usize].serving?;
        let taken = if self.is_ready(index) { self.take(step, index) } else { None };
        // Its age may have been the reason why not; then another serves by now.
        taken.or_else(|| {
            let other = self.slots[slot as usize].serving.filter(|other| *other != index)?;
            if self.is_ready(other) { self.take(step, other) } else { None }
        })
    }

    fn take_unused(&mut self, step: &mut Step<'_, H>) -> Option<Key> {
        while let Some(index) = self.ready.first(0, |index| self.is_unused(index)) {
            if let Some(key) = self.take(step, index) {
                return Some(key);
            }
        }
        if self.waiting > 0 {
            // One that stands by is for those who came before, once it serves.
            return None;
        }
        let slot = self.standby()?;
        self.replace(step, slot);
        let index = self.slots[slot as usize].serving?;
        if self.is_ready(index) { self.take(step, index) } else { None }
    }

    /// A slot where a member stands by to take over.
    fn standby(&self) -> Option<u32> {
        let stands_by = |index: u32| self.at(index).phase == Phase::Standby;
        (0..).zip(&self.slots).find(|(_, slot)| slot.next.is_some_and(stands_by)).map(|(slot, _)| slot)
    }

    /// The first slot of the key whose member is not to be avoided.
    fn slot_of(&self, key: u64, avoid: &[Number]) -> u32 {
        let size = self.slots.len() as u64;
        let slots = (0..size).map(|turn| ((key % size + turn) % size) as u32);
        let is_good = |slot: &u32| {
            let serving = self.slots[*slot as usize].serving;
            !serving.is_some_and(|index| avoid.contains(&self.at(index).number))
        };
        slots.clone().find(is_good).unwrap_or((key % size) as u32)
    }

    fn wait(&mut self, step: &mut Step<'_, H>, line: Line, avoid: &[Number]) -> Answer<H::Cause> {
        if let Some(cause) = self.hopeless(step, line) {
            self.tally.broken += 1;
            return Answer::Refuse(Refusal::Broken(cause));
        }
        if self.waiting >= step.limits.waiting {
            self.tally.overloaded += 1;
            return Answer::Refuse(Refusal::Overloaded);
        }
        self.arrivals += 1;
        let note = Note { arrival: self.arrivals, avoid: avoid.to_vec() };
        let ticket = self.line(line).push_with(note);
        self.waiting += 1;
        self.tally.waited += 1;
        self.tally.waiting_peak = self.tally.waiting_peak.max(self.waiting as u64);
        if let Line::Slot(slot) = line {
            self.keyed_slots.insert(slot);
        }
        Answer::Wait(Place { line, ticket })
    }

    /// Why nobody needs to wait in this line: the pool is broken, and no member is left that could serve it.
    fn hopeless(&self, step: &Step<'_, H>, line: Line) -> Option<H::Cause> {
        let cause = self.broken.as_ref()?;
        let is_served = match line {
            Line::Any => self.serving > 0,
            Line::Slot(slot) => self.slots[slot as usize].serving.is_some(),
            Line::Unused => false,
        };
        let is_tried = self.ordered > 0 || step.now >= self.retry_at;
        (!is_served && !is_tried).then(|| cause.clone())
    }

    /// One has left its line, served or not.
    fn left_line(&mut self, line: Line) {
        self.waiting -= 1;
        if let Line::Slot(slot) = line
            && self.keyed[slot as usize].is_empty()
        {
            self.keyed_slots.remove(&slot);
        }
    }
}

/// Members: leased, entered where they can be found, offered.
impl<H: Host> Core<H> {
    fn is_ready(&self, index: u32) -> bool {
        matches!(self.at(index).queue, Queue::Ready(_))
    }

    fn is_unused(&self, index: u32) -> bool {
        let member = self.at(index);
        member.uses == 0 && member.in_use == 0
    }

    /// Leases a member that is ready, unless it turns out that it cannot serve; then it is not ready any more.
    fn take(&mut self, step: &mut Step<'_, H>, index: u32) -> Option<Key> {
        let key = self.key(index);
        if step.limits.is_aged(self.at(index), step.now) {
            self.retire_at(step, index, Cause::Age);
            return None;
        }
        if !step.host.is_open(key) {
            self.at_mut(index).phase = Phase::Shut;
            self.requeue(step, index);
            return None;
        }
        self.leases += 1;
        self.tally.leases += 1;
        let delay = self.draw_delay(step);
        let leased = self.leases;
        let member = self.at_mut(index);
        member.in_use += 1;
        member.uses += 1;
        member.leased = leased;
        member.ready_at = member.ready_at.max(step.now.saturating_add(delay));
        self.requeue(step, index);
        let member = self.at(index);
        if step.limits.is_spent(member) {
            self.retire_at(step, index, Cause::Uses);
        } else if step.limits.is_late(member, step.now) {
            let slot = member.slot;
            self.order_in(step, slot);
        }
        Some(key)
    }

    fn draw_delay(&mut self, step: &mut Step<'_, H>) -> Duration {
        let delay = step.limits.delay;
        if delay == Duration::ZERO || step.limits.delay_jitter == 0 {
            return delay;
        }
        let thousandths = step.host.random() % (step.limits.delay_jitter + 1);
        delay.saturating_add(delay.mul_f64(thousandths as f64 / 1000.0))
    }

    /// Enters a member where it is to be found now.
    fn requeue(&mut self, step: &Step<'_, H>, index: u32) {
        let member = self.at(index);
        let queue = if member.phase != Phase::Serving || member.in_use >= step.limits.cap {
            Queue::Nowhere
        } else if member.ready_at > step.now {
            Queue::CoolingDown(member.ready_at)
        } else {
            Queue::Ready(match step.limits.order {
                Order::RoundRobin => (0, member.leased),
                Order::LeastLoaded => (member.in_use as u64, member.leased),
                Order::FillFirst => (0, u64::from(member.slot)),
                Order::Random => (0, 0),
            })
        };
        let old = std::mem::replace(&mut self.at_mut(index).queue, queue);
        if old == queue {
            return;
        }
        match old {
            Queue::Nowhere => {}
            Queue::Ready(rank) => self.ready.remove(index, rank),
            Queue::CoolingDown(at) => {
                self.resting.remove(&(at, index));
            }
        }
        match queue {
            Queue::Nowhere => {}
            Queue::Ready(rank) => {
                self.ready.insert(index, rank);
                if self.waiting > 0 {
                    self.offers.push(index);
                }
            }
            Queue::CoolingDown(at) => {
                self.resting.insert((at, index));
            }
        }
    }

    /// Those whose rest is over can serve.
    fn wake_rested(&mut self, step: &mut Step<'_, H>) {
        while let Some((_, index)) = self.resting.first().copied().filter(|(at, _)| *at <= step.now) {
            self.requeue(step, index);
        }
    }

    /// Offers whoever can serve since this step to those who wait.
    fn settle(&mut self, step: &mut Step<'_, H>) {
        while let Some(index) = self.offers.pop() {
            while self.waiting > 0
                && self.members[index as usize].is_some()
                && self.is_ready(index)
                && let Some(place) = self.next_for(index)
            {
                let Some(key) = self.take(step, index) else {
                    break;
                };
                self.serve(step, place, Ok(key));
            }
        }
        if self.waiting == 0 && self.offers.capacity() > 1024 {
            self.offers = Vec::new();
        }
    }

    /// Ends an event that may have happened anywhere: if it left something that only somebody in a runtime can do, all look.
    fn close(&mut self, step: &mut Step<'_, H>) {
        self.settle(step);
        if self.is_starved() {
            self.rouse(step);
        }
    }

    /// The one that has waited longest among those whom this member can serve.
    fn next_for(&self, index: u32) -> Option<Place> {
        let member = self.at(index);
        let any = self.any.iter().find(|ticket| !self.any.note(*ticket).avoid.contains(&member.number));
        let keyed = &self.keyed[member.slot as usize];
        let of_slot = keyed.oldest();
        let unused = if self.is_unused(index) { self.unused.oldest() } else { None };
        let places = [
            any.map(|ticket| (self.any.note(ticket).arrival, Line::Any, ticket)),
            of_slot.map(|ticket| (keyed.note(ticket).arrival, Line::Slot(member.slot), ticket)),
            unused.map(|ticket| (self.unused.note(ticket).arrival, Line::Unused, ticket)),
        ];
        let oldest = places.into_iter().flatten().min_by_key(|(arrival, ..)| *arrival);
        oldest.map(|(_, line, ticket)| Place { line, ticket })
    }

    fn serve(&mut self, step: &mut Step<'_, H>, place: Place, outcome: Result<Key, H::Cause>) {
        if let Some(waker) = self.line(place.line).end(place.ticket, outcome) {
            step.host.wake(waker);
        }
        self.left_line(place.line);
    }
}

/// Slots: filled, handed over, emptied.
impl<H: Host> Core<H> {
    /// A session that was there before takes a slot.
    pub(crate) fn adopt(&mut self, step: &mut Step<'_, H>) -> Option<Key> {
        let slot = self.empty.pop_first()?;
        let index = self.enter(slot, Phase::Standby);
        self.slots[slot as usize].next = Some(index);
        self.at_mut(index).born = step.now;
        self.promote(step, slot);
        Some(self.key(index))
    }

    /// An order was carried out, or could not be.
    pub(crate) fn warmed(&mut self, step: &mut Step<'_, H>, key: Key, result: Result<(), H::Cause>) {
        debug_assert_eq!(self.member(key).map(|member| member.phase), Some(Phase::Ordered));
        match result {
            Ok(()) => {
                self.warm(step);
                self.tally.warmed += 1;
                let slot = self.leave_order(key.index, Phase::Standby);
                self.at_mut(key.index).born = step.now;
                if self.slots[slot as usize].serving.is_none() {
                    self.promote(step, slot);
                } else if !self.unused.is_empty() {
                    self.replace(step, slot);
                }
            }
            Err(cause) => {
                self.drop_order(step, key.index);
                self.fail(step, cause);
            }
        }
        self.wake_rested(step);
        self.settle(step);
        self.grow(step);
        self.close(step);
    }

    /// An order was lost: nothing is known about whether it could have been carried out.
    pub(crate) fn lost(&mut self, step: &mut Step<'_, H>, key: Key) {
        self.drop_order(step, key.index);
        self.rouse(step);
        self.settle(step);
    }

    /// The session of a member that was shut can be sent under again, or could not be renewed.
    pub(crate) fn opened(&mut self, step: &mut Step<'_, H>, key: Key, result: Result<(), H::Cause>) {
        if self.member(key).is_none_or(|member| member.phase != Phase::Shut) {
            if let Err(cause) = result {
                step.host.forget(None, Some(cause));
            }
            return;
        }
        match result {
            Ok(()) => {
                self.warm(step);
                self.at_mut(key.index).phase = Phase::Serving;
                self.requeue(step, key.index);
            }
            Err(cause) => {
                self.retire_at(step, key.index, Cause::Failed);
                self.fail(step, cause);
            }
        }
        self.wake_rested(step);
        self.settle(step);
        self.grow(step);
        self.close(step);
    }

    /// Something has happened to the session of a member that was shut.
    pub(crate) fn look(&mut self, step: &mut Step<'_, H>, key: Key) {
        let is_shut = self.member(key).is_some_and(|member| member.phase == Phase::Shut);
        if is_shut && step.host.is_open(key) {
            self.at_mut(key.index).phase = Phase::Serving;
            self.requeue(step, key.index);
            self.wake_rested(step);
            self.close(step);
        }
    }

    /// News about a member; news about one that is gone is none.
    pub(crate) fn mark(&mut self, step: &mut Step<'_, H>, key: Key, mark: Mark) {
        let Some(member) = self.member(key) else {
            return;
        };
        let is_retired = !matches!(member.phase, Phase::Serving | Phase::Shut);
        let member = self.at_mut(key.index);
        match mark {
            Mark::Good => {
                member.good += 1;
                member.score = member.score.saturating_sub(step.limits.heal);
                self.tally.good += 1;
            }
            Mark::Bad => {
                member.bad += 1;
                member.score = member.score.saturating_add(BAD);
                self.tally.bad += 1;
                if !is_retired && self.at(key.index).score >= step.limits.max_score {
                    self.retire_at(step, key.index, Cause::Errors);
                }
            }
            Mark::Rest(rest) => {
                member.rests += 1;
                member.ready_at = member.ready_at.max(step.now.saturating_add(rest));
                self.tally.rests += 1;
                self.requeue(step, key.index);
            }
            Mark::Retire | Mark::GiveBack if is_retired => {}
            Mark::GiveBack => self.retire_at(step, key.index, Cause::GivenBack),
            Mark::Retire => self.retire_at(step, key.index, Cause::Hand),
        }
        self.settle(step);
        self.grow(step);
        self.close(step);
    }

    /// Makes members on their way as many as those need whom nobody could serve, as far as there is room.
    fn grow(&mut self, step: &mut Step<'_, H>) {
        self.starved = false;
        if self.waiting == 0 {
            return;
        }
        while self.any.len() > self.filling.saturating_mul(step.limits.cap) {
            if !self.order_anywhere(step) {
                break;
            }
        }
        let wanted: Vec<u32> = self.keyed_slots.intersection(&self.empty).copied().collect();
        for slot in wanted {
            self.order_in(step, slot);
        }
        while !self.unused.is_empty()
            && let Some(slot) = self.standby()
        {
            self.replace(step, slot);
            self.settle(step);
        }
        while self.unused.len() > self.ordered {
            if !self.order_anywhere(step) && !self.order_successor(step) {
                break;
            }
        }
    }

    /// Whether somebody waits for whom a member would be made, if it could be.
    fn would_grow(&self) -> bool {
        let has_room = !self.empty.is_empty();
        (!self.any.is_empty() && has_room)
            || self.keyed_slots.intersection(&self.empty).next().is_some()
            || (!self.unused.is_empty() && (has_room || self.slots.iter().any(|slot| slot.next.is_none())))
    }

    /// Orders a member for the first empty slot. `false`: there is none, or it cannot be done now.
    fn order_anywhere(&mut self, step: &mut Step<'_, H>) -> bool {
        let slot = self.empty.first().copied();
        slot.is_some_and(|slot| self.order_in(step, slot))
    }

    /// Orders a successor for the member that is worth least: by its score, then by its uses.
    fn order_successor(&mut self, step: &mut Step<'_, H>) -> bool {
        let without = (0..).zip(&self.slots).filter(|(_, slot)| slot.next.is_none());
        let serving = without.filter_map(|(slot, entry)| Some((slot, self.at(entry.serving?))));
        let least = serving.max_by_key(|(_, member)| (member.score, member.uses)).map(|(slot, _)| slot);
        least.is_some_and(|slot| self.order_in(step, slot))
    }

    /// Orders the next member of a slot, unless one is on its way.
    fn order_in(&mut self, step: &mut Step<'_, H>, slot: u32) -> bool {
        let may_try = self.broken.is_none() || (self.ordered == 0 && step.now >= self.retry_at);
        if self.slots[slot as usize].next.is_some() || !may_try {
            return false;
        }
        if !step.host.can_order() {
            self.starved = true;
            return false;
        }
        let index = self.enter(slot, Phase::Ordered);
        self.slots[slot as usize].next = Some(index);
        self.ordered += 1;
        self.tally.ordered += 1;
        if self.slots[slot as usize].serving.is_none() {
            self.filling += 1;
        }
        self.empty.remove(&slot);
        step.host.order(self.key(index));
        true
    }

    fn enter(&mut self, slot: u32, phase: Phase) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let member = Member {
            number,
            phase,
            in_use: 0,
            uses: 0,
            score: 0,
            born: Duration::ZERO,
            ready_at: Duration::ZERO,
            good: 0,
            bad: 0,
            rests: 0,
            end: End::Free,
            slot,
            leased: 0,
            queue: Queue::Nowhere,
        };
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

    /// A member is no longer on its way; gives back its slot.
    fn leave_order(&mut self, index: u32, phase: Phase) -> u32 {
        let member = self.at_mut(index);
        member.phase = phase;
        let slot = member.slot;
        self.ordered -= 1;
        if self.slots[slot as usize].serving.is_none() {
            self.filling -= 1;
        }
        slot
    }

    /// Gives up a member that was on its way.
    fn drop_order(&mut self, step: &mut Step<'_, H>, index: u32) {
        let slot = self.leave_order(index, Phase::Draining);
        self.slots[slot as usize].next = None;
        self.note_empty(slot);
        self.bury(step, index);
    }

    /// The member that stands by takes over an unserved slot.
    fn promote(&mut self, step: &mut Step<'_, H>, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        let index = entry.next.take().expect("one stands by");
        entry.serving = Some(index);
        self.serving += 1;
        self.at_mut(index).phase = Phase::Serving;
        self.requeue(step, index);
    }

    /// The member that stands by takes over from the one that serves.
    fn replace(&mut self, step: &mut Step<'_, H>, slot: u32) {
        let old = self.slots[slot as usize].serving.expect("one serves");
        self.retire_at(step, old, Cause::Replaced);
    }

    /// Retires the member that serves a slot; its successor takes over, or is ordered at once.
    fn retire_at(&mut self, step: &mut Step<'_, H>, index: u32, cause: Cause) {
        let tally = &mut self.tally;
        let count = match cause {
            Cause::Errors => &mut tally.retired_errors,
            Cause::Uses => &mut tally.retired_uses,
            Cause::Age => &mut tally.retired_age,
            Cause::Hand => &mut tally.retired_hand,
            Cause::Replaced => &mut tally.retired_replaced,
            Cause::Failed => &mut tally.retired_failed,
            Cause::GivenBack => &mut tally.released,
        };
        *count += 1;
        let member = self.at_mut(index);
        member.phase = Phase::Draining;
        member.end = if cause == Cause::GivenBack { End::Free } else { End::Retired };
        let slot = member.slot;
        self.requeue(step, index);
        self.slots[slot as usize].serving = None;
        self.serving -= 1;
        match self.slots[slot as usize].next {
            Some(next) if self.at(next).phase == Phase::Standby => self.promote(step, slot),
            Some(_) => self.filling += 1,
            None => {
                self.note_empty(slot);
                // Whoever gives one back has no need of another.
                if cause != Cause::GivenBack {
                    self.order_in(step, slot);
                }
            }
        }
        if self.at(index).in_use == 0 {
            self.bury(step, index);
        }
    }

    fn bury(&mut self, step: &mut Step<'_, H>, index: u32) {
        let (key, end) = (self.key(index), self.at(index).end);
        self.members[index as usize] = None;
        self.free.push(index);
        step.host.gone(key, end);
    }

    fn note_empty(&mut self, slot: u32) {
        let entry = &self.slots[slot as usize];
        if entry.serving.is_none() && entry.next.is_none() {
            self.empty.insert(slot);
        }
    }

    /// A session came to life: the pool is not broken.
    fn warm(&mut self, step: &mut Step<'_, H>) {
        self.failures = 0;
        self.rests = 0;
        if let Some(cause) = self.broken.take() {
            step.host.forget(None, Some(cause));
        }
    }

    /// A session could not be brought to life. After too many in a row, those whom no member can serve are told.
    fn fail(&mut self, step: &mut Step<'_, H>, cause: H::Cause) {
        self.tally.failed += 1;
        self.failures = self.failures.saturating_add(1);
        if self.failures < step.limits.failures {
            step.host.forget(None, Some(cause));
            return;
        }
        let rest = step.limits.rest.saturating_mul(1 << self.rests.min(16)).min(step.limits.rest_most);
        self.rests = self.rests.saturating_add(1);
        self.retry_at = step.now.saturating_add(rest);
        if let Some(old) = self.broken.replace(cause) {
            step.host.forget(None, Some(old));
        }
        let slots: Vec<u32> = self.keyed_slots.iter().copied().collect();
        for line in slots.into_iter().map(Line::Slot).chain([Line::Any, Line::Unused]) {
            if let Some(cause) = self.hopeless(step, line) {
                while let Some(ticket) = self.line(line).oldest() {
                    self.tally.broken += 1;
                    self.serve(step, Place { line, ticket }, Err(cause.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "model.rs"]
mod model;
