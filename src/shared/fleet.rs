//! The backend that shares the sessions of one `Sessions` with other processes.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    FencingToken, Owner, Record, SharingConfig, StoreError, StoreErrorKind,
    payload::{self, Payload},
};
use crate::{
    gate::{AttemptContext, RenewalFuture},
    jitter::Jitter,
    rt,
    session::{
        IdentityInner, Session, SessionId, SessionInner, Sessions, SessionsBuilder,
        renewal_backend::RenewalBackend,
        share::{PendingWrite, SharingBackend, SharingFuture, SlotLease},
    },
};

/// How many events are identity for a slow subscriber.
const EVENTS: usize = 1024;

/// The state that all shared sessions of one `Sessions` have in common.
pub(crate) struct Fleet {
    pub(super) config: SharingConfig,
    pub(super) owner: Owner,
    jitter: OnceLock<Jitter>,
    pub(super) counters: Counters,
    /// Whether the store pushes changes at present.
    pub(super) is_watching: AtomicBool,
    pub(super) versions: broadcast::Sender<VersionEvent>,
    /// Follows the store. It may end with the runtime of the caller that spawned it.
    watcher: Mutex<Option<JoinHandle<()>>>,
}

/// The counters behind [`SharingStats`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) versions_adopted: AtomicU64,
    pub(super) updates: AtomicU64,
}

/// Counts of what sessions and their store have exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharingStats {
    /// Requests to the store, each one round trip.
    pub requests: u64,
    /// Requests that the store rejected or did not respond to in time.
    pub failures: u64,
    /// Versions that this process wrote.
    pub commits: u64,
    /// Versions that were not written because another process was faster.
    pub conflicts: u64,
    /// Versions of other processes that this process adopted.
    pub versions_adopted: u64,
    /// Batches of changed cookies that this process wrote into a version.
    pub updates: u64,
}

/// A version of a session that this process has committed or adopted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VersionEvent {
    /// The session.
    pub session: SessionId,
    /// The number of the version in the store.
    pub number: u64,
    /// Whether this process committed the version; `false` if it adopted it.
    pub is_own: bool,
    /// When it became current here: for a commit, the time just before it was sent.
    pub at: SystemTime,
}

/// A subscription to versions, from [`Sessions::shared_versions`].
///
/// The channel keeps the last 1024 events. A subscriber that lags further loses the oldest.
#[derive(Debug)]
pub struct VersionEvents {
    receiver: broadcast::Receiver<VersionEvent>,
    lagged: u64,
}

impl VersionEvents {
    /// Receives the next event, or `None` once the sessions are dropped and all events were
    /// received.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped.
    pub async fn recv(&mut self) -> Option<VersionEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(events)) => self.lagged += events,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Receives the next event if there is one already.
    pub fn try_recv(&mut self) -> Option<VersionEvent> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(events)) => self.lagged += events,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// Returns how many events were lost before the last one that was received.
    pub fn lagged(&self) -> u64 {
        self.lagged
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Fleet {
    pub(super) fn new(config: SharingConfig) -> Self {
        Self {
            config,
            owner: Owner::random(),
            jitter: OnceLock::new(),
            counters: Counters::default(),
            is_watching: AtomicBool::new(false),
            versions: broadcast::channel(EVENTS).0,
            watcher: Mutex::new(None),
        }
    }

    pub(super) fn stats(&self) -> SharingStats {
        let Counters { requests, failures, commits, conflicts, versions_adopted, updates } = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SharingStats {
            requests: read(requests),
            failures: read(failures),
            commits: read(commits),
            conflicts: read(conflicts),
            versions_adopted: read(versions_adopted),
            updates: read(updates),
        }
    }

    /// Awaits a request to the store for at most the store timeout, and counts it.
    pub(super) async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        count(&self.counters.requests);
        let response = match timeout(self.config.store_timeout, request).await {
            Ok(response) => response,
            Err(_) => Err(StoreError::new(StoreErrorKind::TimedOut)),
        };
        if response.is_err() {
            count(&self.counters.failures);
        }
        response
    }

    pub(super) async fn load(&self, key: &str) -> Result<Record, StoreError> {
        self.ask(self.config.store.load(key)).await
    }

    /// Returns the version after `found` in the store, where `known` is the newest one known here.
    ///
    /// A store that has lost its records restarts with whichever process commits first, and that
    /// one may not know the old versions. The first version is therefore random within a wide
    /// range, so that one number never stands for two sessions.
    pub(super) fn next_version(&self, found: u64, known: u64) -> u64 {
        let is_restart = found == 0 || found < known;
        if is_restart { known + 1 + self.draw() % (1 << 32) } else { found + 1 }
    }

    fn draw(&self) -> u64 {
        self.jitter.get_or_init(Jitter::random).draw()
    }

    /// Returns a random time between half of `time` and `time`.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        let random = f64::from(self.draw() as u32) / f64::from(u32::MAX);
        time.mul_f64(0.5 + random / 2.0)
    }

    /// Spawns the task that follows the store, unless it runs already.
    pub(super) fn spawn_watcher(self: &Arc<Self>, session: &Session) {
        let (Some(registry), Ok(runtime)) = (session.registry(), Handle::try_current()) else { return };
        let mut watcher = self.watcher.lock();
        if watcher.as_ref().is_none_or(JoinHandle::is_finished) {
            let registry = Arc::downgrade(&registry);
            *watcher = Some(runtime.spawn(self.clone().watch(registry)));
        }
    }

    /// Reads the payload of a record that has one.
    pub(super) fn open(&self, key: &str, record: &Record) -> Result<Payload, StoreError> {
        payload::read(self.config.encryption_key.as_ref(), key, record.version.number, &record.payload)
    }

    /// Writes the session's pending changes. The caller holds the lock of the share state.
    pub(super) async fn flush_pending(&self, session: &Session) -> Result<(), StoreError> {
        loop {
            let pending = session.share_state().known().pending;
            match pending {
                None => return Ok(()),
                Some(PendingWrite::End) => self.publish_end(session).await?,
                Some(pending @ (PendingWrite::Identity | PendingWrite::Renewed)) => {
                    self.publish_identity(session, pending).await?;
                }
            }
        }
    }

    fn slot_lease(&self, token: FencingToken, requested_at: Instant) -> SlotLease {
        let ttl = self.config.lease_ttl;
        SlotLease { token: token.get(), until: requested_at + safe_ttl(ttl), extend_after: ttl / 3 }
    }
}

