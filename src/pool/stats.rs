//! What happened to a pool and its members, and a picture of both to print.

use std::{fmt, time::Duration};

use super::{
    state::{EffectSink, PoolState},
    types::{BAD_MARK_MILLIS, Counters, Key, Phase},
};
use crate::{gate::RenewalError, session::SessionId};

/// What happened to a pool so far: a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Leases given out, those included under which nothing was sent.
    pub leases: u64,
    /// Leases under which nothing was sent; they do not count as uses.
    pub leases_unused: u64,
    /// Requests that had to wait.
    pub waited: u64,
    /// The most requests that waited at one moment.
    pub waiting_peak: u64,
    /// Requests that gave up waiting, those included whose time was over.
    pub abandoned: u64,
    /// Requests that waited for longer than they may.
    pub timed_out: u64,
    /// Requests refused because too many waited.
    pub rejected_queue_full: u64,
    /// Requests refused because the pool was broken.
    pub rejected_unavailable: u64,
    /// Members whose making was started.
    pub created: u64,
    /// Members that became ready to serve.
    pub warmed: u64,
    /// Sessions that could not be warmed up or renewed.
    pub warm_ups_failed: u64,
    /// Good marks.
    pub good: u64,
    /// Bad marks.
    pub bad: u64,
    /// Rests.
    pub cooldowns: u64,
    /// Members retired because of their score.
    pub retired_errors: u64,
    /// Members retired because they had been used often enough.
    pub retired_uses: u64,
    /// Members retired because they were too old.
    pub retired_age: u64,
    /// Members retired by hand, or by a verdict that said so.
    pub retired_manually: u64,
    /// Members that made room for one that nobody had used.
    pub retired_replaced: u64,
    /// Members retired because their session could not be renewed.
    pub retired_failed: u64,
    /// Members that were given back to be another process's, or were lost to it; where sessions are shared.
    pub released: u64,
}

impl PoolStats {
    /// Members retired for any reason.
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

/// What a member of a pool does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemberState {
    /// Its session is being warmed up.
    Warming,
    /// It is warm and waits to take over from the one before it.
    Standby,
    /// It serves, or can.
    Serving,
    /// It rests until it may be used again: by a `Retry-After`, by hand, or by the least delay between uses.
    CoolingDown,
    /// Its session is being renewed.
    Renewing,
    /// It was retired, and its last requests are on their way.
    Draining,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warming => "warming",
            Self::Standby => "standing by",
            Self::Serving => "serving",
            Self::CoolingDown => "resting",
            Self::Renewing => "renewing",
            Self::Draining => "draining",
        })
    }
}

/// One member of a pool at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberSnapshot {
    /// Its session's name.
    pub id: SessionId,
    /// What it does.
    pub state: MemberState,
    /// Its requests on their way.
    pub in_use: usize,
    /// How often it was used.
    pub uses: u64,
    /// Its score: what bad marks have added and good ones have healed.
    pub score: f64,
    /// Its good marks.
    pub good: u64,
    /// Its bad marks.
    pub bad: u64,
    /// How often it was sent to rest.
    pub cooldowns: u64,
    /// For how long it has been warm.
    pub age: Duration,
}

/// A pool at one moment, to look at or to print.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The pool's name.
    pub name: String,
    /// How many members it has at most, those that drain not counted.
    pub size: usize,
    /// How many requests wait.
    pub waiting: usize,
    /// Why the pool is broken, if it is.
    pub unavailable: Option<RenewalError>,
    /// What happened so far.
    pub stats: PoolStats,
    /// The members, the oldest first.
    pub members: Vec<MemberSnapshot>,
}

impl MemberSnapshot {
    /// All members of a pool but for their names, by number.
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

/// The pool in a line, and each member in another.
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
