//! The seats of a pool whose sessions are shared with other processes: each session is one process's at a time.
//!
//! A seat is a lease of the store. It is taken when a member is made and extended by one task for all seats of the pool, so that
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
    core::{End, Key},
    keeper::Pool,
    warm::{self, Order},
};
use crate::{
    gate::{BoxError, RenewalError, RenewalErrorKind, keeper::Outlook},
    session::{
        Session, SessionId,
        share::{SharingBackend, SlotLease},
    },
};

/// How long one who finds all seats taken waits before the next look; it doubles each time.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The longest wait of one whom nobody waits for.
const IDLE_LOOK: Duration = Duration::from_secs(10);

/// A member that was not leased for so many rounds of extensions is given back.
const IDLE_ROUNDS: u32 = 9;

pub(crate) struct Seats {
    share: Arc<dyn SharingBackend>,
    pool: Arc<str>,
    most: Option<u32>,
    /// Held by the one member that looks for a seat.
    search: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: HashMap<Key, Seat>,
    /// Extends the seats, on the runtime of whoever took the first one.
    steward: Option<JoinHandle<()>>,
    /// Until then no seat is taken here, so that one that was given back for another process is that one's.
    not_before: Option<Instant>,
}

struct Seat {
    id: SessionId,
    hold: SlotLease,
    since: Instant,
    /// The member's leases when it was last looked at, and how often they have not changed since.
    leases: u64,
    idle: u32,
}

/// A seat that is given back if nobody sits down on it.
struct Taken<'s> {
    seats: &'s Seats,
    id: SessionId,
    hold: Option<SlotLease>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.seats.leave(&self.id, hold);
        }
    }
}

impl Seats {
    pub(crate) fn new(share: Arc<dyn SharingBackend>, pool: &Arc<str>, most: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            share,
            pool: pool.clone(),
            most,
            search: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// Finds a seat for a member, and warms the session up that sits on it.
    pub(crate) fn fill(self: &Arc<Self>, pool: &Arc<Pool>, order: Order) {
        let Ok(runtime) = Handle::try_current() else { return };
        let (seats, pool) = (self.clone(), Arc::downgrade(pool));
        runtime.spawn(async move {
            let Some(taken) = seats.find(&pool).await else { return };
            let Some(pool) = pool.upgrade() else { return };
            let session = pool.sessions.registry.member(taken.id.clone());
            seats.sit_down(&pool, order.key(), taken);
            pool.seat(order.key(), session.clone());
            drop(pool);
            if session.0.gate.outlook() == Outlook::Open {
                order.finish(Ok(()));
            } else if session.0.shared.lane().is_some() {
                // The attempt looks first whether there is a session that can be taken over.
                warm::up(order, session);
            } else {
                order.finish(Err(RenewalError::new(RenewalErrorKind::NoService)));
            }
        });
    }

    /// Looks until there is a seat, the less often the longer nobody waits for it; `None` when the pool is gone.
    async fn find(&self, pool: &Weak<Pool>) -> Option<Taken<'_>> {
        let _search = self.search.lock().await;
        let mut wanted = None;
        let mut pause = FIRST_LOOK;
        loop {
            let (random, is_waited_for) = {
                let pool = pool.upgrade()?;
                let jitter = &pool.sessions.registry.shared.jitter;
                (jitter.draw(), pool.inspect(|core, _| core.waiting() > 0))
            };
            let found = self.look(random).await;
            // One who has a seat makes do with it.
            let wants = is_waited_for && self.state.lock().taken.is_empty();
            match found {
                Ok(Some(taken)) => {
                    self.unwant(wanted);
                    return Some(taken);
                }
                Ok(None) if wants => wanted = self.want(wanted).await,
                Ok(None) => self.unwant(wanted.take()),
                Err(error) => {
                    tracing::debug!(pool = %self.pool, %error, "no seat could be taken for a shared session");
                }
            }
            // At most by half of it earlier than the others.
            sleep(pause.mul_f64(0.5 + (random % 1024) as f64 / 2048.0)).await;
            pause = (pause * 2).min(if is_waited_for { LAST_LOOK } else { IDLE_LOOK });
        }
    }

