//! The leases of a pool whose sessions are shared with other processes: each session is one process's at a time.
//!
//! A slot is a lease of the store. It is held when a member is made and extended by one task for all leases of the pool, so that
//! requests have nothing to ask for. It is left when the member is gone.

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
    runtime::Pool,
    state::{Key, MemberEnd},
    warm_up::{self, WarmUpGuard},
};
use crate::{
    gate::{BoxError, RenewalError, RenewalErrorKind, keeper::Outlook},
    session::{
        Session, SessionId,
        share::{SharingBackend, SlotLease},
    },
};

/// How long one who finds all leases held waits before the next look; it doubles each time.
const POLL_MIN: Duration = Duration::from_millis(50);
const POLL_MAX: Duration = Duration::from_secs(1);

/// The longest wait of one whom nobody waits for.
const IDLE_POLL_MAX: Duration = Duration::from_secs(10);

/// A member that was not leased for so many rounds of extensions is given back.
const IDLE_ROUNDS: u32 = 9;

pub(crate) struct SlotLeases {
    share: Arc<dyn SharingBackend>,
    pool: Arc<str>,
    max: Option<u32>,
    /// Held by the one member that looks for a slot.
    search: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Key, HeldSlot>,
    /// Extends the leases, on the runtime of whoever took the first one.
    renewer: Option<JoinHandle<()>>,
    /// Until then no slot is held here, so that one that was given back for another process is that one's.
    not_before: Option<Instant>,
}

struct HeldSlot {
    id: SessionId,
    hold: SlotLease,
    since: Instant,
    /// The member's leases when it was last looked at, and how often they have not changed since.
    leases: u64,
    idle: u32,
}

