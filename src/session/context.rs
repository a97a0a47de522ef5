//! What all sessions of one registry share: configuration, clock, renewal backends, counters.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    SessionId,
    events::{Event, EventBus, EventKind},
    metrics::SessionMetrics,
    renewal_backend::RenewalBackend,
    sessions::Registry,
    share::SharingBackend,
    stats::{Counter, Counters, PeakGauge},
};
use crate::{
    cookies::{self, Jar, Timestamp},
    gate::{GateConfig, Limits},
    jitter::Jitter,
    profile::{Profile, ProfilePicker, Profiles},
};

/// The state that all sessions of one registry share.
pub(crate) struct RegistryContext {
    pub(super) registry: Weak<Registry>,
    pub(super) profiles: Option<Profiles>,
    pub(super) cookie_limits: cookies::Limits,
    pub(super) clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    pub(crate) login_first: bool,
    pub(super) default_session: Option<SessionId>,
    /// Shares the sessions with other processes.
    pub(crate) share: Option<Arc<dyn SharingBackend>>,
    pub(super) trace_cookie_values: bool,
    /// Seeds the jitter of each session.
    pub(crate) jitter: Jitter,
    /// The services that can renew. Services own them; the last one that is alive is used.
    pub(super) backends: Mutex<Vec<Weak<dyn RenewalBackend>>>,
    pub(super) origin: Instant,
    /// The requests that wait at a gate.
    pub(crate) waiting: PeakGauge,
    /// The names of the pools of these sessions.
    pub(super) pools: Mutex<Vec<String>>,
    /// The counters of sessions that were evicted or removed.
    pub(super) departed: Counters,
    pub(super) evicted: Counter,
    pub(super) over_limit: Counter,
    #[cfg(feature = "formats")]
    pub(super) dirty: super::dirty::DirtyFlag,
    pub(crate) events: EventBus,
    pub(crate) metrics: SessionMetrics,
}

impl RegistryContext {
    /// Whether a session starts with an identity: not if it logs in first or may be in a store.
    pub(super) fn starts_current(&self) -> bool {
        !self.login_first && self.share.is_none()
    }

    /// Notes that a part of the sessions' snapshot has changed. Call it after the change and
    /// outside of locks.
    pub(crate) fn changed(&self) {
        #[cfg(feature = "formats")]
        self.dirty.set();
    }

    /// Sends an event to the subscribers, if there are any.
    pub(crate) fn publish(&self, session: &SessionId, kind: EventKind) {
        if self.events.has_subscribers() {
            self.events.send(Event { at: self.now(), session: session.clone(), kind });
        }
    }

    pub(crate) fn registry(&self) -> Option<Arc<Registry>> {
        self.registry.upgrade()
    }

    /// The time since an origin before the sessions were built. It follows tokio's clock, also when
    /// that is paused.
    pub(crate) fn now(&self) -> Duration {
        // A restored identity may be older than the process.
        const BEFORE: Duration = Duration::from_secs(100 * 365 * 86_400);
        BEFORE + self.origin.elapsed()
    }

    /// The time by tokio's clock as the standard library's type, which lists of profiles use.
    pub(super) fn std_now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    /// The time by the clock that cookies expire by.
    pub(crate) fn timestamp(&self) -> Timestamp {
        (self.clock)().into()
    }

    /// An empty jar.
    pub(super) fn jar(&self) -> Jar {
        Jar::with_limits(self.cookie_limits)
    }

    #[cfg(feature = "serde")]
    pub(super) fn profiles(&self) -> Option<&Profiles> {
        self.profiles.as_ref()
    }

    /// A picker for one session, if there are profiles.
    pub(super) fn profile_picker(&self) -> Option<Arc<ProfilePicker>> {
        self.profiles.as_ref().map(Profiles::picker)
    }

    pub(super) fn mark_profile_bad(&self, profile: &Profile) -> bool {
        self.profiles.as_ref().is_some_and(|profiles| profiles.mark_bad(profile, self.std_now()))
    }

    /// The service that renewals are sent through.
    pub(crate) fn backend(&self) -> Option<Arc<dyn RenewalBackend>> {
        self.backends.lock().iter().rev().find_map(Weak::upgrade)
    }

    /// Sends renewals through `backend` while it is alive.
    pub(crate) fn add_backend(&self, backend: Weak<dyn RenewalBackend>) {
        let mut backends = self.backends.lock();
        backends.retain(|backend| backend.strong_count() > 0);
        backends.push(backend);
    }

    pub(super) fn limits(&self) -> Limits {
        self.backend().map_or_else(|| GateConfig::new().limits, |backend| backend.limits())
    }

    /// Reserves the name of a pool. Returns whether it was free.
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
}