    /// Tries the seats, from any of them on where they are bounded.
    async fn look(&self, random: u64) -> Result<Option<Taken<'_>>, BoxError> {
        let now = Instant::now();
        if self.state.lock().not_before.is_some_and(|until| now < until) {
            return Ok(None);
        }
        let most = u64::from(self.most.unwrap_or(u32::MAX));
        let first = if self.most.is_some() { random % most } else { 0 };
        for turn in 0..most {
            let id = SessionId::from(format!("{}-{}", self.pool, (first + turn) % most + 1));
            let is_mine = self.state.lock().taken.values().any(|seat| seat.id == id);
            if is_mine {
                continue;
            }
            if let Some(hold) = self.share.clone().acquire_slot(id.to_string()).await? {
                return Ok(Some(Taken { seats: self, id, hold: Some(hold) }));
            }
        }
        Ok(None)
    }

    fn wish(&self) -> String {
        format!("{} wanted", self.pool)
    }

    /// Lets all who have seats know that one is wanted for.
    async fn want(&self, wanted: Option<SlotLease>) -> Option<SlotLease> {
        let asked = match wanted {
            Some(hold) => self.share.clone().extend_slot(self.wish(), hold).await,
            None => self.share.clone().acquire_slot(self.wish()).await,
        };
        // Another one may want for one too, or the store be away: then seats are looked for as they come.
        asked.ok().flatten()
    }

    fn unwant(&self, wanted: Option<SlotLease>) {
        if let (Some(hold), Ok(runtime)) = (wanted, Handle::try_current()) {
            runtime.spawn(self.share.clone().release_slot(self.wish(), hold));
        }
    }

    fn sit_down(self: &Arc<Self>, pool: &Arc<Pool>, key: Key, mut taken: Taken<'_>) {
        let Some(hold) = taken.hold.take() else { return };
        let now = Instant::now();
        let seat = Seat { id: taken.id.clone(), hold, since: now, leases: 0, idle: 0 };
        let mut state = self.state.lock();
        state.taken.insert(key, seat);
        // The last one may have been lost with its runtime.
        if state.steward.as_ref().is_none_or(JoinHandle::is_finished) {
            let steward = Steward { seats: Arc::downgrade(self), pool: Arc::downgrade(pool) };
            state.steward = Some(tokio::spawn(steward.serve()));
        }
    }

    /// A member is gone. Its session is for the next one on its seat, unless it has ended for all.
    pub(crate) fn rise(self: &Arc<Self>, key: Key, session: Option<Session>, end: End) {
        if !self.is_taken(key) {
            // The seat was lost, and the session with it.
            return;
        }
        let Some(session) = session else { return self.rise_at_once(key) };
        if end == End::Retired {
            session.clear();
        }
        // The seat is kept until the others can know what has become of the session. Where there is no runtime, it is lost in time.
        let Ok(runtime) = Handle::try_current() else { return };
        let seats = self.clone();
        runtime.spawn(async move {
            while seats.share.clone().flushed(session.clone()).await.is_err() && seats.is_taken(key) {
                sleep(LAST_LOOK).await;
            }
            seats.rise_at_once(key);
        });
    }

    fn is_taken(&self, key: Key) -> bool {
        self.state.lock().taken.contains_key(&key)
    }

    fn rise_at_once(&self, key: Key) {
        let seat = self.state.lock().taken.remove(&key);
        if let Some(seat) = seat {
            self.leave(&seat.id, seat.hold);
        }
    }

    fn leave(&self, id: &SessionId, hold: SlotLease) {
        if let Ok(runtime) = Handle::try_current() {
            // If it is not heard, the lease runs out.
            runtime.spawn(self.share.clone().release_slot(id.to_string(), hold));
        }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        for seat in std::mem::take(&mut self.state.get_mut().taken).into_values() {
            self.leave(&seat.id, seat.hold);
        }
    }
}

/// Extends the seats of a pool, and gives back what is not needed here. If it is dropped, the seats are lost.
struct Steward {
    seats: Weak<Seats>,
    pool: Weak<Pool>,
}

