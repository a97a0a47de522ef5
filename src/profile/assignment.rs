//! The profile of an identity: one that was drawn, or a position in the queue for one.

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
    rotation::{DrawRequest, OwnerId, QueuePos, Rotation},
    strategy::OnExhausted,
};

/// A list of profiles and the state of their assignment, shared by all handles and sessions.
pub(crate) struct ProfileList {
    pub(super) profiles: Box<[Profile]>,
    /// The index of the first equal profile, for each profile.
    pub(super) kinds: Box<[usize]>,
    /// Locked for one decision, never while foreign code runs.
    pub(super) rotation: Mutex<Rotation<AssignmentWaker>>,
}

impl ProfileList {
    /// Returns the index of the profile with this name.
    fn index_of(&self, name: &str) -> Result<usize, UnknownProfile> {
        let index = self.profiles.iter().position(|profile| profile.name() == Some(name));
        index.ok_or_else(|| UnknownProfile::new(name))
    }

    /// Wakes all waiters to check again.
    ///
    /// Necessary when the end of the next cooldown may have changed, or what happens on exhaustion.
    pub(super) fn wake_all(&self) {
        let waiting: Vec<AssignmentWaker> = self.rotation.lock().waiting().cloned().collect();
        waiting.iter().for_each(AssignmentWaker::wake);
    }

    /// Assigns profiles to the waiters that were served; a profile whose waiter is gone goes to the
    /// next one.
    fn deliver(&self, served: Vec<(AssignmentWaker, usize)>) {
        for (waiter, index) in served {
            match waiter.assignment.upgrade() {
                Some(assignment) => assignment.assign(index),
                None => self.give_back(index, waiter.request),
            }
        }
    }

    fn give_back(&self, index: usize, request: DrawRequest) {
        let served = {
            let mut rotation = self.rotation.lock();
            rotation.give_back(index, request.owner);
            rotation.serve()
        };
        self.deliver(served);
    }
}

/// Draws the profiles of one session.
pub(crate) struct ProfilePicker {
    list: Arc<ProfileList>,
    /// The kind that was drawn last, or `NONE`.
    last: AtomicUsize,
    /// The index of the profile that the session is pinned to, or `NONE`.
    pin: AtomicUsize,
}

/// The encoding of `None` in an atomic.
const NONE: usize = usize::MAX;

fn some(number: usize) -> Option<usize> {
    (number != NONE).then_some(number)
}

impl ProfilePicker {
    pub(super) fn new(list: Arc<ProfileList>) -> Arc<Self> {
        Arc::new(Self { list, last: AtomicUsize::new(NONE), pin: AtomicUsize::new(NONE) })
    }

    /// Draws a profile for a new identity, avoiding that of `replaced` or else the last one drawn.
    ///
    /// If no profile is free, the first request under the identity waits for one.
    pub(crate) fn draw(
        self: &Arc<Self>,
        replaced: Option<&ProfileAssignment>,
        now: Instant,
    ) -> Arc<ProfileAssignment> {
        let kind = replaced.and_then(|replaced| Some(self.list.kinds[replaced.drawn.get()?.index]));
        let request = DrawRequest {
            owner: self.owner(),
            avoid: kind.or_else(|| some(self.last.load(Ordering::Relaxed))),
            pin: some(self.pin.load(Ordering::Relaxed)),
        };
        self.draw_for(request, now)
    }

    /// Draws the profile at `index`, which a restored identity had before.
    #[cfg(feature = "serde")]
    pub(crate) fn draw_index(self: &Arc<Self>, index: usize, now: Instant) -> Arc<ProfileAssignment> {
        self.draw_for(DrawRequest { owner: self.owner(), avoid: None, pin: Some(index) }, now)
    }

    fn owner(self: &Arc<Self>) -> OwnerId {
        OwnerId(Arc::as_ptr(self).addr())
    }

