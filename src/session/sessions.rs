//! All sessions of one program.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, SystemTime},
};

use papaya::Guard;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Session, SessionId, Stats,
    events::{EventBus, EventKind, Events},
    id::IdRepr,
    metrics::SessionMetrics,
    renewal_backend::RenewalBackend,
    session::SessionInner,
    share::SharingBackend,
    stats::{Counter, Counters, PeakGauge},
};
use crate::{
    cookies::{self, Jar},
    gate::{ConfigError, GateConfig, GateRef, Limits},
    jitter::Jitter,
    profile::{Profile, ProfilePicker, Profiles, UnknownProfile},
};

/// All sessions of one program: created on first use, found by name, bounded in number if a bound is set.
///
/// The layers of one stack are built on the same `Sessions`.
///
/// ```
/// use tower_client_sessions::Sessions;
///
/// let sessions = Sessions::new();
/// assert!(sessions.get("alice").is_none(), "looking never creates");
///
/// let alice = sessions.session("alice");
/// alice.add_cookies([("token", "abc==")], "https://shop.example/")?;
/// assert_eq!(alice.cookies().len(), 1);
/// assert!(!alice.to_string().contains("abc=="), "values are never shown");
/// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
/// ```
///
/// # Clone
///
/// Clones share the sessions.
#[derive(Clone)]
pub struct Sessions {
    pub(crate) registry: Arc<Registry>,
}

/// The sessions by name.
pub(crate) struct Registry {
    map: papaya::HashMap<IdRepr, Arc<SessionInner>, foldhash::quality::RandomState>,
    pub(crate) context: Arc<RegistryContext>,
    max_sessions: Option<usize>,
    /// Counts creations, twice each: the clock of `last_used`.
    epoch: AtomicU64,
    /// Held while a session is created or dropped, never on the way to one that is there.
    creation: Mutex<EvictionQueue>,
    /// Held while a file is written.
    #[cfg(feature = "formats")]
    pub(crate) saving: Mutex<()>,
}

/// Sessions by when they were used, as far as is known: one may have been used since it was entered here.
type EvictionQueue = BinaryHeap<Reverse<(u64, SessionId)>>;

/// What every session of one registry shares.
pub(crate) struct RegistryContext {
    registry: Weak<Registry>,
    profiles: Option<Profiles>,
    cookie_limits: cookies::Limits,
    pub(crate) clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    pub(crate) login_first: bool,
    pub(crate) default_session: Option<SessionId>,
    /// What shares the sessions with other processes.
    pub(crate) share: Option<Arc<dyn SharingBackend>>,
    pub(crate) trace_cookie_values: bool,
    /// Seeds the jitter of each session.
    pub(crate) jitter: Jitter,
    /// The stacks that can renew, owned by their services; the last that is alive is the one that does.
    backends: Mutex<Vec<Weak<dyn RenewalBackend>>>,
    origin: Instant,
    pub(crate) waiting: PeakGauge,
    /// The names of the pools that stand on these sessions.
    pools: Mutex<Vec<String>>,
    /// What dropped sessions have counted.
    pub(crate) departed: Counters,
    evicted_count: Counter,
    over_limit: Counter,
    #[cfg(feature = "formats")]
    pub(crate) dirty: super::dirty::DirtyFlag,
    pub(crate) events: EventBus,
    pub(crate) metrics: SessionMetrics,
}