impl Drop for Steward {
    fn drop(&mut self) {
        let (Some(seats), Some(pool)) = (self.seats.upgrade(), self.pool.upgrade()) else { return };
        let held: Vec<Key> = seats.state.lock().taken.keys().copied().collect();
        for key in held {
            pool.give_back(key);
        }
    }
}

impl Steward {
    async fn serve(mut self) {
        while let Some(rest) = self.rest() {
            sleep(rest).await;
            let Some(seats) = self.seats.upgrade() else { return };
            self.extend(&seats).await;
            // Nobody's seat is forgotten over it.
            let is_wanted = match seats.first_end() {
                Some(end) => timeout_at(end, seats.is_wanted()).await.unwrap_or(false),
                None => false,
            };
            let Some(pool) = self.pool.upgrade() else { return };
            for key in seats.spare(&pool, is_wanted) {
                pool.give_back(key);
            }
        }
        self.pool = Weak::new();
    }

    /// How long until the seats are to be extended. `None`: there are none any more, and the next one gets another steward.
    fn rest(&self) -> Option<Duration> {
        let seats = self.seats.upgrade()?;
        let mut state = seats.state.lock();
        let now = Instant::now();
        let rest = |hold: SlotLease| hold.extend_after.min(hold.until.saturating_duration_since(now));
        let rest = state.taken.values().map(|seat| rest(seat.hold)).min();
        if rest.is_none() {
            state.steward = None;
        }
        rest
    }

    async fn extend(&self, seats: &Arc<Seats>) {
        let held: Vec<(Key, SessionId, SlotLease)> =
            seats.state.lock().taken.iter().map(|(key, seat)| (*key, seat.id.clone(), seat.hold)).collect();
        let mut asked = JoinSet::new();
        for (key, id, hold) in held {
            let stay = seats.share.clone().extend_slot(id.to_string(), hold);
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
            let mut state = seats.state.lock();
            match held {
                Some(hold) => {
                    if let Some(seat) = state.taken.get_mut(&key) {
                        seat.hold = hold;
                    }
                }
                None => {
                    let lost = state.taken.remove(&key);
                    drop(state);
                    if let (Some(lost), Some(pool)) = (lost, self.pool.upgrade()) {
                        tracing::warn!(session = %lost.id, "the seat of a shared session was lost");
                        pool.give_back(key);
                    }
                }
            }
        }
    }
}

impl Seats {
    /// When the first of the seats is no longer sure.
    fn first_end(&self) -> Option<Instant> {
        self.state.lock().taken.values().map(|seat| seat.hold.until).min()
    }

    /// Whether another process wants for a seat.
    async fn is_wanted(&self) -> bool {
        if self.state.lock().taken.is_empty() {
            return false;
        }
        match self.share.clone().acquire_slot(self.wish()).await {
            Ok(Some(hold)) => {
                self.unwant(Some(hold));
                false
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Who is to be given back: those that nobody has used for a while and, if another process wants for one, the one that was
    /// had for longest.
    fn spare(&self, pool: &Pool, is_wanted: bool) -> Vec<Key> {
        let leases: HashMap<Key, (u64, bool)> = pool.inspect(|core, _| {
            core.members().map(|(key, member)| (key, (member.leased(), member.in_use > 0))).collect()
        });
        let mut state = self.state.lock();
        let mut spare = Vec::new();
        for (key, seat) in &mut state.taken {
            let Some((leases, is_busy)) = leases.get(key).copied() else { continue };
            seat.idle = if is_busy || leases != seat.leases { 0 } else { seat.idle + 1 };
            seat.leases = leases;
            if seat.idle >= IDLE_ROUNDS {
                spare.push(*key);
            }
        }
        if is_wanted && spare.is_empty() {
            state.not_before = Some(Instant::now() + 2 * LAST_LOOK);
            let longest = state.taken.iter().min_by_key(|(_, seat)| seat.since);
            spare.extend(longest.map(|(key, _)| *key));
        }
        spare
    }
}