/// A slot that is given back if nobody sits down on it.
struct SlotGuard<'s> {
    leases: &'s SlotLeases,
    id: SessionId,
    hold: Option<SlotLease>,
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.leases.release_lease(&self.id, hold);
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

    /// Finds a slot for a member, and warms the session up that sits on it.
    pub(crate) fn fill(self: &Arc<Self>, pool: &Arc<Pool>, guard: WarmUpGuard) {
        let Ok(runtime) = Handle::try_current() else { return };
        let (leases, pool) = (self.clone(), Arc::downgrade(pool));
        runtime.spawn(async move {
            let Some(held) = leases.find(&pool).await else { return };
            let Some(pool) = pool.upgrade() else { return };
            let session = pool.sessions.registry.member(held.id.clone());
            leases.acquire(&pool, guard.key(), held);
            pool.attach_session(guard.key(), session.clone());
            drop(pool);
            if session.0.gate.outlook() == Outlook::Open {
                guard.finish(Ok(()));
            } else if session.0.context.backend().is_some() {
                // The attempt looks first whether there is a session that can be held over.
                warm_up::warm_up(guard, session);
            } else {
                guard.finish(Err(RenewalError::new(RenewalErrorKind::NoService)));
            }
        });
    }

    /// Looks until there is a slot, the less often the longer nobody waits for it; `None` when the pool is gone.
    async fn find(&self, pool: &Weak<Pool>) -> Option<SlotGuard<'_>> {
        let _search = self.search.lock().await;
        let mut wanted = None;
        let mut pause = POLL_MIN;
        loop {
            let (random, is_waited_for) = {
                let pool = pool.upgrade()?;
                let jitter = &pool.sessions.registry.context.jitter;
                (jitter.draw(), pool.inspect(|core, _| core.waiting() > 0))
            };
            let found = self.try_slots(random).await;
            // One who has a slot makes do with it.
            let wants = is_waited_for && self.state.lock().held.is_empty();
            match found {
                Ok(Some(held)) => {
                    self.withdraw_demand(wanted);
                    return Some(held);
                }
                Ok(None) if wants => wanted = self.signal_demand(wanted).await,
                Ok(None) => self.withdraw_demand(wanted.take()),
                Err(error) => {
                    tracing::debug!(pool = %self.pool, %error, "no slot could be held for a shared session");
                }
            }
            // At max by half of it earlier than the others.
            sleep(pause.mul_f64(0.5 + (random % 1024) as f64 / 2048.0)).await;
            pause = (pause * 2).min(if is_waited_for { POLL_MAX } else { IDLE_POLL_MAX });
        }
    }

    /// Tries the leases, from any of them on where they are bounded.
    async fn try_slots(&self, random: u64) -> Result<Option<SlotGuard<'_>>, BoxError> {
        let now = Instant::now();
        if self.state.lock().not_before.is_some_and(|until| now < until) {
            return Ok(None);
        }
        let max = u64::from(self.max.unwrap_or(u32::MAX));
        let first = if self.max.is_some() { random % max } else { 0 };
        for turn in 0..max {
            let id = SessionId::from(format!("{}-{}", self.pool, (first + turn) % max + 1));
            let is_mine = self.state.lock().held.values().any(|slot| slot.id == id);
            if is_mine {
                continue;
            }
            if let Some(hold) = self.share.clone().acquire_slot(id.to_string()).await? {
                return Ok(Some(SlotGuard { leases: self, id, hold: Some(hold) }));
            }
        }
        Ok(None)
    }

    fn demand_key(&self) -> String {
        format!("{} wanted", self.pool)
    }

    /// Lets all who have leases know that one is wanted for.
    async fn signal_demand(&self, wanted: Option<SlotLease>) -> Option<SlotLease> {
        let asked = match wanted {
            Some(hold) => self.share.clone().extend_slot(self.demand_key(), hold).await,
            None => self.share.clone().acquire_slot(self.demand_key()).await,
        };
        // Another one may signal_demand for one too, or the store be away: then leases are looked for as they come.
        asked.ok().flatten()
    }

    fn withdraw_demand(&self, wanted: Option<SlotLease>) {
        if let (Some(hold), Ok(runtime)) = (wanted, Handle::try_current()) {
            runtime.spawn(self.share.clone().release_slot(self.demand_key(), hold));
        }
    }

    fn acquire(self: &Arc<Self>, pool: &Arc<Pool>, key: Key, mut held: SlotGuard<'_>) {
        let Some(hold) = held.hold.take() else { return };
        let now = Instant::now();
        let slot = HeldSlot { id: held.id.clone(), hold, since: now, leases: 0, idle: 0 };
        let mut state = self.state.lock();
        state.held.insert(key, slot);
        // The last one may have been lost with its runtime.
        if state.renewer.as_ref().is_none_or(JoinHandle::is_finished) {
            let renewer = SlotRenewer { leases: Arc::downgrade(self), pool: Arc::downgrade(pool) };
            state.renewer = Some(tokio::spawn(renewer.run()));
        }
    }

    /// A member is gone. Its session is for the next one on its slot, unless it has ended for all.
    pub(crate) fn release(self: &Arc<Self>, key: Key, session: Option<Session>, end: MemberEnd) {
        if !self.is_held(key) {
            // The slot was lost, and the session with it.
            return;
        }
        let Some(session) = session else { return self.release_now(key) };
        if end == MemberEnd::Retired {
            session.clear();
        }
        // The slot is kept until the others can know what has become of the session. Where there is no runtime, it is lost in time.
        let Ok(runtime) = Handle::try_current() else { return };
        let leases = self.clone();
        runtime.spawn(async move {
            while leases.share.clone().flushed(session.clone()).await.is_err() && leases.is_held(key) {
                sleep(POLL_MAX).await;
            }
            leases.release_now(key);
        });
    }

    fn is_held(&self, key: Key) -> bool {
        self.state.lock().held.contains_key(&key)
    }

    fn release_now(&self, key: Key) {
        let slot = self.state.lock().held.remove(&key);
        if let Some(slot) = slot {
            self.release_lease(&slot.id, slot.hold);
        }
    }

    fn release_lease(&self, id: &SessionId, hold: SlotLease) {
        if let Ok(runtime) = Handle::try_current() {
            // If it is not heard, the lease runs out.
            runtime.spawn(self.share.clone().release_slot(id.to_string(), hold));
        }
    }
}

impl Drop for SlotLeases {
    fn drop(&mut self) {
        for slot in std::mem::take(&mut self.state.get_mut().held).into_values() {
            self.release_lease(&slot.id, slot.hold);
        }
    }
}

/// Extends the leases of a pool, and gives back what is not needed here. If it is dropped, the leases are lost.
struct SlotRenewer {
    leases: Weak<SlotLeases>,
    pool: Weak<Pool>,
}

