//! The slots of a pool whose sessions are shared with other processes.
//!
//! Each slot, and the session in it, belongs to one process at a time by a lease of the store. A
//! slot is acquired when a member is created and released when the member is gone. One task extends
//! the leases of all slots of a pool, so that requests do not access the store.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};

use super::{
    tasks::Tasks,
    types::{Key, MemberEnd},
    warm_up::{self, WarmUpGuard},
};
use crate::{
    gate::{Availability, BoxError, RenewalError, RenewalErrorKind},
    session::{
        Session, SessionId,
        share::{SharingBackend, SlotLease},
    },
};

/// The first pause of a search that finds all slots taken; it doubles each time.
const POLL_MIN: Duration = Duration::from_millis(50);
/// The longest pause while requests wait for the slot.
const POLL_MAX: Duration = Duration::from_secs(1);
/// The longest pause while no request waits.
const IDLE_POLL_MAX: Duration = Duration::from_secs(10);

/// A member that was not used during this many rounds of extensions is released.
const IDLE_ROUNDS: u32 = 9;

pub(crate) struct SlotLeases {
    share: Arc<dyn SharingBackend>,
    pool: Arc<str>,
    /// The number of slots, if it is limited.
    max: Option<u32>,
    /// Held by the one member that searches for a slot.
    search: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Key, HeldSlot>,
    /// Extends the leases, on the runtime where the first slot was acquired.
    renewer: Option<JoinHandle<()>>,
    /// No slot is acquired before this time, so that a slot that was released for another process
    /// goes to that process.
    not_before: Option<Instant>,
}

struct HeldSlot {
    id: SessionId,
    lease: SlotLease,
    since: Instant,
    /// The number of the member's last lease in the previous round.
    last_lease: u64,
    /// The number of rounds in which the member was not used.
    idle: u32,
}

/// A slot that is released on drop unless a member takes it.
struct SlotGuard<'s> {
    slots: &'s SlotLeases,
    id: SessionId,
    lease: Option<SlotLease>,
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.slots.release_lease(&self.id, lease);
        }
    }
}

impl SlotLeases {
    pub(crate) fn new(share: Arc<dyn SharingBackend>, pool: &Arc<str>, max: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            share,
            pool: pool.clone(),
            max,
            search: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// Acquires a slot for a member and warms up the session in it.
    pub(crate) fn fill(self: &Arc<Self>, pool: Weak<dyn Tasks>, guard: WarmUpGuard) {
        let Ok(runtime) = Handle::try_current() else { return };
        let slots = self.clone();
        runtime.spawn(async move {
            let Some(slot) = slots.find(&pool).await else { return };
            let Some(tasks) = pool.upgrade() else { return };
            let session = tasks.session(slot.id.clone());
            slots.acquire(&pool, guard.key(), slot);
            tasks.attach_session(guard.key(), session.clone());
            drop(tasks);
            if session.gate().availability() == Availability::Open {
                guard.finish(Ok(()));
            } else if session.0.context.backend().is_some() {
                // The attempt first checks whether a session can be adopted.
                warm_up::warm_up(guard, session);
            } else {
                guard.finish(Err(RenewalError::new(RenewalErrorKind::NoService)));
            }
        });
    }

    /// Searches until it finds a free slot; `None` when the pool is gone.
    ///
    /// The pauses grow, and grow further if no request waits for the slot.
    async fn find(&self, pool: &Weak<dyn Tasks>) -> Option<SlotGuard<'_>> {
        let _search = self.search.lock().await;
        let mut demand = None;
        let mut pause = POLL_MIN;
        loop {
            let (random, has_waiters) = {
                let pool = pool.upgrade()?;
                (pool.random(), pool.has_waiters())
            };
            let found = self.try_slots(random).await;
            // A process that holds a slot does not ask others to release theirs.
            let needs_slot = has_waiters && self.state.lock().held.is_empty();
            match found {
                Ok(Some(slot)) => {
                    self.withdraw_demand(demand);
                    return Some(slot);
                }
                Ok(None) if needs_slot => demand = self.signal_demand(demand).await,
                Ok(None) => self.withdraw_demand(demand.take()),
                Err(error) => {
                    tracing::debug!(pool = %self.pool, %error, "could not acquire a slot of a shared pool");
                }
            }
            // Between half of the pause and all of it, so that processes do not search in step.
            sleep(pause.mul_f64(0.5 + (random % 1024) as f64 / 2048.0)).await;
            pause = (pause * 2).min(if has_waiters { POLL_MAX } else { IDLE_POLL_MAX });
        }
    }

