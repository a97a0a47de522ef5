//! A session, as its users hold it.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use parking_lot::Mutex;
use tracing::Instrument;

use super::{
    EventKind, Identity, IdentityInner, SessionId, Stats,
    renewal_backend::ExplicitRequest,
    sessions::RegistryContext,
    share::{PendingWrite, ShareState},
    stats::Counters,
    trace,
};
use crate::{
    cookies::{CookieError, CookieUrl, Jar, NewCookie, StoredCookie, Timestamp},
    gate::{
        AttemptContext, Failure, Gate, GateEvent, GateOwner, GateRef, GateSnapshot, Generation, Limits,
        RenewalError, RenewalErrorKind, RenewalFuture, RenewalSource, ResultWaiter, VersionState,
    },
    jitter::Jitter,
    profile::{Profile, ProfileAssignment, ProfilePicker, UnknownProfile},
};

/// A handle to one session.
///
/// [`Sessions::session`](super::Sessions::session) gives it out. It can be put into a request's extensions in the place of a
/// [`SessionId`], which saves the look-up. A session whose handle somebody holds is never evicted.
///
/// Edits go to the current identity. If it is being renewed early, while it still serves, they end with it: the one that
/// follows has what its renewal gave it, and no more. While a session has no current identity, because it was cleared or has expired and its renewal is under way, reads and edits
/// address the identity that is about to come: an edit made then is in it when it is there.
///
/// # Clone
///
/// Clones are the same session.
#[derive(Clone)]
pub struct Session(pub(crate) Arc<SessionInner>, Weak<IdentityInner>);

pub(crate) struct SessionInner {
    pub(crate) names: Names,
    pub(crate) context: Arc<RegistryContext>,
    pub(crate) gate: Gate<Self>,
    pub(crate) counters: Counters,
    /// What most sessions never have.
    extras: Mutex<Option<Box<Extras>>>,
    /// Draws the profiles, if there are any.
    pub(super) profile_picker: Option<Arc<ProfilePicker>>,
    /// What ties it to other processes, if it is shared.
    pub(super) share_state: Option<Box<ShareState>>,
    /// When the registry last gave this session out, by its own count.
    pub(crate) last_used: AtomicU64,
    /// Set while the registry decides whether to drop this session, and from then on if it does.
    pub(crate) evicted: AtomicBool,
}

/// What a program keeps with a session.
type Data = BTreeMap<String, String>;

#[derive(Default)]
struct Extras {
    data: Data,
    /// What of the counters is accounted for, once the session is none of its registry's any more.
    left: Option<Counters>,
}

impl Extras {
    /// Nothing, if the program keeps nothing.
    fn with(data: Data) -> Option<Box<Self>> {
        (!data.is_empty()).then(|| Box::new(Self { data, left: None }))
    }
}

/// What a session begins with.
pub(crate) struct InitialState {
    pub(crate) jar: Jar,
    pub(crate) profile: ProfileChoice,
    pub(crate) data: Data,
    /// That of the identity or, of a session without a current one, the newest that it had.
    pub(crate) generation: Generation,
    pub(crate) current: bool,
    /// How long ago the identity was made, and how often it was used since then.
    pub(crate) age: Duration,
    pub(crate) uses: u64,
}

/// What the first identity of a session wears.
pub(crate) enum ProfileChoice {
    /// The next of the list, if there is one.
    Next,
    /// What another one wears.
    Same(Arc<ProfileAssignment>),
    /// The profile at this place of the list.
    #[cfg(feature = "serde")]
    Place(usize),
    /// The one profile of another list.
    #[cfg(feature = "serde")]
    Other(crate::profile::Profiles),
}