impl Sessions {
    /// Creates sessions without a bound, without profiles and without a default session.
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }

    /// Starts from the defaults that each setter names.
    pub fn builder() -> SessionsBuilder {
        SessionsBuilder {
            max_sessions: None,
            profiles: None,
            cookie_limits: cookies::Limits::default(),
            clock: Box::new(SystemTime::now),
            login_first: false,
            default_session: None,
            share: Ok(None),
            trace_cookie_values: false,
            event_capacity: 4096,
            jitter: Jitter::random(),
        }
    }

    /// The session of this name, created if it is new.
    ///
    /// This never fails: when all sessions of a bounded registry are in use, the bound is passed, and
    /// [`Stats::sessions_over_limit`] counts it.
    pub fn session(&self, id: impl Into<SessionId>) -> Session {
        self.registry.session(&id.into())
    }

    /// The session of this name, created with the profile of the name `profile` if it is new, and
    /// [pinned](Session::pin_profile) to it. One that is there already has it from its next identity on.
    ///
    /// # Errors
    ///
    /// If there is no profile of that name; then no session was created.
    pub fn pinned_session(&self, id: impl Into<SessionId>, profile: &str) -> Result<Session, UnknownProfile> {
        let profile_picker =
            self.registry.context.profile_picker().ok_or_else(|| UnknownProfile::new(profile))?;
        profile_picker.pin(profile)?;
        let make = |id, context| Session::create(id, context, Some(profile_picker));
        let (session, created) = self.registry.find_or_create(&id.into(), make);
        if !created {
            session.pin_profile(profile)?;
        }
        Ok(session)
    }

    /// Lets `profile`, and all that are equal to it, rest for as long as [`Profiles::rest`] says: nobody draws it while another
    /// one is free. It comes back by itself. `false`: it is not one of these sessions' profiles.
    ///
    /// Sessions that wear it keep it; [`clear`](Session::clear) and a renewal give them another.
    ///
    /// ```
    /// use tower_client_sessions::{Profile, Profiles, Sessions};
    ///
    /// let profile = |port| Profile::builder().proxy(format!("http://127.0.0.1:{port}").as_str()).build();
    /// let sessions = Sessions::builder().profiles(Profiles::new([profile(8001)?, profile(8002)?])?).build().unwrap();
    /// let alice = sessions.session("alice");
    ///
    /// // Its proxy does not answer: the next ones get another.
    /// let bad = alice.profile().expect("these sessions have profiles");
    /// assert!(sessions.mark_profile_bad(&bad));
    /// alice.clear();
    /// for session in ["alice", "bob", "carol"] {
    ///     assert_ne!(sessions.session(session).profile(), Some(bad.clone()));
    /// }
    /// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
    /// ```
    pub fn mark_profile_bad(&self, profile: &Profile) -> bool {
        self.registry.context.mark_profile_bad(profile)
    }

    /// The session of this name, if there is one.
    pub fn get(&self, id: impl Into<SessionId>) -> Option<Session> {
        let id = id.into();
        self.registry.find(&id).or_else(|| {
            // The session may just be about to be dropped; whoever decides that holds this lock.
            let _creation = self.registry.creation.lock();
            self.registry.find(&id)
        })
    }

    /// Takes the session of this name out, and returns it.
    ///
    /// Requests that are on their way or held go on with it, and so do its handles; it is no session of these any more, and the
    /// name is free. A request that names it afterwards gets a new one. What it has counted since is added to
    /// [`stats`](Self::stats) when its last request and handle are gone.
    pub fn remove(&self, id: impl Into<SessionId>) -> Option<Session> {
        self.registry.remove(&id.into())
    }

    /// The number of sessions.
    pub fn len(&self) -> usize {
        self.registry.map.len()
    }

    /// Whether there are no sessions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All sessions, in no order.
    pub fn all(&self) -> Vec<Session> {
        self.registry.all()
    }

    /// Subscribes to what happens from now on: to sessions, their renewals and the requests that begin from now on.
    ///
    /// No request waits for a subscriber, and without one a request looks once whether there is one, and no more.
    pub fn events(&self) -> Events {
        let context = &self.registry.context;
        Events::new(context.events.subscribe(), Arc::downgrade(context))
    }

    /// What happened to all sessions so far, those that were dropped included.
    pub fn stats(&self) -> Stats {
        let context = &self.registry.context;
        let mut stats = Stats::default();
        let _creation = self.registry.creation.lock();
        for session in self.registry.map.pin().values() {
            session.counters.add_to(&mut stats);
        }
        context.departed.add_to(&mut stats);
        stats.waiting_peak = context.waiting.peak();
        stats.sessions_evicted = context.evicted_count.get();
        stats.sessions_over_limit = context.over_limit.get();
        stats
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

/// Every session, without any cookie's value.
impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.all();
        all.sort_by(|one, other| one.id().cmp(other.id()));
        for (position, session) in all.iter().enumerate() {
            write!(f, "{}{session}", if position == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Settings of [`Sessions`].
#[must_use = "a builder does nothing until `build`"]
pub struct SessionsBuilder {
    max_sessions: Option<usize>,
    profiles: Option<Profiles>,
    cookie_limits: cookies::Limits,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    login_first: bool,
    default_session: Option<SessionId>,
    pub(crate) share: Result<Option<Arc<dyn SharingBackend>>, ConfigError>,
    trace_cookie_values: bool,
    event_capacity: usize,
    jitter: Jitter,
}

impl SessionsBuilder {
    /// Bounds the number of sessions. Default: no bound.
    ///
    /// Beyond it, the one that was used longest ago is dropped, never one that is in use: whose handle somebody holds, that has
    /// requests on their way or held, or that is being renewed. "Used" is counted in creations: among sessions used since the
    /// last creation, any may go first.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = Some(sessions);
        self
    }

    /// Gives every new identity a profile out of `profiles`. Default: none.
    pub fn profiles(mut self, profiles: Profiles) -> Self {
        self.profiles = Some(profiles);
        self
    }

    /// Bounds the cookies of each identity. Default: [`Limits::default`](cookies::Limits::default).
    pub fn cookie_limits(mut self, limits: cookies::Limits) -> Self {
        self.cookie_limits = limits;
        self
    }

    /// Sets the session of requests that name none. Default: none, and such a request is an error.
    pub fn default_session(mut self, id: impl Into<SessionId>) -> Self {
        self.default_session = Some(id.into());
        self
    }

    /// Starts sessions with nothing current, so that the first request waits for a renewal instead of trying without one.
    /// Default: sessions start with an empty jar.
    pub fn login_first(mut self) -> Self {
        self.login_first = true;
        self
    }

    /// Shows the values of cookies in `tracing` events. Default: they are not shown anywhere.
    pub fn trace_cookie_values(mut self) -> Self {
        self.trace_cookie_values = true;
        self
    }

    /// Sets the clock that cookies expire by. Default: [`SystemTime::now`].
    ///
    /// It may be called while a session is locked: it must not use the sessions itself.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Box::new(now);
        self
    }

    /// Sets how many events are kept for subscribers that have not read them yet. Default: 4096.
    ///
    /// Rounded up to a power of two, and down to 2^24. They take memory, about 100 bytes each, once somebody has
    /// [subscribed](Sessions::events).
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events;
        self
    }

    /// Draws the jitter of back-offs and budgets from this seed, so that a test with a paused clock and one thread repeats
    /// exactly. Default: a random one.
    ///
    /// Programs must not agree on a seed: jitter is there to keep them apart.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter = Jitter::seeded(seed);
        self
    }

    /// Builds the sessions.
    ///
    /// # Errors
    ///
    /// If `max_sessions` or `event_capacity` is zero.
    pub fn build(self) -> Result<Sessions, ConfigError> {
        ConfigError::unless(self.max_sessions != Some(0), "max_sessions")?;
        ConfigError::unless(self.event_capacity != 0, "event_capacity")?;
        let share = self.share?;
        if let Some(share) = &share {
            share.seed(self.jitter.draw());
        }
        let registry = Arc::new_cyclic(|registry| Registry {
            map: papaya::HashMap::default(),
            context: Arc::new(RegistryContext {
                registry: registry.clone(),
                profiles: self.profiles,
                cookie_limits: self.cookie_limits,
                clock: self.clock,
                login_first: self.login_first,
                default_session: self.default_session,
                share,
                trace_cookie_values: self.trace_cookie_values,
                jitter: self.jitter,
                backends: Mutex::new(Vec::new()),
                origin: Instant::now(),
                waiting: PeakGauge::default(),
                pools: Mutex::new(Vec::new()),
                departed: Counters::default(),
                evicted_count: Counter::default(),
                over_limit: Counter::default(),
                #[cfg(feature = "formats")]
                dirty: super::dirty::DirtyFlag::new(),
                events: EventBus::new(self.event_capacity),
                metrics: SessionMetrics::new(),
            }),
            max_sessions: self.max_sessions,
            epoch: AtomicU64::new(0),
            creation: Mutex::new(EvictionQueue::new()),
            #[cfg(feature = "formats")]
            saving: Mutex::new(()),
        });
        Ok(Sessions { registry })
    }
}

