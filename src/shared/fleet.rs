//! What shares the sessions of one `Sessions` with the rest of its fleet.

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
    sync::broadcast,
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
    session::{
        IdentityInner, Session, SessionId, SessionInner, Sessions, SessionsBuilder,
        renewal_backend::RenewalBackend,
        sessions::Registry,
        share::{PendingWrite, SharingBackend, SharingFuture, SlotLease},
    },
};

/// What is at work for one `Sessions`.
pub(crate) struct Fleet {
    pub(super) config: SharingConfig,
    pub(super) owner: Owner,
    jitter: OnceLock<Jitter>,
    pub(super) counters: Counters,
    /// Whether the store tells of changes at this moment.
    pub(super) is_watching: AtomicBool,
    pub(super) versions: broadcast::Sender<VersionEvent>,
    /// Looks out for news, on the runtime of whoever needed it last.
    watcher: Mutex<Option<JoinHandle<()>>>,
}

/// What is counted.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) versions_adopted: AtomicU64,
    pub(super) updates: AtomicU64,
}

/// What sessions and their store have had to do with each other so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharingStats {
    /// Requests to the store, each one trip.
    pub requests: u64,
    /// Requests that the store did not answer, or refused.
    pub failures: u64,
    /// Versions that were written.
    pub commits: u64,
    /// Versions that were not written, since another process was faster.
    pub conflicts: u64,
    /// Versions of other processes that were taken over.
    pub versions_adopted: u64,
    /// Batches of changed cookies that were written into a version.
    pub updates: u64,
}

/// A version of a session that this process has put into the store, or has taken out of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VersionEvent {
    /// Whose version.
    pub session: SessionId,
    /// Its number in the store.
    pub number: u64,
    /// Whether this process has brought it about.
    pub is_own: bool,
    /// When it became this process's: for one of its own, just before it was sent to the store.
    pub at: SystemTime,
}

/// The versions that come, from [`Sessions::shared_versions`].
#[derive(Debug)]
pub struct VersionEvents(broadcast::Receiver<VersionEvent>);

impl VersionEvents {
    /// The next version, or `None` when the sessions are gone. One who falls behind by more than a thousand misses some.
    ///
    /// # Cancel safety
    ///
    /// Dropping this loses nothing.
    pub async fn recv(&mut self) -> Option<VersionEvent> {
        loop {
            match self.0.recv().await {
                Ok(version) => return Some(version),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
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
            versions: broadcast::channel(1024).0,
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

    /// Asks the store, within its deadline.
    pub(super) async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        count(&self.counters.requests);
        let answer = match timeout(self.config.store_timeout, request).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::new(StoreErrorKind::TimedOut)),
        };
        if answer.is_err() {
            count(&self.counters.failures);
        }
        answer
    }

    pub(super) async fn load(&self, key: &str) -> Result<Record, StoreError> {
        self.ask(self.config.store.load(key)).await
    }

    /// The version that follows the one found in the store, where `known` is the last one known here.
    ///
    /// A store that has forgotten everything begins anew with whoever comes first, and that one may know nothing of what was
    /// there: each beginning is far from the others, so that one number is never two sessions.
    pub(super) fn next_version(&self, found: u64, known: u64) -> u64 {
        let is_beginning = found == 0 || found < known;
        if is_beginning { known + 1 + self.draw() % (1 << 32) } else { found + 1 }
    }

    fn draw(&self) -> u64 {
        self.jitter.get_or_init(Jitter::random).draw()
    }

    /// Between half of `time` and all of it.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        let random = f64::from(self.draw() as u32) / f64::from(u32::MAX);
        time.mul_f64(0.5 + random / 2.0)
    }

    /// Sees to it that somebody looks out for news, as long as the sessions are there.
    pub(super) fn spawn_watcher(self: &Arc<Self>, registry: &Arc<Registry>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut watcher = self.watcher.lock();
        if watcher.as_ref().is_none_or(JoinHandle::is_finished) {
            let registry = Arc::downgrade(registry);
            *watcher = Some(runtime.spawn(self.clone().watch(registry)));
        }
    }

    /// Reads a record that has a session.
    pub(super) fn open(&self, key: &str, record: &Record) -> Result<Payload, StoreError> {
        payload::read(self.config.encryption_key.as_ref(), key, record.version.number, &record.payload)
    }
}

impl SharingBackend for Fleet {
    fn seed(&self, seed: u64) {
        let _ = self.jitter.set(Jitter::seeded(seed));
    }

