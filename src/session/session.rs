//! The handle to a session: its cookies, its data, and its renewals.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use http::Request;
use parking_lot::Mutex;

use super::{
    Identity, IdentityInner, SessionId, SessionIdTaken, Stats,
    context::RegistryContext,
    identity::PENDING,
    initial::{Data, InitialIdentity, InitialState, ProfileChoice},
    names::Names,
    share::{PendingWrite, ShareState},
    stats::Counters,
};
use crate::{
    cookies::{CookieError, CookieUrl, Jar, NewCookie, StoredCookie},
    gate::{
        Gate, GateRef, GateSnapshot, Generation, RenewalError, RenewalErrorKind, RenewalHandle, VersionState,
    },
    jitter::Jitter,
    profile::{Profile, ProfileAssignment, ProfilePicker, UnknownProfile},
};

/// A handle to one session.
///
/// Returned by [`Sessions::session`](super::Sessions::session). Put a handle into a request's
/// extensions instead of a [`SessionId`] to save the lookup. A session is never evicted while a
/// handle to it exists.
///
/// Edits change the current identity. During an early renewal the current identity is still in use;
/// edits made then are lost when it is replaced. While the session has no current identity, because
/// it was cleared or has expired, reads and edits apply to the pending identity, and the renewal
/// starts from it.
///
/// # Clone
///
/// Clones refer to the same session.
#[derive(Clone)]
pub struct Session(pub(crate) Arc<SessionInner>, Weak<IdentityInner>);

/// The state of a session, which its handles share.
pub(crate) struct SessionInner {
    pub(crate) names: Names,
    pub(crate) context: Arc<RegistryContext>,
    pub(crate) gate: Gate<Self>,
    pub(crate) counters: Counters,
    /// State that most sessions do not have.
    extras: Mutex<Option<Box<Extras>>>,
    /// Draws the session's profiles, if there are any.
    pub(super) profile_picker: Option<Arc<ProfilePicker>>,
    /// The state of the session's record, if the session is shared between processes.
    pub(super) share_state: Option<Box<ShareState>>,
    /// When the registry last returned this session, by the registry's own count.
    pub(crate) last_used: AtomicU64,
    /// Set while the registry decides whether to evict this session; stays set if it does.
    pub(crate) evicted: AtomicBool,
}

#[derive(Default)]
struct Extras {
    data: Data,
    /// The part of the counters that the registry has accounted for, once the session was removed.
    accounted: Option<Counters>,
}

impl Extras {
    /// Allocates nothing if there is no data.
    fn with(data: Data) -> Option<Box<Self>> {
        (!data.is_empty()).then(|| Box::new(Self { data, accounted: None }))
    }
}

impl Session {
    /// Creates a handle without an attached identity: see [`attach`](Self::attach).
    pub(crate) fn of(inner: Arc<SessionInner>) -> Self {
        Self(inner, Weak::new())
    }

    /// Records the identity of the request that has this handle in its extensions. The extension
    /// exists anyway, so this allocates nothing.
    pub(super) fn attach(&mut self, inner: &Arc<IdentityInner>) {
        self.1 = Arc::downgrade(inner);
    }

    /// The attached identity, if it still exists.
    pub(super) fn attached(&self) -> Option<Arc<IdentityInner>> {
        self.1.upgrade()
    }

