//! The connection from a session to the store that it is shared through.

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{IdentityInner, Session, renewal_backend::RenewalBackend, session::SessionInner};
use crate::{
    cookies::{StoredCookie, Timestamp},
    gate::{AttemptContext, BoxError, Generation, RenewalFuture},
};

/// Shares the sessions of one registry with other processes.
pub(crate) trait SharingBackend: Any + Send + Sync {
    /// Sets the seed of the jitter. Called at most once, before every other method.
    fn seed(&self, seed: u64);

    /// Adopts the version of another process, or renews the session and commits the result.
    fn renew(
        self: Arc<Self>,
        session: Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        context: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner>;

    /// Starts to write the session's pending change to the store.
    fn flush(self: Arc<Self>, session: Session);

    /// Schedules the exchange of changed cookies. Called for the first change since the last one.
    fn cookies_changed(self: Arc<Self>, session: Session);

    /// Takes more uses from the store. Called when half of a batch is used up.
    fn on_allowance_low(self: Arc<Self>, session: Session, identity: &Arc<IdentityInner>);

    /// Leases a slot, which one process holds at a time. `None` if another process holds it.
    fn acquire_slot(self: Arc<Self>, slot: String) -> SharingFuture<Option<SlotLease>>;

    /// Extends the lease of a slot. `None` if the lease was lost.
    fn extend_slot(self: Arc<Self>, slot: String, lease: SlotLease) -> SharingFuture<Option<SlotLease>>;

    /// Ends the lease of a slot.
    fn release_slot(self: Arc<Self>, slot: String, lease: SlotLease) -> SharingFuture<()>;

    /// Resolves when the session's pending change and its changed cookies are in the store.
    fn flushed(self: Arc<Self>, session: Session) -> SharingFuture<()>;
}

/// The future of a request to the store.
pub(crate) type SharingFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// The lease of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLease {
    /// The fencing token of the lease.
    pub(crate) token: u64,
    /// When another process may get the slot, unless the lease is extended before.
    pub(crate) until: Instant,
    /// The time after the grant at which the holder extends the lease.
    pub(crate) extend_after: Duration,
}

/// What a shared session keeps for its backend.
pub(crate) struct ShareState {
    /// Held during an attempt, a flush, an adoption and an exchange of cookies: one at a time.
    sync_lock: tokio::sync::Mutex<()>,
    /// Notified when the store may have a newer version than is known here.
    remote_change: Notify,
    known: Mutex<KnownRecord>,
    dirty: Dirty,
}

/// Whether cookies have changed, here or in the store, since they were last exchanged.
#[derive(Default)]
pub(crate) struct Dirty {
    level: AtomicU8,
    /// The time of the last change here, in milliseconds.
    changed_at: AtomicI64,
}

/// How soon changed cookies are exchanged.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Urgency {
    Clean,
    /// When the sessions are next compared with the store.
    Lazy,
    /// By a task that was spawned for it.
    Urgent,
}

impl Dirty {
    /// Records the time of a change here.
    fn set_changed_at(&self, now: Timestamp) {
        self.changed_at.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Returns the time of the last change here.
    pub(crate) fn changed_at(&self) -> Timestamp {
        Timestamp::from_millis(self.changed_at.load(Ordering::Relaxed))
    }

    /// Leaves the exchange to the next comparison with the store, unless it is urgent already.
    pub(crate) fn mark_lazy(&self) {
        let (clean, lazy) = (Urgency::Clean as u8, Urgency::Lazy as u8);
        let _ = self.level.compare_exchange(clean, lazy, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks for an exchange. `true` if the caller has to spawn it: it was not urgent before.
    pub(crate) fn mark_urgent(&self) -> bool {
        self.level.swap(Urgency::Urgent as u8, Ordering::Relaxed) != Urgency::Urgent as u8
    }

    pub(crate) fn is_set(&self) -> bool {
        self.level.load(Ordering::Relaxed) != Urgency::Clean as u8
    }

    /// Called at the start of an exchange, so that a change during it marks again.
    pub(crate) fn clear(&self) {
        self.level.store(Urgency::Clean as u8, Ordering::Relaxed);
    }
}

/// What is known here of a session's record in the store.
#[derive(Default)]
pub(crate) struct KnownRecord {
    /// The version of the identity that is current here, or was last; 0 before the first.
    pub(crate) version: u64,
    /// The version that the session's data came from, if that is newer.
    pub(crate) data_version: u64,
    /// The revision of `version` whose cookies were exchanged.
    pub(crate) revision: u64,
    /// The cookies of that revision.
    pub(crate) cookies: Vec<StoredCookie>,
    /// Every version up to this one has ended.
    pub(crate) ended_up_to: u64,
    /// The generation that `version` has here, once it has been one.
    pub(crate) generation: Option<Generation>,
    /// The change that the store does not have yet.
    pub(crate) pending: Option<PendingWrite>,
    pub(crate) epoch: WriteEpoch,
    /// The next attempt loads the current version again, although it has not ended.
    pub(crate) reload: bool,
    /// A renewal was started here from what is here, and was not committed.
    pub(crate) in_progress: bool,
    /// The renewal before the running one was interrupted.
    pub(crate) interrupted: bool,
    /// The uses of `version` that all processes have taken, as of the last batch.
    pub(crate) uses_taken: u64,
    /// The identity of `version`, if its uses are limited: it continues with the next batch.
    pub(crate) limited: Option<Arc<IdentityInner>>,
}

/// Counts the changes that the store has to get. A write of an older epoch may lack a later change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteEpoch {
    writes: u64,
    /// How often the session was renamed.
    renames: u64,
}

impl WriteEpoch {
    /// Whether the session has had the same name in both epochs.
    pub(crate) fn has_name_of(self, other: Self) -> bool {
        self.renames == other.renames
    }
}

/// A change that the store does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PendingWrite {
    /// The session was cleared.
    End,
    /// The current identity was set by the program and replaces whatever the store has.
    Identity,
    /// The current identity was renewed, but could not be committed. A newer version in the store
    /// wins.
    Renewed,
}

impl KnownRecord {
    /// Returns the newest version that anything here came from.
    pub(crate) fn newest(&self) -> u64 {
        self.version.max(self.data_version)
    }