    fn draw_for(self: &Arc<Self>, request: DrawRequest, now: Instant) -> Arc<ProfileAssignment> {
        let drawn = {
            let mut rotation = self.list.rotation.lock();
            rotation.advance(now);
            rotation.draw_now(request)
        };
        Arc::new(ProfileAssignment {
            picker: self.clone(),
            request,
            drawn: drawn.map_or_else(OnceLock::new, |index| OnceLock::from(self.drawn(index))),
            waiters: Mutex::default(),
        })
    }

    /// Avoids the profile of another assignment, from the next identity on.
    pub(crate) fn follow(&self, other: &ProfileAssignment) {
        if let Some(drawn) = other.drawn.get() {
            self.last.store(self.list.kinds[drawn.index], Ordering::Relaxed);
        }
    }

    /// Pins the next identities to the profile with this name.
    pub(crate) fn pin(&self, name: &str) -> Result<(), UnknownProfile> {
        self.pin.store(self.list.index_of(name)?, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn unpin(&self) {
        self.pin.store(NONE, Ordering::Relaxed);
    }

    fn drawn(&self, index: usize) -> Drawn {
        self.last.store(self.list.kinds[index], Ordering::Relaxed);
        Drawn { index, profile: self.list.profiles[index].clone() }
    }

    /// Returns whether no other session may have the profile of this one.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.list.rotation.lock().exclusive
    }
}

/// The profile of one identity, or the queue of its requests that wait for it.
///
/// On drop, it returns the profile or leaves the queue of the list.
pub(crate) struct ProfileAssignment {
    picker: Arc<ProfilePicker>,
    request: DrawRequest,
    drawn: OnceLock<Drawn>,
    waiters: Mutex<RequestWaiters>,
}

struct Drawn {
    index: usize,
    profile: Profile,
}

/// The requests that wait for the profile of one identity.
///
/// Together they have one position in the queue of the list.
#[derive(Default)]
struct RequestWaiters {
    pos: Option<QueuePos>,
    wakers: BTreeMap<RequestPos, Waker>,
    next: u64,
}

/// The assignment behind a waiter in the queue of a list.
#[derive(Clone)]
pub(super) struct AssignmentWaker {
    assignment: Weak<ProfileAssignment>,
    request: DrawRequest,
}

impl AssignmentWaker {
    fn wake(&self) {
        if let Some(assignment) = self.assignment.upgrade() {
            assignment.wake();
        }
    }
}

/// A request among those that wait for the profile of one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestPos(u64);

/// What a request finds when it polls for its profile.
pub(crate) enum PollProfile {
    Ready,
    /// The waker was stored. If it is not woken before, the request polls again at this time, when
    /// the next cooldown ends.
    Waiting(Option<Instant>),
}

impl ProfileAssignment {
    /// Returns the profile, if one was drawn.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.drawn.get().map(|drawn| &drawn.profile)
    }

    /// Returns what happens while no profile is free.
    pub(crate) fn on_exhausted(&self) -> OnExhausted {
        self.picker.list.rotation.lock().on_exhausted()
    }

    /// Returns the name of the profile that it is pinned to.
    pub(crate) fn pinned_to(&self) -> Option<&str> {
        self.picker.list.profiles[self.request.pin?].name()
    }

    /// Checks whether a profile was drawn; if not, `position` waits for it.
    pub(crate) fn poll(
        self: &Arc<Self>,
        position: &mut Option<RequestPos>,
        waker: &Waker,
        now: Instant,
    ) -> PollProfile {
        if self.drawn.get().is_some() {
            return PollProfile::Ready;
        }
        let waker = waker.clone();
        let (old, served, next_cooldown_end) = {
            let mut rotation = self.picker.list.rotation.lock();
            rotation.advance(now);
            let old = {
                let mut waiters = self.waiters.lock();
                let position = *position.get_or_insert_with(|| {
                    waiters.next += 1;
                    RequestPos(waiters.next)
                });
                if waiters.pos.is_none() && self.drawn.get().is_none() {
                    let waker = AssignmentWaker { assignment: Arc::downgrade(self), request: self.request };
                    waiters.pos = Some(rotation.join(self.request, waker));
                }
                waiters.wakers.insert(position, waker)
            };
            (old, rotation.serve(), rotation.next_cooldown_end())
        };
        drop(old);
        self.picker.list.deliver(served);
        if self.drawn.get().is_some() { PollProfile::Ready } else { PollProfile::Waiting(next_cooldown_end) }
    }