    /// Tries all slots once, starting at a random one if their number is limited.
    async fn try_slots(&self, random: u64) -> Result<Option<SlotGuard<'_>>, BoxError> {
        let now = Instant::now();
        if self.state.lock().not_before.is_some_and(|until| now < until) {
            return Ok(None);
        }
        let max = u64::from(self.max.unwrap_or(u32::MAX));
        let first = if self.max.is_some() { random % max } else { 0 };
        for offset in 0..max {
            let id = SessionId::from(format!("{}-{}", self.pool, (first + offset) % max + 1));
            let is_held = self.state.lock().held.values().any(|slot| slot.id == id);
            if is_held {
                continue;
            }
            if let Some(lease) = self.share.clone().acquire_slot(id.to_string()).await? {
                return Ok(Some(SlotGuard { slots: self, id, lease: Some(lease) }));
            }
        }
        Ok(None)
    }

    /// The name of the lease by which a process signals that it needs a slot.
    fn demand_key(&self) -> String {
        format!("{} wanted", self.pool)
    }

    /// Signals to the other processes that this one needs a slot.
    async fn signal_demand(&self, demand: Option<SlotLease>) -> Option<SlotLease> {
        let signalled = match demand {
            Some(lease) => self.share.clone().extend_slot(self.demand_key(), lease).await,
            None => self.share.clone().acquire_slot(self.demand_key()).await,
        };
        // Another process may have signalled first, or the store may be unreachable: then this
        // process only polls.
        signalled.ok().flatten()
    }

    fn withdraw_demand(&self, demand: Option<SlotLease>) {
        if let (Some(lease), Ok(runtime)) = (demand, Handle::try_current()) {
            runtime.spawn(self.share.clone().release_slot(self.demand_key(), lease));
        }
    }

    fn acquire(self: &Arc<Self>, pool: &Weak<dyn Tasks>, key: Key, mut slot: SlotGuard<'_>) {
        let Some(lease) = slot.lease.take() else { return };
        let since = Instant::now();
        let held = HeldSlot { id: slot.id.clone(), lease, since, last_lease: 0, idle: 0 };
        let mut state = self.state.lock();
        state.held.insert(key, held);
        // A previous renewer may have been dropped with its runtime.
        if state.renewer.as_ref().is_none_or(JoinHandle::is_finished) {
            let renewer = SlotRenewer { slots: Arc::downgrade(self), pool: Some(pool.clone()) };
            state.renewer = Some(tokio::spawn(renewer.run()));
        }
    }

    /// Releases the slot of a member that is gone.
    ///
    /// The next process to acquire the slot continues the session, unless the session was retired.
    pub(crate) fn release(self: &Arc<Self>, key: Key, session: Option<Session>, end: MemberEnd) {
        if !self.is_held(key) {
            // The slot was lost, and the session with it.
            return;
        }
        let Some(session) = session else { return self.release_now(key) };
        if end == MemberEnd::Retired {
            session.clear();
        }
        // The slot is held until the final state of the session is in the store. Outside a runtime,
        // the lease expires.
        let Ok(runtime) = Handle::try_current() else { return };
        let slots = self.clone();
        runtime.spawn(async move {
            while slots.share.clone().flushed(session.clone()).await.is_err() && slots.is_held(key) {
                sleep(POLL_MAX).await;
            }
            slots.release_now(key);
        });
    }

    fn is_held(&self, key: Key) -> bool {
        self.state.lock().held.contains_key(&key)
    }

    fn release_now(&self, key: Key) {
        let slot = self.state.lock().held.remove(&key);
        if let Some(slot) = slot {
            self.release_lease(&slot.id, slot.lease);
        }
    }

    fn release_lease(&self, id: &SessionId, lease: SlotLease) {
        if let Ok(runtime) = Handle::try_current() {
            // If this does not reach the store, the lease expires.
            runtime.spawn(self.share.clone().release_slot(id.to_string(), lease));
        }
    }
}

impl Drop for SlotLeases {
    fn drop(&mut self) {
        for slot in std::mem::take(&mut self.state.get_mut().held).into_values() {
            self.release_lease(&slot.id, slot.lease);
        }
    }
}

/// Extends the leases of a pool's slots and releases those that are not needed here.
///
/// If it is dropped with its runtime, the slots are lost, and so their members are released.
struct SlotRenewer {
    slots: Weak<SlotLeases>,
    /// `None` once no slot is left to extend.
    pool: Option<Weak<dyn Tasks>>,
}

