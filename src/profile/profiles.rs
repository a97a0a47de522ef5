use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    assignment::AssignmentWaker,
    error::{ProfileError, ProfileErrorKind, ProfileIssue, UnknownProfile},
    profile::Profile,
    rotation::Rotation,
};

/// The profiles that identities draw from.
///
/// Each new identity of a session draws one and gives it back when it is gone: when another one has followed it, and its last
/// request has been answered (a body may still be read). The successor of an identity does not get an equal profile while
/// another is free.
///
/// | setting | default | else |
/// | --- | --- | --- |
/// | [`draw`](Self::draw): which of the free ones | in turn | random, least used |
/// | [`exclusive`](Self::exclusive): whether sessions share one | they may | a worn profile is not free |
/// | [`on_exhausted`](Self::on_exhausted): what if none is free | begin again; for an exclusive list, wait for 30 seconds | wait, an error |
/// | [`rest`](Self::rest): for how long one that was marked bad is not free | 5 minutes | |
///
/// [`Sessions::mark_profile_bad`](crate::Sessions::mark_profile_bad) marks one bad, and
/// [`Session::pin_profile`](crate::Session::pin_profile) gives a session one and no other. The settings belong to the list:
/// each setter sets them for all clones.
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
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) list: Box<[Profile]>,
    /// The first place with an equal profile, for each place.
    pub(super) kinds: Box<[usize]>,
    /// Held for the choice alone, never across code that is not ours.
    pub(super) rotation: Mutex<Rotation<AssignmentWaker>>,
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
        let issues: Vec<_> = list.iter().enumerate().filter_map(taken).collect();
        if !issues.is_empty() {
            return Err(ProfileError::new(issues));
        }
        if list.is_empty() {
            return Err(ProfileIssue::new(ProfileErrorKind::NoProfiles, "no profiles").into());
        }
        let mut first = HashMap::with_capacity(list.len());
        let kinds = list.iter().enumerate().map(|(place, profile)| *first.entry(profile).or_insert(place));
        let kinds: Box<[usize]> = kinds.collect();
        let rotation = Mutex::new(Rotation::new(&kinds));
        Ok(Self { shared: Arc::new(Shared { list, kinds, rotation }) })
    }

    /// Sets which of the free profiles is drawn. Default: [`ProfileStrategy::RoundRobin`].
    pub fn strategy(self, strategy: ProfileStrategy) -> Self {
        self.shared.rotation.lock().strategy = match strategy {
            // The standard library's hasher keys are random; that is all that a seed needs.
            ProfileStrategy::Random => ProfileStrategy::Seeded(RandomState::new().build_hasher().finish()),
            strategy => strategy,
        };
        self
    }

    /// Lets no two sessions wear one profile at a time; several identities of one session may. Default: sessions share them.
    ///
    /// A session has a profile as long as it is there, whether or not it sends anything: bound them by
    /// [`max_sessions`](crate::session::SessionsBuilder::max_sessions), at most as many as there are profiles. A profile that
    /// is in the list twice can be worn by two. With [`OnExhausted::Reuse`], sessions share one when they have to.
    pub fn exclusive(self) -> Self {
        self.shared.rotation.lock().exclusive = true;
        self
    }

    /// Sets what happens when no profile is free. Default: [`OnExhausted::Reuse`]; for an [exclusive](Self::exclusive) list,
    /// [`OnExhausted::Wait`] for 30 seconds.
    pub fn on_exhausted(self, exhausted: OnExhausted) -> Self {
        self.shared.rotation.lock().set_on_exhausted(exhausted);
        self.wake_all();
        self
    }

    /// Sets for how long a profile rests that was marked bad. Default: 5 minutes.
    ///
    /// Then it comes back by itself. A list that begins again because all of its profiles rest takes the one whose rest is over
    /// first.
    pub fn cooldown(self, cooldown: Duration) -> Self {
        self.shared.rotation.lock().cooldown = cooldown;
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

    /// The place of the profile of this name.
    pub(super) fn index_of(&self, name: &str) -> Result<usize, UnknownProfile> {
        let place = self.iter().position(|profile| profile.name() == Some(name));
        place.ok_or_else(|| UnknownProfile::new(name))
    }

    /// Lets a profile rest, and all that are equal to it. `false`: there is none.
    pub(crate) fn mark_bad(&self, profile: &Profile, now: Instant) -> bool {
        let Some(place) = self.iter().position(|listed| listed == profile) else {
            return false;
        };
        {
            let mut rotation = self.shared.rotation.lock();
            rotation.advance(now);
            rotation.mark_bad(self.shared.kinds[place]);
        }
        self.wake_all();
        true
    }

    /// Lets all who wait look again: when the next rest ends may have changed, or what happens meanwhile.
    fn wake_all(&self) {
        let waiting: Vec<AssignmentWaker> = self.shared.rotation.lock().waiting().cloned().collect();
        waiting.iter().for_each(AssignmentWaker::wake);
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Which of the free profiles of a list is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProfileStrategy {
    /// The one drawn longest ago; at first, in the order of the list. One that is passed over keeps its turn.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// Any, by random numbers from this seed, so that a test repeats exactly.
    Seeded(u64),
    /// The one worn by the fewest identities at this moment; among those, the one drawn least often, and then longest ago.
    LeastUsed,
}

/// What happens when no profile of a list is free: all others rest, or the list is exclusive and other sessions wear them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnExhausted {
    /// The list begins again: sessions share a profile though the list is exclusive, or wear one that rests.
    #[default]
    Reuse,
    /// A session that is created, or renewed, has no profile yet. Its requests wait for one in the session layer, for so long
    /// at most, each session in its turn. Then, or at once where there is no tokio runtime, they fail with
    /// [`SessionErrorKind::ProfilesExhausted`](crate::session::SessionErrorKind::ProfilesExhausted).
    ///
    /// The wait counts towards the deadline of a renewal's attempt.
    Wait(Duration),
    /// As [`Wait`](Self::Wait), for no time.
    Fail,
}

impl OnExhausted {
    pub(super) const WAIT: Self = Self::Wait(Duration::from_secs(30));

    /// For how long a request waits.
    pub(crate) fn max_wait(self) -> Duration {
        match self {
            Self::Reuse | Self::Fail => Duration::ZERO,
            Self::Wait(max_wait) => max_wait,
        }
    }
}

/// The names given so far. Sessions can be pinned to a name, so it stands for one profile.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The mistake, if the name is taken already.
    pub(super) fn take(&mut self, name: &str) -> Option<ProfileIssue> {
        if self.0.insert(name.to_owned()) {
            return None;
        }
        Some(ProfileIssue::new(ProfileErrorKind::Duplicate, "another profile has this name").at_field("name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_profile() {
        let named = |name| Profile::builder().name(name).proxy("direct").build().unwrap();
        let error = Profiles::new([named("a"), named("b"), named("a")]).unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::Duplicate);
        assert_eq!(error.to_string(), "profile 3: name: another profile has this name");
        assert_eq!(Profiles::new([]).unwrap_err().to_string(), "no profiles");
    }
}