    pub(crate) fn gate(&self) -> GateRef<'_, SessionInner> {
        GateRef::new(&self.0)
    }

    pub(super) fn create(
        id: SessionId,
        context: Arc<RegistryContext>,
        picker: Option<Arc<ProfilePicker>>,
    ) -> Self {
        let identity = InitialIdentity::current_if(context.starts_current());
        let initial = InitialState::new(context.jar(), ProfileChoice::Next, Data::new(), identity);
        Self::with(id, context, picker, initial)
    }

    /// Creates the session of a pool member.
    ///
    /// With a rule, it starts without a current identity: otherwise its first profile would be
    /// drawn for an identity that no request uses.
    pub(super) fn create_member(id: SessionId, context: Arc<RegistryContext>) -> Self {
        let is_pending = context.login_first || context.backend().is_some_and(|backend| backend.has_rule());
        let identity = InitialIdentity::current_if(!is_pending);
        let initial = InitialState::new(context.jar(), ProfileChoice::Next, Data::new(), identity);
        let picker = context.profile_picker();
        Self::with(id, context, picker, initial)
    }

    pub(super) fn with(
        id: SessionId,
        context: Arc<RegistryContext>,
        picker: Option<Arc<ProfilePicker>>,
        initial: InitialState,
    ) -> Self {
        let jitter = Jitter::seeded(context.jitter.draw());
        let last = initial.generation;
        let InitialState { jar, profile, data, identity, age, uses, .. } = initial;
        let share_state = context.share.as_ref().map(|_| Box::new(ShareState::new(identity.is_current())));
        let (created_at, random) = (context.now().saturating_sub(age), jitter.draw());
        let version = match identity {
            InitialIdentity::Current => VersionState::current(last, created_at, random),
            InitialIdentity::Pending => VersionState::new(PENDING, created_at, random),
        };
        let profile = profile.resolve(picker.as_ref(), context.std_now());
        let inner = Arc::new(IdentityInner::new(version.used(uses), jar, profile));
        let gate = match identity {
            InitialIdentity::Current => Gate::open(inner, jitter),
            InitialIdentity::Pending => Gate::pending_after(last, Some(inner), jitter),
        };
        Self::of(Arc::new(SessionInner {
            names: Names::new(id),
            context,
            gate,
            counters: Counters::default(),
            extras: Mutex::new(Extras::with(data)),
            profile_picker: picker,
            share_state,
            last_used: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
        }))
    }

    /// The session's id.
    pub fn id(&self) -> &SessionId {
        self.0.names.last()
    }

    /// The generation of the current identity, or `None` if there is none.
    pub fn generation(&self) -> Option<u64> {
        self.identity().map(|identity| identity.generation())
    }

    /// The current identity, or `None` if there is none.
    pub fn identity(&self) -> Option<Identity> {
        self.gate().current().map(|inner| Identity { session: Self::of(self.0.clone()), inner })
    }

    /// The profile of the current or pending identity.
    ///
    /// `None` if the sessions have no profiles, or if no profile has become
    /// [free](crate::profile::OnExhausted) yet.
    pub fn profile(&self) -> Option<Profile> {
        self.view(|inner| inner.profile().cloned()).flatten()
    }

    /// Pins the session to the profile with this name, from its next identity on.
    ///
    /// [`clear`](Self::clear) starts a new identity. If the profile is assigned to other sessions
    /// or in cooldown, the session does what
    /// [`Profiles::on_exhausted`](crate::Profiles::on_exhausted) says.
    ///
    /// # Errors
    ///
    /// If no profile has this name. The session is not changed.
    pub fn pin_profile(&self, name: &str) -> Result<(), UnknownProfile> {
        self.0.profile_picker.as_ref().ok_or_else(|| UnknownProfile::new(name))?.pin(name)
    }

    /// Reverts [`pin_profile`](Self::pin_profile), from the next identity on.
    pub fn unpin_profile(&self) {
        if let Some(picker) = &self.0.profile_picker {
            picker.unpin();
        }
    }

    /// The number of requests of this session that are waiting at its gate.
    pub fn waiting(&self) -> usize {
        self.gate().waiting()
    }

    /// The counters of this session.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.0.counters.add_to(&mut stats);
        stats
    }

    /// All unexpired cookies, of every domain and path, with their attributes.
    pub fn cookies(&self) -> Vec<StoredCookie> {
        let now = self.0.context.timestamp();
        self.with_jar(|jar| jar.iter(now).cloned().collect())
    }

    /// The cookies that a request to `url` would carry, in the order in which they would be sent.
    ///
    /// # Errors
    ///
    /// If `url` is not an absolute http or https URL.
    pub fn cookies_for(&self, url: &str) -> Result<Vec<StoredCookie>, CookieError> {
        let url = CookieUrl::parse(url)?;
        let now = self.0.context.timestamp();
        Ok(self.with_jar(|jar| jar.matching(&url, now).into_iter().cloned().collect()))
    }

    /// Adds cookies as if a response from `url` had set them: all of them, or none on an error.
    ///
    /// Accepts name-value pairs, `cookie::Cookie`s and [`StoredCookie`]s. A cookie added for a host
    /// replaces the one that a response has set there with the same name and path.
    ///
    /// # Errors
    ///
    /// If a cookie is invalid; the error says which one and why. No cookie was added.
    pub fn add_cookies<'c, I>(&self, cookies: I, url: &str) -> Result<(), CookieError>
    where
        I: IntoIterator,
        I::Item: Into<NewCookie<'c>>,
    {
        let url = CookieUrl::parse(url)?;
        let now = self.0.context.timestamp();
        let cookies: Vec<NewCookie<'c>> = cookies.into_iter().map(Into::into).collect();
        self.edit(|jar| jar.add(cookies.iter().cloned(), &url, now))
    }

    /// Sets one cookie from the value of a `Set-Cookie` header, as if a response from `url` had set
    /// it.
    ///
    /// # Errors
    ///
    /// If the cookie is invalid, or `url` is not an absolute http or https URL.
    pub fn set_cookie(&self, set_cookie: &str, url: &str) -> Result<(), CookieError> {
        let url = CookieUrl::parse(url)?;
        let now = self.0.context.timestamp();
        self.edit(|jar| jar.set(set_cookie, &url, now))
    }

    /// Removes one cookie and returns it, or `None` if there is no such cookie.
    pub fn remove_cookie(&self, domain: &str, path: &str, name: &str) -> Option<StoredCookie> {
        let removed = Mutex::new(None);
        self.edit(|jar| {
            if let Some(cookie) = jar.remove(domain, path, name) {
                removed.lock().replace(cookie);
            }
            Ok(())
        })
        .ok()
        .and_then(|()| removed.into_inner())
    }

    /// Ends the current identity. Sends nothing.
    ///
    /// The next identity has an empty jar and a different profile. With a renewal layer, the next
    /// request starts the layer's rule; without a rule, it is sent alone and the other requests
    /// wait for its response. Without a renewal layer, the new identity becomes current
    /// immediately.
    ///
    /// No request that starts after this call carries anything of the ended identity.
    pub fn clear(&self) {
        // A closed gate has nothing left to clear.
        let _ = match (self.0.context.backend(), &self.0.share_state) {
            (_, Some(share_state)) => {
                // Enqueued before the gate is cleared: a renewal that starts then reads the store.
                share_state.enqueue(PendingWrite::End);
                let cleared = self.gate().clear();
                self.0.flush();
                cleared
            }
            (Some(_), None) => self.gate().clear(),
            (None, None) => self.gate().replace(|generation| self.0.new_identity(generation)).map(drop),
        };
        self.0.context.changed();
    }

    /// Starts a renewal by the layer's rule, or joins the running one.
    ///
    /// The renewal has started when this returns. The current identity stays in use until the
    /// renewal commits. Dropping the handle does not cancel the renewal.
    ///
    /// # Errors
    ///
    /// The handle resolves to an error if there is no [service](RenewalErrorKind::NoService) or no
    /// [rule](RenewalErrorKind::NoRule), if the renewal fails, or if a later call ends it.
    pub fn renew(&self) -> RenewalHandle {
        if self.gate().is_reentrant() {
            return RenewalHandle::rejected(RenewalError::new(RenewalErrorKind::Reentrant));
        }
        match self.0.context.backend() {
            None => RenewalHandle::rejected(RenewalError::new(RenewalErrorKind::NoService)),
            Some(_) => self.gate().renew().map_or_else(RenewalHandle::rejected, RenewalHandle::new),
        }
    }

    /// Ends the current identity and renews it by sending `request`.
    ///
    /// The request is sent through the service below the renewal layer, before this returns and
    /// whether or not other requests arrive. All other requests of the session wait for its
    /// response. Dropping the handle does not cancel the renewal.
    ///
    /// # Errors
    ///
    /// As for [`renew`](Self::renew), and if the body has [another
    /// type](RenewalErrorKind::BodyTypeMismatch) than the service's. `()` is accepted as an empty
    /// body.
    pub fn renew_with<B: Send + 'static>(&self, request: Request<B>) -> RenewalHandle {
        if self.gate().is_reentrant() {
            return RenewalHandle::rejected(RenewalError::new(RenewalErrorKind::Reentrant));
        }
        let Some(backend) = self.0.context.backend() else {
            return RenewalHandle::rejected(RenewalError::new(RenewalErrorKind::NoService));
        };
        match backend.accept(Box::new(request)) {
            Ok(request) => {
                self.gate().renew_with(request).map_or_else(RenewalHandle::rejected, RenewalHandle::new)
            }
            Err(error) => RenewalHandle::rejected(error),
        }
    }

    /// Replaces the session's cookies under a new identity with a different profile.
    ///
    /// A running renewal is abandoned, and waiting requests are released.
    pub fn replace(&self, cookies: impl Into<Jar>) {
        let mut jar = cookies.into();
        // A closed gate has nothing left to replace.
        let _ = self.gate().replace(move |generation| {
            let inner = self.0.new_identity(generation);
            *inner.jar.lock() = std::mem::take(&mut jar);
            inner
        });
        self.0.context.changed();
        self.0.enqueue_identity();
    }

    /// Restarts this session in the state `initial`, whatever it is doing.
    #[cfg(feature = "serde")]
    pub(super) fn restart(&self, initial: InitialState) {
        if !initial.identity.is_current() && self.0.context.backend().is_some() {
            // The renewal makes the next identity, with another profile, and starts from this jar.
            self.clear();
            self.0.set_all_data(initial.data);
            let jar = initial.jar;
            // Replacing the whole jar cannot fail.
            let _ = self.edit(|own| {
                own.clone_from(&jar);
                Ok(())
            });
            return;
        }
        let (least, created_at) = (initial.generation, self.now().saturating_sub(initial.age));
        let InitialState { jar, profile, data, uses, .. } = initial;
        let profile = profile.resolve(self.0.profile_picker.as_ref(), self.0.context.std_now());
        // A closed gate has nothing left to replace.
        let _ = self.gate().replace_from(least, |generation| {
            let version = VersionState::new(generation, created_at, self.gate().random()).used(uses);
            Arc::new(IdentityInner::new(version, jar, profile))
        });
        self.0.set_all_data(data);
        self.0.context.changed();
        self.0.enqueue_identity();
    }

    /// Copies the session's cookies, profile and data to a new session.
    ///
    /// Counters and running renewals are not copied. The copy has a current identity if this
    /// session has one. With [exclusive](crate::Profiles::exclusive) profiles, the copy draws its
    /// own profile.
    ///
    /// # Errors
    ///
    /// If a session with this id exists.
    pub fn fork(&self, id: impl Into<SessionId>) -> Result<Session, SessionIdTaken> {
        let id = id.into();
        let GateSnapshot { is_current, value, .. } = self.gate().snapshot();
        let (jar, profile) = match value {
            Some(inner) => (inner.jar.lock().clone(), inner.profile.clone()),
            None => (self.0.context.jar(), None),
        };
        let profile = profile.map_or(ProfileChoice::Next, ProfileChoice::Same);
        let identity = InitialIdentity::current_if(is_current);
        let initial = InitialState::new(jar, profile, self.all_data(), identity);
        let make = |id, context: Arc<RegistryContext>| {
            let picker = context.profile_picker();
            Self::with(id, context, picker, initial)
        };
        match self.0.context.registry() {
            Some(registry) => registry.create(id.clone(), make).ok_or(SessionIdTaken::new(id)),
            // All handles to the registry are gone: no id can be taken.
            None => Ok(make(id, self.0.context.clone())),
        }
    }

    /// Changes the session's id.
    ///
    /// Requests in flight and waiting requests continue, and all handles show the new id. A later
    /// request with the old id gets a new session.
    ///
    /// The session remembers its former ids, a few bytes each, until it is dropped. A session that
    /// is shared between processes is shared under the new id from now on; processes that have it
    /// under the old id keep it as a separate session.
    ///
    /// # Errors
    ///
    /// If a session with this id exists, or if this session was removed.
    pub fn rename(&self, id: impl Into<SessionId>) -> Result<(), SessionIdTaken> {
        let id = SessionId::from(&id.into());
        let renamed = self.0.context.registry().is_some_and(|registry| registry.rename(self, id.clone()));
        if !renamed {
            return Err(SessionIdTaken::new(id));
        }
        self.0.renamed();
        self.0.context.changed();
        Ok(())
    }

    /// The application's data for `key`.
    ///
    /// Data belongs to the session, not to an identity: renewals do not change it. Forks and
    /// snapshots include it.
    pub fn data(&self, key: &str) -> Option<String> {
        self.0.extras.lock().as_ref()?.data.get(key).cloned()
    }

    /// Stores data under `key` and returns the previous value.
    pub fn set_data(&self, key: impl Into<String>, value: impl Into<String>) -> Option<String> {
        let (key, value) = (key.into(), value.into());
        let previous = self.0.extras.lock().get_or_insert_default().data.insert(key, value);
        self.0.context.changed();
        previous
    }

    /// Removes the data for `key` and returns it.
    pub fn remove_data(&self, key: &str) -> Option<String> {
        let removed = self.0.extras.lock().as_mut()?.data.remove(key);
        self.0.context.changed();
        removed
    }

    /// All data of this session.
    pub fn all_data(&self) -> BTreeMap<String, String> {
        self.0.extras.lock().as_ref().map(|extras| extras.data.clone()).unwrap_or_default()
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.context.now()
    }

    /// Reads the current identity, or the pending one.
    fn view<R>(&self, read: impl Fn(&IdentityInner) -> R) -> Option<R> {
        match self.gate().published() {
            Some(inner) => Some(read(&inner)),
            None => self.gate().edit(|inner| read(inner)),
        }
    }

    fn with_jar<R: Default>(&self, read: impl Fn(&Jar) -> R) -> R {
        self.view(|inner| read(&inner.jar.lock())).unwrap_or_default()
    }

    /// Edits the current jar, or the pending one. A closed session has none.
    pub(super) fn edit(&self, edit: impl Fn(&mut Jar) -> Result<(), CookieError>) -> Result<(), CookieError> {
        let edited = match self.gate().published() {
            Some(inner) => edit(&mut inner.jar.lock()),
            None => self.gate().edit(|inner| edit(&mut inner.jar.lock())).unwrap_or(Ok(())),
        };
        self.0.context.changed();
        self.0.cookies_changed(self.0.context.timestamp());
        edited
    }
}