impl fmt::Debug for SessionsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsBuilder")
            .field("max_sessions", &self.max_sessions)
            .field("profiles", &self.profiles)
            .field("cookie_limits", &self.cookie_limits)
            .field("login_first", &self.login_first)
            .field("default_session", &self.default_session)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// The session of this name, created if it is new; only then is the name copied.
    pub(crate) fn session(&self, id: &SessionId) -> Session {
        self.find(id).unwrap_or_else(|| {
            let make = |id, context: Arc<RegistryContext>| {
                let profile_picker = context.profile_picker();
                Session::create(id, context, profile_picker)
            };
            self.find_or_create(id, make).0
        })
    }

    /// A new session, unless there is one of this name.
    pub(crate) fn create(
        &self,
        id: SessionId,
        make: impl FnOnce(SessionId, Arc<RegistryContext>) -> Session,
    ) -> Option<Session> {
        let (session, created) = self.find_or_create(&id, make);
        created.then_some(session)
    }

    /// Makes the session of this name, new or not, what `initial` says.
    #[cfg(feature = "serde")]
    pub(crate) fn begin(&self, id: SessionId, initial: super::session::InitialState) -> Session {
        let mut initial = Some(initial);
        let make = |id, context: Arc<RegistryContext>| {
            let profile_picker = context.profile_picker();
            Session::with(id, context, profile_picker, initial.take().expect("a session is made once"))
        };
        let (session, _) = self.find_or_create(&id, make);
        if let Some(initial) = initial {
            session.restart(initial);
        }
        session
    }

    /// All sessions, in no order.
    pub(crate) fn all(&self) -> Vec<Session> {
        let _creation = self.creation.lock();
        self.map.pin().values().cloned().map(Session::of).collect()
    }

    /// All sessions, those used last at the end as far as that is known.
    #[cfg(feature = "serde")]
    pub(crate) fn by_use(&self) -> Vec<Session> {
        let mut all = self.all();
        all.sort_by_cached_key(|session| (session.0.last_used.load(Ordering::Relaxed), session.id().clone()));
        all
    }

    #[cfg(feature = "serde")]
    pub(crate) fn max_sessions(&self) -> Option<usize> {
        self.max_sessions
    }

    /// The session of a pool's member, created if it is new.
    pub(crate) fn member(&self, id: SessionId) -> Session {
        match self.find(&id) {
            Some(session) => session,
            None => self.find_or_create(&id, Session::create_member).0,
        }
    }

    /// The session, if it is there and stays: the way that every request takes.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Session> {
        let session = Session::of(self.map.pin().get(id.name())?.clone());
        if self.max_sessions.is_some() {
            // Pairs with the fence in `drop_oldest`: either this sees the mark, or that sees the clone just made.
            fence(Ordering::SeqCst);
            if session.0.evicted.load(Ordering::Relaxed) {
                return None;
            }
            // Odd: used after the creation that set the epoch. Written only when it changes, to keep the line shared.
            let now = self.epoch.load(Ordering::Relaxed) | 1;
            if session.0.last_used.load(Ordering::Relaxed) != now {
                session.0.last_used.store(now, Ordering::Relaxed);
            }
        }
        Some(session)
    }

    fn find_or_create(
        &self,
        id: &SessionId,
        make: impl FnOnce(SessionId, Arc<RegistryContext>) -> Session,
    ) -> (Session, bool) {
        // The name alone: it may come out of a request that was sent.
        let id = SessionId::from(id);
        let mut queue = self.creation.lock();
        // Under the lock nobody decides about dropping it, so that a mark is never seen here.
        if let Some(session) = self.find(&id) {
            return (session, false);
        }
        let session = make(id.clone(), self.context.clone());
        let mut evicted = Vec::new();
        // PollProfile at before anybody else can change it.
        let first = self.context.events.is_watched().then(|| session.generation()).flatten();
        if let Some(max_sessions) = self.max_sessions {
            let now = self.epoch.fetch_add(2, Ordering::Relaxed) + 2;
            session.0.last_used.store(now, Ordering::Relaxed);
            queue.push(Reverse((now, id.clone())));
            self.map.pin().insert(id.name().clone(), session.0.clone());
            while self.map.len() > max_sessions {
                match self.drop_oldest(&mut queue, now) {
                    Some(session) => evicted.push(session),
                    None => {
                        self.context.over_limit.add();
                        break;
                    }
                }
            }
        } else {
            self.map.pin().insert(id.name().clone(), session.0.clone());
        }
        drop(queue);
        self.context.metrics.created.add();
        self.context.metrics.live.up();
        self.context.tell(session.id(), EventKind::Created);
        if let Some(generation) = first {
            self.context.tell(session.id(), EventKind::Activated { generation });
        }
        for session in evicted {
            // The map may keep what it has removed for a while; its profile is free at once, and its cookies are gone.
            session.gate().close();
            self.context.tell(session.id(), EventKind::Evicted);
        }
        self.context.changed();
        (session, true)
    }

    /// Takes this very session out, if it is here.
    pub(crate) fn forget(&self, session: &Session) {
        self.take_out(session.id(), |known| Arc::ptr_eq(known, &session.0));
    }

    /// Takes the session of this name out.
    fn remove(&self, id: &SessionId) -> Option<Session> {
        self.take_out(id, |_| true)
    }

    fn take_out(&self, id: &SessionId, is_it: impl FnOnce(&Arc<SessionInner>) -> bool) -> Option<Session> {
        let session = {
            let _creation = self.creation.lock();
            let guard = self.map.guard();
            if !self.map.get(id.name(), &guard).is_some_and(is_it) {
                return None;
            }
            let session = Session::of(self.map.remove(id.name(), &guard)?.clone());
            session.0.leave(&self.context.departed);
            // The map keeps what was removed for a while, and with it a profile that others may wait for.
            guard.flush();
            session
        };
        self.context.metrics.live.down(1);
        self.context.changed();
        self.context.tell(id, EventKind::Removed);
        Some(session)
    }

    /// Gives a session that is here another name; `false` if that is taken, or it is not here.
    pub(crate) fn rename(&self, session: &Session, to: SessionId) -> bool {
        let mut queue = self.creation.lock();
        let guard = self.map.guard();
        let from = session.id().clone();
        let is_here = self.map.get(from.name(), &guard).is_some_and(|here| Arc::ptr_eq(here, &session.0));
        if !is_here || self.map.contains_key(to.name(), &guard) {
            return false;
        }
        session.0.names.push(to.clone());
        // Found under both names for a moment, rather than under none.
        self.map.insert(to.name().clone(), session.0.clone(), &guard);
        self.map.remove(from.name(), &guard);
        // What the map keeps of it for a while would count as in use.
        guard.flush();
        if self.max_sessions.is_some() {
            queue.push(Reverse((session.0.last_used.load(Ordering::Relaxed), to.clone())));
        }
        drop((guard, queue));
        self.context.tell(&from, EventKind::Renamed { to });
        true
    }

    /// Drops the session used longest ago that is not in use. `None`: none was found among those looked at.
    fn drop_oldest(&self, queue: &mut EvictionQueue, now: u64) -> Option<Session> {
        /// A creation looks at so many and no more; the next one goes on from there.
        const EVICTION_SCAN_LIMIT: usize = 256;
        let map = self.map.pin();
        for _ in 0..EVICTION_SCAN_LIMIT {
            let Reverse((entered, id)) = queue.pop()?;
            let Some(session) = map.get(id.name()) else {
                continue;
            };
            let used = session.last_used.load(Ordering::Relaxed);
            if used > entered {
                queue.push(Reverse((used, id)));
                continue;
            }
            session.evicted.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if Arc::strong_count(session) == 1 && session.gate.is_idle() {
                if self.context.evicted_count.get() == 0 {
                    tracing::warn!(session = %id, "a session was dropped to keep within max_sessions; further ones are counted");
                }
                self.context.evicted_count.add();
                self.context.metrics.evicted.add();
                self.context.metrics.live.down(1);
                self.context.departed.add_all(&session.counters);
                map.remove(id.name());
                return Some(Session::of(session.clone()));
            }
            session.evicted.store(false, Ordering::Relaxed);
            // In use: as good as used now.
            session.last_used.store(now | 1, Ordering::Relaxed);
            queue.push(Reverse((now | 1, id)));
        }
        None
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.context.metrics.live.down(self.map.len());
    }
}

