//! Which profile of a list is assigned next, as plain data over the list's entries.
//!
//! It reads no clock: the caller passes the time by [`Rotation::advance`].

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::BuildHasher,
    time::{Duration, Instant},
};

use foldhash::quality::FixedState;

use super::strategy::{OnExhausted, ProfileStrategy};

/// The session that profiles are assigned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnerId(pub(super) usize);

/// A position in the queue of a list; positions are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePos(u64);

impl QueuePos {
    const FIRST: Self = Self(0);

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a draw has to satisfy.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrawRequest {
    pub(super) owner: OwnerId,
    /// The kind that the session had before; another kind is preferred.
    pub(super) avoid: Option<usize>,
    /// The only entry that may be drawn.
    pub(super) pin: Option<usize>,
}

/// The state of a list. A waiter is represented by a value of type `W`.
#[derive(Debug)]
pub(super) struct Rotation<W> {
    pub(super) strategy: ProfileStrategy,
    pub(super) exclusive: bool,
    on_exhausted: Option<OnExhausted>,
    pub(super) cooldown: Duration,
    entries: Box<[Entry]>,
    /// The indices of all entries; the one drawn longest ago is at the front.
    queue: VecDeque<usize>,
    waiting: BTreeMap<QueuePos, Waiting<W>>,
    next_pos: QueuePos,
    draws: u64,
    /// The latest time that was passed in.
    now: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// The index of the first entry with an equal profile.
    kind: usize,
    /// The number of identities that have it.
    assigned: usize,
    /// The sessions of those identities, if the list is exclusive.
    owners: Vec<OwnerId>,
    drawn: u64,
    cooling_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiting<W> {
    request: DrawRequest,
    waiter: W,
}

/// How well an entry suits a request; the best comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Free,
    /// Assigned to an older identity of the same session, and to no other session.
    Own,
    /// The kind that the session had before.
    Again,
    /// Assigned to another session, and not to be shared.
    Others,
    /// Marked bad.
    CoolingDown(Instant),
}

impl Fit {
    /// Returns whether the entry may be drawn whatever happens on exhaustion.
    fn is_good(self) -> bool {
        self < Self::Others
    }
}

impl<W> Rotation<W> {
    /// Creates the state of a list whose entries are of these kinds.
    ///
    /// The kind of an entry is the index of the first entry with an equal profile. `kinds` must not
    /// be empty.
    pub(super) fn new(kinds: &[usize]) -> Self {
        let entry =
            |&kind: &usize| Entry { kind, assigned: 0, owners: Vec::new(), drawn: 0, cooling_until: None };
        Self {
            strategy: ProfileStrategy::default(),
            exclusive: false,
            on_exhausted: None,
            cooldown: Duration::from_secs(300),
            queue: (0..kinds.len()).collect(),
            entries: kinds.iter().map(entry).collect(),
            waiting: BTreeMap::new(),
            next_pos: QueuePos::FIRST,
            draws: 0,
            now: None,
        }
    }

    pub(super) fn set_on_exhausted(&mut self, on_exhausted: OnExhausted) {
        self.on_exhausted = Some(on_exhausted);
    }

    /// Returns what happens to a request that no entry suits.
    pub(super) fn on_exhausted(&self) -> OnExhausted {
        let by_default = if self.exclusive { OnExhausted::WAIT } else { OnExhausted::Reuse };
        self.on_exhausted.unwrap_or(by_default)
    }

    /// Advances the time; an earlier time is ignored.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(Some(now));
    }

    /// Draws an entry if one suits the request and there are no waiters, or if entries are reused.
    pub(super) fn draw_now(&mut self, request: DrawRequest) -> Option<usize> {
        if self.waiting.is_empty() { self.take(request) } else { None }
    }

    /// Adds a waiter to the queue; only [`serve`](Self::serve) checks whether an entry is free.
    pub(super) fn join(&mut self, request: DrawRequest, waiter: W) -> QueuePos {
        let pos = self.next_pos;
        self.next_pos = pos.next();
        self.waiting.insert(pos, Waiting { request, waiter });
        pos
    }

