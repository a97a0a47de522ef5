//! What the backend in `crate::shared` reads from a session, and changes in it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    IdentityInner, Session, SessionInner, Sessions,
    initial::{InitialState, ProfileChoice},
    sessions::Registry,
    share::{ShareState, SharingBackend},
    snapshot::{RestoreError, SessionSnapshot},
};
use crate::{
    cookies::Timestamp,
    gate::{Generation, VersionState},
};

impl Sessions {
    pub(crate) fn sharing_backend(&self) -> Option<&dyn SharingBackend> {
        self.registry.context.share.as_deref()
    }
}

/// A handle that does not keep its session alive.
pub(crate) struct WeakSession(Weak<SessionInner>);

impl WeakSession {
    pub(crate) fn upgrade(&self) -> Option<Session> {
        self.0.upgrade().map(Session::of)
    }
}

impl Session {
    pub(crate) fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.0))
    }

    pub(crate) fn share_state(&self) -> &ShareState {
        self.0.share_state.as_deref().expect("the session is shared")
    }

    /// Returns the registry of the session, unless it was dropped.
    pub(crate) fn registry(&self) -> Option<Arc<Registry>> {
        self.0.context.registry()
    }

    /// Returns the identity under which new requests are sent, if there is one.
    pub(crate) fn published(&self) -> Option<Arc<IdentityInner>> {
        self.0.gate.published()
    }

    /// Returns the current identity, also while new requests wait for their turn.
    pub(crate) fn current(&self) -> Option<Arc<IdentityInner>> {
        self.0.gate.current()
    }

    /// Whether the session has no identity before its first renewal.
    pub(crate) fn logs_in_first(&self) -> bool {
        self.0.context.login_first
    }

    /// Returns the maximum number of uses of one identity.
    pub(crate) fn use_limit(&self) -> Option<u64> {
        self.0.use_limit()
    }

    /// Returns the maximum age of one identity.
    pub(crate) fn age_limit(&self) -> Option<Duration> {
        self.0.context.backend()?.budget().age
    }

    /// Returns the time by the clock of the session's cookies.
    pub(crate) fn timestamp(&self) -> Timestamp {
        self.0.context.timestamp()
    }

    /// Records that there is something to save.
    pub(crate) fn mark_changed(&self) {
        self.0.context.changed();
    }

    /// Starts an early renewal if `identity` is still current.
    pub(crate) fn renew_early(&self, identity: &IdentityInner) {
        self.gate().renew_early(&identity.version);
    }

    /// Replaces the session's data with that of a record.
    pub(crate) fn adopt_data(&self, snapshot: SessionSnapshot) {
        self.0.set_all_data(snapshot.data);
    }

    /// Returns the identity of a snapshot under the generation of `candidate`, and adopts its
    /// data.
    pub(crate) fn adopt(
        &self,
        candidate: &IdentityInner,
        snapshot: &SessionSnapshot,
    ) -> Result<Arc<IdentityInner>, RestoreError> {
        self.0.adopt(candidate, snapshot)
    }

    /// Replaces the identity of generation `current` with that of a snapshot.
    ///
    /// `None` if another identity is current by now.
    pub(crate) fn install(
        &self,
        current: Generation,
        snapshot: &SessionSnapshot,
    ) -> Result<Option<Arc<IdentityInner>>, RestoreError> {
        let Some(before) = self.0.gate.current() else { return Ok(None) };
        let adopted = self.0.adopt(&before, snapshot)?;
        let is_limited = self.use_limit().is_some();
        let mut installed = None;
        self.gate().replace_if(current, |generation| {
            let version =
                VersionState::new(generation, adopted.version.created_at, self.0.gate.random()).adopted();
            if is_limited {
                // It may not be used before a batch of uses was taken.
                version.allowance.begin();
            }
            let jar = std::mem::take(&mut *adopted.jar.lock());
            let identity = Arc::new(IdentityInner::new(version, jar, adopted.profile.clone()));
            installed = Some(identity.clone());
            identity
        });
        Ok(installed)
    }

    /// Returns `spent` under another generation, with `uses` more uses.
    pub(crate) fn continue_version(
        &self,
        spent: &IdentityInner,
        generation: Generation,
        uses: u64,
    ) -> Arc<IdentityInner> {
        let version = VersionState::new(generation, spent.version.created_at, self.0.gate.random());
        version.allowance.begin();
        version.allowance.allow(uses);
        let jar = spent.jar.lock().clone();
        Arc::new(IdentityInner::new(version, jar, spent.profile.clone()))
    }

    /// Ends the current identity in this process only.
    pub(crate) fn end_locally(&self) {
        // A closed gate has nothing left to end.
        let _ = self.gate().clear();
    }
}

impl SessionInner {
    /// Whether the renewal before the running one was interrupted.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.share_state.as_ref().is_some_and(|state| state.known().interrupted)
    }

    fn use_limit(&self) -> Option<u64> {
        self.context.backend()?.budget().uses
    }

    fn adopt(
        &self,
        candidate: &IdentityInner,
        snapshot: &SessionSnapshot,
    ) -> Result<Arc<IdentityInner>, RestoreError> {
        let InitialState { jar, profile, data, age, .. } = self.context.restored(snapshot)?;
        let born = self.context.now().saturating_sub(age);
        let version = VersionState::new(candidate.version.generation, born, self.gate.random()).adopted();
        let profile = match profile {
            ProfileChoice::Next => candidate.profile.clone(),
            profile => profile.resolve(self.profile_picker.as_ref(), self.context.std_now()),
        };
        self.set_all_data(data);
        Ok(Arc::new(IdentityInner::new(version, jar, profile)))
    }
}