impl ProfileChoice {
    pub(super) fn resolve(
        self,
        profile_picker: Option<&Arc<ProfilePicker>>,
        now: std::time::Instant,
    ) -> Option<Arc<ProfileAssignment>> {
        match self {
            Self::Next => profile_picker.map(|profile_picker| profile_picker.draw(None, now)),
            Self::Same(worn) => {
                match profile_picker {
                    Some(profile_picker) if profile_picker.is_exclusive() => {
                        return Some(profile_picker.draw(None, now));
                    }
                    Some(profile_picker) => profile_picker.follow(&worn),
                    None => {}
                }
                Some(worn)
            }
            #[cfg(feature = "serde")]
            Self::Place(place) => profile_picker.map(|profile_picker| profile_picker.draw_index(place, now)),
            #[cfg(feature = "serde")]
            Self::Other(profiles) => Some(profiles.picker().draw(None, now)),
        }
    }
}

impl InitialState {
    fn new(jar: Jar, profile: ProfileChoice, data: Data, current: bool) -> Self {
        Self { jar, profile, data, generation: 1, current, age: Duration::ZERO, uses: 0 }
    }
}

impl Session {
    pub(crate) fn gate(&self) -> GateRef<'_, SessionInner> {
        GateRef::new(&self.0)
    }

    /// The second field is for the extensions of a request, and empty elsewhere: see [`attach`](Self::attach).
    pub(crate) fn of(inner: Arc<SessionInner>) -> Self {
        Self(inner, Weak::new())
    }

    /// Says, in a handle that is a request's extension, under which identity the request goes: the extension is there anyway, so
    /// that a send allocates nothing for it.
    pub(crate) fn attach(&mut self, inner: &Arc<IdentityInner>) {
        self.1 = Arc::downgrade(inner);
    }

    /// The identity that was seated here, unless it is gone.
    pub(crate) fn attached(&self) -> Option<Arc<IdentityInner>> {
        self.1.upgrade()
    }

    pub(crate) fn create(
        id: SessionId,
        context: Arc<RegistryContext>,
        profile_picker: Option<Arc<ProfilePicker>>,
    ) -> Self {
        let initial =
            InitialState::new(context.jar(), ProfileChoice::Next, Data::new(), context.starts_current());
        Self::with(id, context, profile_picker, initial)
    }

    /// A new session that starts with nothing current if a rule is there to bring it about, so that the profile that it draws
    /// is the one that it wears.
    pub(crate) fn create_member(id: SessionId, context: Arc<RegistryContext>) -> Self {
        let is_pending = context.login_first || context.backend().is_some_and(|backend| backend.has_rule());
        let initial = InitialState::new(context.jar(), ProfileChoice::Next, Data::new(), !is_pending);
        let profile_picker = context.profile_picker();
        Self::with(id, context, profile_picker, initial)
    }

    pub(crate) fn with(
        id: SessionId,
        context: Arc<RegistryContext>,
        profile_picker: Option<Arc<ProfilePicker>>,
        initial: InitialState,
    ) -> Self {
        let jitter = Jitter::seeded(context.jitter.draw());
        let last = initial.generation;
        let InitialState { jar, profile, data, current, age, uses, .. } = initial;
        let share_state = context.share.as_ref().map(|_| Box::new(ShareState::new(current)));
        let (born, random) = (context.now().saturating_sub(age), jitter.draw());
        let life = match current {
            true => VersionState::current(last, born, random),
            false => VersionState::new(PENDING, born, random),
        };
        let worn = profile.resolve(profile_picker.as_ref(), context.std_now());
        let inner = Arc::new(IdentityInner::new(life.used(uses), jar, worn));
        let gate = match current {
            true => Gate::open(inner, jitter),
            false => Gate::pending_after(last, Some(inner), jitter),
        };
        Self::of(Arc::new(SessionInner {
            names: Names::new(id),
            context,
            gate,
            counters: Counters::default(),
            extras: Mutex::new(Extras::with(data)),
            profile_picker,
            share_state,
            last_used: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
        }))
    }

    /// The session's name.
    pub fn id(&self) -> &SessionId {
        self.0.names.last()
    }

    /// The generation of the current identity, or `None` while there is no current one.
    pub fn generation(&self) -> Option<u64> {
        self.identity().map(|identity| identity.generation())
    }

    /// The current identity, or `None` while there is none.
    pub fn identity(&self) -> Option<Identity> {
        self.gate().current().map(|inner| Identity { session: Self::of(self.0.clone()), inner })
    }

    /// The profile of the current or coming identity, or `None` where there are no profiles, or none was
    /// [free](crate::profile::OnExhausted) yet.
    pub fn profile(&self) -> Option<Profile> {
        self.view(|inner| inner.profile().cloned()).flatten()
    }

    /// Gives the session the profile of this name, and no other, from its next identity on; [`clear`](Self::clear) brings that
    /// about at once. A fork is not pinned.
    ///
    /// What happens when that profile is worn by others or rests is what the list does when it is
    /// [exhausted](crate::Profiles::on_exhausted).
    ///
    /// # Errors
    ///
    /// If there is no profile of that name; then nothing was changed.
    pub fn pin_profile(&self, name: &str) -> Result<(), UnknownProfile> {
        self.0.profile_picker.as_ref().ok_or_else(|| UnknownProfile::new(name))?.pin(name)
    }

    /// Gives the session whatever profile it draws, again, from its next identity on.
    pub fn unpin_profile(&self) {
        if let Some(profile_picker) = &self.0.profile_picker {
            profile_picker.unpin();
        }
    }

    /// How many requests of this session are held at this moment.
    pub fn waiting(&self) -> usize {
        self.gate().waiting()
    }

    /// What happened to this session so far.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.0.counters.add_to(&mut stats);
        stats
    }

    /// All cookies, of every domain and path, with their attributes; expired ones are left out.
    pub fn cookies(&self) -> Vec<StoredCookie> {
        let now = self.0.context.timestamp();
        self.with_jar(|jar| jar.iter(now).cloned().collect())
    }

    /// The cookies that a request for `url` would carry, in the order in which they would be sent.
    ///
    /// # Errors
    ///
    /// If `url` is not an absolute http or https URL.
    pub fn cookies_for(&self, url: &str) -> Result<Vec<StoredCookie>, CookieError> {
        let target = CookieUrl::parse(url)?;
        let now = self.0.context.timestamp();
        Ok(self.with_jar(|jar| jar.matching(&target, now).into_iter().cloned().collect()))
    }

    /// Adds cookies as if `url` had set them: all of them or none.
    ///
    /// Takes pairs of name and value, `cookie::Cookie`s and [`StoredCookie`]s. A cookie given for a host takes the place of the
    /// one that a response has set there under the same name and path.
    ///
    /// # Errors
    ///
    /// Says which rule refuses which of them; then nothing was added.
    pub fn add_cookies<'c, I>(&self, cookies: I, url: &str) -> Result<(), CookieError>
    where
        I: IntoIterator,
        I::Item: Into<NewCookie<'c>>,
    {
        let target = CookieUrl::parse(url)?;
        let now = self.0.context.timestamp();
        let cookies: Vec<NewCookie<'c>> = cookies.into_iter().map(Into::into).collect();
        self.edit(|jar| jar.add(cookies.iter().cloned(), &target, now))
    }

    /// Sets one cookie in the form of a `Set-Cookie` header, as if `url` had answered with it.
    ///
    /// # Errors
    ///
    /// Says which rule refuses it, or that `url` is none.
    pub fn set_cookie(&self, set_cookie: &str, url: &str) -> Result<(), CookieError> {
        let target = CookieUrl::parse(url)?;
        let now = self.0.context.timestamp();
        self.edit(|jar| jar.set(set_cookie, &target, now))
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
    /// A fresh one, with an empty jar and another profile, takes its place. If a renewal layer stands on the sessions, the next
    /// request starts its rule, or, where it has none, goes ahead alone while the others wait for its answer. Otherwise the fresh
    /// identity simply is the current one.
    ///
    /// After this has returned, no request that starts carries anything of the old identity.
    pub fn clear(&self) {
        // A closed gate has nothing left to clear.
        let _ = match (self.0.context.backend(), &self.0.share_state) {
            (_, Some(share_state)) => {
                // Before anything can start that would look into the store.
                share_state.enqueue(PendingWrite::End);
                let cleared = self.gate().clear();
                self.0.flush();
                cleared
            }
            (Some(_), None) => self.gate().clear(),
            (None, None) => self.gate().replace(|generation| self.0.fresh(generation)).map(drop),
        };
        self.0.context.changed();
    }

    /// Starts a renewal by the layer's rule, or joins the one that runs. The current identity serves on until the new one is
    /// there.
    ///
    /// The renewal has started when this returns; dropping the handle cancels nothing.
    ///
    /// # Errors
    ///
    /// The handle resolves to an error if there is no [stack](RenewalErrorKind::NoService) or no
    /// [rule](RenewalErrorKind::NoRule), if the renewal failed, or if a later call ended it.
    pub fn renew(&self) -> RenewalHandle {
        if self.gate().is_reentrant() {
            return RenewalHandle::refuse(RenewalError::new(RenewalErrorKind::Reentrant));
        }
        match self.0.context.backend() {
            None => RenewalHandle::refuse(RenewalError::new(RenewalErrorKind::NoService)),
            Some(_) => RenewalHandle::new(self.gate().renew()),
        }
    }

    /// Ends the current identity and sends `request` at once, through the stack below the gate, to bring a new one about. All
    /// other requests of this session wait for it.
    ///
    /// The request is on its way when this returns, whether or not any other request comes; dropping the handle cancels nothing.
    ///
    /// # Errors
    ///
    /// As [`renew`](Self::renew), and if the request's body is [not the stack's](RenewalErrorKind::BodyTypeMismatch). An empty body
    /// may be given as `()`.
    pub fn renew_with<B: Send + 'static>(&self, request: Request<B>) -> RenewalHandle {
        if self.gate().is_reentrant() {
            return RenewalHandle::refuse(RenewalError::new(RenewalErrorKind::Reentrant));
        }
        let Some(backend) = self.0.context.backend() else {
            return RenewalHandle::refuse(RenewalError::new(RenewalErrorKind::NoService));
        };
        match backend.accept(Box::new(request)) {
            Ok(once) => RenewalHandle::new(self.gate().renew_with(once)),
            Err(error) => RenewalHandle::refuse(error),
        }
    }

    /// Makes `cookies` the session's, under a new identity with another profile. What was under way is ended; requests that
    /// wait go on.
    pub fn replace(&self, cookies: impl Into<Jar>) {
        let mut jar = cookies.into();
        // A closed gate has nothing left to replace.
        let _ = self.gate().replace(move |generation| {
            let inner = self.0.fresh(generation);
            *inner.jar.lock() = std::mem::take(&mut jar);
            inner
        });
        self.0.context.changed();
        self.0.enqueue_identity();
    }

    /// Makes this session what `initial` says, whatever is under way.
    #[cfg(feature = "serde")]
    pub(crate) fn restart(&self, initial: InitialState) {
        if !initial.current && self.0.context.backend().is_some() {
            // A renewal brings the next identity about, with another profile; the rest is what it begins with.
            self.clear();
            self.0.keep_data(initial.data);
            let jar = initial.jar;
            // Putting a jar in its place refuses nothing.
            let _ = self.edit(|own| {
                own.clone_from(&jar);
                Ok(())
            });
            return;
        }
        let (least, born) = (initial.generation, self.now().saturating_sub(initial.age));
        let InitialState { jar, profile, data, uses, .. } = initial;
        let worn = profile.resolve(self.0.profile_picker.as_ref(), self.0.context.std_now());
        // A closed gate has nothing left to replace.
        let _ = self.gate().replace_from(least, |generation| {
            let life = VersionState::new(generation, born, self.gate().random()).used(uses);
            Arc::new(IdentityInner::new(life, jar, worn))
        });
        self.0.keep_data(data);
        self.0.context.changed();
        self.0.enqueue_identity();
    }

    /// Copies the session under another name: its cookies, its profile and its data, but neither its counters nor what is under
    /// way. The copy has a current identity if this session has one.
    ///
    /// Of an [exclusive](crate::Profiles::exclusive) list, the copy draws a profile of its own.
    ///
    /// # Errors
    ///
    /// If there is a session of that name.
    pub fn fork(&self, id: impl Into<SessionId>) -> Result<Session, SessionIdTaken> {
        let id = id.into();
        let GateSnapshot { is_current, value, .. } = self.gate().snapshot();
        let (jar, worn) = match value {
            Some(inner) => (inner.jar.lock().clone(), inner.worn.clone()),
            None => (self.0.context.jar(), None),
        };
        let initial = InitialState::new(
            jar,
            worn.map_or(ProfileChoice::Next, ProfileChoice::Same),
            self.all_data(),
            is_current,
        );
        let make = |id, context: Arc<RegistryContext>| {
            let profile_picker = context.profile_picker();
            Self::with(id, context, profile_picker, initial)
        };
        match self.0.context.registry() {
            Some(registry) => registry.create(id.clone(), make).ok_or(SessionIdTaken { id }),
            // All handles of the registry are gone: no name can be taken.
            None => Ok(make(id, self.0.context.clone())),
        }
    }

    /// Gives the session another name. Nothing else changes: requests on their way or held go on, and every handle shows the new
    /// name. A request that names the old one afterwards gets a new session.
    ///
    /// The session remembers its former names, a few bytes each, as long as it lives. One that is shared with other processes is
    /// shared under its new name from then on; who has it under the old one keeps it, as another session.
    ///
    /// # Errors
    ///
    /// If there is a session of that name, or this one was removed.
    pub fn rename(&self, id: impl Into<SessionId>) -> Result<(), SessionIdTaken> {
        let id = SessionId::from(&id.into());
        let renamed = self.0.context.registry().is_some_and(|registry| registry.rename(self, id.clone()));
        if !renamed {
            return Err(SessionIdTaken { id });
        }
        self.0.renamed();
        self.0.context.changed();
        Ok(())
    }

    /// What the program keeps with this session under `key`.
    ///
    /// Data belongs to the session, not to an identity: a renewal leaves it alone. It is forked and saved with the session.
    pub fn data(&self, key: &str) -> Option<String> {
        self.0.extras.lock().as_ref()?.data.get(key).cloned()
    }

    /// Keeps `value` with this session under `key`, and returns what was there.
    pub fn set_data(&self, key: impl Into<String>, value: impl Into<String>) -> Option<String> {
        let (key, value) = (key.into(), value.into());
        let old = self.0.extras.lock().get_or_insert_default().data.insert(key, value);
        self.0.context.changed();
        old
    }

    /// Removes what is kept under `key`, and returns it.
    pub fn remove_data(&self, key: &str) -> Option<String> {
        let old = self.0.extras.lock().as_mut()?.data.remove(key);
        self.0.context.changed();
        old
    }

    /// All that the program keeps with this session.
    pub fn all_data(&self) -> BTreeMap<String, String> {
        self.0.extras.lock().as_ref().map(|extras| extras.data.clone()).unwrap_or_default()
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.context.now()
    }

    /// Shows the current identity, or the coming one.
    fn view<R>(&self, look: impl Fn(&IdentityInner) -> R) -> Option<R> {
        match self.gate().published() {
            Some(inner) => Some(look(&inner)),
            None => self.gate().edit(|inner| look(inner)),
        }
    }

    fn with_jar<R: Default>(&self, look: impl Fn(&Jar) -> R) -> R {
        self.view(|inner| look(&inner.jar.lock())).unwrap_or_default()
    }

    /// Edits the current jar, or the one that is about to come wherever it lies. A session that was closed has none.
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