impl Drop for SlotRenewer {
    fn drop(&mut self) {
        let (Some(slots), Some(pool)) = (self.slots.upgrade(), self.pool()) else { return };
        let held: Vec<Key> = slots.state.lock().held.keys().copied().collect();
        for key in held {
            pool.clone().release(key);
        }
    }
}

impl SlotRenewer {
    fn pool(&self) -> Option<Arc<dyn Tasks>> {
        self.pool.as_ref().and_then(Weak::upgrade)
    }

    async fn run(mut self) {
        while let Some(pause) = self.next_extension() {
            sleep(pause).await;
            let Some(slots) = self.slots.upgrade() else { return };
            self.extend(&slots).await;
            // Bounded, so that no lease expires during this check.
            let is_demanded = match slots.first_expiry() {
                Some(expiry) => timeout_at(expiry, slots.is_demanded()).await.unwrap_or(false),
                None => false,
            };
            let Some(pool) = self.pool() else { return };
            for key in slots.surplus(&*pool, is_demanded) {
                pool.clone().release(key);
            }
        }
        self.pool = None;
    }

    /// Returns the time until the next extension.
    ///
    /// `None` means that no slot is left; the next slot starts another renewer.
    fn next_extension(&self) -> Option<Duration> {
        let slots = self.slots.upgrade()?;
        let mut state = slots.state.lock();
        let now = Instant::now();
        let pause = |lease: SlotLease| lease.extend_after.min(lease.until.saturating_duration_since(now));
        let pause = state.held.values().map(|slot| pause(slot.lease)).min();
        if pause.is_none() {
            state.renewer = None;
        }
        pause
    }

    async fn extend(&self, slots: &Arc<SlotLeases>) {
        let held: Vec<(Key, SessionId, SlotLease)> =
            slots.state.lock().held.iter().map(|(key, slot)| (*key, slot.id.clone(), slot.lease)).collect();
        let mut extensions = JoinSet::new();
        for (key, id, lease) in held {
            let extension = slots.share.clone().extend_slot(id.to_string(), lease);
            extensions.spawn(async move {
                match timeout_at(lease.until, extension).await {
                    Ok(Ok(extended)) => (key, extended),
                    // The store did not respond. The lease is valid until it expires, and the next
                    // round may succeed.
                    _ => (key, Some(lease).filter(|lease| Instant::now() < lease.until)),
                }
            });
        }
        while let Some(result) = extensions.join_next().await {
            let Ok((key, extended)) = result else { continue };
            let mut state = slots.state.lock();
            match extended {
                Some(lease) => {
                    if let Some(slot) = state.held.get_mut(&key) {
                        slot.lease = lease;
                    }
                }
                None => {
                    let lost = state.held.remove(&key);
                    drop(state);
                    if let (Some(lost), Some(pool)) = (lost, self.pool()) {
                        tracing::warn!(session = %lost.id, "the slot of a shared session was lost");
                        pool.release(key);
                    }
                }
            }
        }
    }
}

impl SlotLeases {
    /// Returns when the first lease expires.
    fn first_expiry(&self) -> Option<Instant> {
        self.state.lock().held.values().map(|slot| slot.lease.until).min()
    }

    /// Returns whether another process needs a slot.
    async fn is_demanded(&self) -> bool {
        if self.state.lock().held.is_empty() {
            return false;
        }
        match self.share.clone().acquire_slot(self.demand_key()).await {
            Ok(Some(lease)) => {
                self.withdraw_demand(Some(lease));
                false
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Returns the members to release.
    ///
    /// Those are the idle ones or, if there are none and another process needs a slot, the one that
    /// was held for longest.
    fn surplus(&self, pool: &dyn Tasks, is_demanded: bool) -> Vec<Key> {
        let usage = pool.usage();
        let mut state = self.state.lock();
        let mut surplus = Vec::new();
        for (key, slot) in &mut state.held {
            let Some(usage) = usage.get(key).copied() else { continue };
            let was_used = usage.is_leased || usage.last_lease != slot.last_lease;
            slot.idle = if was_used { 0 } else { slot.idle + 1 };
            slot.last_lease = usage.last_lease;
            if slot.idle >= IDLE_ROUNDS {
                surplus.push(*key);
            }
        }
        if is_demanded && surplus.is_empty() {
            state.not_before = Some(Instant::now() + 2 * POLL_MAX);
            let longest = state.held.iter().min_by_key(|(_, slot)| slot.since);
            surplus.extend(longest.map(|(key, _)| *key));
        }
        surplus
    }
}
