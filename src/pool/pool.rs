//! A pool, as its users hold it, and its settings.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Lease, Member, MemberSnapshot, Outcome, PoolConfigError, PoolError, PoolSnapshot, PoolStats, Verdict,
    affinity::{self, Acquisition},
    ready::SelectionOrder,
    runtime::Pool,
    settings::{Classify, Settings, StickyKey},
    strategy::{Picker, RequestView, Strategy},
    types::{BAD_MARK_MILLIS, Key, LeaseRequest, Limits, MemberNumber, Phase},
};
use crate::{
    gate::{ConfigError, RenewalError},
    session::{Session, SessionId, Sessions},
};

/// Many sessions that work as one: each request that names no session is given one of them.
///
/// [`builder`](Self::builder) makes one, and [`PoolLayer`](super::PoolLayer) puts it into a stack. See the
/// [module](super) for the whole story.
///
/// # Clone
///
/// Clones are the same pool.
#[derive(Clone)]
pub struct SessionPool(pub(crate) Arc<Pool>);

impl SessionPool {
    /// Starts from the defaults that each setter names. The pool's sessions are among `sessions`.
    pub fn builder(sessions: &Sessions) -> SessionPoolBuilder {
        SessionPoolBuilder {
            sessions: sessions.clone(),
            name: String::from("pool"),
            size: 8,
            max_in_flight: None,
            min_delay: Duration::ZERO,
            delay_jitter: 0.5,
            max_error_score: 3.0,
            error_score_decrement: 0.5,
            max_uses: None,
            max_age: None,
            max_wait: Duration::from_secs(120),
            max_waiting: 1 << 17,
            max_cooldown: Duration::from_secs(3600),
            slots: None,
            max_failed_warm_ups: 8,
            unavailable_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            strategy: Strategy::default(),
            sticky: None,
            picker: None,
            classify: Arc::new(Verdict::standard),
        }
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// Leases a session, waiting for one if none is free.
    ///
    /// # Errors
    ///
    /// [`PoolError`], if there is none in time or at all.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives its place up and nothing else.
    pub async fn lease(&self) -> Result<Lease, PoolError> {
        let preference = affinity::preference(&self.0, &RequestView::none());
        match affinity::ask(&self.0, &LeaseRequest { preference, avoid: Vec::new() })? {
            Acquisition::Leased(lease) => Ok(lease),
            Acquisition::Wait(wait) => wait.await,
        }
    }

    /// Handles to the members that serve, the oldest first; those that rest or are being renewed are among them.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<(Key, Session)> = self.0.inspect(|state, session| {
            let serving = state
                .members()
                .filter(|(_, member)| matches!(member.phase, Phase::Serving | Phase::Renewing));
            serving.filter_map(|(key, _)| Some((key, session(key)?))).collect()
        });
        members.sort_by_key(|(key, _)| key.number);
        let handle = |(key, session)| Member { pool: self.0.clone(), key, session };
        members.into_iter().map(handle).collect()
    }

    /// A handle to the member of this name, if it serves.
    pub fn member(&self, id: impl Into<SessionId>) -> Option<Member> {
        let id = id.into();
        self.members().into_iter().find(|member| *member.id() == id)
    }

    /// How many requests wait at this moment.
    pub fn waiting(&self) -> usize {
        self.0.inspect(|state, _| state.waiting())
    }

    /// Why the pool is broken, or `None` if it is not: too many sessions in a row could not be warmed up. It recovers when one
    /// can; one is tried when a request comes after a rest.
    pub fn unavailable(&self) -> Option<RenewalError> {
        self.0.inspect(|state, _| state.unavailable().cloned())
    }

    /// What happened so far.
    pub fn stats(&self) -> PoolStats {
        self.0.inspect(|state, _| PoolStats::from(state.counters()))
    }

    /// The pool with all its members as it is now, to look at or to print.
    pub fn snapshot(&self) -> PoolSnapshot {
        let now = self.0.now();
        self.0.inspect(|state, session| {
            let id = |key: Key| {
                session(key).map_or_else(|| self.0.member_id(key.number), |session| session.id().clone())
            };
            PoolSnapshot {
                name: self.name().to_owned(),
                size: self.0.settings.limits.size as usize,
                waiting: state.waiting(),
                unavailable: state.unavailable().cloned(),
                stats: PoolStats::from(state.counters()),
                members: MemberSnapshot::of(state, now, id),
            }
        })
    }
}