/// The session's name, generation and cookies, without any value.
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

/// The names of a session: the one that it has, and those that it had.
pub(crate) struct Names {
    first: SessionId,
    renamed: OnceLock<Box<Names>>,
}

impl Names {
    fn new(first: SessionId) -> Self {
        Self { first, renamed: OnceLock::new() }
    }

    /// The one that it has. Of a session that was never renamed, one look at what no one writes.
    pub(crate) fn last(&self) -> &SessionId {
        let mut names = self;
        while let Some(next) = names.renamed.get() {
            names = next;
        }
        &names.first
    }

    /// Whether it has this one, or had it.
    pub(crate) fn has(&self, id: &SessionId) -> bool {
        self.first == *id || self.renamed.get().is_some_and(|renamed| renamed.has(id))
    }

    /// Only one may push at a time.
    pub(crate) fn push(&self, id: SessionId) {
        let mut names = self;
        while let Some(next) = names.renamed.get() {
            names = next;
        }
        let _ = names.renamed.set(Box::new(Self::new(id)));
    }
}

/// What was counted after the session left its registry.
impl Drop for SessionInner {
    fn drop(&mut self) {
        if let Some(left) = self.extras.get_mut().as_mut().and_then(|extras| extras.left.as_ref()) {
            self.context.departed.add_since(&self.counters, left);
        }
    }
}