    /// Removes a waiter from the queue; `None` if it has been served or removed before.
    pub(super) fn leave(&mut self, pos: QueuePos) -> Option<W> {
        self.waiting.remove(&pos).map(|waiting| waiting.waiter)
    }

    /// Serves the waiters for which an entry is free, in their order.
    pub(super) fn serve(&mut self) -> Vec<(W, usize)> {
        let mut served = Vec::new();
        if self.waiting.is_empty() {
            return served;
        }
        // Most waiters of a long queue cannot be served; this avoids checking all entries for each.
        let (mut free, mut owners) = (self.free(), self.owners());
        let mut after = QueuePos::FIRST;
        while let Some((&pos, waiting)) = self.waiting.range(after..).next() {
            after = pos.next();
            let request = waiting.request;
            let may_succeed =
                free > 0 || owners.contains(&request.owner) || self.on_exhausted() == OnExhausted::Reuse;
            let Some(index) = may_succeed.then(|| self.take(request)).flatten() else {
                continue;
            };
            served.extend(self.leave(pos).map(|waiter| (waiter, index)));
            (free, owners) = (self.free(), self.owners());
            // An earlier waiter of the same session may share this entry.
            after = QueuePos::FIRST;
        }
        served
    }

    /// Returns an entry whose identity is gone.
    pub(super) fn give_back(&mut self, index: usize, owner: OwnerId) {
        let entry = &mut self.entries[index];
        entry.assigned -= 1;
        if let Some(position) = entry.owners.iter().position(|&known| known == owner) {
            entry.owners.swap_remove(position);
        }
    }

    /// Starts the cooldown of all entries of this kind; identities that have one keep it.
    pub(super) fn mark_bad(&mut self, kind: usize) {
        let now = self.now.expect("the caller has passed the time");
        let until = now.checked_add(self.cooldown).unwrap_or(now + FOREVER);
        for entry in self.entries.iter_mut().filter(|entry| entry.kind == kind) {
            entry.cooling_until = Some(until);
        }
    }

    /// Returns when the next cooldown ends, which may free an entry.
    pub(super) fn next_cooldown_end(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| self.cooling_until(entry)).min()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        self.waiting.values().map(|waiting| &waiting.waiter)
    }

    fn take(&mut self, request: DrawRequest) -> Option<usize> {
        let position = match request.pin {
            Some(pin) => self.queue.iter().position(|&index| index == pin),
            None => self.best(request),
        };
        let position = position.expect("the queue has all entries and is not empty");
        let index = self.queue[position];
        if !self.fit(index, request).is_good() && self.on_exhausted() != OnExhausted::Reuse {
            return None;
        }
        self.queue.remove(position);
        self.queue.push_back(index);
        self.draws += 1;
        let entry = &mut self.entries[index];
        entry.assigned += 1;
        if self.exclusive {
            entry.owners.push(request.owner);
        }
        entry.drawn += 1;
        Some(index)
    }

    /// Returns the position in the queue of the entry that suits best.
    fn best(&self, request: DrawRequest) -> Option<usize> {
        let fit = |&index: &usize| self.fit(index, request);
        let in_turn = self.strategy == ProfileStrategy::RoundRobin;
        let first = self.queue.iter().position(|index| in_turn && fit(index) == Fit::Free);
        if first.is_some() {
            return first;
        }
        let least = self.queue.iter().map(fit).min()?;
        let mut equal = self.queue.iter().enumerate().filter(|(_, index)| fit(index) == least);
        let chosen = match self.strategy {
            ProfileStrategy::LeastUsed => equal.min_by_key(|&(_, &index)| {
                let entry = &self.entries[index];
                (entry.assigned, entry.drawn)
            }),
            ProfileStrategy::Seeded(seed) => {
                let random = FixedState::with_seed(seed).hash_one(self.draws) as usize;
                let count = equal.clone().count();
                equal.nth(random % count)
            }
            // `Profiles::strategy` has replaced `Random` by a random seed.
            ProfileStrategy::RoundRobin | ProfileStrategy::Random => equal.next(),
        };
        chosen.map(|(position, _)| position)
    }

    fn fit(&self, index: usize, request: DrawRequest) -> Fit {
        let entry = &self.entries[index];
        if let Some(until) = self.cooling_until(entry) {
            return Fit::CoolingDown(until);
        }
        let is_taken = self.exclusive && entry.assigned > 0;
        let is_owner = |&owner: &OwnerId| owner == request.owner;
        let is_own = entry.assigned == entry.owners.len() && entry.owners.iter().all(is_owner);
        match (is_taken, is_own) {
            (true, false) => Fit::Others,
            _ if request.avoid == Some(entry.kind) => Fit::Again,
            (true, true) => Fit::Own,
            (false, _) => Fit::Free,
        }
    }

    /// Returns when the cooldown of an entry ends, if it has not ended yet.
    fn cooling_until(&self, entry: &Entry) -> Option<Instant> {
        entry.cooling_until.filter(|until| self.now.is_none_or(|now| now < *until))
    }

    /// Returns the number of entries that any session may draw.
    fn free(&self) -> usize {
        let is_free =
            |entry: &&Entry| self.cooling_until(entry).is_none() && !(self.exclusive && entry.assigned > 0);
        self.entries.iter().filter(is_free).count()
    }

    /// Returns the sessions that have an entry, which their own waiters may share.
    fn owners(&self) -> HashSet<OwnerId> {
        self.entries.iter().flat_map(|entry| &entry.owners).copied().collect()
    }
}

