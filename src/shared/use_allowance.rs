//! The uses of a session that a fleet shares.

use std::sync::Arc;

use super::{Record, fleet::Fleet};
use crate::{
    gate::Generation,
    session::{IdentityInner, Session, share::PendingWrite},
};

impl Fleet {
    /// Takes the next block of uses for an identity that has spent its last one. `Some`: the identity goes on, as another
    /// generation of the same version.
    pub(super) async fn continue_version(
        &self,
        session: &Session,
        generation: Generation,
        key: &str,
        found: &Record,
        spent: &Arc<IdentityInner>,
    ) -> Option<Arc<IdentityInner>> {
        let budget = session.0.context.backend()?.budget();
        let limit = budget.uses?;
        let is_too_old =
            || budget.age.is_some_and(|age| session.now().saturating_sub(spent.life.created_at) >= age);
        let version = {
            let known = session.0.share_state().known.lock();
            (known.generation == spent.life.generation).then_some(known.version)?
        };
        if found.version.ended || found.version.number != version || is_too_old() {
            return None;
        }
        let granted = match spent.life.take_remaining() {
            0 => self.take_batch(session, key, version, limit).await?,
            // The next block has come just after the last one was through.
            rest => rest,
        };
        if granted == 0 {
            return None;
        }
        let kept = session.0.continue_version(spent, generation, granted);
        // The version is not dead: only its uses here were spent.
        let mut known = session.0.share_state().known.lock();
        known.ended_up_to = version - 1;
        known.generation = kept.life.generation;
        known.limited = Some(kept.clone());
        drop(known);
        Some(kept)
    }

    /// Lets each use of an identity that the store knows be one of those that this process has taken, if uses are limited.
    pub(super) async fn take_allowance(&self, session: &Session, kept: &Arc<IdentityInner>) {
        let is_limited = session.0.context.backend().is_some_and(|lane| lane.budget().uses.is_some());
        let is_known = {
            let known = session.0.share_state().known.lock();
            known.generation == kept.life.generation && known.pending == PendingWrite::None
        };
        if is_limited && is_known && !kept.life.allowance.allows_some() {
            kept.life.allowance.begin();
            session.0.share_state().known.lock().limited = Some(kept.clone());
            self.refill_allowance(session, kept).await;
        }
    }

    /// Takes the next block of uses before this one is through.
    pub(super) async fn refill_allowance(&self, session: &Session, kept: &Arc<IdentityInner>) {
        let Some(limit) = session.0.context.backend().and_then(|lane| lane.budget().uses) else { return };
        let version = {
            let known = session.0.share_state().known.lock();
            if known.generation != kept.life.generation {
                return;
            }
            known.version
        };
        let key = session.id().to_string();
        // If it is not answered, the requests ask for themselves when the block is through.
        let Some(granted) = self.take_batch(session, &key, version, limit).await else { return };
        kept.life.allowance.allow(granted);
        if session.0.share_state().known.lock().taken >= limit - limit / 10 {
            session.gate().renew_early(&kept.life);
        }
    }

    /// Takes a block of uses: the smaller, the fewer are left, so that few are left over when all are taken.
    async fn take_batch(&self, session: &Session, key: &str, version: u64, limit: u64) -> Option<u64> {
        let known = &session.0.share_state().known;
        let left = limit.saturating_sub(known.lock().taken);
        let want = self.config.use_batch_size.min(left / 4).max(1);
        let taken = self.ask(self.config.store.take_uses(key, version, want, limit)).await.ok()?;
        let mut known = known.lock();
        if known.version == version {
            known.taken = taken.total;
        }
        Some(taken.granted)
    }
}
