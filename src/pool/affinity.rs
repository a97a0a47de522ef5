//! How a request is mapped to a preference of the pool.
//!
//! The user's pickers and key functions are called here, and never under the lock.

use std::sync::Arc;

use super::{
    Lease, PoolError,
    runtime::{AskResult, Pool},
    strategy::{MemberView, RequestView},
    types::{BAD_MARK_MILLIS, LeaseRequest, MemberNumber, Preference},
    wait::{self, Wait},
};
use crate::{hash::Fnv1a, jitter::spread};

/// Returns the preference of a request, according to the settings of the pool.
pub(crate) fn preference(pool: &Pool, request: &RequestView<'_>) -> Preference {
    if let Some(sticky) = &pool.settings.sticky
        && let Some(key) = sticky(request)
    {
        return Preference::Key(key);
    }
    let Some(picker) = &pool.settings.picker else {
        return Preference::Any;
    };
    let (numbers, candidates): (Vec<MemberNumber>, Vec<MemberView>) = pool.inspect(|core, session| {
        let known = core.candidates().filter_map(|(key, member)| {
            let candidate = MemberView {
                id: session(key)?.id().clone(),
                in_use: member.in_use,
                uses: member.uses,
                score: member.score as f64 / BAD_MARK_MILLIS as f64,
            };
            Some((key.number, candidate))
        });
        known.unzip()
    });
    if candidates.len() < 2 {
        return Preference::Any;
    }
    let chosen = picker.pick(request, &candidates).and_then(|index| numbers.get(index));
    chosen.map_or(Preference::Any, |number| Preference::Prefer(*number))
}

/// The immediate result of a request for a lease.
pub(crate) enum Acquisition {
    Leased(Lease),
    Wait(Wait),
}

pub(crate) fn ask(pool: &Arc<Pool>, request: &LeaseRequest) -> Result<Acquisition, PoolError> {
    match pool.ask(request)? {
        AskResult::Leased(key, session) => Ok(Acquisition::Leased(Lease::new(pool.clone(), key, session))),
        AskResult::Wait(waiter) => wait::wait(pool, waiter).map(Acquisition::Wait),
    }
}

/// Hashes a sticky key. The hash is stable, so that keys map to the same slots after a restart.
pub(crate) fn key_of(text: &str) -> u64 {
    let hash = Fnv1a::new().with(text.bytes().map(|byte| byte.to_ascii_lowercase()));
    spread(hash.finish())
}