impl SessionInner {
    /// The session is none of its registry's any more: accounts for what it has counted so far.
    pub(crate) fn leave(&self, departed: &Counters) {
        let so_far = Counters::default();
        so_far.add_all(&self.counters);
        departed.add_all(&so_far);
        self.extras.lock().get_or_insert_default().left = Some(so_far);
    }

    /// An identity with an empty jar and another profile than the last one's.
    fn fresh(&self, generation: Generation) -> Arc<IdentityInner> {
        let life = VersionState::new(generation, self.context.now(), self.gate.random());
        Arc::new(IdentityInner::new(life, self.context.jar(), self.draw()))
    }

    #[cfg(feature = "serde")]
    pub(super) fn keep_data(&self, data: Data) {
        let mut extras = self.extras.lock();
        match &mut *extras {
            Some(extras) => extras.data = data,
            None => *extras = Extras::with(data),
        }
    }

    /// Another profile than the one that is worn now, or was worn last.
    fn draw(&self) -> Option<Arc<ProfileAssignment>> {
        let profile_picker = self.profile_picker.as_ref()?;
        let current = self.gate.published();
        let worn = current.as_ref().and_then(|inner| inner.worn.as_deref());
        Some(profile_picker.draw(worn, self.context.std_now()))
    }

    /// The identity of `generation` with what `base` has.
    pub(crate) fn successor(&self, base: &IdentityInner, generation: Generation) -> Arc<IdentityInner> {
        let life = VersionState::new(generation, self.context.now(), self.gate.random());
        let jar = base.jar.lock().clone();
        Arc::new(IdentityInner::new(life, jar, base.worn.clone()))
    }
}