impl Drop for SlotRenewer {
    fn drop(&mut self) {
        let (Some(leases), Some(pool)) = (self.leases.upgrade(), self.pool.upgrade()) else { return };
        let held: Vec<Key> = leases.state.lock().held.keys().copied().collect();
        for key in held {
            pool.release(key);
        }
    }
}

impl SlotRenewer {
    async fn run(mut self) {
        while let Some(rest) = self.rest() {
            sleep(rest).await;
            let Some(leases) = self.leases.upgrade() else { return };
            self.extend(&leases).await;
            // Nobody's slot is forgotten over it.
            let is_wanted = match leases.first_end() {
                Some(end) => timeout_at(end, leases.is_wanted()).await.unwrap_or(false),
                None => false,
            };
            let Some(pool) = self.pool.upgrade() else { return };
            for key in leases.surplus(&pool, is_wanted) {
                pool.release(key);
            }
        }
        self.pool = Weak::new();
    }

    /// How long until the leases are to be extended. `None`: there are none any more, and the next one gets another renewer.
    fn rest(&self) -> Option<Duration> {
        let leases = self.leases.upgrade()?;
        let mut state = leases.state.lock();
        let now = Instant::now();
        let rest = |hold: SlotLease| hold.extend_after.min(hold.until.saturating_duration_since(now));
        let rest = state.held.values().map(|slot| rest(slot.hold)).min();
        if rest.is_none() {
            state.renewer = None;
        }
        rest
    }

    async fn extend(&self, leases: &Arc<SlotLeases>) {
        let held: Vec<(Key, SessionId, SlotLease)> =
            leases.state.lock().held.iter().map(|(key, slot)| (*key, slot.id.clone(), slot.hold)).collect();
        let mut asked = JoinSet::new();
        for (key, id, hold) in held {
            let stay = leases.share.clone().extend_slot(id.to_string(), hold);
            asked.spawn(async move {
                match timeout_at(hold.until, stay).await {
                    Ok(Ok(held)) => (key, held),
                    // It holds for the rest of its time; the next round may be answered.
                    _ => (key, Some(hold).filter(|hold| Instant::now() < hold.until)),
                }
            });
        }
        while let Some(answer) = asked.join_next().await {
            let Ok((key, held)) = answer else { continue };
            let mut state = leases.state.lock();
            match held {
                Some(hold) => {
                    if let Some(slot) = state.held.get_mut(&key) {
                        slot.hold = hold;
                    }
                }
                None => {
                    let lost = state.held.remove(&key);
                    drop(state);
                    if let (Some(lost), Some(pool)) = (lost, self.pool.upgrade()) {
                        tracing::warn!(session = %lost.id, "the slot of a shared session was lost");
                        pool.release(key);
                    }
                }
            }
        }
    }
}

impl SlotLeases {
    /// When the first of the leases is no longer sure.
    fn first_end(&self) -> Option<Instant> {
        self.state.lock().held.values().map(|slot| slot.hold.until).min()
    }

    /// Whether another process wants for a slot.
    async fn is_wanted(&self) -> bool {
        if self.state.lock().held.is_empty() {
            return false;
        }
        match self.share.clone().acquire_slot(self.demand_key()).await {
            Ok(Some(hold)) => {
                self.withdraw_demand(Some(hold));
                false
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Who is to be given back: those that nobody has used for a while and, if another process wants for one, the one that was
    /// had for longest.
    fn surplus(&self, pool: &Pool, is_wanted: bool) -> Vec<Key> {
        let leases: HashMap<Key, (u64, bool)> = pool.inspect(|core, _| {
            core.members().map(|(key, member)| (key, (member.leased(), member.in_use > 0))).collect()
        });
        let mut state = self.state.lock();
        let mut surplus = Vec::new();
        for (key, slot) in &mut state.held {
            let Some((leases, is_busy)) = leases.get(key).copied() else { continue };
            slot.idle = if is_busy || leases != slot.leases { 0 } else { slot.idle + 1 };
            slot.leases = leases;
            if slot.idle >= IDLE_ROUNDS {
                surplus.push(*key);
            }
        }
        if is_wanted && surplus.is_empty() {
            state.not_before = Some(Instant::now() + 2 * POLL_MAX);
            let longest = state.held.iter().min_by_key(|(_, slot)| slot.since);
            surplus.extend(longest.map(|(key, _)| *key));
        }
        surplus
    }
}
