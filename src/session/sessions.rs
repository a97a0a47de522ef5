//! The registry of sessions, and its builder.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::SystemTime,
};

use papaya::Guard;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Session, SessionId, SessionInner, Stats,
    context::RegistryContext,
    events::{EventBus, EventKind, Events},
    id::IdRepr,
    metrics::SessionMetrics,
    share::SharingBackend,
    stats::{Counter, Counters, PeakGauge},
};
use crate::{
    cookies,
    gate::ConfigError,
    jitter::Jitter,
    profile::{Profile, Profiles, UnknownProfile},
};

/// A registry of sessions: creates them on first use, finds them by id, and can limit their number.
///
/// All layers of one stack are built with the same `Sessions`.
///
/// # Clone
///
/// Clones share the sessions.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::Sessions;
///
/// let sessions = Sessions::new();
/// assert!(sessions.get("alice").is_none(), "`get` never creates a session");
///
/// let alice = sessions.session("alice");
/// alice.add_cookies([("token", "abc==")], "https://shop.example/")?;
/// assert_eq!(alice.cookies().len(), 1);
/// assert!(!alice.to_string().contains("abc=="), "values are never shown");
/// # Ok::<(), tower_client_sessions::cookies::CookieError>(())
/// ```
#[derive(Clone)]
pub struct Sessions {
    pub(crate) registry: Arc<Registry>,
}

/// The sessions by id.
pub(crate) struct Registry {
    map: papaya::HashMap<IdRepr, Arc<SessionInner>, foldhash::quality::RandomState>,
    pub(crate) context: Arc<RegistryContext>,
    max_sessions: Option<usize>,
    /// Counts creations in steps of two: the clock of `last_used`.
    epoch: AtomicU64,
    /// Locked while a session is created, renamed or removed; not locked to find an existing one.
    creation: Mutex<EvictionQueue>,
    /// Locked while a file is written.
    #[cfg(feature = "formats")]
    pub(super) saving: Mutex<()>,
}

/// Sessions in the order of their last use. An entry is out of date if its session was used after
/// it was pushed.
type EvictionQueue = BinaryHeap<Reverse<(u64, SessionId)>>;