/// The generation that a pending identity has: none of those that requests see.
const PENDING: Generation = 0;

impl GateOwner for SessionInner {
    fn gate(&self) -> &Gate<Self> {
        &self.gate
    }
}

impl RenewalSource for SessionInner {
    type Value = IdentityInner;
    type Request = ExplicitRequest;

    fn version(value: &IdentityInner) -> &VersionState {
        &value.life
    }

    fn limits(&self) -> Limits {
        self.context.limits()
    }

    fn now(&self) -> Duration {
        self.context.now()
    }

    fn has_rule(&self) -> bool {
        // Of a shared session, whoever renews it looks first at what others have.
        self.context.share.is_some() || self.context.backend().is_some_and(|backend| backend.has_rule())
    }

    fn merge_edits(&self, pending: &IdentityInner, value: &IdentityInner) {
        if self.share_state.is_some() {
            self.add_edits(pending, value);
            self.cookies_changed_lazily(self.context.timestamp());
        }
    }

    fn on_allowance_low(self: &Arc<Self>, value: &Arc<IdentityInner>) {
        if let Some(share) = &self.context.share {
            share.clone().on_allowance_low(Session::of(self.clone()), value);
        }
    }

    fn pending(
        &self,
        candidate: Option<&Arc<IdentityInner>>,
        failed: Option<&Arc<IdentityInner>>,
    ) -> Option<Arc<IdentityInner>> {
        let life = VersionState::new(PENDING, self.context.now(), self.gate.random());
        Some(match (candidate, failed) {
            // The candidate that runs will be current; until then it is what the next attempt would look like.
            (Some(candidate), _) => {
                Arc::new(IdentityInner::new(life, self.context.jar(), candidate.worn.clone()))
            }
            // Edits survive a failed attempt; its profile may have been the reason for it.
            (None, Some(failed)) => {
                Arc::new(IdentityInner::new(life, failed.jar.lock().clone(), self.draw()))
            }
            (None, None) => self.fresh(PENDING),
        })
    }

