//! What identities wear: the profile that one has drawn, or its place in the line of those who wait for one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    error::UnknownProfile,
    profile::Profile,
    profiles::{OnExhausted, Profiles},
    rotation::{DrawRequest, QueuePos},
};

/// One who draws profiles: a session.
pub(crate) struct ProfilePicker {
    profiles: Profiles,
    /// The kind that was drawn last, and the place that the next identities are to have; or `NONE`.
    last: AtomicUsize,
    pin: AtomicUsize,
}

const NONE: usize = usize::MAX;

fn some(number: usize) -> Option<usize> {
    (number != NONE).then_some(number)
}

impl ProfilePicker {
    pub(crate) fn new(profiles: Profiles) -> Arc<Self> {
        Arc::new(Self { profiles, last: AtomicUsize::new(NONE), pin: AtomicUsize::new(NONE) })
    }

    /// Draws for a new identity. What `worn` has drawn, or else what was drawn last, is avoided.
    ///
    /// If there is nothing to be had at this moment, the first request under the identity waits for it.
    pub(crate) fn draw(
        self: &Arc<Self>,
        replaced: Option<&ProfileAssignment>,
        now: Instant,
    ) -> Arc<ProfileAssignment> {
        let shared = &self.profiles.shared;
        let kind = replaced.and_then(|worn| Some(shared.kinds[worn.drawn.get()?.place]));
        let request = DrawRequest {
            owner: Arc::as_ptr(self).addr(),
            avoid: kind.or_else(|| some(self.last.load(Ordering::Relaxed))),
            pin: some(self.pin.load(Ordering::Relaxed)),
        };
        self.draw_for(request, now)
    }

    /// Draws the profile at `place` and no other: the one that an identity had which comes back.
    #[cfg(feature = "serde")]
    pub(crate) fn draw_place(self: &Arc<Self>, place: usize, now: Instant) -> Arc<ProfileAssignment> {
        self.draw_for(DrawRequest { owner: Arc::as_ptr(self).addr(), avoid: None, pin: Some(place) }, now)
    }

    fn draw_for(self: &Arc<Self>, request: DrawRequest, now: Instant) -> Arc<ProfileAssignment> {
        let drawn = {
            let mut rotation = self.profiles.shared.rotation.lock();
            rotation.advance(now);
            rotation.draw_now(request)
        };
        Arc::new(ProfileAssignment {
            picker: self.clone(),
            request,
            drawn: drawn.map_or_else(OnceLock::new, |place| OnceLock::from(self.drawn(place))),
            line: Mutex::default(),
        })
    }

    /// Avoids what another one wears, from the next identity on.
    pub(crate) fn follow(&self, worn: &ProfileAssignment) {
        if let Some(drawn) = worn.drawn.get() {
            self.last.store(self.profiles.shared.kinds[drawn.place], Ordering::Relaxed);
        }
    }

    /// Lets the next identities have the profile of this name and no other.
    pub(crate) fn pin(&self, name: &str) -> Result<(), UnknownProfile> {
        self.pin.store(self.profiles.index_of(name)?, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn unpin(&self) {
        self.pin.store(NONE, Ordering::Relaxed);
    }

    fn drawn(&self, place: usize) -> Drawn {
        let shared = &self.profiles.shared;
        self.last.store(shared.kinds[place], Ordering::Relaxed);
        Drawn { place, profile: shared.list[place].clone() }
    }

    /// Whether no other session may wear what this one wears.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.profiles.shared.rotation.lock().exclusive
    }
}

/// What one identity wears, and the successors that take it over.
///
/// Gives its profile back, or leaves the line, when it is dropped.
pub(crate) struct ProfileAssignment {
    picker: Arc<ProfilePicker>,
    request: DrawRequest,
    drawn: OnceLock<Drawn>,
    line: Mutex<Line>,
}

struct Drawn {
    place: usize,
    profile: Profile,
}

/// The requests that wait for one identity's profile: one in the line of all, whoever of them comes and goes.
#[derive(Default)]
struct Line {
    ticket: Option<QueuePos>,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

/// One who waits, as the line of all knows it.
#[derive(Clone)]
pub(super) struct AssignmentWaker {
    worn: Weak<ProfileAssignment>,
    request: DrawRequest,
}

impl AssignmentWaker {
    pub(super) fn wake(&self) {
        if let Some(worn) = self.worn.upgrade() {
            worn.wake();
        }
    }
}

/// A request's place among those that wait for one identity's profile.
pub(crate) type Place = u64;

/// How it stands with a profile that a request waits for.
pub(crate) enum PollProfile {
    /// It is there.
    Ready,
    /// The waker was stored. Without being woken, look again when the next rest ends.
    Waiting(Option<Instant>),
}

impl ProfileAssignment {
    /// The profile, if there is one already.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.drawn.get().map(|drawn| &drawn.profile)
    }

    /// What happens while there is none.
    pub(crate) fn exhausted(&self) -> OnExhausted {
        self.picker.profiles.shared.rotation.lock().on_exhausted()
    }