impl fmt::Debug for SessionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Settings of a [`SessionPool`].
#[must_use = "a builder does nothing until `build`"]
pub struct SessionPoolBuilder {
    sessions: Sessions,
    name: String,
    size: u32,
    max_in_flight: Option<usize>,
    min_delay: Duration,
    delay_jitter: f64,
    max_error_score: f64,
    error_score_decrement: f64,
    max_uses: Option<u64>,
    max_age: Option<Duration>,
    max_wait: Duration,
    max_waiting: usize,
    max_cooldown: Duration,
    slots: Option<u32>,
    max_failed_warm_ups: u32,
    unavailable_backoff: (Duration, Duration),
    strategy: Strategy,
    sticky: Option<StickyKey>,
    picker: Option<Arc<dyn Picker>>,
    classify: Classify,
}

impl SessionPoolBuilder {
    /// Names the pool; its sessions are called `NAME-1`, `NAME-2` and so on, and no name is used twice. Default: `pool`.
    ///
    /// Pools on the same sessions need names of their own. Sessions of such names that are there already, because they were
    /// loaded, are the pool's first members and serve as they are.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how many sessions serve at most. Default: 8.
    ///
    /// They are made when requests need them. One that was retired is replaced at once, and drains beside its successor.
    pub fn size(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    /// Bounds how many requests of one session are on their way at once. Default: no bound.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = Some(requests);
        self
    }

    /// Lets one request of a session be on its way at a time: `max_in_flight(1)`.
    pub fn exclusive(self) -> Self {
        self.max_in_flight(1)
    }

    /// Sets the least time from one use of a session to the next, counted between their beginnings. Default: none.
    ///
    /// Each time, up to [`delay_jitter`](Self::delay_jitter) of it is added.
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// Sets by how much of itself `min_delay` is longer at most; 0 for not at all. Default: 0.5.
    pub fn delay_jitter(mut self, share: f64) -> Self {
        self.delay_jitter = share;
        self
    }

    /// Sets the score at which a session is retired: a bad mark adds one, a good one takes [`error_score_decrement`](Self::error_score_decrement) off.
    /// Default: 3.
    pub fn max_error_score(mut self, score: f64) -> Self {
        self.max_error_score = score;
        self
    }

    /// Sets what a good mark takes off a session's score, which never falls below zero. Default: 0.5.
    pub fn error_score_decrement(mut self, decrement: f64) -> Self {
        self.error_score_decrement = decrement;
        self
    }

    /// Lets a session serve so many requests. Default: no limit.
    ///
    /// Counted when a session is leased, and exact however many requests there are at once. In the last tenth of it, its
    /// successor is warmed up.
    pub fn max_uses(mut self, uses: u64) -> Self {
        self.max_uses = Some(uses);
        self
    }

    /// Lets a session serve for so long after it was warmed up. Default: no limit.
    ///
    /// Counted when a session is leased. In the last tenth of it, its successor is warmed up.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Bounds how long a request waits for a session. Default: two minutes.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Bounds how many requests wait at once. Default: 131,072.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// Bounds how long an answer can make a session rest. Default: an hour.
    pub fn max_cooldown(mut self, rest: Duration) -> Self {
        self.max_cooldown = rest;
        self
    }

    /// Bounds how many sessions the pools of this name have in all processes together, where sessions are shared. Default: each
    /// process has up to its pool's `size`, and their sum is not bounded.
    pub fn slots(mut self, sessions: u32) -> Self {
        self.slots = Some(sessions);
        self
    }

    /// Sets how many sessions in a row may fail to be warmed up or renewed before the pool is broken. Default: 8.
    pub fn max_failed_warm_ups(mut self, failures: u32) -> Self {
        self.max_failed_warm_ups = failures;
        self
    }