/// Shows the id, the generation and the cookies, without any value.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.id())?;
        match self.generation() {
            Some(generation) => write!(f, " (generation {generation})")?,
            None => f.write_str(" (being renewed)")?,
        }
        for cookie in self.cookies() {
            write!(f, "\n  {cookie}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", self.id())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl SessionInner {
    /// Adds the counters to those of departed sessions, because the session leaves its registry.
    /// What it counts later is added when it is dropped.
    pub(super) fn leave(&self, departed: &Counters) {
        let so_far = Counters::default();
        so_far.add_all(&self.counters);
        departed.add_all(&so_far);
        self.extras.lock().get_or_insert_default().accounted = Some(so_far);
    }

    /// Makes an identity with an empty jar and a different profile than the last one's.
    pub(super) fn new_identity(&self, generation: Generation) -> Arc<IdentityInner> {
        let version = VersionState::new(generation, self.context.now(), self.gate.random());
        Arc::new(IdentityInner::new(version, self.context.jar(), self.draw_profile()))
    }

    /// Makes the identity of `generation` with a copy of the jar of `base`, and its profile.
    pub(super) fn successor(&self, base: &IdentityInner, generation: Generation) -> Arc<IdentityInner> {
        let version = VersionState::new(generation, self.context.now(), self.gate.random());
        let jar = base.jar.lock().clone();
        Arc::new(IdentityInner::new(version, jar, base.profile.clone()))
    }

    /// Draws a different profile than the current identity's, or the last one's.
    pub(super) fn draw_profile(&self) -> Option<Arc<ProfileAssignment>> {
        let picker = self.profile_picker.as_ref()?;
        let current = self.gate.published();
        let assignment = current.as_ref().and_then(|inner| inner.profile.as_deref());
        Some(picker.draw(assignment, self.context.std_now()))
    }

    /// Makes the pending identity current: without a renewal layer, no renewal will.
    pub(super) fn adopt_pending(self: &Arc<Self>) {
        GateRef::new(self).adopt_pending(|pending, generation| match pending {
            Some(pending) => self.successor(pending, generation),
            None => unreachable!("a session without a current identity has a pending one"),
        });
    }

    /// Replaces the application's data.
    #[cfg(feature = "serde")]
    pub(super) fn set_all_data(&self, data: Data) {
        let mut extras = self.extras.lock();
        match &mut *extras {
            Some(extras) => extras.data = data,
            None => *extras = Extras::with(data),
        }
    }
}

/// Adds what was counted after the session left its registry.
impl Drop for SessionInner {
    fn drop(&mut self) {
        if let Some(accounted) = self.extras.get_mut().as_mut().and_then(|extras| extras.accounted.as_ref()) {
            self.context.departed.add_since(&self.counters, accounted);
        }
    }
}
