//! Statistics of a pool, and a printable snapshot of it.

use std::{fmt, time::Duration};

use super::{
    state::{EffectSink, PoolState},
    types::{BAD_MARK_MILLIS, Counters, Key, Phase},
};
use crate::{gate::RenewalError, session::SessionId};

/// The counters of a pool since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Leases, including unused ones.
    pub leases: u64,
    /// Leases under which nothing was sent; they do not count as uses.
    pub leases_unused: u64,
    /// Requests that had to wait.
    pub waited: u64,
    /// The highest number of requests that waited at the same time.
    pub waiting_peak: u64,
    /// Requests that stopped waiting without a session, including those that timed out.
    pub abandoned: u64,
    /// Requests that waited for `max_wait`.
    pub timed_out: u64,
    /// Requests rejected because `max_waiting` was reached.
    pub rejected_queue_full: u64,
    /// Requests rejected because the pool was unavailable.
    pub rejected_unavailable: u64,
    /// Members whose warm-up was started.
    pub created: u64,
    /// Members whose warm-up succeeded.
    pub warmed: u64,
    /// Warm-ups and renewals that failed.
    pub warm_ups_failed: u64,
    /// Good marks.
    pub good: u64,
    /// Bad marks.
    pub bad: u64,
    /// Cooldowns caused by verdicts.
    pub cooldowns: u64,
    /// Members retired because of their score.
    pub retired_errors: u64,
    /// Members retired because they reached `max_uses`.
    pub retired_uses: u64,
    /// Members retired because they reached `max_age`.
    pub retired_age: u64,
    /// Members retired explicitly or by a verdict.
    pub retired_manually: u64,
    /// Members replaced by an unused one.
    pub retired_replaced: u64,
    /// Members retired because their session could not be renewed.
    pub retired_failed: u64,
    /// Members released to other processes, or lost to them, if sessions are shared.
    pub released: u64,
}

impl PoolStats {
    /// Returns the number of members retired for any reason.
    pub fn retired(&self) -> u64 {
        self.retired_errors
            + self.retired_uses
            + self.retired_age
            + self.retired_manually
            + self.retired_replaced
            + self.retired_failed
    }
}

impl From<&Counters> for PoolStats {
    fn from(counters: &Counters) -> Self {
        Self {
            leases: counters.leases,
            leases_unused: counters.unused,
            waited: counters.waited,
            waiting_peak: counters.waiting_peak,
            abandoned: counters.abandoned,
            timed_out: counters.timed_out,
            rejected_queue_full: counters.rejected_queue_full,
            rejected_unavailable: counters.rejected_unavailable,
            created: counters.created,
            warmed: counters.warmed,
            warm_ups_failed: counters.warm_ups_failed,
            good: counters.good,
            bad: counters.bad,
            cooldowns: counters.cooldowns,
            retired_errors: counters.retired_errors,
            retired_uses: counters.retired_uses,
            retired_age: counters.retired_age,
            retired_manually: counters.retired_manually,
            retired_replaced: counters.retired_replaced,
            retired_failed: counters.retired_failed,
            released: counters.released,
        }
    }
}

/// What a member of a pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemberState {
    /// Its session is being warmed up.
    Warming,
    /// It is warm and waits to take over from its predecessor.
    Standby,
    /// It is in service.
    Serving,
    /// It is in service, but not used until a cooldown or the minimum delay ends.
    CoolingDown,
    /// Its session is being renewed.
    Renewing,
    /// It was retired, and its last requests are in flight.
    Draining,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warming => "warming",
            Self::Standby => "standby",
            Self::Serving => "serving",
            Self::CoolingDown => "cooling down",
            Self::Renewing => "renewing",
            Self::Draining => "draining",
        })
    }
}

/// The state of one member of a pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberSnapshot {
    /// The name of its session.
    pub id: SessionId,
    /// What it does.
    pub state: MemberState,
    /// Its requests in flight.
    pub in_use: usize,
    /// The number of its uses.
    pub uses: u64,
    /// Its score: raised by bad marks, reduced by good ones.
    pub score: f64,
    /// The number of its good marks.
    pub good: u64,
    /// The number of its bad marks.
    pub bad: u64,
    /// The number of its cooldowns.
    pub cooldowns: u64,
    /// The time since its warm-up.
    pub age: Duration,
}

/// The state of a pool, for inspection or printing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The name of the pool.
    pub name: String,
    /// The maximum number of members, not counting those that drain.
    pub size: usize,
    /// The number of waiting requests.
    pub waiting: usize,
    /// Why the pool is unavailable, if it is.
    pub unavailable: Option<RenewalError>,
    /// The counters of the pool.
    pub stats: PoolStats,
    /// The members, the oldest first.
    pub members: Vec<MemberSnapshot>,
}

impl MemberSnapshot {
    /// Returns the state of all members, by number.
    pub(crate) fn of<E: EffectSink>(
        state: &PoolState<E>,
        now: Duration,
        id: impl Fn(Key) -> SessionId,
    ) -> Vec<Self> {
        let mut members: Vec<_> = state.members().collect();
        members.sort_by_key(|(key, _)| key.number);
        let shown = members.into_iter().map(|(key, member)| Self {
            id: id(key),
            state: match member.phase {
                Phase::Warming => MemberState::Warming,
                Phase::Standby => MemberState::Standby,
                Phase::Serving if member.ready_at > now => MemberState::CoolingDown,
                Phase::Serving => MemberState::Serving,
                Phase::Renewing => MemberState::Renewing,
                Phase::Draining => MemberState::Draining,
            },
            in_use: member.in_use,
            uses: member.uses,
            score: member.score as f64 / BAD_MARK_MILLIS as f64,
            good: member.good,
            bad: member.bad,
            cooldowns: member.cooldowns,
            age: if member.phase == Phase::Warming {
                Duration::ZERO
            } else {
                now.saturating_sub(member.warmed_at)
            },
        });
        shown.collect()
    }
}

/// One line for the pool, and one for each member.
impl fmt::Display for PoolSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size, waiting, unavailable, stats, members } = self;
        let serving = members.iter().filter(|member| member.state != MemberState::Draining).count();
        write!(
            f,
            "pool {name}: {serving} of {size} members, {waiting} waiting, {} leases, {} retired",
            stats.leases,
            stats.retired()
        )?;
        if let Some(cause) = unavailable {
            write!(f, ", unavailable: {cause}")?;
        }
        for MemberSnapshot { id, state, in_use, uses, score, good, bad, cooldowns, age } in members {
            write!(
                f,
                "\n  {id}: {state}, {in_use} in use, {uses} uses, score {score:.1} ({good} good, {bad} bad, {cooldowns} cooldowns), {age:.0?}"
            )?;
        }
        Ok(())
    }
}