/// The longest cooldown: a longer one would overflow an `Instant`.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A simple model of a list: it records which session has which entry.
    struct Model {
        rotation: Rotation<u64>,
        kinds: Vec<usize>,
        /// Which session has which entry, once per identity.
        leases: Vec<(OwnerId, usize)>,
        last_drawn: Vec<usize>,
        drawn: Vec<usize>,
        draws: usize,
        cooldowns: Vec<Option<Instant>>,
        waiting: Vec<(QueuePos, DrawRequest)>,
        now: Instant,
    }

    impl Model {
        fn new(
            kinds: &[usize],
            strategy: ProfileStrategy,
            exclusive: bool,
            on_exhausted: OnExhausted,
        ) -> Self {
            let mut rotation = Rotation::new(kinds);
            rotation.strategy = strategy;
            rotation.exclusive = exclusive;
            rotation.set_on_exhausted(on_exhausted);
            rotation.cooldown = Duration::from_secs(10);
            let now = Instant::now();
            rotation.advance(now);
            let len = kinds.len();
            Self {
                rotation,
                kinds: kinds.to_vec(),
                leases: Vec::new(),
                last_drawn: vec![0; len],
                drawn: vec![0; len],
                draws: 0,
                cooldowns: vec![None; len],
                waiting: Vec::new(),
                now,
            }
        }

        fn cooling_until(&self, index: usize) -> Option<Instant> {
            self.cooldowns[index].filter(|until| *until > self.now)
        }

        fn assigned(&self, index: usize) -> usize {
            self.leases.iter().filter(|(_, leased)| *leased == index).count()
        }

        fn is_good(&self, index: usize, request: DrawRequest) -> bool {
            let others = self.leases.iter().any(|&(owner, leased)| leased == index && owner != request.owner);
            self.cooling_until(index).is_none()
                && !(self.rotation.exclusive && others)
                && request.pin.is_none_or(|pin| pin == index)
        }

        fn good(&self, request: DrawRequest) -> Vec<usize> {
            (0..self.kinds.len()).filter(|&index| self.is_good(index, request)).collect()
        }

        /// Checks a draw against the documented rules and records it.
        fn drew(&mut self, request: DrawRequest, index: usize) {
            let good = self.good(request);
            let again = |index: usize| request.avoid == Some(self.kinds[index]);
            let unassigned = |index: usize| !self.rotation.exclusive || self.assigned(index) == 0;
            if good.is_empty() {
                assert_eq!(self.rotation.on_exhausted(), OnExhausted::Reuse);
                let may = |&index: &usize| request.pin.is_none_or(|pin| pin == index);
                let soonest =
                    (0..self.kinds.len()).filter(may).map(|index| self.cooling_until(index)).min().unwrap();
                assert_eq!(self.cooling_until(index), soonest, "the cooldown of the drawn entry ends first");
            } else {
                assert!(good.contains(&index), "{index} is not free, but {good:?} are");
                let better: Vec<usize> =
                    good.iter().copied().filter(|&other| !again(other) && unassigned(other)).collect();
                assert!(
                    better.is_empty() || better.contains(&index),
                    "{index} was drawn, but {better:?} are better"
                );
                assert!(!again(index) || good.iter().all(|&other| again(other)), "{index} was drawn again");
                let rank = |index: usize| match self.rotation.strategy {
                    ProfileStrategy::RoundRobin => (self.last_drawn[index], index),
                    ProfileStrategy::LeastUsed => (self.assigned(index), self.drawn[index]),
                    _ => (0, 0),
                };
                let least = better.iter().map(|&index| rank(index)).min();
                assert!(least.is_none_or(|least| rank(index) == least), "{index} of {better:?}");
            }
            self.draws += 1;
            self.drawn[index] += 1;
            self.last_drawn[index] = self.draws;
            self.leases.push((request.owner, index));
        }

        fn serve(&mut self) {
            let served = self.rotation.serve();
            for (waiter, index) in served {
                let position = self.waiting.iter().position(|(pos, _)| pos.0 == waiter).unwrap();
                for (_, earlier) in &self.waiting[..position] {
                    assert!(!self.is_good(index, *earlier), "{earlier:?} was skipped");
                }
                let (_, request) = self.waiting.remove(position);
                self.drew(request, index);
            }
            for (_, request) in &self.waiting {
                assert!(self.good(*request).is_empty(), "{request:?} waits although an entry is free");
                assert_ne!(self.rotation.on_exhausted(), OnExhausted::Reuse);
            }
        }

        fn apply(&mut self, event: Event) {
            match event {
                Event::Draw(request) => match self.rotation.draw_now(request) {
                    Some(index) => {
                        assert!(self.waiting.is_empty(), "drawn ahead of the waiters");
                        self.drew(request, index);
                    }
                    None => assert!(!self.waiting.is_empty() || self.good(request).is_empty()),
                },
                Event::Join(request) => {
                    let pos = self.rotation.join(request, self.rotation.next_pos.0);
                    self.waiting.push((pos, request));
                    self.serve();
                }
                Event::Leave(which) if !self.waiting.is_empty() => {
                    let (pos, _) = self.waiting.remove(which % self.waiting.len());
                    assert_eq!(self.rotation.leave(pos), Some(pos.0));
                    assert_eq!(self.rotation.leave(pos), None);
                }
                Event::GiveBack(which) if !self.leases.is_empty() => {
                    let (owner, index) = self.leases.remove(which % self.leases.len());
                    self.rotation.give_back(index, owner);
                    self.serve();
                }
                Event::Bad(which) => {
                    let kind = self.kinds[which % self.kinds.len()];
                    self.rotation.mark_bad(kind);
                    for index in 0..self.kinds.len() {
                        if self.kinds[index] == kind {
                            self.cooldowns[index] = Some(self.now + Duration::from_secs(10));
                        }
                    }
                }
                Event::Pass(seconds) => {
                    self.now += Duration::from_secs(seconds);
                    self.rotation.advance(self.now);
                    self.serve();
                }
                Event::Leave(_) | Event::GiveBack(_) => {}
            }
            for (index, known) in self.rotation.entries.iter().enumerate() {
                assert_eq!(known.assigned, self.assigned(index), "the assignments of {index}");
            }
            let next = (0..self.kinds.len()).filter_map(|index| self.cooling_until(index)).min();
            assert_eq!(self.rotation.next_cooldown_end(), next);
            if self.rotation.exclusive && self.rotation.on_exhausted() != OnExhausted::Reuse {
                for &(owner, index) in &self.leases {
                    let shared = self.leases.iter().any(|&(other, leased)| leased == index && other != owner);
                    assert!(!shared, "{index} is assigned to two sessions");
                }
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Draw(DrawRequest),
        Join(DrawRequest),
        Leave(usize),
        GiveBack(usize),
        Bad(usize),
        Pass(u64),
    }

    fn events(entries: usize) -> impl Strategy<Value = Vec<Event>> {
        let request = (0..4_usize, prop::option::of(0..entries), prop::option::weighted(0.2, 0..entries))
            .prop_map(|(owner, avoid, pin)| DrawRequest { owner: OwnerId(owner), avoid, pin });
        let event = prop_oneof![
            3 => request.clone().prop_map(Event::Draw),
            3 => request.prop_map(Event::Join),
            1 => any::<usize>().prop_map(Event::Leave),
            4 => any::<usize>().prop_map(Event::GiveBack),
            1 => any::<usize>().prop_map(Event::Bad),
            2 => (0..8_u64).prop_map(Event::Pass),
        ];
        prop::collection::vec(event, 1..60)
    }

    proptest! {
        #[test]
        fn every_rule_holds_in_every_sequence_of_events(
            (kinds, events) in (1..5_usize).prop_flat_map(|entries| (
                // Some lists start with two equal profiles.
                any::<bool>().prop_map(move |has_equal| {
                    (0..entries).map(|index| if has_equal && index == 1 { 0 } else { index }).collect::<Vec<_>>()
                }),
                events(entries),
            )),
            strategy in prop_oneof![Just(ProfileStrategy::RoundRobin), any::<u64>().prop_map(ProfileStrategy::Seeded), Just(ProfileStrategy::LeastUsed)],
            exclusive: bool,
            on_exhausted in prop_oneof![Just(OnExhausted::Reuse), Just(OnExhausted::WAIT), Just(OnExhausted::Fail)],
        ) {
            let mut model = Model::new(&kinds, strategy, exclusive, on_exhausted);
            for event in events {
                model.apply(event);
            }
        }

        #[test]
        fn least_used_draws_all_entries_evenly(entries in 1..8_usize, draws in 0..100_usize) {
            let mut model = Model::new(&(0..entries).collect::<Vec<_>>(), ProfileStrategy::LeastUsed, false, OnExhausted::Reuse);
            for owner in 0..draws {
                model.apply(Event::Draw(DrawRequest { owner: OwnerId(owner), avoid: None, pin: None }));
            }
            let least = *model.drawn.iter().min().unwrap();
            prop_assert!(model.drawn.iter().all(|drawn| (least..=least + 1).contains(drawn)));
        }
    }

    #[test]
    fn seeded_draws_are_reproducible_and_reach_every_entry() {
        let drawn = |seed| {
            let mut rotation = Rotation::<()>::new(&[0, 1, 2, 3]);
            rotation.strategy = ProfileStrategy::Seeded(seed);
            let request = |owner| DrawRequest { owner: OwnerId(owner), avoid: None, pin: None };
            (0..400).map(|owner| rotation.draw_now(request(owner)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        for index in 0..4 {
            let times = drawn(1).iter().filter(|drawn| **drawn == index).count();
            assert!((60..=140).contains(&times), "{index} was drawn {times} times of 400");
        }
    }

    #[test]
    fn a_long_queue_is_served_in_order() {
        let mut rotation = Rotation::new(&[0]);
        rotation.exclusive = true;
        let request = |owner| DrawRequest { owner: OwnerId(owner), avoid: None, pin: None };
        let mut index = rotation.draw_now(request(0)).unwrap();
        for who in 1..2000 {
            rotation.join(request(who), who);
            assert!(rotation.serve().is_empty());
        }
        for who in 1..2000 {
            rotation.give_back(index, OwnerId(who - 1));
            let served = rotation.serve();
            assert_eq!(served, [(who, index)]);
            index = served[0].1;
        }
    }
}
