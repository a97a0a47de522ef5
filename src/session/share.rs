//! The way from a session to the store that it is shared through.

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

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    IdentityInner, Session, renewal_backend::RenewalBackend, session::SessionInner, sessions::RegistryContext,
};
use crate::{
    cookies::{StoredCookie, Timestamp},
    gate::{AttemptContext, BoxError, Generation, RenewalFuture},
};

/// What shares the sessions of one registry with other processes.
pub(crate) trait SharingBackend: Any + Send + Sync {
    /// Where its jitter is drawn from; said once, before anything else.
    fn seed(&self, seed: u64);

    /// Takes over what another process has, or renews and lets the others have it.
    fn renew(
        self: Arc<Self>,
        session: Session,
        backend: Option<Arc<dyn RenewalBackend>>,
        drive: AttemptContext<SessionInner>,
    ) -> RenewalFuture<IdentityInner>;

    /// Lets the others know what has happened here.
    fn flush(self: Arc<Self>, session: Session);

    /// A cookie of this session has changed, by an answer or by hand, and none has since the others were told last.
    fn cookies_changed(self: Arc<Self>, session: Session);

    /// Half of a block of uses is used up.
    fn on_allowance_low(self: Arc<Self>, session: Session, kept: &Arc<IdentityInner>);

    /// Takes a seat, which one process holds at a time. `None`: another one holds it.
    fn acquire_slot(self: Arc<Self>, slot: String) -> SharingFuture<Option<SlotLease>>;

    /// Holds a seat for longer. `None`: it is lost.
    fn extend_slot(self: Arc<Self>, slot: String, hold: SlotLease) -> SharingFuture<Option<SlotLease>>;

    /// Lets another process have the seat.
    fn release_slot(self: Arc<Self>, slot: String, hold: SlotLease) -> SharingFuture<()>;

    /// Ready when the others know what has happened to this session here.
    fn flushed(self: Arc<Self>, session: Session) -> SharingFuture<()>;
}

/// What a store is asked.
pub(crate) type SharingFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A seat as it is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLease {
    pub(crate) fence: u64,
    /// From then on another process may have it, unless it is held for longer.
    pub(crate) until: Instant,
    /// How long from now on the hold is to be asked to last longer.
    pub(crate) extend_after: Duration,
}

/// What ties a session to its store.
pub(crate) struct ShareState {
    /// Held by whoever brings something into the store or out of it: an attempt, a settling of debts, the news.
    pub(crate) sync_lock: tokio::sync::Mutex<()>,
    /// There may be a newer version than is known here.
    pub(crate) remote_change: Notify,
    pub(crate) known: Mutex<KnownRecord>,
    pub(crate) dirty: Dirty,
}

/// Whether cookies have changed here, or with the others, since they were last brought together.
#[derive(Default)]
pub(crate) struct Dirty {
    state: AtomicU8,
    /// When they have changed here for the last time, in milliseconds.
    at: AtomicI64,
}

impl Dirty {
    const LIGHT: u8 = 1;
    const FIRM: u8 = 2;

