//! A list of profiles and its settings, as users hold it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    assignment::{ProfileList, ProfilePicker},
    error::{ProfileError, ProfileErrorKind, ProfileIssue},
    profile::Profile,
    rotation::Rotation,
    strategy::{OnExhausted, ProfileStrategy},
};

/// A list of profiles that are assigned to identities.
///
/// Each new identity of a session draws a profile and returns it when the identity is gone: when it
/// was superseded, and the response to its last request has arrived (its body may still be read).
/// The successor of an identity gets a different profile if another one is free.
///
/// | setting | default | alternatives |
/// | --- | --- | --- |
/// | [`strategy`](Self::strategy): which of the free profiles is drawn | in turn | random, least used |
/// | [`exclusive`](Self::exclusive): whether sessions may share a profile | they may | an assigned profile is not free |
/// | [`on_exhausted`](Self::on_exhausted): what happens if none is free | reuse; for an exclusive list, wait 30 seconds | wait, fail |
/// | [`cooldown`](Self::cooldown): how long a profile marked bad is not free | 5 minutes | |
///
/// [`Sessions::mark_profile_bad`](crate::Sessions::mark_profile_bad) marks a profile bad, and
/// [`Session::pin_profile`](crate::Session::pin_profile) pins a session to one profile. The
/// settings belong to the list: each setter applies to all clones.
///
/// # Clone
///
/// Clones share the list, the turn and the settings: two registries with clones of one `Profiles`
/// draw from one list. [`Profiles::new`] with the profiles of [`iter`](Self::iter) creates an
/// independent list.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::profile::{Profile, ProfileErrorKind, Profiles};
///
/// let agents = ["crawler/1.0", "crawler/1.1"]
///     .map(|agent| Profile::builder().user_agent(agent).build().unwrap());
/// assert_eq!(Profiles::new(agents)?.len(), 2);
/// assert_eq!(Profiles::new([]).unwrap_err().kind(), ProfileErrorKind::NoProfiles);
/// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
/// ```
#[derive(Clone)]
pub struct Profiles {
    pub(super) list: Arc<ProfileList>,
}

impl Profiles {
    /// Creates a list in this order.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no profiles, or if two have the same name.
    pub fn new(profiles: impl IntoIterator<Item = Profile>) -> Result<Self, ProfileError> {
        let profiles: Box<[Profile]> = profiles.into_iter().collect();
        let mut names = Names::default();
        let taken = |(position, profile): (usize, &Profile)| {
            Some(names.take(profile.name()?)?.at_entry(position + 1))
        };
        let issues: Vec<_> = profiles.iter().enumerate().filter_map(taken).collect();
        if !issues.is_empty() {
            return Err(ProfileError::new(issues));
        }
        if profiles.is_empty() {
            return Err(ProfileIssue::new(ProfileErrorKind::NoProfiles, "no profiles").into());
        }
        let mut first = HashMap::with_capacity(profiles.len());
        let kinds =
            profiles.iter().enumerate().map(|(index, profile)| *first.entry(profile).or_insert(index));
        let kinds: Box<[usize]> = kinds.collect();
        let rotation = Mutex::new(Rotation::new(&kinds));
        Ok(Self { list: Arc::new(ProfileList { profiles, kinds, rotation }) })
    }

    /// Sets which of the free profiles is drawn. Default: [`ProfileStrategy::RoundRobin`].
    #[must_use]
    pub fn strategy(self, strategy: ProfileStrategy) -> Self {
        self.list.rotation.lock().strategy = match strategy {
            // The keys of the standard library's hasher are random enough for a seed.
            ProfileStrategy::Random => ProfileStrategy::Seeded(RandomState::new().build_hasher().finish()),
            strategy => strategy,
        };
        self
    }

    /// Assigns each profile to at most one session at a time. Default: sessions share profiles.
    ///
    /// Several identities of one session may share a profile. A session keeps its profile until it
    /// is dropped, even when idle: limit the number of sessions by
    /// [`max_sessions`](crate::session::SessionsBuilder::max_sessions) to that of the profiles. A
    /// profile that is in the list twice can be assigned to two sessions. With
    /// [`OnExhausted::Reuse`], sessions share a profile if none is free.
    #[must_use]
    pub fn exclusive(self) -> Self {
        self.list.rotation.lock().exclusive = true;
        self
    }

    /// Sets what happens when no profile is free. Default: [`OnExhausted::Reuse`]; for an
    /// [exclusive](Self::exclusive) list, [`OnExhausted::Wait`] for 30 seconds.
    #[must_use]
    pub fn on_exhausted(self, on_exhausted: OnExhausted) -> Self {
        self.list.rotation.lock().set_on_exhausted(on_exhausted);
        self.list.wake_all();
        self
    }

    /// Sets how long a profile that was marked bad is not assigned. Default: 5 minutes.
    ///
    /// After the cooldown, the profile is free again. If all profiles are cooling down,
    /// [`OnExhausted::Reuse`] assigns the one whose cooldown ends first.
    #[must_use]
    pub fn cooldown(self, cooldown: Duration) -> Self {
        self.list.rotation.lock().cooldown = cooldown;
        self
    }

    /// Returns the number of profiles.
    pub fn len(&self) -> usize {
        self.list.profiles.len()
    }

    /// Returns `false`, since a list without profiles is rejected.
    pub fn is_empty(&self) -> bool {
        self.list.profiles.is_empty()
    }

    /// Returns the profiles in the order of the list, which does not change.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Profile> + DoubleEndedIterator {
        self.list.profiles.iter()
    }

    /// Creates the picker of one session.
    pub(crate) fn picker(&self) -> Arc<ProfilePicker> {
        ProfilePicker::new(self.list.clone())
    }

    /// Starts the cooldown of a profile and of all equal ones; `false` if the list has none.
    pub(crate) fn mark_bad(&self, profile: &Profile, now: Instant) -> bool {
        let Some(index) = self.iter().position(|listed| listed == profile) else {
            return false;
        };
        {
            let mut rotation = self.list.rotation.lock();
            rotation.advance(now);
            rotation.mark_bad(self.list.kinds[index]);
        }
        self.list.wake_all();
        true
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The names of a list so far. Sessions can be pinned to a name, so each name is unique.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Adds a name; returns an issue if it is taken already.
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
    fn names_are_unique_within_a_list() {
        let named = |name| Profile::builder().name(name).proxy("direct").build().unwrap();
        let error = Profiles::new([named("a"), named("b"), named("a")]).unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::Duplicate);
        assert_eq!(error.to_string(), "profile 3: name: another profile has this name");
        assert_eq!(Profiles::new([]).unwrap_err().to_string(), "no profiles");
    }
}