    fn candidate(
        &self,
        pending: Option<&Arc<IdentityInner>>,
        generation: Generation,
    ) -> Option<Arc<IdentityInner>> {
        Some(match pending {
            Some(pending) => self.successor(pending, generation),
            None => self.fresh(generation),
        })
    }

    fn renew(self: &Arc<Self>, drive: AttemptContext<Self>) -> RenewalFuture<IdentityInner> {
        let span = trace::renewal(self.names.last(), &drive);
        let session = Session::of(self.clone());
        let renewing = match (&self.context.share, self.context.backend()) {
            (Some(share), backend) => share.clone().renew(session, backend, drive),
            (None, Some(backend)) => backend.renew(session, drive),
            (None, None) => Box::pin(std::future::ready(Err(Failure::transient(RenewalError::new(
                RenewalErrorKind::NoService,
            ))))),
        };
        if span.is_disabled() { renewing } else { Box::pin(renewing.instrument(span)) }
    }

    fn on_event(&self, change: GateEvent) {
        self.context.changed();
        let (metrics, counters) = (&self.context.metrics, &self.counters);
        let kind = match change {
            GateEvent::Started { generation, reason } => {
                counters.rare().renewals_started.add();
                metrics.started(reason).add();
                EventKind::RenewalStarted { generation, reason }
            }
            GateEvent::Committed { generation, took } => {
                counters.rare().renewals_committed.add();
                metrics.committed.ended(took);
                EventKind::RenewalCommitted { generation, took }
            }
            GateEvent::Failed { generation, kind: error, took } => {
                counters.rare().renewals_failed.add();
                metrics.failed.ended(took);
                EventKind::RenewalFailed { generation, error, took }
            }
            GateEvent::Abandoned { generation, took } => {
                metrics.abandoned.ended(took);
                EventKind::RenewalAbandoned { generation, took }
            }
            GateEvent::Activated { generation } => EventKind::Activated { generation },
            GateEvent::Invalidated { generation } => EventKind::Invalidated { generation },
        };
        let session = self.names.last();
        trace::changed(session, &kind);
        self.context.tell(session, kind);
    }
}