impl RegistryContext {
    /// Something of what a snapshot keeps has changed. To be called after the change, outside the locks.
    pub(crate) fn changed(&self) {
        #[cfg(feature = "formats")]
        self.dirty.tell();
    }

    pub(crate) fn registry(&self) -> Option<Arc<Registry>> {
        self.registry.upgrade()
    }

    /// The time since some moment before these sessions were made. It follows tokio's clock, paused or not.
    pub(crate) fn now(&self) -> Duration {
        // Identities may be older than the program.
        const BEFORE: Duration = Duration::from_secs(100 * 365 * 86_400);
        BEFORE + self.origin.elapsed()
    }

    pub(crate) fn jar(&self) -> Jar {
        Jar::with_limits(self.cookie_limits)
    }

    #[cfg(feature = "serde")]
    pub(crate) fn profiles(&self) -> Option<&Profiles> {
        self.profiles.as_ref()
    }

    /// One who draws profiles, if there are any.
    pub(crate) fn profile_picker(&self) -> Option<Arc<ProfilePicker>> {
        self.profiles.as_ref().map(Profiles::picker)
    }

    pub(crate) fn mark_profile_bad(&self, profile: &Profile) -> bool {
        self.profiles.as_ref().is_some_and(|profiles| profiles.mark_bad(profile, self.std_now()))
    }