    /// Returns the version that a record has to surpass to be news.
    pub(crate) fn outdated_up_to(&self) -> u64 {
        self.version.max(self.ended_up_to)
    }

    /// Clears the pending change, unless another one was made since `epoch`.
    pub(crate) fn mark_flushed(&mut self, epoch: WriteEpoch) {
        if self.epoch == epoch {
            self.pending = None;
        }
    }

    /// Records that `version` ended the session in the store.
    pub(crate) fn mark_ended(&mut self, version: u64) {
        self.version = version;
        self.ended_up_to = version;
    }
}

impl ShareState {
    pub(crate) fn new(has_identity: bool) -> Self {
        let pending = has_identity.then_some(PendingWrite::Identity);
        Self {
            sync_lock: tokio::sync::Mutex::default(),
            remote_change: Notify::new(),
            known: Mutex::new(KnownRecord { pending, ..KnownRecord::default() }),
            dirty: Dirty::default(),
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, KnownRecord> {
        self.known.lock()
    }

    pub(crate) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// Waits until nothing else exchanges anything between this session and its record.
    pub(crate) async fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.sync_lock.lock().await
    }

    pub(crate) fn try_lock(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.sync_lock.try_lock().ok()
    }

    /// Resolves at the next [`notify_remote_change`](Self::notify_remote_change).
    pub(crate) fn remote_change(&self) -> Notified<'_> {
        self.remote_change.notified()
    }

    pub(crate) fn notify_remote_change(&self) {
        self.remote_change.notify_waiters();
    }

    pub(crate) fn epoch(&self) -> WriteEpoch {
        self.known().epoch
    }

    /// Records a change that has to reach the store, in place of an earlier one.
    pub(crate) fn enqueue(&self, write: PendingWrite) {
        let mut known = self.known();
        known.pending = Some(write);
        known.epoch.writes += 1;
        known.limited = None;
    }
}

impl SessionInner {
    /// Starts to write the pending change to the store, if the session is shared.
    pub(super) fn flush(self: &Arc<Self>) {
        if let Some(share) = &self.context.share {
            share.clone().flush(Session::of(self.clone()));
        }
    }

    /// Publishes the current identity, which the program has set.
    pub(super) fn enqueue_identity(self: &Arc<Self>) {
        if let Some(state) = &self.share_state {
            state.enqueue(PendingWrite::Identity);
            self.flush();
        }
    }

    /// Starts with a new record, which has the session's new name.
    pub(super) fn renamed(self: &Arc<Self>) {
        if let Some(state) = &self.share_state {
            {
                let mut known = state.known();
                let WriteEpoch { writes, renames } = known.epoch;
                let epoch = WriteEpoch { writes, renames: renames + 1 };
                *known = KnownRecord { epoch, ..KnownRecord::default() };
            }
            self.enqueue_identity();
        }
    }

    /// Schedules the exchange of cookies that a response or the program has changed.
    pub(super) fn cookies_changed(self: &Arc<Self>, now: Timestamp) {
        let (Some(state), Some(share)) = (&self.share_state, &self.context.share) else { return };
        state.dirty.set_changed_at(now);
        if state.dirty.mark_urgent() {
            share.clone().cookies_changed(Session::of(self.clone()));
        }
    }

    /// Records a changed cookie for the next comparison with the store.
    pub(super) fn cookies_changed_lazily(&self, now: Timestamp) {
        if let Some(state) = &self.share_state {
            state.dirty.set_changed_at(now);
            state.dirty.mark_lazy();
        }
    }

    /// Adds to `value` the cookies that were added to `pending` while no identity was current.
    pub(super) fn add_edits(&self, pending: &IdentityInner, value: &IdentityInner) {
        let now = self.context.timestamp();
        let edits: Vec<_> = pending.jar.lock().iter(now).cloned().collect();
        let mut jar = value.jar.lock();
        for edit in edits {
            jar.insert(edit, now);
        }
    }
}