    fn renew(
        self: Arc<Self>,
        session: Session,
        lane: Option<Arc<dyn RenewalBackend>>,
        drive: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner> {
        Box::pin(async move {
            if let Some(registry) = session.0.context.registry() {
                self.spawn_watcher(&registry);
            }
            self.attempt(&session, lane, drive).await
        })
    }

    fn flush(self: Arc<Self>, session: Session) {
        // Outside a runtime the next attempt settles it.
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(registry) = session.0.context.registry() {
            self.spawn_watcher(&registry);
        }
        let registry = session.0.context.registry().map(|registry| Arc::downgrade(&registry));
        // Until it is told, also of a session that is forgotten here meanwhile.
        runtime.spawn(async move {
            loop {
                {
                    let _guard = session.0.share_state().sync_lock.lock().await;
                    match self.flush_pending(&session).await {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::warn!(session = %session.id(), %error, "the store of shared sessions is yet to be told");
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

    fn on_allowance_low(self: Arc<Self>, session: Session, kept: &Arc<IdentityInner>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let kept = Arc::downgrade(kept);
        runtime.spawn(async move {
            // Before any attempt, which then has something to go on with.
            let _guard = session.0.share_state().sync_lock.lock().await;
            if let Some(kept) = kept.upgrade() {
                self.refill_allowance(&session, &kept).await;
            }
        });
    }

    fn acquire_slot(self: Arc<Self>, slot: String) -> SharingFuture<Option<SlotLease>> {
        Box::pin(async move {
            let lease = self.lease(&slot_key(&slot)).await?.ok();
            Ok(lease.map(|lease| {
                let (fence, asked) = lease.keep();
                self.slot_lease(fence, asked)
            }))
        })
    }

    fn extend_slot(self: Arc<Self>, slot: String, slot_lease: SlotLease) -> SharingFuture<Option<SlotLease>> {
        Box::pin(async move {
            let (key, asked) = (slot_key(&slot), Instant::now());
            let extend = self.config.store.extend(&key, self.owner, slot_lease.fence, self.config.lease_ttl);
            Ok(self.ask(extend).await?.then(|| self.slot_lease(slot_lease.fence, asked)))
        })
    }

    fn release_slot(self: Arc<Self>, slot: String, slot_lease: SlotLease) -> SharingFuture<()> {
        Box::pin(async move {
            let key = slot_key(&slot);
            Ok(self.ask(self.config.store.release(&key, self.owner, slot_lease.fence)).await?)
        })
    }

    fn flushed(self: Arc<Self>, session: Session) -> SharingFuture<()> {
        Box::pin(async move {
            {
                let _guard = session.0.share_state().sync_lock.lock().await;
                self.flush_pending(&session).await?;
            }
            self.sync_cookies_now(&session).await;
            Ok(())
        })
    }
}

/// What a seat is called in the store, beside the sessions.
fn slot_key(slot: &str) -> String {
    format!("{slot} seat")
}

/// For how much of a lease its holder is sure of it: the store's clock may run a little faster than this one.
pub(super) fn safe_ttl(ttl: Duration) -> Duration {
    ttl - ttl / 8
}

impl Fleet {
    /// A lease that was asked for at this moment, and is had.
    fn slot_lease(&self, fence: FencingToken, asked: Instant) -> SlotLease {
        let ttl = self.config.lease_ttl;
        SlotLease { fence, until: asked + safe_ttl(ttl), extend_after: ttl / 3 }
    }

    /// Tells the store what it is owed. Whoever calls this is the one that is busy with the session.
    pub(super) async fn flush_pending(&self, session: &Session) -> Result<(), StoreError> {
        loop {
            let pending = session.0.share_state().known.lock().pending;
            match pending {
                PendingWrite::None => return Ok(()),
                PendingWrite::End => self.publish_end(session).await?,
                PendingWrite::Identity | PendingWrite::Renewed => {
                    self.publish_identity(session, pending).await?
                }
            }
        }
    }
}

impl SessionsBuilder {
    /// Shares the sessions with other processes, through a store or as [`SharingConfig`] says. Default: they are this process's.
    ///
    /// Every process of the fleet is built so, on the same store. A shared session is looked up in the store before it is first
    /// used, and needs a [`RenewalLayer`](crate::RenewalLayer) for that.
    pub fn shared(mut self, sharing: impl Into<SharingConfig>) -> Self {
        let sharing = sharing.into();
        self.share = sharing.check().map(|()| Some(Arc::new(Fleet::new(sharing)) as Arc<dyn SharingBackend>));
        self
    }
}

impl Sessions {
    /// What these sessions and their store have had to do with each other, if they are shared.
    pub fn sharing_stats(&self) -> Option<SharingStats> {
        self.fleet().map(Fleet::stats)
    }

    /// Tells from now on which versions this process commits and adopts, if these sessions are shared.
    pub fn shared_versions(&self) -> Option<VersionEvents> {
        self.fleet().map(|fleet| VersionEvents(fleet.versions.subscribe()))
    }

    fn fleet(&self) -> Option<&Fleet> {
        let share: &dyn std::any::Any = &**self.registry.context.share.as_ref()?;
        share.downcast_ref()
    }
}