    /// The time by tokio's clock in the form of the standard library's, which lists of profiles go by.
    pub(crate) fn std_now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    pub(crate) fn backend(&self) -> Option<Arc<dyn RenewalBackend>> {
        self.backends.lock().iter().rev().find_map(Weak::upgrade)
    }

    /// Makes `backend` the one that sessions are renewed through, for as long as it lives.
    pub(crate) fn add_backend(&self, backend: Weak<dyn RenewalBackend>) {
        let mut backends = self.backends.lock();
        backends.retain(|backend| backend.strong_count() > 0);
        backends.push(backend);
    }

    /// Gives a name to a pool; `false` if another has it.
    pub(crate) fn claim_pool(&self, name: &str) -> bool {
        let mut pools = self.pools.lock();
        let is_free = pools.iter().all(|taken| taken != name);
        if is_free {
            pools.push(name.to_owned());
        }
        is_free
    }

    pub(crate) fn release_pool(&self, name: &str) {
        self.pools.lock().retain(|taken| taken != name);
    }

    pub(crate) fn limits(&self) -> Limits {
        self.backend().map_or_else(|| GateConfig::new().limits, |backend| backend.limits())
    }
}

impl SessionInner {
    /// Where nobody renews, what is pending simply becomes current.
    pub(crate) fn adopt_pending(self: &Arc<Self>) {
        GateRef::new(self).adopt_pending(|pending, generation| match pending {
            Some(pending) => self.successor(pending, generation),
            None => unreachable!("a session without a current identity has a pending one"),
        });
    }
}