    /// They have changed here.
    pub(crate) fn changed_at(&self, now: Timestamp) {
        self.at.store(now.as_millis(), Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Timestamp {
        Timestamp::from_millis(self.at.load(Ordering::Relaxed))
    }

    /// It is early enough to see to it when the sessions are next compared with the store.
    pub(crate) fn mark_lazy(&self) {
        let _ = self.state.compare_exchange(0, Self::LIGHT, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Somebody is to see to it. `true`: nobody was told so before.
    pub(crate) fn mark_urgent(&self) -> bool {
        self.state.swap(Self::FIRM, Ordering::Relaxed) != Self::FIRM
    }

    pub(crate) fn is_set(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    /// Somebody is about to see to it.
    pub(crate) fn clear(&self) {
        self.state.store(0, Ordering::Relaxed);
    }
}

/// What is known here of a session's record.
#[derive(Default)]
pub(crate) struct KnownRecord {
    /// The version of the identity that is current here, or was last. 0: of none yet.
    pub(crate) version: u64,
    /// The version that the session's data here came from, if that is a newer one.
    pub(crate) data: u64,
    /// The revision of that version whose cookies are here too.
    pub(crate) revision: u64,
    /// The cookies of that revision.
    pub(crate) cookies: Vec<StoredCookie>,
    /// Versions up to this one have ended.
    pub(crate) ended_up_to: u64,
    /// The generation here that has this version.
    pub(crate) generation: Generation,
    pub(crate) pending: PendingWrite,
    pub(crate) epoch: WriteEpoch,
    /// What is current is to be looked up anew, though it has not ended.
    pub(crate) reload: bool,
    /// A renewal was begun here with what is here, and nothing has come of it.
    pub(crate) in_progress: bool,
    /// Whoever renewed last was stopped in the middle.
    pub(crate) interrupted: bool,
    /// How many uses of this version were taken by everybody, as far as is known here.
    pub(crate) taken: u64,
    /// The identity of this version, if its uses are taken in blocks: it may go on when one is through.
    pub(crate) limited: Option<Arc<IdentityInner>>,
}

/// How often something was asked for here that the store is to be told: what is told afterwards may not be all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteEpoch {
    writes: u64,
    /// How many other names the session was given.
    pub(crate) names: u64,
}

impl KnownRecord {
    /// The store was told of what had been asked for until then.
    pub(crate) fn mark_flushed(&mut self, epoch: WriteEpoch) {
        if self.epoch == epoch {
            self.pending = PendingWrite::None;
        }
    }

    /// The newest version that anything here came from.
    pub(crate) fn newest(&self) -> u64 {
        self.version.max(self.data)
    }
}

/// What the store has yet to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PendingWrite {
    #[default]
    None,
    /// The session was cleared.
    End,
    /// The current identity was given from outside, and is to be everybody's.
    Identity,
    /// The current identity was renewed, and the store could not be told: what others have committed by then comes before it.
    Renewed,
}

impl ShareState {
    pub(crate) fn new(has_identity: bool) -> Self {
        let pending = if has_identity { PendingWrite::Identity } else { PendingWrite::None };
        Self {
            sync_lock: tokio::sync::Mutex::default(),
            remote_change: Notify::new(),
            known: Mutex::new(KnownRecord { pending, ..KnownRecord::default() }),
            dirty: Dirty::default(),
        }
    }

    pub(crate) fn epoch(&self) -> WriteEpoch {
        self.known.lock().epoch
    }

    /// What was asked for here has to reach the store.
    pub(crate) fn enqueue(&self, pending: PendingWrite) {
        let mut known = self.known.lock();
        known.pending = pending;
        known.epoch.writes += 1;
        known.limited = None;
    }
}

impl RegistryContext {
    /// Whether a session begins with an identity: not if it has to be renewed first, or others may have one.
    pub(super) fn starts_current(&self) -> bool {
        !self.login_first && self.share.is_none()
    }
}

impl SessionInner {
    /// Lets the others know what has happened here, if there are others.
    pub(super) fn flush(self: &Arc<Self>) {
        if let Some(share) = &self.context.share {
            share.clone().flush(Session::of(self.clone()));
        }
    }

    /// The identity that is current came about here, and is for the others too.
    pub(super) fn enqueue_identity(self: &Arc<Self>) {
        if let Some(share_state) = &self.share_state {
            share_state.enqueue(PendingWrite::Identity);
            self.flush();
        }
    }

    /// The session has another name, under which the others know nothing of it.
    pub(super) fn renamed(self: &Arc<Self>) {
        if let Some(share_state) = &self.share_state {
            {
                let mut known = share_state.known.lock();
                let WriteEpoch { writes, names } = known.epoch;
                *known =
                    KnownRecord { epoch: WriteEpoch { writes, names: names + 1 }, ..KnownRecord::default() };
            }
            self.enqueue_identity();
        }
    }

    /// A cookie has changed, by an answer or by hand.
    pub(super) fn cookies_changed(self: &Arc<Self>, now: Timestamp) {
        let (Some(share_state), Some(share)) = (&self.share_state, &self.context.share) else { return };
        share_state.dirty.changed_at(now);
        if share_state.dirty.mark_urgent() {
            share.clone().cookies_changed(Session::of(self.clone()));
        }
    }

    /// A cookie has changed, and it is early enough if the others know when the sessions are next compared with the store.
    pub(super) fn cookies_changed_lazily(&self, now: Timestamp) {
        if let Some(share_state) = &self.share_state {
            share_state.dirty.changed_at(now);
            share_state.dirty.mark_lazy();
        }
    }

    /// Adds to `value` what was added to `pending` while there was no current identity.
    pub(super) fn add_edits(&self, pending: &IdentityInner, value: &IdentityInner) {
        let now = self.context.timestamp();
        let edits: Vec<_> = pending.jar.lock().iter(now).cloned().collect();
        let mut jar = value.jar.lock();
        for edit in edits {
            jar.insert(edit, now);
        }
    }
}

#[cfg(feature = "shared")]
mod adoption {
    use std::sync::Arc;

    use super::{SessionInner, ShareState};
    use crate::{
        gate::{GateRef, Generation, VersionState},
        session::{
            IdentityInner,
            session::{InitialState, ProfileChoice},
            snapshot::{RestoreError, SessionSnapshot},
        },
    };

    impl SessionInner {
        pub(crate) fn share_state(&self) -> &ShareState {
            self.share_state.as_deref().expect("the session is shared")
        }

        /// Whether somebody was stopped in the middle of renewing what is renewed now.
        pub(crate) fn is_interrupted(&self) -> bool {
            self.share_state.as_ref().is_some_and(|share_state| share_state.known.lock().interrupted)
        }

        /// What the program keeps with the session is what a record has.
        pub(crate) fn take_data(&self, snapshot: SessionSnapshot) {
            self.keep_data(snapshot.data);
        }

        /// The identity of a snapshot, in the place of `candidate`, and the session's data with it.
        pub(crate) fn adopt(
            &self,
            candidate: &IdentityInner,
            snapshot: &SessionSnapshot,
        ) -> Result<Arc<IdentityInner>, RestoreError> {
            let InitialState { jar, profile, data, age, .. } = self.context.restored(snapshot)?;
            let born = self.context.now().saturating_sub(age);
            let life = VersionState::new(candidate.life.generation, born, self.gate.random());
            let worn = match profile {
                ProfileChoice::Next => candidate.worn.clone(),
                profile => profile.resolve(self.profile_picker.as_ref(), self.context.std_now()),
            };
            self.keep_data(data);
            Ok(Arc::new(IdentityInner::new(life, jar, worn)))
        }

        /// Makes a snapshot's identity current in the place of the one of this generation. `None`: another one is current.
        pub(crate) fn install(
            self: &Arc<Self>,
            current: Generation,
            snapshot: &SessionSnapshot,
        ) -> Result<Option<Arc<IdentityInner>>, RestoreError> {
            let Some(before) = self.gate.current() else { return Ok(None) };
            let made = self.adopt(&before, snapshot)?;
            let is_limited = self.context.backend().is_some_and(|backend| backend.budget().uses.is_some());
            let mut installed = None;
            GateRef::new(self).replace_if(current, |generation| {
                let life = VersionState::new(generation, made.life.created_at, self.gate.random());
                if is_limited {
                    // Nobody is to use it before uses were taken.
                    life.allowance.begin();
                }
                let jar = std::mem::take(&mut *made.jar.lock());
                let kept = Arc::new(IdentityInner::new(life, jar, made.worn.clone()));
                installed = Some(kept.clone());
                kept
            });
            Ok(installed)
        }

        /// The same identity as another generation, allowed so many uses more.
        pub(crate) fn continue_version(
            &self,
            spent: &IdentityInner,
            generation: Generation,
            uses: u64,
        ) -> Arc<IdentityInner> {
            let life = VersionState::new(generation, spent.life.created_at, self.gate.random());
            life.allowance.begin();
            life.allowance.allow(uses);
            let jar = spent.jar.lock().clone();
            Arc::new(IdentityInner::new(life, jar, spent.worn.clone()))
        }

        /// Ends the current identity here, and says so to nobody.
        pub(crate) fn end_here(self: &Arc<Self>) {
            // A closed gate has nothing left to end.
            let _ = GateRef::new(self).clear();
        }
    }
}