    /// Removes a request that no longer waits. The last one leaves the queue of the list.
    pub(crate) fn leave(&self, position: RequestPos) {
        let removed = {
            let mut rotation = self.picker.list.rotation.lock();
            let mut waiters = self.waiters.lock();
            let waker = waiters.wakers.remove(&position);
            let pos = if waiters.wakers.is_empty() { waiters.pos.take() } else { None };
            (waker, pos.and_then(|pos| rotation.leave(pos)))
        };
        drop(removed);
    }

    /// Wakes the requests that wait.
    fn wake(&self) {
        let wakers: Vec<Waker> = self.waiters.lock().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn assign(&self, index: usize) {
        let list = &self.picker.list;
        if self.drawn.set(self.picker.drawn(index)).is_err() {
            return list.give_back(index, self.request);
        }
        let removed = {
            let mut rotation = list.rotation.lock();
            // A request that polled after the draw and before the assignment has joined again.
            self.waiters.lock().pos.take().and_then(|pos| rotation.leave(pos))
        };
        drop(removed);
        self.wake();
    }
}

impl Drop for ProfileAssignment {
    fn drop(&mut self) {
        match self.drawn.take() {
            Some(drawn) => self.picker.list.give_back(drawn.index, self.request),
            None => {
                if let Some(pos) = self.waiters.get_mut().pos {
                    let removed = self.picker.list.rotation.lock().leave(pos);
                    drop(removed);
                }
            }
        }
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

    use super::{super::profiles::Profiles, *};

    fn profiles(names: &[&str]) -> Profiles {
        let profile = |name: &&str| Profile::builder().user_agent(*name).build().unwrap();
        Profiles::new(names.iter().map(profile)).unwrap()
    }

    /// Draws once for each of `avoid` (`-` for nothing) and checks the result.
    #[track_caller]
    fn check(list: &[&str], draws: &[(&str, &str)]) {
        let profiles = profiles(list);
        for (turn, (avoid, expected)) in draws.iter().enumerate() {
            let picker = profiles.picker();
            let avoided = profiles.iter().position(|profile| agent(profile) == *avoid);
            picker.last.store(avoided.unwrap_or(NONE), Ordering::Relaxed);
            let assignment = picker.draw(None, Instant::now());
            assert_eq!(agent(assignment.profile().unwrap()), *expected, "draw {turn}");
        }
    }

    fn agent(profile: &Profile) -> &str {
        profile.user_agent().unwrap().to_str().unwrap()
    }

    #[test]
    fn profiles_are_drawn_in_order_and_repeatedly() {
        check(&["a", "b", "c"], &[("-", "a"), ("-", "b"), ("-", "c"), ("-", "a"), ("-", "b")]);
    }

    #[test]
    fn the_profile_of_an_expired_identity_is_skipped_and_keeps_its_turn() {
        check(&["a", "b", "c"], &[("a", "b"), ("-", "a"), ("-", "c"), ("-", "b")]);
        check(&["a", "b"], &[("-", "a"), ("b", "a"), ("a", "b"), ("a", "b"), ("-", "a")]);
        check(&["a", "a", "b"], &[("a", "b"), ("a", "b"), ("-", "a")]);
    }

    #[test]
    fn the_only_profile_is_drawn_even_if_it_should_be_avoided() {
        check(&["a"], &[("-", "a"), ("a", "a")]);
        check(&["a", "a"], &[("a", "a"), ("a", "a")]);
    }

    #[test]
    fn clones_share_the_turn() {
        let profiles = profiles(&["a", "b"]);
        let clone = profiles.clone().on_exhausted(OnExhausted::Reuse);
        let draw = |profiles: &Profiles| profiles.picker().draw(None, Instant::now());
        assert_eq!(agent(draw(&profiles).profile().unwrap()), "a");
        assert_eq!(agent(draw(&clone).profile().unwrap()), "b");
        assert_eq!(profiles.iter().map(agent).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn concurrent_draws_are_spread_evenly() {
        let profiles = profiles(&["a", "b", "c", "d"]);
        let draw = |_| {
            let picker = profiles.picker();
            let draw = move || (0..100).map(|_| picker.draw(None, Instant::now())).collect::<Vec<_>>();
            thread::spawn(draw)
        };
        let threads: Vec<_> = (0..4).map(draw).collect();
        let drawn: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for profile in profiles.iter() {
            let times = drawn.iter().filter(|drawn| drawn.profile().unwrap().ptr_eq(profile)).count();
            // Each thread avoids its last profile, so that a profile may miss a turn.
            assert!((95..=105).contains(&times), "{times}");
        }
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Waits as a task would, and panics if it is not woken.
    fn wait(assignment: &Arc<ProfileAssignment>) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut position = None;
        while let PollProfile::Waiting(_) = assignment.poll(&mut position, &waker, Instant::now()) {
            let began = Instant::now();
            thread::park_timeout(Duration::from_secs(20));
            assert!(began.elapsed() < Duration::from_secs(20), "the waiter is not woken");
        }
        if let Some(position) = position {
            assignment.leave(position);
        }
    }

    #[test]
    fn exclusive_profiles_are_never_shared_by_threads_and_each_waiter_is_served() {
        let profiles = profiles(&["a", "b", "c"]).exclusive();
        let in_use: Arc<[AtomicBool]> = (0..3).map(|_| AtomicBool::new(false)).collect();
        let threads: Vec<_> = (0..8_u32)
            .map(|number| {
                let (profiles, in_use) = (profiles.clone(), in_use.clone());
                thread::spawn(move || {
                    let picker = profiles.picker();
                    for round in 0..300_u32 {
                        let assignment = picker.draw(None, Instant::now());
                        if (round + number).is_multiple_of(7) {
                            // A waiter that joins the queue and is dropped.
                            let mut position = None;
                            let _ = assignment.poll(&mut position, Waker::noop(), Instant::now());
                            continue;
                        }
                        wait(&assignment);
                        let index = assignment.drawn.get().unwrap().index;
                        assert!(!in_use[index].swap(true, Ordering::SeqCst), "assigned to two sessions");
                        thread::yield_now();
                        in_use[index].store(false, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let rotation = profiles.list.rotation.lock();
        assert_eq!(rotation.waiting().count(), 0, "the queue is empty");
    }

    #[test]
    fn all_requests_of_an_identity_share_one_position_in_the_queue() {
        let profiles = profiles(&["a"]).exclusive();
        let first = profiles.picker().draw(None, Instant::now());
        let [second, third] = [(); 2].map(|()| profiles.picker().draw(None, Instant::now()));
        let poll = |assignment: &Arc<ProfileAssignment>, position: &mut Option<RequestPos>| {
            matches!(assignment.poll(position, Waker::noop(), Instant::now()), PollProfile::Ready)
        };
        let mut positions = [None; 3];
        assert!(!poll(&second, &mut positions[0]) && !poll(&third, &mut positions[2]));
        assert!(!poll(&second, &mut positions[1]));
        // The first request leaves; the position remains for the other one.
        second.leave(positions[0].unwrap());
        drop(first);
        assert!(poll(&second, &mut positions[1]) && !poll(&third, &mut positions[2]));
        // All requests leave; the next one starts at the end of the queue.
        let fourth = profiles.picker().draw(None, Instant::now());
        assert!(!poll(&fourth, &mut None));
        third.leave(positions[2].unwrap());
        assert!(!poll(&third, &mut None));
        drop(second);
        assert!(fourth.profile().is_some() && third.profile().is_none());
        drop(fourth);
        assert!(third.profile().is_some());
    }
}