    /// Sets how long a broken pool rests before it tries again, and what doubling that each time stops at. Default: one second
    /// and one minute.
    pub fn unavailable_backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.unavailable_backoff = (initial, max.max(initial));
        self
    }

    /// Sets which of those that can serve does. Default: [`Strategy::RoundRobin`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Chooses by a strategy of your own. Default: by [`strategy`](Self::strategy).
    pub fn pick_with(mut self, picker: impl Picker) -> Self {
        self.picker = Some(Arc::new(picker));
        self
    }

    /// Serves requests to one host by one session, until that is retired. Default: not.
    ///
    /// Such a request waits for its session also while others are free.
    pub fn sticky_by_host(self) -> Self {
        self.sticky_by(|request| request.host().map(str::to_owned))
    }

    /// Serves requests of one key by one session, until that is retired; requests without a key go by the strategy. Default:
    /// no request has one.
    pub fn sticky_by<K: AsRef<str>>(
        mut self,
        key: impl Fn(&RequestView<'_>) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.sticky = Some(Arc::new(move |request| Some(affinity::key_of(key(request)?.as_ref()))));
        self
    }

    /// Sets what answers and errors say about the session. Default: [`Verdict::standard`].
    ///
    /// It runs in the task of the request and under no lock.
    pub fn classify_with(
        mut self,
        classify: impl Fn(&Outcome<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.classify = Arc::new(classify);
        self
    }

    /// Builds the pool.
    ///
    /// # Errors
    ///
    /// If a bound is zero that lets nothing through then, or another pool on these sessions has the name.
    pub fn build(self) -> Result<SessionPool, PoolConfigError> {
        ConfigError::unless(self.size > 0, "size")?;
        ConfigError::unless(self.max_in_flight != Some(0), "max_in_flight")?;
        ConfigError::unless(self.max_error_score > 0.0, "max_error_score")?;
        ConfigError::unless(self.max_uses != Some(0), "max_uses")?;
        ConfigError::unless(self.max_age != Some(Duration::ZERO), "max_age")?;
        ConfigError::unless(self.max_wait > Duration::ZERO, "max_wait")?;
        ConfigError::unless(self.max_waiting > 0, "max_waiting")?;
        ConfigError::unless(self.slots != Some(0), "slots")?;
        ConfigError::unless(self.max_failed_warm_ups > 0, "max_failed_warm_ups")?;
        ConfigError::unless(self.unavailable_backoff.0 > Duration::ZERO, "unavailable_backoff")?;
        if !self.sessions.registry.context.claim_pool(&self.name) {
            return Err(PoolConfigError::name_taken(self.name));
        }
        let (members, first) = match self.sessions.registry.context.share {
            // Whose they are is to be seen.
            Some(_) => (Vec::new(), MemberNumber::FIRST),
            None => members_before(&self.sessions, &self.name, self.size as usize),
        };
        let thousandths = |share: f64| (share.max(0.0) * BAD_MARK_MILLIS as f64) as u64;
        let settings = Settings {
            name: self.name.into(),
            limits: Limits {
                size: self.size,
                max_in_flight: self.max_in_flight.unwrap_or(usize::MAX),
                min_delay: self.min_delay,
                delay_jitter: thousandths(self.delay_jitter),
                max_score: thousandths(self.max_error_score),
                score_decrement: thousandths(self.error_score_decrement),
                max_uses: self.max_uses,
                max_age: self.max_age,
                max_waiting: self.max_waiting,
                max_failures: self.max_failed_warm_ups,
                backoff: self.unavailable_backoff.0,
                backoff_max: self.unavailable_backoff.1,
                order: SelectionOrder::from(self.strategy),
            },
            max_wait: self.max_wait,
            max_cooldown: self.max_cooldown,
            slots: self.slots,
            sticky: self.sticky,
            picker: self.picker,
            classify: self.classify,
        };
        Ok(SessionPool(Pool::new(self.sessions, settings, members, first)))
    }
}

/// The sessions that bear the name of a member, the first ones by number, and a number that none of them has.
fn members_before(sessions: &Sessions, name: &str, size: usize) -> (Vec<Session>, MemberNumber) {
    let number = |session: &Session| {
        let id = session.id().to_string();
        let digits = id.strip_prefix(name)?.strip_prefix('-')?;
        let is_number = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { digits.parse().ok().map(MemberNumber) } else { None }
    };
    let mut members: Vec<(MemberNumber, Session)> =
        sessions.all().into_iter().filter_map(|session| Some((number(&session)?, session))).collect();
    members.sort_by_key(|(number, _)| *number);
    let first = members.last().map_or(MemberNumber::FIRST, |(number, _)| number.next());
    members.truncate(size);
    (members.into_iter().map(|(_, session)| session).collect(), first)
}

impl fmt::Debug for SessionPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPoolBuilder")
            .field("name", &self.name)
            .field("size", &self.size)
            .field("max_in_flight", &self.max_in_flight)
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}
