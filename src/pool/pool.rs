//! The handle to a pool, and its builder.

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

/// A group of sessions, of which each request that names no session gets one.
///
/// Create it by [`builder`](Self::builder) and add it to a stack by
/// [`PoolLayer`](super::PoolLayer). See the [module documentation](super).
///
/// # Clone
///
/// Clones refer to the same pool.
#[derive(Clone)]
pub struct SessionPool(pub(crate) Arc<Pool>);

impl SessionPool {
    /// Creates a builder with the default settings. The sessions of the pool belong to `sessions`.
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

    /// Returns the name of the pool.
    pub fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// Leases a session, and waits if none is free.
    ///
    /// # Errors
    ///
    /// Returns a [`PoolError`] if no session becomes free in time, or if the pool is unavailable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue and has no other effect.
    pub async fn lease(&self) -> Result<Lease, PoolError> {
        let preference = affinity::preference(&self.0, &RequestView::none());
        match affinity::ask(&self.0, &LeaseRequest { preference, avoid: Vec::new() })? {
            Acquisition::Leased(lease) => Ok(lease),
            Acquisition::Wait(wait) => wait.await,
        }
    }

    /// Returns handles to the members in service, the oldest first.
    ///
    /// Members that are cooling down or under renewal are included.
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

    /// Returns a handle to the member with this name, if it is in service.
    pub fn member(&self, id: impl Into<SessionId>) -> Option<Member> {
        let id = id.into();
        self.members().into_iter().find(|member| *member.id() == id)
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.0.inspect(|state, _| state.waiting())
    }

    /// Returns why the pool is unavailable, or `None` if it is available.
    ///
    /// A pool is unavailable after too many failed warm-ups in a row. A request after the backoff
    /// starts another warm-up, and the pool is available again if that succeeds.
    pub fn unavailable(&self) -> Option<RenewalError> {
        self.0.inspect(|state, _| state.unavailable().cloned())
    }

    /// Returns the statistics of the pool.
    pub fn stats(&self) -> PoolStats {
        self.0.inspect(|state, _| PoolStats::from(state.counters()))
    }

    /// Returns the state of the pool and its members, for inspection or printing.
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

/// The settings of a [`SessionPool`].
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
    /// Sets the name of the pool. Default: `pool`.
    ///
    /// The sessions of the pool are named `NAME-1`, `NAME-2` and so on; no name is used twice. Each
    /// pool of the same sessions needs a different name. Existing sessions with such names, for
    /// example loaded ones, become the first members and serve without a warm-up.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the maximum number of members in service. Default: 8.
    ///
    /// Members are created when requests need them. A retired member is replaced immediately and
    /// drains while its successor serves.
    pub fn size(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    /// Sets the maximum number of requests in flight per session. Default: unlimited.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = Some(requests);
        self
    }

    /// Limits each session to one request in flight; the same as `max_in_flight(1)`.
    pub fn exclusive(self) -> Self {
        self.max_in_flight(1)
    }

    /// Sets the minimum time from the start of one use of a session to the start of the next.
    /// Default: none.
    ///
    /// A random part, up to [`delay_jitter`](Self::delay_jitter) of the delay, is added each time.
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// Sets the maximum random increase of `min_delay`, as a fraction of it; 0 disables jitter.
    /// Default: 0.5.
    pub fn delay_jitter(mut self, fraction: f64) -> Self {
        self.delay_jitter = fraction;
        self
    }

    /// Sets the score at which a session is retired. Default: 3.
    ///
    /// A bad mark adds one to the score, and a good one takes off
    /// [`error_score_decrement`](Self::error_score_decrement).
    pub fn max_error_score(mut self, score: f64) -> Self {
        self.max_error_score = score;
        self
    }

    /// Sets what a good mark takes off the score, which is never negative. Default: 0.5.
    pub fn error_score_decrement(mut self, decrement: f64) -> Self {
        self.error_score_decrement = decrement;
        self
    }

    /// Sets the maximum number of uses of a session. Default: unlimited.
    ///
    /// A use is counted when a session is leased, so the limit is exact at any concurrency. In the
    /// last tenth of the limit, the successor is warmed up.
    pub fn max_uses(mut self, uses: u64) -> Self {
        self.max_uses = Some(uses);
        self
    }

    /// Sets the maximum age of a session, counted from its warm-up. Default: unlimited.
    ///
    /// The age is checked when a session is leased. In the last tenth of the limit, the successor
    /// is warmed up.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets how long a request may wait for a session. Default: two minutes.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets how many requests may wait at the same time. Default: 131,072.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// Sets the longest cooldown that a verdict can cause. Default: one hour.
    pub fn max_cooldown(mut self, cooldown: Duration) -> Self {
        self.max_cooldown = cooldown;
        self
    }

    /// Sets the number of sessions of all pools with this name, in all processes that share them.
    /// Default: unlimited.
    ///
    /// By default, each process has up to `size` sessions.
    pub fn slots(mut self, sessions: u32) -> Self {
        self.slots = Some(sessions);
        self
    }

    /// Sets how many warm-ups or renewals may fail in a row before the pool is unavailable.
    /// Default: 8.
    pub fn max_failed_warm_ups(mut self, failures: u32) -> Self {
        self.max_failed_warm_ups = failures;
        self
    }

    /// Sets the backoff of an unavailable pool before its next warm-up. Default: one second, up to
    /// one minute.
    ///
    /// It starts at `initial` and doubles each time up to `max`.
    pub fn unavailable_backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.unavailable_backoff = (initial, max.max(initial));
        self
    }

    /// Sets which of the ready members is selected. Default: [`Strategy::RoundRobin`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Selects members by a custom picker. Default: by [`strategy`](Self::strategy).
    pub fn pick_with(mut self, picker: impl Picker) -> Self {
        self.picker = Some(Arc::new(picker));
        self
    }

    /// Serves all requests to one host by the same session until that is retired. Default: off.
    ///
    /// Such a request waits for its session even while others are free.
    pub fn sticky_by_host(self) -> Self {
        self.sticky_by(|request| request.host().map(str::to_owned))
    }

    /// Serves all requests with the same key by the same session until that is retired. Default:
    /// off.
    ///
    /// Requests without a key are subject to the strategy.
    pub fn sticky_by<K: AsRef<str>>(
        mut self,
        key: impl Fn(&RequestView<'_>) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.sticky = Some(Arc::new(move |request| Some(affinity::key_of(key(request)?.as_ref()))));
        self
    }

    /// Sets how responses and errors are classified. Default: [`Verdict::standard`].
    ///
    /// The function is called in the task of the request, and not under a lock.
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
    /// Returns an error if a limit is zero that would let no request pass, or if another pool of
    /// the same sessions has this name.
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
            // The store decides which members this process gets.
            Some(_) => (Vec::new(), MemberNumber::FIRST),
            None => members_before(&self.sessions, &self.name, self.size as usize),
        };
        let thousandths = |value: f64| (value.max(0.0) * BAD_MARK_MILLIS as f64) as u64;
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

/// Returns the sessions that are named like members, the lowest numbers first, and an unused
/// number.
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