    /// The name of the profile that it is pinned to.
    pub(crate) fn pinned_to(&self) -> Option<&str> {
        self.picker.profiles.shared.list[self.request.pin?].name()
    }

    /// Looks whether there is a profile by now; if not, waits in the line, at `place` among those with the same identity.
    pub(crate) fn look(
        self: &Arc<Self>,
        place: &mut Option<Place>,
        waker: &Waker,
        now: Instant,
    ) -> PollProfile {
        if self.drawn.get().is_some() {
            return PollProfile::Ready;
        }
        let waker = waker.clone();
        let (old, served, next_cooldown_end) = {
            let mut rotation = self.picker.profiles.shared.rotation.lock();
            rotation.advance(now);
            let old = {
                let mut line = self.line.lock();
                let place = *place.get_or_insert_with(|| {
                    line.next += 1;
                    line.next
                });
                if line.ticket.is_none() && self.drawn.get().is_none() {
                    let waits = AssignmentWaker { worn: Arc::downgrade(self), request: self.request };
                    line.ticket = Some(rotation.join(self.request, waits));
                }
                line.wakers.insert(place, waker)
            };
            (old, rotation.serve(), rotation.next_cooldown_end())
        };
        drop(old);
        self.picker.profiles.deliver(served);
        if self.drawn.get().is_some() { PollProfile::Ready } else { PollProfile::Waiting(next_cooldown_end) }
    }

    /// A request no longer waits. The last of them gives their place in the line of all up.
    pub(crate) fn leave(&self, place: Place) {
        let gone = {
            let mut rotation = self.picker.profiles.shared.rotation.lock();
            let mut line = self.line.lock();
            let waker = line.wakers.remove(&place);
            let ticket = if line.wakers.is_empty() { line.ticket.take() } else { None };
            (waker, ticket.and_then(|ticket| rotation.leave(ticket)))
        };
        drop(gone);
    }

    /// Wakes the requests that wait.
    fn wake(&self) {
        let wakers: Vec<Waker> = self.line.lock().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn assign(&self, place: usize) {
        let profiles = &self.picker.profiles;
        if self.drawn.set(self.picker.drawn(place)).is_err() {
            return profiles.give_back(place, self.request);
        }
        let gone = {
            let mut rotation = profiles.shared.rotation.lock();
            // One who came when this place was drawn already, but not yet here, has joined the line again.
            self.line.lock().ticket.take().and_then(|ticket| rotation.leave(ticket))
        };
        drop(gone);
        self.wake();
    }
}

impl Drop for ProfileAssignment {
    fn drop(&mut self) {
        match self.drawn.take() {
            Some(drawn) => self.picker.profiles.give_back(drawn.place, self.request),
            None => {
                if let Some(ticket) = self.line.get_mut().ticket {
                    let gone = self.picker.profiles.shared.rotation.lock().leave(ticket);
                    drop(gone);
                }
            }
        }
    }
}

impl Profiles {
    /// Gives those who were served what they have got; what nobody is there for any more goes to the next.
    fn deliver(&self, served: Vec<(AssignmentWaker, usize)>) {
        for (waits, place) in served {
            match waits.worn.upgrade() {
                Some(worn) => worn.assign(place),
                None => self.give_back(place, waits.request),
            }
        }
    }

    fn give_back(&self, place: usize, request: DrawRequest) {
        let served = {
            let mut rotation = self.shared.rotation.lock();
            rotation.give_back(place, request.owner);
            rotation.serve()
        };
        self.deliver(served);
    }
}

impl fmt::Debug for ProfileAssignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileAssignment").field("profile", &self.profile()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicBool,
        task::Wake,
        thread::{self, Thread},
        time::Duration,
    };

    use super::*;

    fn profiles(names: &[&str]) -> Profiles {
        let profile = |name: &&str| Profile::builder().user_agent(*name).build().unwrap();
        Profiles::new(names.iter().map(profile)).unwrap()
    }

    /// Draws once for each of `avoid` (`-` for nothing) and checks what came.
    #[track_caller]
    fn check(list: &[&str], draws: &[(&str, &str)]) {
        let profiles = profiles(list);
        for (turn, (avoid, expected)) in draws.iter().enumerate() {
            let picker = ProfilePicker::new(profiles.clone());
            let avoided = profiles.iter().position(|profile| agent(profile) == *avoid);
            picker.last.store(avoided.unwrap_or(NONE), Ordering::Relaxed);
            let worn = picker.draw(None, Instant::now());
            assert_eq!(agent(worn.profile().unwrap()), *expected, "draw {turn}");
        }
    }

    fn agent(profile: &Profile) -> &str {
        profile.user_agent().unwrap().to_str().unwrap()
    }

    #[test]
    fn profiles_come_in_order_and_again() {
        check(&["a", "b", "c"], &[("-", "a"), ("-", "b"), ("-", "c"), ("-", "a"), ("-", "b")]);
    }

