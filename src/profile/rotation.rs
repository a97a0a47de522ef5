//! Whose turn it is: plain data over the places of a list. It knows no clock; whoever has one tells the time.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::BuildHasher,
    time::{Duration, Instant},
};

use foldhash::quality::FixedState;

use super::profiles::{OnExhausted, ProfileStrategy};

/// Who draws: one session, by a number of its own.
pub(super) type OwnerId = usize;

/// A place in the line of those who wait.
pub(super) type QueuePos = u64;

/// What a draw is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrawRequest {
    pub(super) owner: OwnerId,
    /// The kind that was worn before; another one is preferred.
    pub(super) avoid: Option<usize>,
    /// The one place that will do.
    pub(super) pin: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Rotation<W> {
    pub(super) strategy: ProfileStrategy,
    pub(super) exclusive: bool,
    exhausted: Option<OnExhausted>,
    pub(super) cooldown: Duration,
    places: Box<[Slot]>,
    /// The places, the one drawn longest ago in front.
    queue: VecDeque<usize>,
    waiting: BTreeMap<QueuePos, Waiting<W>>,
    next_ticket: QueuePos,
    draws: u64,
    /// The latest time that was told.
    now: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    /// The first place that has an equal profile.
    kind: usize,
    /// By how many identities it is worn.
    worn: usize,
    /// Whose those are, where the list is exclusive.
    owners: Vec<OwnerId>,
    drawn: u64,
    cooling_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiting<W> {
    request: DrawRequest,
    who: W,
}

/// How well a place does for a request, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Free,
    /// ProfileAssignment by the same session alone, by an identity that is about to go.
    Own,
    /// What the session wore before.
    Again,
    /// ProfileAssignment by another session, and not to be shared.
    Others,
    /// Marked bad.
    CoolingDown(Instant),
}

impl Fit {
    /// Whether the place may be drawn without any exception.
    fn is_good(self) -> bool {
        self < Self::Others
    }
}

impl<W> Rotation<W> {
    /// `kinds` has the first place with an equal profile for each place; it is not empty.
    pub(super) fn new(kinds: &[usize]) -> Self {
        let place = |&kind| Slot { kind, worn: 0, owners: Vec::new(), drawn: 0, cooling_until: None };
        Self {
            strategy: ProfileStrategy::default(),
            exclusive: false,
            exhausted: None,
            cooldown: Duration::from_secs(300),
            queue: (0..kinds.len()).collect(),
            places: kinds.iter().map(place).collect(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            draws: 0,
            now: None,
        }
    }

    pub(super) fn set_on_exhausted(&mut self, exhausted: OnExhausted) {
        self.exhausted = Some(exhausted);
    }

    /// What happens to a request for which there is no good place.
    pub(super) fn on_exhausted(&self) -> OnExhausted {
        let by_default = if self.exclusive { OnExhausted::WAIT } else { OnExhausted::Reuse };
        self.exhausted.unwrap_or(by_default)
    }

    /// Takes note of the time. It never goes back.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(Some(now));
    }

    /// Draws a place at once, if there is a good one and nobody waits, or if the list begins again.
    pub(super) fn draw_now(&mut self, request: DrawRequest) -> Option<usize> {
        if self.waiting.is_empty() { self.take(request) } else { None }
    }