/// A renewal that was asked for: resolves to the generation that it brought about. Dropping it cancels nothing.
///
/// # Cancel safety
///
/// The renewal runs in a task of its own; the handle only looks on.
#[must_use = "the renewal runs without it; to know how it ends, await it"]
pub struct RenewalHandle(Handle);

enum Handle {
    Asking(ResultWaiter<SessionInner>),
    Refused(Option<RenewalError>),
}

impl RenewalHandle {
    fn new(asked: Result<ResultWaiter<SessionInner>, RenewalError>) -> Self {
        asked.map_or_else(Self::refuse, |asker| Self(Handle::Asking(asker)))
    }

    fn refuse(error: RenewalError) -> Self {
        Self(Handle::Refused(Some(error)))
    }
}

impl Future for RenewalHandle {
    type Output = Result<u64, RenewalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Handle::Asking(asker) => Pin::new(asker).poll(context),
            Handle::Refused(error) => {
                Poll::Ready(Err(error.take().expect("a renewal handle is not polled after it has answered")))
            }
        }
    }
}

impl fmt::Debug for RenewalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalHandle").finish_non_exhaustive()
    }
}

/// There is already a session of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionIdTaken {
    id: SessionId,
}

impl SessionIdTaken {
    /// The name that is taken.
    pub fn id(&self) -> &SessionId {
        &self.id
    }
}

impl fmt::Display for SessionIdTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is already a session named {}", self.id)
    }
}

impl std::error::Error for SessionIdTaken {}

impl RegistryContext {
    pub(crate) fn timestamp(&self) -> Timestamp {
        (self.clock)().into()
    }
}
