//! The state that a new or restored session starts with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    cookies::Jar,
    gate::Generation,
    profile::{ProfileAssignment, ProfilePicker},
};

/// The application's data of a session.
pub(super) type Data = BTreeMap<String, String>;

/// What a session starts with.
pub(crate) struct InitialState {
    pub(crate) jar: Jar,
    pub(crate) profile: ProfileChoice,
    pub(crate) data: Data,
    /// The generation of the identity; without a current one, the last that the session had.
    pub(crate) generation: Generation,
    pub(crate) identity: InitialIdentity,
    /// The age of the identity, and how often it was used.
    pub(crate) age: Duration,
    pub(crate) uses: u64,
}

/// Whether a session starts with a current identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitialIdentity {
    /// The identity is current, and requests are sent under it.
    Current,
    /// The identity is pending, and requests wait for a renewal.
    Pending,
}

impl InitialIdentity {
    pub(crate) fn current_if(is_current: bool) -> Self {
        if is_current { Self::Current } else { Self::Pending }
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::Current
    }
}

/// The profile of a session's first identity.
pub(crate) enum ProfileChoice {
    /// The next one of the list, if there is a list.
    Next,
    /// The profile of another session.
    Same(Arc<ProfileAssignment>),
    /// The profile at this index of the list.
    #[cfg(feature = "serde")]
    Index(usize),
    /// The only profile of another list.
    #[cfg(feature = "serde")]
    Other(crate::profile::Profiles),
}

impl ProfileChoice {
    pub(super) fn resolve(
        self,
        picker: Option<&Arc<ProfilePicker>>,
        now: std::time::Instant,
    ) -> Option<Arc<ProfileAssignment>> {
        match self {
            Self::Next => picker.map(|picker| picker.draw(None, now)),
            Self::Same(assignment) => {
                match picker {
                    Some(picker) if picker.is_exclusive() => return Some(picker.draw(None, now)),
                    Some(picker) => picker.follow(&assignment),
                    None => {}
                }
                Some(assignment)
            }
            #[cfg(feature = "serde")]
            Self::Index(index) => picker.map(|picker| picker.draw_index(index, now)),
            #[cfg(feature = "serde")]
            Self::Other(profiles) => Some(profiles.picker().draw(None, now)),
        }
    }
}

impl InitialState {
    pub(super) fn new(jar: Jar, profile: ProfileChoice, data: Data, identity: InitialIdentity) -> Self {
        Self { jar, profile, data, generation: Generation::FIRST, identity, age: Duration::ZERO, uses: 0 }
    }
}