    /// Joins the line. Only [`serve`](Self::serve) looks whether there is something already.
    pub(super) fn join(&mut self, request: DrawRequest, who: W) -> QueuePos {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, Waiting { request, who });
        ticket
    }

    /// Leaves the line; nothing if it was left already, by being served.
    pub(super) fn leave(&mut self, ticket: QueuePos) -> Option<W> {
        self.waiting.remove(&ticket).map(|waiting| waiting.who)
    }

    /// Serves those in the line for whom there is a place, in their order.
    pub(super) fn serve(&mut self) -> Vec<(W, usize)> {
        let mut served = Vec::new();
        if self.waiting.is_empty() {
            return served;
        }
        // To look through all places for each of a long line would take its time: most wait for what is not there.
        let (mut free, mut owners) = (self.free(), self.owners());
        let mut after = 0;
        while let Some((&ticket, waiting)) = self.waiting.range(after..).next() {
            after = ticket + 1;
            let request = waiting.request;
            let hopeful =
                free > 0 || owners.contains(&request.owner) || self.on_exhausted() == OnExhausted::Reuse;
            let Some(place) = hopeful.then(|| self.take(request)).flatten() else {
                continue;
            };
            served.extend(self.leave(ticket).map(|who| (who, place)));
            (free, owners) = (self.free(), self.owners());
            // Its session may wait for another identity, too, which can share with this one.
            after = 0;
        }
        served
    }

    /// An identity that wore this place is gone.
    pub(super) fn give_back(&mut self, place: usize, owner: OwnerId) {
        let place = &mut self.places[place];
        place.worn -= 1;
        if let Some(position) = place.owners.iter().position(|&known| known == owner) {
            place.owners.swap_remove(position);
        }
    }

    /// Lets all places of this kind rest from now on. Who wears one keeps it.
    pub(super) fn mark_bad(&mut self, kind: usize) {
        let now = self.now.expect("the time was told");
        let until = now.checked_add(self.cooldown).unwrap_or(now + FOREVER);
        for place in self.places.iter_mut().filter(|place| place.kind == kind) {
            place.cooling_until = Some(until);
        }
    }

    /// When the next rest ends, which is when a place may become free though nobody gives one back.
    pub(super) fn next_cooldown_end(&self) -> Option<Instant> {
        self.places.iter().filter_map(|place| self.cooling_until(place)).min()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        self.waiting.values().map(|waiting| &waiting.who)
    }

    fn take(&mut self, request: DrawRequest) -> Option<usize> {
        let position = match request.pin {
            Some(pin) => self.queue.iter().position(|&place| place == pin),
            None => self.best(request),
        };
        let position = position.expect("every place is in the queue, and there is one");
        let index = self.queue[position];
        if !self.fit(index, request).is_good() && self.on_exhausted() != OnExhausted::Reuse {
            return None;
        }
        self.queue.remove(position);
        self.queue.push_back(index);
        self.draws += 1;
        let place = &mut self.places[index];
        place.worn += 1;
        if self.exclusive {
            place.owners.push(request.owner);
        }
        place.drawn += 1;
        Some(index)
    }

    /// The position in the queue of the place that suits best.
    fn best(&self, request: DrawRequest) -> Option<usize> {
        let fit = |&place: &usize| self.fit(place, request);
        let in_turn = self.strategy == ProfileStrategy::RoundRobin;
        let first = self.queue.iter().position(|place| in_turn && fit(place) == Fit::Free);
        if first.is_some() {
            return first;
        }
        let least = self.queue.iter().map(fit).min()?;
        let mut equal = self.queue.iter().enumerate().filter(|(_, place)| fit(place) == least);
        let chosen = match self.strategy {
            ProfileStrategy::LeastUsed => equal.min_by_key(|&(_, &place)| {
                let place = &self.places[place];
                (place.worn, place.drawn)
            }),
            ProfileStrategy::Seeded(seed) => {
                let random = FixedState::with_seed(seed).hash_one(self.draws) as usize;
                let count = equal.clone().count();
                equal.nth(random % count)
            }
            // A list that was told `Random` has drawn a seed.
            ProfileStrategy::RoundRobin | ProfileStrategy::Random => equal.next(),
        };
        chosen.map(|(position, _)| position)
    }

    fn fit(&self, place: usize, request: DrawRequest) -> Fit {
        let place = &self.places[place];
        if let Some(until) = self.cooling_until(place) {
            return Fit::CoolingDown(until);
        }
        let is_worn = self.exclusive && place.worn > 0;
        let is_own = |&owner: &OwnerId| owner == request.owner;
        let own = place.worn == place.owners.len() && place.owners.iter().all(is_own);
        match (is_worn, own) {
            (true, false) => Fit::Others,
            _ if request.avoid == Some(place.kind) => Fit::Again,
            (true, true) => Fit::Own,
            (false, _) => Fit::Free,
        }
    }

    /// Until when the place rests, if it does.
    fn cooling_until(&self, place: &Slot) -> Option<Instant> {
        place.cooling_until.filter(|until| self.now.is_none_or(|now| now < *until))
    }

    /// The number of places that anybody could have.
    fn free(&self) -> usize {
        let is_free =
            |place: &&Slot| self.cooling_until(place).is_none() && !(self.exclusive && place.worn > 0);
        self.places.iter().filter(is_free).count()
    }

    /// Those who can share with themselves.
    fn owners(&self) -> HashSet<OwnerId> {
        self.places.iter().flat_map(|place| &place.owners).copied().collect()
    }
}

