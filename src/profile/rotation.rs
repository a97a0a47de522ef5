use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    error::{ProfileError, ProfileErrorKind, ProfileMistake},
    profile::Profile,
};

/// The profiles that identities draw from, in turn.
///
/// The first identity gets the first profile, the next one the second; when the list is through,
/// [`when_exhausted`](Self::when_exhausted) says what happens. The successor of an identity that has ended does not get
/// an equal profile while the list has another; the profile that was passed over is the next one's.
///
/// # Clone
///
/// A `Profiles` is a handle: clones share the list, the turn and the policy, so that two registries with clones of one
/// `Profiles` draw from one list. [`Profiles::new`] with the profiles of [`iter`](Self::iter) makes a list of its own.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::profile::{Profile, ProfileErrorKind, Profiles};
///
/// let agents = ["crawler/1.0", "crawler/1.1"].map(|agent| Profile::builder().user_agent(agent).build().unwrap());
/// assert_eq!(Profiles::new(agents)?.len(), 2);
/// assert_eq!(Profiles::new([]).unwrap_err().kind(), ProfileErrorKind::NoProfiles);
/// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
/// ```
#[derive(Clone)]
pub struct Profiles {
    shared: Arc<Shared>,
}

struct Shared {
    list: Box<[Profile]>,
    /// Held for the choice alone, never across code that is not ours.
    rotation: Mutex<Rotation>,
}

impl Profiles {
    /// Makes a list that is drawn from in this order.
    ///
    /// # Errors
    ///
    /// If there are no profiles, or two have one name.
    pub fn new(profiles: impl IntoIterator<Item = Profile>) -> Result<Self, ProfileError> {
        let list: Box<[Profile]> = profiles.into_iter().collect();
        let mut names = Names::default();
        let taken = |(position, profile): (usize, &Profile)| {
            Some(names.take(profile.name()?)?.at_entry(position + 1))
        };
        let mistakes: Vec<_> = list.iter().enumerate().filter_map(taken).collect();
        if !mistakes.is_empty() {
            return Err(ProfileError::new(mistakes));
        }
        if list.is_empty() {
            return Err(ProfileMistake::new(ProfileErrorKind::NoProfiles, "no profiles").into());
        }
        let rotation = Mutex::new(Rotation::new(list.len()));
        Ok(Self { shared: Arc::new(Shared { list, rotation }) })
    }

    /// Sets what happens when every profile has been drawn. Default: [`Exhausted::Recycle`].
    ///
    /// The policy belongs to the list: this sets it for all clones.
    pub fn when_exhausted(self, exhausted: Exhausted) -> Self {
        self.shared.rotation.lock().exhausted = exhausted;
        self
    }

    /// The number of profiles.
    pub fn len(&self) -> usize {
        self.shared.list.len()
    }

    /// Always false: an empty list is refused.
    pub fn is_empty(&self) -> bool {
        self.shared.list.is_empty()
    }

    /// The profiles in the order of the list, which drawing does not change.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Profile> + DoubleEndedIterator {
        self.shared.list.iter()
    }

    /// The profile whose turn it is; never one equal to `avoid` while the list has another.
    pub(crate) fn draw(&self, avoid: Option<&Profile>) -> Profile {
        let list = &self.shared.list;
        let index = self.shared.rotation.lock().next(|index| avoid == Some(&list[index]));
        list[index].clone()
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What happens when every profile of a list has been drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exhausted {
    /// The list begins again, so sessions may share a profile.
    #[default]
    Recycle,
}

/// Whose turn it is: plain data over the places of the list.
#[derive(Debug)]
struct Rotation {
    /// The places that can be drawn, the next one in front. Never empty.
    queue: VecDeque<usize>,
    exhausted: Exhausted,
}

impl Rotation {
    fn new(len: usize) -> Self {
        Self { queue: (0..len).collect(), exhausted: Exhausted::default() }
    }

    /// Takes the first place that is not to be avoided, or the first one if all are.
    ///
    /// Those in front of it stay there, so that nobody loses a turn.
    fn next(&mut self, avoid: impl Fn(usize) -> bool) -> usize {
        let position = self.queue.iter().position(|&index| !avoid(index)).unwrap_or(0);
        let index = self.queue.remove(position).expect("the queue is never empty");
        match self.exhausted {
            Exhausted::Recycle => self.queue.push_back(index),
        }
        index
    }
}

/// The names given so far. Sessions can be pinned to a name, so it stands for one profile.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The mistake, if the name is taken already.
    pub(super) fn take(&mut self, name: &str) -> Option<ProfileMistake> {
        if self.0.insert(name.to_owned()) {
            return None;
        }
        Some(
            ProfileMistake::new(ProfileErrorKind::Duplicate, "another profile has this name")
                .at_field("name"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(names: &[&str]) -> Vec<Profile> {
        names.iter().map(|name| Profile::builder().user_agent(*name).build().unwrap()).collect()
    }

    fn agent(profile: &Profile) -> &str {
        profile.user_agent().unwrap().to_str().unwrap()
    }

    /// Draws once for each of `avoid` (`-` for nothing) and checks what came.
    #[track_caller]
    fn check(list: &[&str], draws: &[(&str, &str)]) {
        let profiles = Profiles::new(agents(list)).unwrap();
        for (turn, (avoid, expected)) in draws.iter().enumerate() {
            let avoid = agents(&[avoid]).remove(0);
            let drawn = profiles.draw((agent(&avoid) != "-").then_some(&avoid));
            assert_eq!(agent(&drawn), *expected, "draw {turn}");
        }
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
        check(&["a"], &[("gone", "a")]);
    }

    #[test]
    fn clones_share_the_turn() {
        let profiles = Profiles::new(agents(&["a", "b"])).unwrap();
        let clone = profiles.clone().when_exhausted(Exhausted::Recycle);
        assert_eq!(agent(&profiles.draw(None)), "a");
        assert_eq!(agent(&clone.draw(None)), "b");
        assert_eq!(profiles.iter().map(agent).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn concurrent_draws_are_spread_evenly() {
        let profiles = Profiles::new(agents(&["a", "b", "c", "d"])).unwrap();
        let draw = |_| {
            let profiles = profiles.clone();
            std::thread::spawn(move || (0..100).map(|_| profiles.draw(None)).collect::<Vec<_>>())
        };
        let threads: Vec<_> = (0..4).map(draw).collect();
        let drawn: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for profile in profiles.iter() {
            assert_eq!(drawn.iter().filter(|drawn| drawn.same(profile)).count(), 100);
        }
    }

    #[test]
    fn a_name_stands_for_one_profile() {
        let named = |name| Profile::builder().named(name).proxy("direct").build().unwrap();
        let error = Profiles::new([named("a"), named("b"), named("a")]).unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::Duplicate);
        assert_eq!(error.to_string(), "profile 3: name: another profile has this name");
        assert_eq!(Profiles::new([]).unwrap_err().to_string(), "no profiles");
    }
}
