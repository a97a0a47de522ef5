//! From a request to what the pool is asked for. Code that is not ours runs here, under no lock.

use std::{hash::Hasher, sync::Arc};

use super::{
    Lease, PoolError,
    core::{Ask, BAD, Number, Want},
    keeper::{Got, Pool},
    strategy::{MemberView, RequestView},
    wait::Wait,
};

/// What the settings of the pool make of a request.
pub(crate) fn want(pool: &Pool, asking: &RequestView<'_>) -> Want {
    if let Some(sticky) = &pool.settings.sticky
        && let Some(key) = sticky(asking)
    {
        return Want::Key(key);
    }
    let Some(choose) = &pool.settings.choose else {
        return Want::Any;
    };
    let (numbers, candidates): (Vec<Number>, Vec<MemberView>) = pool.inspect(|core, session| {
        let known = core.candidates().filter_map(|(key, member)| {
            let candidate = MemberView {
                id: session(key)?.id().clone(),
                in_use: member.in_use,
                uses: member.uses,
                score: member.score as f64 / BAD as f64,
            };
            Some((key.number, candidate))
        });
        known.unzip()
    });
    if candidates.len() < 2 {
        return Want::Any;
    }
    let chosen = choose.pick(asking, &candidates).and_then(|index| numbers.get(index));
    chosen.map_or(Want::Any, |number| Want::Prefer(*number))
}

/// What a request got at once.
pub(crate) enum Asked {
    Leased(Lease),
    Wait(Wait),
}

pub(crate) fn ask(pool: &Arc<Pool>, ask: &Ask) -> Result<Asked, PoolError> {
    match pool.ask(ask)? {
        Got::Leased(key, session) => Ok(Asked::Leased(Lease::new(pool.clone(), key, session))),
        Got::Wait(place) => Wait::new(pool.clone(), place).map(Asked::Wait),
    }
}

/// The key of a text: the same in every run, so that what stuck to a session does so after a restart.
pub(crate) fn key_of(text: &str) -> u64 {
    // FNV-1a, spread.
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            crate::gate::jitter::spread(self.0)
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01B3);
            }
        }
    }
    let mut hasher = Fnv(0xCBF2_9CE4_8422_2325);
    hasher.write(text.as_bytes());
    hasher.finish()
}