    #[test]
    fn the_expired_profile_is_passed_over_and_keeps_its_turn() {
        check(&["a", "b", "c"], &[("a", "b"), ("-", "a"), ("-", "c"), ("-", "b")]);
        check(&["a", "b"], &[("-", "a"), ("b", "a"), ("a", "b"), ("a", "b"), ("-", "a")]);
        check(&["a", "a", "b"], &[("a", "b"), ("a", "b"), ("-", "a")]);
    }

    #[test]
    fn the_only_profile_is_drawn_even_to_be_avoided() {
        check(&["a"], &[("-", "a"), ("a", "a")]);
        check(&["a", "a"], &[("a", "a"), ("a", "a")]);
    }

    #[test]
    fn clones_share_the_turn() {
        let profiles = profiles(&["a", "b"]);
        let clone = profiles.clone().on_exhausted(OnExhausted::Reuse);
        let draw = |profiles: &Profiles| ProfilePicker::new(profiles.clone()).draw(None, Instant::now());
        assert_eq!(agent(draw(&profiles).profile().unwrap()), "a");
        assert_eq!(agent(draw(&clone).profile().unwrap()), "b");
        assert_eq!(profiles.iter().map(agent).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn concurrent_draws_are_spread_evenly() {
        let profiles = profiles(&["a", "b", "c", "d"]);
        let draw = |_| {
            let picker = ProfilePicker::new(profiles.clone());
            let draw = move || (0..100).map(|_| picker.draw(None, Instant::now())).collect::<Vec<_>>();
            thread::spawn(draw)
        };
        let threads: Vec<_> = (0..4).map(draw).collect();
        let drawn: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for profile in profiles.iter() {
            let times = drawn.iter().filter(|drawn| drawn.profile().unwrap().ptr_eq(profile)).count();
            // Each thread avoids what it drew last, which may cost one its turn.
            assert!((95..=105).contains(&times), "{times}");
        }
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// AssignmentWaker as a task would, and gives up if nobody wakes it.
    fn wait(worn: &Arc<ProfileAssignment>) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut place = None;
        while let PollProfile::Waiting(_) = worn.look(&mut place, &waker, Instant::now()) {
            let began = Instant::now();
            thread::park_timeout(Duration::from_secs(20));
            assert!(began.elapsed() < Duration::from_secs(20), "nobody wakes those who wait");
        }
        if let Some(place) = place {
            worn.leave(place);
        }
    }

    #[test]
    fn threads_never_wear_one_profile_at_once_and_each_gets_its_turn() {
        let profiles = profiles(&["a", "b", "c"]).exclusive();
        let in_use: Arc<[AtomicBool]> = (0..3).map(|_| AtomicBool::new(false)).collect();
        let threads: Vec<_> = (0..8_u32)
            .map(|number| {
                let (profiles, in_use) = (profiles.clone(), in_use.clone());
                thread::spawn(move || {
                    let picker = ProfilePicker::new(profiles);
                    for round in 0..300_u32 {
                        let worn = picker.draw(None, Instant::now());
                        if (round + number).is_multiple_of(7) {
                            // One who joins the line and is gone.
                            let mut place = None;
                            let _ = worn.look(&mut place, Waker::noop(), Instant::now());
                            continue;
                        }
                        wait(&worn);
                        let place = worn.drawn.get().unwrap().place;
                        assert!(!in_use[place].swap(true, Ordering::SeqCst), "worn by two at once");
                        thread::yield_now();
                        in_use[place].store(false, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let rotation = profiles.shared.rotation.lock();
        assert_eq!(rotation.waiting().count(), 0, "nobody is left in the line");
    }

    #[test]
    fn one_place_in_the_line_serves_all_requests_of_an_identity() {
        let profiles = profiles(&["a"]).exclusive();
        let first = ProfilePicker::new(profiles.clone()).draw(None, Instant::now());
        let [second, third] =
            [(); 2].map(|()| ProfilePicker::new(profiles.clone()).draw(None, Instant::now()));
        let look = |worn: &Arc<ProfileAssignment>, place: &mut Option<Place>| {
            matches!(worn.look(place, Waker::noop(), Instant::now()), PollProfile::Ready)
        };
        let mut places = [None; 3];
        assert!(!look(&second, &mut places[0]) && !look(&third, &mut places[2]));
        assert!(!look(&second, &mut places[1]));
        // The one who came first leaves; the place in the line stays with the other.
        second.leave(places[0].unwrap());
        drop(first);
        assert!(look(&second, &mut places[1]) && !look(&third, &mut places[2]));
        // All leave, and come again: at the end of the line.
        let fourth = ProfilePicker::new(profiles.clone()).draw(None, Instant::now());
        assert!(!look(&fourth, &mut None));
        third.leave(places[2].unwrap());
        assert!(!look(&third, &mut None));
        drop(second);
        assert!(fourth.profile().is_some() && third.profile().is_none());
        drop(fourth);
        assert!(third.profile().is_some());
    }
}