/// What a rest without an end is cut to.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a list is to do, told by other means: it remembers who wears what, and nothing else.
    struct Model {
        rotation: Rotation<usize>,
        kinds: Vec<usize>,
        /// Who wears which place, and since which draw.
        leases: Vec<(OwnerId, usize)>,
        last_drawn: Vec<usize>,
        drawn: Vec<usize>,
        draws: usize,
        rests: Vec<Option<Instant>>,
        waiting: Vec<(QueuePos, DrawRequest)>,
        now: Instant,
    }

    impl Model {
        fn new(kinds: &[usize], draw: ProfileStrategy, exclusive: bool, exhausted: OnExhausted) -> Self {
            let mut rotation = Rotation::new(kinds);
            rotation.strategy = draw;
            rotation.exclusive = exclusive;
            rotation.set_on_exhausted(exhausted);
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
                rests: vec![None; len],
                waiting: Vec::new(),
                now,
            }
        }

        fn rests(&self, place: usize) -> Option<Instant> {
            self.rests[place].filter(|until| *until > self.now)
        }

        fn worn(&self, place: usize) -> usize {
            self.leases.iter().filter(|(_, worn)| *worn == place).count()
        }

        fn is_good(&self, place: usize, request: DrawRequest) -> bool {
            let others = self.leases.iter().any(|&(owner, worn)| worn == place && owner != request.owner);
            self.rests(place).is_none()
                && !(self.rotation.exclusive && others)
                && request.pin.is_none_or(|pin| pin == place)
        }

        fn good(&self, request: DrawRequest) -> Vec<usize> {
            (0..self.kinds.len()).filter(|&place| self.is_good(place, request)).collect()
        }

        /// Checks a draw against all that was promised, and takes note of it.
        fn drew(&mut self, request: DrawRequest, place: usize) {
            let good = self.good(request);
            let again = |place: usize| request.avoid == Some(self.kinds[place]);
            let unworn = |place: usize| !self.rotation.exclusive || self.worn(place) == 0;
            if good.is_empty() {
                assert_eq!(self.rotation.on_exhausted(), OnExhausted::Reuse);
                let may = |&place: &usize| request.pin.is_none_or(|pin| pin == place);
                let soonest = (0..self.kinds.len()).filter(may).map(|place| self.rests(place)).min().unwrap();
                assert_eq!(self.rests(place), soonest, "the one whose rest ends first, or none that rests");
            } else {
                assert!(good.contains(&place), "{place} is not free, and {good:?} are");
                let better: Vec<usize> =
                    good.iter().copied().filter(|&other| !again(other) && unworn(other)).collect();
                assert!(better.is_empty() || better.contains(&place), "{place}, and {better:?} are better");
                assert!(!again(place) || good.iter().all(|&other| again(other)), "{place} again");
                let rank = |place: usize| match self.rotation.strategy {
                    ProfileStrategy::RoundRobin => (self.last_drawn[place], place),
                    ProfileStrategy::LeastUsed => (self.worn(place), self.drawn[place]),
                    _ => (0, 0),
                };
                let least = better.iter().map(|&place| rank(place)).min();
                assert!(least.is_none_or(|least| rank(place) == least), "{place} of {better:?}");
            }
            self.draws += 1;
            self.drawn[place] += 1;
            self.last_drawn[place] = self.draws;
            self.leases.push((request.owner, place));
        }

        fn serve(&mut self) {
            let served = self.rotation.serve();
            for (who, place) in served {
                let position = self.waiting.iter().position(|(ticket, _)| *ticket as usize == who).unwrap();
                for (_, earlier) in &self.waiting[..position] {
                    assert!(!self.is_good(place, *earlier), "{earlier:?} was passed over");
                }
                let (_, request) = self.waiting.remove(position);
                self.drew(request, place);
            }
            for (_, request) in &self.waiting {
                assert!(self.good(*request).is_empty(), "{request:?} waits for nothing");
                assert_ne!(self.rotation.on_exhausted(), OnExhausted::Reuse);
            }
        }

        fn apply(&mut self, event: Event) {
            match event {
                Event::Draw(request) => match self.rotation.draw_now(request) {
                    Some(place) => {
                        assert!(self.waiting.is_empty(), "ahead of those who wait");
                        self.drew(request, place);
                    }
                    None => assert!(!self.waiting.is_empty() || self.good(request).is_empty()),
                },
                Event::Join(request) => {
                    let ticket = self.rotation.join(request, self.rotation.next_ticket as usize);
                    self.waiting.push((ticket, request));
                    self.serve();
                }
                Event::Leave(which) if !self.waiting.is_empty() => {
                    let (ticket, _) = self.waiting.remove(which % self.waiting.len());
                    assert_eq!(self.rotation.leave(ticket), Some(ticket as usize));
                    assert_eq!(self.rotation.leave(ticket), None);
                }
                Event::GiveBack(which) if !self.leases.is_empty() => {
                    let (owner, place) = self.leases.remove(which % self.leases.len());
                    self.rotation.give_back(place, owner);
                    self.serve();
                }
                Event::Bad(which) => {
                    let kind = self.kinds[which % self.kinds.len()];
                    self.rotation.mark_bad(kind);
                    for place in 0..self.kinds.len() {
                        if self.kinds[place] == kind {
                            self.rests[place] = Some(self.now + Duration::from_secs(10));
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
            for (place, known) in self.rotation.places.iter().enumerate() {
                assert_eq!(known.worn, self.worn(place), "what is worn of {place}");
            }
            let next = (0..self.kinds.len()).filter_map(|place| self.rests(place)).min();
            assert_eq!(self.rotation.next_cooldown_end(), next);
            if self.rotation.exclusive && self.rotation.on_exhausted() != OnExhausted::Reuse {
                for &(owner, place) in &self.leases {
                    let shared = self.leases.iter().any(|&(other, worn)| worn == place && other != owner);
                    assert!(!shared, "{place} is worn by two");
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

    fn events(places: usize) -> impl Strategy<Value = Vec<Event>> {
        let request = (0..4_usize, prop::option::of(0..places), prop::option::weighted(0.2, 0..places))
            .prop_map(|(owner, avoid, pin)| DrawRequest { owner, avoid, pin });
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
        fn all_promises_hold_whatever_happens(
            (kinds, events) in (1..5_usize).prop_flat_map(|places| (
                // Two equal profiles at the front of some lists.
                any::<bool>().prop_map(move |twins| {
                    (0..places).map(|place| if twins && place == 1 { 0 } else { place }).collect::<Vec<_>>()
                }),
                events(places),
            )),
            draw in prop_oneof![Just(ProfileStrategy::RoundRobin), any::<u64>().prop_map(ProfileStrategy::Seeded), Just(ProfileStrategy::LeastUsed)],
            exclusive: bool,
            exhausted in prop_oneof![Just(OnExhausted::Reuse), Just(OnExhausted::WAIT), Just(OnExhausted::Fail)],
        ) {
            let mut model = Model::new(&kinds, draw, exclusive, exhausted);
            for event in events {
                model.apply(event);
            }
        }

        #[test]
        fn the_least_used_are_drawn_evenly(places in 1..8_usize, draws in 0..100_usize) {
            let mut model = Model::new(&(0..places).collect::<Vec<_>>(), ProfileStrategy::LeastUsed, false, OnExhausted::Reuse);
            for owner in 0..draws {
                model.apply(Event::Draw(DrawRequest { owner, avoid: None, pin: None }));
            }
            let least = *model.drawn.iter().min().unwrap();
            prop_assert!(model.drawn.iter().all(|drawn| (least..=least + 1).contains(drawn)));
        }
    }

    #[test]
    fn random_draws_repeat_by_their_seed_and_reach_every_place() {
        let drawn = |seed| {
            let mut rotation = Rotation::<()>::new(&[0, 1, 2, 3]);
            rotation.strategy = ProfileStrategy::Seeded(seed);
            let request = |owner| DrawRequest { owner, avoid: None, pin: None };
            (0..400).map(|owner| rotation.draw_now(request(owner)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        for place in 0..4 {
            let times = drawn(1).iter().filter(|drawn| **drawn == place).count();
            assert!((60..=140).contains(&times), "{place} was drawn {times} times of 400");
        }
    }

    #[test]
    fn a_long_line_is_served_in_order() {
        let mut rotation = Rotation::new(&[0]);
        rotation.exclusive = true;
        let request = |owner| DrawRequest { owner, avoid: None, pin: None };
        let mut place = rotation.draw_now(request(0)).unwrap();
        for who in 1..2000 {
            rotation.join(request(who), who);
            assert!(rotation.serve().is_empty());
        }
        for who in 1..2000 {
            rotation.give_back(place, who - 1);
            let served = rotation.serve();
            assert_eq!(served, [(who, place)]);
            place = served[0].1;
        }
    }
}