impl Sessions {
    /// Creates a registry without a limit, without profiles and without a default session.
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }

    /// Returns a builder with the defaults that its methods state.
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

    /// Returns the session with this id, and creates it if there is none.
    ///
    /// This never fails. If the number of sessions is limited and all of them are in use, the limit
    /// is exceeded, and [`Stats::sessions_over_limit`] counts it.
    pub fn session(&self, id: impl Into<SessionId>) -> Session {
        self.registry.session(&id.into())
    }

    /// Returns the session with this id, [pinned](Session::pin_profile) to a profile.
    ///
    /// A new session starts with that profile. An existing one has it from its next identity on.
    ///
    /// # Errors
    ///
    /// If no profile is named `profile`. No session was created.
    pub fn pinned_session(&self, id: impl Into<SessionId>, profile: &str) -> Result<Session, UnknownProfile> {
        let picker = self.registry.context.profile_picker().ok_or_else(|| UnknownProfile::new(profile))?;
        picker.pin(profile)?;
        let make = |id, context| Session::create(id, context, Some(picker));
        let (session, created) = self.registry.find_or_create(&id.into(), make);
        if !created {
            session.pin_profile(profile)?;
        }
        Ok(session)
    }

    /// Puts a profile, and all profiles equal to it, into cooldown.
    ///
    /// The profile is not drawn for as long as [`Profiles::cooldown`] says, unless no other one is
    /// free. Returns `false` if it is not one of these sessions' profiles.
    ///
    /// Sessions that have the profile keep it until they are [cleared](Session::clear) or renewed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::{Profile, Profiles, Sessions};
    ///
    /// let profile = |proxy| Profile::builder().proxy(proxy).build();
    /// let proxies = [profile("http://127.0.0.1:8001")?, profile("http://127.0.0.1:8002")?];
    /// let profiles = Profiles::new(proxies)?;
    /// let sessions = Sessions::builder().profiles(profiles).build()?;
    /// let alice = sessions.session("alice");
    ///
    /// // The proxy does not respond: new identities get the other one.
    /// let bad = alice.profile().expect("these sessions have profiles");
    /// assert!(sessions.mark_profile_bad(&bad));
    /// alice.clear();
    /// for session in ["alice", "bob", "carol"] {
    ///     assert_ne!(sessions.session(session).profile(), Some(bad.clone()));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mark_profile_bad(&self, profile: &Profile) -> bool {
        self.registry.context.mark_profile_bad(profile)
    }

    /// Returns the session with this id, if there is one.
    pub fn get(&self, id: impl Into<SessionId>) -> Option<Session> {
        let id = id.into();
        self.registry.find(&id).or_else(|| {
            // The session may be marked for eviction. That is decided under this lock.
            let _creation = self.registry.creation.lock();
            self.registry.find(&id)
        })
    }

    /// Removes the session with this id and returns it.
    ///
    /// Its handles, its requests in flight and its waiting requests keep working. The id is free: a
    /// later request with it gets a new session. What the removed session counts from now on is
    /// added to [`stats`](Self::stats) when its last request and handle are dropped.
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

    /// All sessions, in no particular order.
    pub fn all(&self) -> Vec<Session> {
        self.registry.all()
    }

    /// Subscribes to events of sessions, renewals and requests.
    ///
    /// The subscription starts now; requests that have already started are not reported. A slow
    /// subscriber never blocks a request. Without subscribers, a request only loads their number.
    pub fn events(&self) -> Events {
        let context = &self.registry.context;
        Events::new(context.events.subscribe(), Arc::downgrade(context))
    }

    /// The counters of all sessions, including evicted and removed ones.
    pub fn stats(&self) -> Stats {
        let context = &self.registry.context;
        let mut stats = Stats::default();
        let _creation = self.registry.creation.lock();
        for session in self.registry.map.pin().values() {
            session.counters.add_to(&mut stats);
        }
        context.departed.add_to(&mut stats);
        stats.waiting_peak = context.waiting.peak();
        stats.sessions_evicted = context.evicted.get();
        stats.sessions_over_limit = context.over_limit.get();
        stats
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows every session, without the values of cookies.
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

/// Builder of [`Sessions`].
#[must_use = "a builder does nothing until `build` is called"]
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
    /// Limits the number of sessions. Default: no limit.
    ///
    /// When the limit is exceeded, the least recently used session is evicted. A session in use is
    /// never evicted: one with a handle, with requests in flight or waiting, or with a running
    /// renewal.
    ///
    /// Use is measured in creations: of the sessions used since the last creation, any may be
    /// evicted first.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = Some(sessions);
        self
    }

    /// Assigns one of `profiles` to each new identity. Default: no profiles.
    pub fn profiles(mut self, profiles: Profiles) -> Self {
        self.profiles = Some(profiles);
        self
    }

    /// Limits the cookies of each identity. Default: [`Limits::default`](cookies::Limits::default).
    pub fn cookie_limits(mut self, limits: cookies::Limits) -> Self {
        self.cookie_limits = limits;
        self
    }

    /// Sets the session of requests that name none. Default: none; such a request fails.
    pub fn default_session(mut self, id: impl Into<SessionId>) -> Self {
        self.default_session = Some(id.into());
        self
    }

    /// Starts sessions without a current identity, so that the first request waits for a renewal.
    /// Default: sessions start with an empty jar.
    pub fn login_first(mut self) -> Self {
        self.login_first = true;
        self
    }

    /// Shows the values of cookies in `tracing` events. Default: values are never shown.
    pub fn trace_cookie_values(mut self) -> Self {
        self.trace_cookie_values = true;
        self
    }

    /// Sets the clock that cookies expire by. Default: [`SystemTime::now`].
    ///
    /// The function may be called while a session is locked, so it must not use the sessions.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Box::new(now);
        self
    }

    /// Sets the number of events that are buffered for slow subscribers. Default: 4096.
    ///
    /// The number is rounded up to a power of two and capped at 2^24. The first
    /// [subscription](Sessions::events) allocates the buffer, about 100 bytes per event.
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events;
        self
    }

    /// Seeds the jitter of backoffs and limits. Default: a random seed.
    ///
    /// With a seed, a test on one thread with a paused clock is reproducible. Do not use the same
    /// seed in several processes: jitter keeps them from acting at the same time.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter = Jitter::seeded(seed);
        self
    }

    /// Builds the sessions.
    ///
    /// # Errors
    ///
    /// If `max_sessions` or `event_capacity` is zero, or if the configuration of sharing is
    /// invalid.
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
                evicted: Counter::default(),
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
    /// Returns the session with this id, and creates it if there is none. Only then is the id
    /// copied.
    pub(super) fn session(&self, id: &SessionId) -> Session {
        self.find(id).unwrap_or_else(|| {
            let make = |id, context: Arc<RegistryContext>| {
                let picker = context.profile_picker();
                Session::create(id, context, picker)
            };
            self.find_or_create(id, make).0
        })
    }

    /// Creates a session, unless there is one with this id.
    pub(super) fn create(
        &self,
        id: SessionId,
        make: impl FnOnce(SessionId, Arc<RegistryContext>) -> Session,
    ) -> Option<Session> {
        let (session, created) = self.find_or_create(&id, make);
        created.then_some(session)
    }

    /// Creates or restarts the session with this id in the state `initial`.
    #[cfg(feature = "serde")]
    pub(super) fn restart(&self, id: SessionId, initial: super::initial::InitialState) -> Session {
        let mut initial = Some(initial);
        let make = |id, context: Arc<RegistryContext>| {
            let picker = context.profile_picker();
            Session::with(id, context, picker, initial.take().expect("`make` is called at most once"))
        };
        let (session, _) = self.find_or_create(&id, make);
        if let Some(initial) = initial {
            session.restart(initial);
        }
        session
    }

    /// All sessions, in no particular order.
    pub(crate) fn all(&self) -> Vec<Session> {
        let _creation = self.creation.lock();
        self.map.pin().values().cloned().map(Session::of).collect()
    }

    /// All sessions, the most recently used last, as far as the registry knows.
    #[cfg(feature = "serde")]
    pub(super) fn by_use(&self) -> Vec<Session> {
        let mut all = self.all();
        all.sort_by_cached_key(|session| (session.0.last_used.load(Ordering::Relaxed), session.id().clone()));
        all
    }

    #[cfg(feature = "serde")]
    pub(super) fn max_sessions(&self) -> Option<usize> {
        self.max_sessions
    }

    /// Returns the session of a pool member, and creates it if there is none.
    pub(crate) fn member(&self, id: SessionId) -> Session {
        match self.find(&id) {
            Some(session) => session,
            None => self.find_or_create(&id, Session::create_member).0,
        }
    }

    /// Returns the session unless it is missing or marked for eviction. Every request calls this.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Session> {
        let session = Session::of(self.map.pin().get(id.repr())?.clone());
        if self.max_sessions.is_some() {
            // Pairs with the fence in `evict_oldest`: either this sees the mark, or that sees this
            // clone.
            fence(Ordering::SeqCst);
            if session.0.evicted.load(Ordering::Relaxed) {
                return None;
            }
            // Odd: used after the creation that set the epoch. Stored only if it differs, so that
            // the cache line stays shared.
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
        // Without the attached identity: the id may come from a request that was sent.
        let id = SessionId::from(id);
        let mut queue = self.creation.lock();
        // Marks are set and cleared under this lock, so that none is seen here.
        if let Some(session) = self.find(&id) {
            return (session, false);
        }
        let session = make(id.clone(), self.context.clone());
        let mut evicted = Vec::new();
        // Read before another thread can change it.
        let first = self.context.events.has_subscribers().then(|| session.generation()).flatten();
        if let Some(max_sessions) = self.max_sessions {
            let now = self.epoch.fetch_add(2, Ordering::Relaxed) + 2;
            session.0.last_used.store(now, Ordering::Relaxed);
            queue.push(Reverse((now, id.clone())));
            self.map.pin().insert(id.repr().clone(), session.0.clone());
            while self.map.len() > max_sessions {
                match self.evict_oldest(&mut queue, now) {
                    Some(session) => evicted.push(session),
                    None => {
                        self.context.over_limit.add();
                        break;
                    }
                }
            }
        } else {
            self.map.pin().insert(id.repr().clone(), session.0.clone());
        }
        drop(queue);
        self.context.metrics.created.add();
        self.context.metrics.live.up();
        self.context.publish(session.id(), EventKind::Created);
        if let Some(generation) = first {
            self.context.publish(session.id(), EventKind::Activated { generation });
        }
        for session in evicted {
            // The map may reclaim the session later. Closing it frees its profile and its cookies
            // now.
            session.gate().close();
            self.context.publish(session.id(), EventKind::Evicted);
        }
        self.context.changed();
        (session, true)
    }

    /// Removes this very session, if it is registered.
    pub(crate) fn forget(&self, session: &Session) {
        self.take_out(session.id(), |known| Arc::ptr_eq(known, &session.0));
    }

    /// Removes the session with this id.
    fn remove(&self, id: &SessionId) -> Option<Session> {
        self.take_out(id, |_| true)
    }

    fn take_out(&self, id: &SessionId, is_it: impl FnOnce(&Arc<SessionInner>) -> bool) -> Option<Session> {
        let session = {
            let _creation = self.creation.lock();
            let guard = self.map.guard();
            if !self.map.get(id.repr(), &guard).is_some_and(is_it) {
                return None;
            }
            let session = Session::of(self.map.remove(id.repr(), &guard)?.clone());
            session.0.leave(&self.context.departed);
            // The map reclaims removed entries later, and other sessions may wait for this one's
            // profile.
            guard.flush();
            session
        };
        self.context.metrics.live.down(1);
        self.context.changed();
        self.context.publish(id, EventKind::Removed);
        Some(session)
    }

    /// Changes the id of a registered session. Returns `false` if it is not registered, or if the
    /// new id is taken.
    pub(super) fn rename(&self, session: &Session, to: SessionId) -> bool {
        let mut queue = self.creation.lock();
        let guard = self.map.guard();
        let from = session.id().clone();
        let is_here = self.map.get(from.repr(), &guard).is_some_and(|here| Arc::ptr_eq(here, &session.0));
        if !is_here || self.map.contains_key(to.repr(), &guard) {
            return false;
        }
        session.0.names.push(to.clone());
        // Inserted first: for a moment it is found under both ids rather than under none.
        self.map.insert(to.repr().clone(), session.0.clone(), &guard);
        self.map.remove(from.repr(), &guard);
        // The removed entry's reference would count as a use of the session.
        guard.flush();
        if self.max_sessions.is_some() {
            queue.push(Reverse((session.0.last_used.load(Ordering::Relaxed), to.clone())));
        }
        drop((guard, queue));
        self.context.publish(&from, EventKind::Renamed { to });
        true
    }

    /// Evicts the least recently used session that is not in use. `None` if the scan found none.
    fn evict_oldest(&self, queue: &mut EvictionQueue, now: u64) -> Option<Session> {
        /// Bounds the cost of one creation. The next one continues with the rest of the queue.
        const EVICTION_SCAN_LIMIT: usize = 256;
        let map = self.map.pin();
        for _ in 0..EVICTION_SCAN_LIMIT {
            let Reverse((entered, id)) = queue.pop()?;
            let Some(session) = map.get(id.repr()) else {
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
                if self.context.evicted.get() == 0 {
                    tracing::warn!(
                        session = %id,
                        "a session was evicted because of max_sessions; further ones are only counted"
                    );
                }
                self.context.evicted.add();
                self.context.metrics.evicted.add();
                self.context.metrics.live.down(1);
                self.context.departed.add_all(&session.counters);
                map.remove(id.repr());
                return Some(Session::of(session.clone()));
            }
            session.evicted.store(false, Ordering::Relaxed);
            // In use, which counts as used now.
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
