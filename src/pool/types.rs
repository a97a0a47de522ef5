//! The small types of a pool's state machine.

use std::{fmt, time::Duration};

use super::ready::{Rank, SelectionOrder};
use crate::waiters::Ticket;

/// The number of a member; no number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MemberNumber(pub(crate) u64);

impl MemberNumber {
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for MemberNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A member: its index in the slab, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) number: MemberNumber,
}

/// What one bad mark adds to a member's score, in thousandths.
pub(crate) const BAD_MARK_MILLIS: u64 = 1000;

/// The limits of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) size: u32,
    /// The number of concurrent leases of one member.
    pub(crate) max_in_flight: usize,
    /// The minimum time from one lease of a member to the next.
    pub(crate) min_delay: Duration,
    /// The maximum random increase of the delay, in thousandths of it.
    pub(crate) delay_jitter: u64,
    /// The score at which a member is retired, in thousandths.
    pub(crate) max_score: u64,
    /// What a good mark takes off the score, in thousandths.
    pub(crate) score_decrement: u64,
    pub(crate) max_uses: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_waiting: usize,
    /// The number of consecutive failures that make the pool unavailable.
    pub(crate) max_failures: u32,
    /// The first pause of an unavailable pool before its next warm-up; it doubles each time.
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) order: SelectionOrder,
}

impl Limits {
    /// Returns whether each request grows the pool until it is full, so that all members share the
    /// work from the start.
    pub(super) fn spreads(&self) -> bool {
        matches!(self.order, SelectionOrder::RoundRobin | SelectionOrder::Random)
    }

    pub(super) fn is_spent(&self, member: &Member) -> bool {
        self.max_uses.is_some_and(|max| member.uses >= max)
    }

    pub(super) fn is_aged(&self, member: &Member, now: Duration) -> bool {
        self.max_age.is_some_and(|max| now.saturating_sub(member.warmed_at) >= max)
    }

    /// Returns whether the member is in the last tenth of a limit, where its successor is warmed
    /// up.
    pub(super) fn is_late(&self, member: &Member, now: Duration) -> bool {
        self.max_uses.is_some_and(|max| member.uses >= max - max.div_ceil(10))
            || self.max_age.is_some_and(|max| now.saturating_sub(member.warmed_at) >= max - max / 10)
    }
}

/// A request for a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseRequest {
    pub(crate) preference: Preference,
    /// Members under which the request has failed. They are leased again only if all slots are
    /// served by such members.
    pub(crate) avoid: Vec<MemberNumber>,
}

/// Which member a request prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Preference {
    #[default]
    Any,
    /// This member if it can serve immediately, or else any.
    Prefer(MemberNumber),
    /// The member of the slot to which this key belongs.
    Key(u64),
    /// A member that was not used yet.
    Unused,
}

/// What a request for a lease results in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseDecision<E> {
    Leased(Key),
    Wait(WaiterRef),
    Refuse(Refusal<E>),
}

/// Why a request gets no member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<E> {
    QueueFull,
    Unavailable(E),
}

/// A waiter in one of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WaiterRef {
    pub(super) queue: QueueKey,
    pub(super) ticket: Ticket,
}

/// Which queue a waiter is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueueKey {
    Any,
    Slot(u32),
    Unused,
}

/// What a queue stores about a waiter.
#[derive(Clone, Debug)]
pub(super) struct WaiterInfo {
    /// Orders the waiters of all queues.
    pub(super) arrival: u64,
    pub(super) avoid: Vec<MemberNumber>,
}

/// How a wait ends: with a leased member, or with the reason why the pool is unavailable.
pub(super) type LeaseResult<E> = Result<Key, E>;

/// Whether anything was sent under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Used,
    /// Nothing was sent: the lease does not count as a use.
    Unused,
}

/// Feedback about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feedback {
    Good,
    Bad,
    CoolDown(Duration),
    Retire,
    /// Another process takes the member over.
    Release,
}

/// What happens to the session of a member that has left the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberEnd {
    /// The member was retired: the session is not used again.
    Retired,
    /// The member was released or has never served: another process may continue the session.
    Free,
}

/// Why a member leaves its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetireReason {
    Errors,
    Uses,
    Age,
    Manual,
    /// A request required an unused member while the pool was full.
    Replaced,
    /// Its session could not be renewed.
    Failed,
    Released,
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Its session is being created and warmed up.
    Warming,
    /// It is warm and takes over its slot when the current member leaves.
    Standby,
    Serving,
    /// It is in service, but its session is being renewed.
    Renewing,
    /// It was retired, and some of its leases have not ended.
    Draining,
}

/// One member of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) number: MemberNumber,
    pub(crate) phase: Phase,
    pub(crate) in_use: usize,
    pub(crate) uses: u64,
    /// In thousandths.
    pub(crate) score: u64,
    /// When its warm-up ended.
    pub(crate) warmed_at: Duration,
    /// It is not leased before this time.
    pub(crate) ready_at: Duration,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) cooldowns: u64,
    pub(super) end: MemberEnd,
    pub(super) slot: u32,
    pub(super) last_lease: u64,
    pub(super) readiness: Readiness,
}

impl Member {
    pub(super) fn new(number: MemberNumber, slot: u32, phase: Phase) -> Self {
        Self {
            number,
            phase,
            in_use: 0,
            uses: 0,
            score: 0,
            warmed_at: Duration::ZERO,
            ready_at: Duration::ZERO,
            good: 0,
            bad: 0,
            cooldowns: 0,
            end: MemberEnd::Free,
            slot,
            last_lease: 0,
            readiness: Readiness::Unavailable,
        }
    }

    /// Returns the number of its last lease among all leases of the pool; 0 before its first.
    pub(crate) fn last_lease(&self) -> u64 {
        self.last_lease
    }

    pub(super) fn is_unused(&self) -> bool {
        self.uses == 0 && self.in_use == 0
    }
}

/// In which index of the state machine a member is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Unavailable,
    Ready(Rank),
    CoolingDown(Duration),
}

/// A slot: the index of the member that serves, and of the one that takes over from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) serving: Option<u32>,
    pub(super) next: Option<u32>,
}

/// The counters behind [`PoolStats`](super::PoolStats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) leases: u64,
    pub(crate) unused: u64,
    pub(crate) waited: u64,
    pub(crate) rejected_queue_full: u64,
    pub(crate) rejected_unavailable: u64,
    pub(crate) abandoned: u64,
    pub(crate) timed_out: u64,
    pub(crate) waiting_peak: u64,
    pub(crate) created: u64,
    pub(crate) warmed: u64,
    pub(crate) warm_ups_failed: u64,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) cooldowns: u64,
    pub(crate) retired_errors: u64,
    pub(crate) retired_uses: u64,
    pub(crate) retired_age: u64,
    pub(crate) retired_manually: u64,
    pub(crate) retired_replaced: u64,
    pub(crate) retired_failed: u64,
    pub(crate) released: u64,
}