impl SharingBackend for Fleet {
    fn seed(&self, seed: u64) {
        let _ = self.jitter.set(Jitter::seeded(seed));
    }

    fn renew(
        self: Arc<Self>,
        session: Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        context: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner> {
        Box::pin(async move {
            self.spawn_watcher(&session);
            self.attempt(&session, backend, context).await
        })
    }

    fn flush(self: Arc<Self>, session: Session) {
        // Outside a runtime, the next attempt writes what is pending.
        let Ok(runtime) = Handle::try_current() else { return };
        self.spawn_watcher(&session);
        let registry = session.registry().map(|registry| Arc::downgrade(&registry));
        // The task holds the session: it is written even if it is removed from the registry
        // meanwhile.
        runtime.spawn(async move {
            loop {
                {
                    let _guard = session.share_state().lock().await;
                    match self.flush_pending(&session).await {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::warn!(session = %session.id(), %error, "a change of a shared session could not be written yet");
                        }
                    }
                }
                if registry.as_ref().is_none_or(|registry| registry.strong_count() == 0) {
                    return;
                }
                sleep(self.jittered(self.config.poll_interval)).await;
            }
        });
    }

    fn cookies_changed(self: Arc<Self>, session: Session) {
        self.sync_cookies_later(&session);
    }

    fn on_allowance_low(self: Arc<Self>, session: Session, identity: &Arc<IdentityInner>) {
        let identity = Arc::downgrade(identity);
        rt::try_spawn(async move {
            // Before any attempt, which can then continue the version with the new batch.
            let _guard = session.share_state().lock().await;
            if let Some(identity) = identity.upgrade() {
                self.refill_allowance(&session, &identity).await;
            }
        });
    }

    fn acquire_slot(self: Arc<Self>, slot: String) -> SharingFuture<Option<SlotLease>> {
        Box::pin(async move {
            let lease = self.lease(&slot_key(&slot)).await?.ok();
            Ok(lease.map(|lease| {
                let (token, requested_at) = lease.into_parts();
                self.slot_lease(token, requested_at)
            }))
        })
    }

    fn extend_slot(self: Arc<Self>, slot: String, lease: SlotLease) -> SharingFuture<Option<SlotLease>> {
        Box::pin(async move {
            let (key, token) = (slot_key(&slot), FencingToken::new(lease.token));
            let requested_at = Instant::now();
            let extended = self.config.store.extend(&key, self.owner, token, self.config.lease_ttl);
            Ok(self.ask(extended).await?.then(|| self.slot_lease(token, requested_at)))
        })
    }

    fn release_slot(self: Arc<Self>, slot: String, lease: SlotLease) -> SharingFuture<()> {
        Box::pin(async move {
            let (key, token) = (slot_key(&slot), FencingToken::new(lease.token));
            Ok(self.ask(self.config.store.release(&key, self.owner, token)).await?)
        })
    }

    fn flushed(self: Arc<Self>, session: Session) -> SharingFuture<()> {
        Box::pin(async move {
            {
                let _guard = session.share_state().lock().await;
                self.flush_pending(&session).await?;
            }
            self.sync_cookies_now(&session).await;
            Ok(())
        })
    }
}

/// The key that a slot is leased under, next to the record of the slot's session.
fn slot_key(slot: &str) -> String {
    format!("{slot} slot")
}

/// How much of a lease its holder relies on: the clock of the store may run a little faster.
pub(super) fn safe_ttl(ttl: Duration) -> Duration {
    ttl - ttl / 8
}

impl SessionsBuilder {
    /// Shares the sessions with other processes through a store. Default: sessions are not shared.
    ///
    /// Every process of the fleet builds its sessions with the same store. A shared session is
    /// loaded from the store before its first use, which requires a
    /// [`RenewalLayer`](crate::RenewalLayer).
    pub fn shared(mut self, sharing: impl Into<SharingConfig>) -> Self {
        let config = sharing.into();
        let backend = |()| Some(Arc::new(Fleet::new(config.clone())) as Arc<dyn SharingBackend>);
        self.share = config.validate().map(backend);
        self
    }
}

impl Sessions {
    /// Returns the counters of the sharing, or `None` if these sessions are not shared.
    pub fn sharing_stats(&self) -> Option<SharingStats> {
        self.fleet().map(Fleet::stats)
    }

    /// Subscribes to the versions that this process commits and adopts from now on.
    ///
    /// `None` if these sessions are not shared.
    pub fn shared_versions(&self) -> Option<VersionEvents> {
        self.fleet().map(|fleet| VersionEvents { receiver: fleet.versions.subscribe(), lagged: 0 })
    }

    fn fleet(&self) -> Option<&Fleet> {
        let backend: &dyn std::any::Any = self.sharing_backend()?;
        backend.downcast_ref()
    }
}
